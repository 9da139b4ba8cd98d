"""An evaluator scores what is due beside the rounds, and the primary proposes what a quorum has measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from potd.rounds.evaluator import RETRY_TICKS, Evaluator, evaluation_fault, score_note
from potd.rounds.events import Effect, Note, Phase, Propose, Run, Share, Told, View
from potd.wire.codec import encode
from potd.wire.envelope import Verified, verify
from potd.wire.jobs import Evaluate, Evaluated, Failed
from potd.wire.rounds import Evaluation, Measured, Report, Step
from tests.rounds.bench import (
    ELECTORATE,
    KEYS,
    NETWORK,
    OPENED,
    SIGNERS,
    SPEC,
    STRANGER,
    TASK,
    TRAIN,
    Bench,
    model_blobs,
    only,
    opened_after,
    score_report,
    signed,
    why_not,
)

SCORED = replace(SPEC, evaluate_every=3)


def change(parts: Bench, evaluator: Evaluator, view: View) -> list[Effect]:
    return parts.keeper.on_changed(view) + evaluator.on_changed(view)


def reports_in(effects: list[Effect]) -> list[Verified[Report]]:
    """The reports shared, each checked to have been noted just before."""
    found: list[Verified[Report]] = []
    for before, effect in pairwise([None, *effects]):
        if isinstance(effect, Share):
            assert before == Note(score_note(TASK), encode(effect.signed)), "said before it was written"
            found.append(verify(effect.signed, NETWORK, Report))
    return found


def scoring(index: int = 0, trainer: bool = True) -> tuple[Bench, Evaluator, list[Effect]]:
    parts = Bench(index, *model_blobs(TRAIN), *OPENED.held_out)
    evaluator = parts.evaluator(trainer=trainer)
    evaluator.on_entered(0, KEYS[0])
    evaluator.on_opened(OPENED)
    return parts, evaluator, change(parts, evaluator, replace(TRAIN, spec=SCORED))


def test_a_due_model_is_scored_once_and_reported() -> None:
    _, evaluator, effects = scoring()
    assert effects == [Run("trainer", Evaluate(1, SCORED, TRAIN.model, OPENED.held_out))]
    assert evaluator.advance() == []
    (report,) = reports_in(evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4)))
    assert report.body == Report(TASK, 3, Step.EVALUATION.value, (), (), (Measured(3, 90, 100, 250_000),))
    assert evaluator.advance() == []


def test_a_failed_score_is_tried_again_after_a_pause() -> None:
    """The last model of a task is scored once only, and its trainer may have died of it."""
    _, evaluator, _ = scoring()
    told = evaluator.on_answer(Failed(1, "killed"))
    assert only(told, Told) == [Told("evaluation failed", (("round", 3), ("reason", "killed")))]
    for _ in range(RETRY_TICKS - 1):
        assert only(evaluator.on_tick(), Run) == []
    assert evaluator.on_tick() == [Run("trainer", Evaluate(2, SCORED, TRAIN.model, OPENED.held_out))]


def test_a_score_that_comes_in_silence_is_not_reported_and_taken_again_after_it() -> None:
    """An era may begin while a model is scored, and who came to it by blocks asks first what it has said."""
    _, evaluator, _ = scoring()
    evaluator.hush()
    assert evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4)) == []
    assert evaluator.advance() == []
    assert evaluator.speak(restored=False) == [Run("trainer", Evaluate(2, SCORED, TRAIN.model, OPENED.held_out))]
    assert len(reports_in(evaluator.on_answer(Evaluated(2, 90, 100, 250_000, 4)))) == 1


def test_who_has_no_trainer_says_so_and_is_not_waited_for() -> None:
    _, _, effects = scoring(trainer=False)
    (report,) = reports_in(effects)
    assert report.body.measured == ()


def test_the_primary_proposes_what_a_quorum_reports_and_f_plus_1_have_measured() -> None:
    _, evaluator, _ = scoring()
    evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4))
    effects, _ = evaluator.on_report(score_report(1, 3))
    assert only(effects, Propose) == []
    effects, _ = evaluator.on_report(score_report(2, 3, Measured(3, 91, 100, 240_000)))
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Evaluation)
    assert evaluation_fault(proposed, ELECTORATE) == ""


def test_a_measurement_of_another_round_does_not_count_towards_f_plus_1() -> None:
    """The ledger would not take it either, and nobody would propose the round's evaluation again."""
    _, evaluator, _ = scoring()
    evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4))
    evaluator.on_report(score_report(1, 3))
    effects, _ = evaluator.on_report(score_report(2, 3, Measured(1, 100, 100, 0)))
    assert only(effects, Propose) == []
    effects, _ = evaluator.on_report(score_report(3, 3, Measured(3, 91, 100, 240_000)))
    assert len(only(effects, Propose)) == 1


def test_a_score_is_final_over_a_restart_and_still_counts() -> None:
    _, evaluator, _ = scoring()
    (own,) = reports_in(evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4)))
    parts = Bench(0, *model_blobs(TRAIN), *OPENED.held_out)
    again = parts.evaluator(encode(own.signed))
    again.on_entered(0, KEYS[0])
    again.on_opened(OPENED)
    change(parts, again, replace(TRAIN, spec=SCORED))
    assert reports_in(again.on_answer(Evaluated(1, 89, 100, 260_000, 4))) == []
    again.on_report(score_report(1, 3))
    effects, _ = again.on_report(score_report(2, 3, Measured(3, 91, 100, 240_000)))
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Evaluation)
    assert own.signed in proposed.reports


def test_a_score_that_others_show_it_is_final_though_its_home_forgot_it() -> None:
    _, before, _ = scoring()
    (own,) = reports_in(before.on_answer(Evaluated(1, 90, 100, 250_000, 4)))
    _, evaluator, _ = scoring()
    evaluator.on_report(own)
    assert evaluator.said_by(KEYS[0]) == [own.signed]
    assert reports_in(evaluator.on_answer(Evaluated(1, 89, 100, 260_000, 4))) == []


def test_an_evaluation_by_a_quorum_only_is_judged_right() -> None:
    scores = [score_report(index, 3, Measured(3, 1, 2, 3)) for index in range(3)]
    assert evaluation_fault(Evaluation(TASK, 3, signed(scores)), ELECTORATE) == ""
    assert evaluation_fault(Evaluation(TASK, 3, signed(scores[:2])), ELECTORATE) == "2 reports of 3"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (STRANGER.verified(score_report(1, 3).body), "untimely: report by somebody who is not a validator now"),
        (
            SIGNERS[1].verified(replace(score_report(1, 3).body, held=b"\x80")),
            "false: report on an evaluation that holds something else",
        ),
        (score_report(1, 5), "untimely: report on an evaluation that is past, or far to come"),
    ],
)
def test_a_report_that_cannot_count_is_refused(message: Verified[Report], reason: str) -> None:
    _, evaluator, _ = scoring()
    assert why_not(evaluator.on_report(message)) == reason


def test_a_task_without_held_out_samples_is_not_waited_for() -> None:
    parts = Bench(0, *model_blobs(TRAIN))
    evaluator = parts.evaluator()
    change(parts, evaluator, replace(TRAIN, spec=SCORED))
    assert evaluator.waits()
    evaluator.on_opened(replace(OPENED, held_out=()))
    assert not evaluator.waits()


def test_the_last_model_is_scored_when_the_task_is_done() -> None:
    parts, evaluator, _ = scoring()
    evaluator.on_answer(Evaluated(1, 90, 100, 250_000, 4))
    last = replace(opened_after(TRAIN, 4), spec=SCORED, phase=Phase.DONE)
    parts.held.update(model_blobs(last))
    assert [type(one) for one in only(change(parts, evaluator, last), Run)] == [Run]
    assert ELECTORATE.quorum == 3
