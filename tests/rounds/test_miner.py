"""A miner commits once, hides what it committed to until the seal is certified, and says why it waits."""

from __future__ import annotations

from dataclasses import replace

from potd.rounds.events import Announce, Effect, Fetch, Hide, Note, Phase, Reveal, Run, Told, View
from potd.rounds.miner import ANNOUNCE_TICKS, RETRY_TICKS, Miner, commitment_note
from potd.rounds.plan import assign
from potd.wire.codec import decode, encode
from potd.wire.envelope import Signed, verify
from potd.wire.ids import NO_BLOB
from potd.wire.jobs import Failed, Train, Trained
from potd.wire.rounds import Commitment, payload_binding
from tests.rounds.bench import (
    KEYS,
    MINERS,
    NETWORK,
    OPENED,
    SHARDS,
    SPEC,
    TASK,
    TRAIN,
    Bench,
    blob,
    model_blobs,
    only,
    opened_after,
    revealing,
)

OURS = assign(TRAIN.window, OPENED.sizes, TRAIN.seed, MINERS[0], 1, 8)
BINDING = payload_binding(TASK, 3, MINERS[0], TRAIN.model.root)
JOB = Train(1, SPEC, 3, TRAIN.model, tuple(SHARDS[one] for one in OURS.shards), OURS.samples, BINDING)
DONE = Trained(1, blob("gradient"), 8, True, 700_000, 5)


def change(bench: Bench, miner: Miner, view: View) -> list[Effect]:
    return bench.keeper.on_changed(view) + miner.on_changed(view)


def ready() -> tuple[Bench, Miner, list[Effect]]:
    """A miner that holds all it needs; and what it ordered when the round opened."""
    bench = Bench(0, *model_blobs(TRAIN), *SHARDS)
    miner = bench.miner()
    assert miner.on_opened(OPENED) == []
    return bench, miner, change(bench, miner, TRAIN)


def committed() -> tuple[Bench, Miner, list[Effect]]:
    bench, miner, _ = ready()
    return bench, miner, miner.on_answer(DONE)


def test_it_trains_on_what_was_assigned() -> None:
    _, miner, effects = ready()
    assert effects == [Run("trainer", JOB)]
    assert miner.doing == "training round 3"


def test_it_fetches_the_shards_of_this_window_and_the_next() -> None:
    bench = Bench(0, *model_blobs(TRAIN))
    miner = bench.miner()
    miner.on_opened(OPENED)
    effects = change(bench, miner, TRAIN)
    assert {one.ref for one in effects if isinstance(one, Fetch)} == {SHARDS[one] for one in OURS.shards}
    assert only(effects, Run) == []
    bench.held.update(SHARDS)
    assert only(miner.advance(), Run) == [Run("trainer", JOB)]


def test_it_waits_for_the_model() -> None:
    bench = Bench(0, *SHARDS)
    miner = bench.miner()
    miner.on_opened(OPENED)
    assert only(change(bench, miner, TRAIN), Run) == []
    assert miner.doing == "getting the model of round 3"
    bench.held.update(model_blobs(TRAIN))
    assert miner.advance() == [Run("trainer", JOB)]


def test_a_commitment_is_noted_and_hidden_before_it_is_said() -> None:
    _, miner, effects = committed()
    kinds = [type(one) for one in effects]
    assert kinds == [Note, Hide, Announce, Told]
    note, hidden, said, _ = effects
    assert isinstance(note, Note)
    assert isinstance(said, Announce)
    assert (note.name, note.data) == (commitment_note(TASK), encode(said.signed))
    assert hidden == Hide(DONE.payload)
    body = verify(said.signed, NETWORK, Commitment).body
    assert (body.task, body.round, body.miner, body.model) == (TASK, 3, MINERS[0], TRAIN.model.root)
    assert (body.payload, body.samples, body.finite, body.loss_micro) == (DONE.payload, 8, True, 700_000)
    assert miner.doing == "committed to round 3"


def test_it_commits_once_for_a_round() -> None:
    bench, miner, _ = committed()
    assert miner.advance() == []
    assert miner.on_answer(replace(DONE, payload=blob("another"))) == []
    assert only(change(bench, miner, replace(TRAIN, deadline_ticks=99)), Run, Announce) == []


def test_it_commits_once_for_a_round_over_a_restart() -> None:
    _, _, effects = committed()
    note = effects[0]
    assert isinstance(note, Note)
    bench = Bench(0, *model_blobs(TRAIN), *SHARDS, DONE.payload)
    again = bench.miner(note.data)
    assert again.start() == [Hide(DONE.payload)], "hidden before the first peer can ask"
    again.on_opened(OPENED)
    assert only(change(bench, again, TRAIN), Run, Announce, Note) == []
    said: list[Effect] = []
    for _ in range(ANNOUNCE_TICKS):
        said += again.on_tick()
    assert said == [Announce(decode(note.data, Signed))]


def test_what_is_not_sealed_yet_is_said_again() -> None:
    _, miner, effects = committed()
    said = [one for one in effects if isinstance(one, Announce)]
    again: list[Effect] = []
    for _ in range(3 * ANNOUNCE_TICKS):
        again += miner.on_tick()
    assert again == said * 3


def test_a_payload_is_hidden_until_its_seal_is_certified() -> None:
    bench, miner, effects = committed()
    said = effects[2]
    assert isinstance(said, Announce)
    assert miner.on_certified() == [], "an earlier height"
    sealed = revealing(TRAIN, verify(said.signed, NETWORK, Commitment))
    assert change(bench, miner, sealed) == [], "sealed here, not certified"
    assert miner.on_certified() == [Reveal(DONE.payload)]
    assert miner.on_certified() == []


def test_a_payload_that_was_not_sealed_is_shown_when_the_round_is_over() -> None:
    bench, miner, _ = committed()
    change(bench, miner, revealing(TRAIN))
    assert miner.on_certified() == []
    change(bench, miner, opened_after(TRAIN, 4))
    assert miner.on_certified() == [Reveal(DONE.payload)]


def test_a_result_that_comes_too_late_is_not_committed() -> None:
    bench, miner, _ = ready()
    change(bench, miner, revealing(TRAIN))
    assert only(miner.on_answer(DONE), Note, Announce, Hide) == []
    after = opened_after(TRAIN, 4)
    bench.held.update(model_blobs(after))
    effects = change(bench, miner, after)
    assert [one.job.round for one in effects if isinstance(one, Run) and isinstance(one.job, Train)] == [4]


def test_the_answer_to_last_rounds_job_is_not_taken_for_this_rounds() -> None:
    bench, miner, _ = ready()
    after = opened_after(TRAIN, 4)
    bench.held.update(model_blobs(after))
    change(bench, miner, after)
    assert miner.on_answer(DONE) == []
    assert only(miner.on_answer(replace(DONE, job=2)), Announce) != []


def test_a_failed_job_is_tried_again_after_a_pause() -> None:
    _, miner, _ = ready()
    assert miner.on_answer(Failed(1, "out of memory")) == [
        Told("training failed", (("round", 3), ("reason", "out of memory")))
    ]
    assert miner.advance() == []
    effects: list[Effect] = []
    for _ in range(RETRY_TICKS):
        effects += miner.on_tick()
    assert effects == [Run("trainer", replace(JOB, job=2))]


def test_a_gradient_that_is_not_finite_is_committed_as_such_and_has_nothing_to_hide() -> None:
    bench, miner, _ = ready()
    effects = miner.on_answer(replace(DONE, payload=NO_BLOB, finite=False))
    assert [type(one) for one in effects] == [Note, Announce, Told]
    said = effects[1]
    assert isinstance(said, Announce)
    message = verify(said.signed, NETWORK, Commitment)
    assert not message.body.finite
    change(bench, miner, revealing(TRAIN, message))
    assert miner.on_certified() == []


def test_it_says_why_it_waits() -> None:
    bench = Bench(0, *model_blobs(TRAIN), *SHARDS)
    miner = bench.miner()
    miner.on_opened(OPENED)
    seats = tuple(replace(one, suspended=one.account == MINERS[0]) for one in TRAIN.seats)
    newcomer = tuple(replace(one, joined=7) for one in TRAIN.seats)
    for view, doing in (
        (replace(TRAIN, seats=()), "not enrolled"),
        (replace(TRAIN, phase=Phase.IDLE), "the task is waiting for miners"),
        (replace(TRAIN, phase=Phase.REVEAL), "round 3 is being added up"),
        (replace(TRAIN, phase=Phase.DONE), "the task is done"),
        (replace(TRAIN, seats=seats), "suspended after missed rounds"),
        (replace(TRAIN, seats=newcomer), "counted from round 7"),
    ):
        assert only(change(bench, miner, view), Run) == []
        assert miner.doing == doing


def test_shards_come_from_the_validators() -> None:
    bench = Bench(0)
    miner = bench.miner()
    miner.on_opened(OPENED)
    fetches = [one for one in miner.on_changed(TRAIN) if isinstance(one, Fetch)]
    assert fetches
    assert {one.holders for one in fetches} == {KEYS}


def test_it_owes_a_gradient_from_the_opening_of_a_round_until_its_commitment() -> None:
    bench, miner, _ = ready()
    assert miner.owes(), "under way"
    miner.on_answer(DONE)
    assert not miner.owes()
    change(bench, miner, revealing(TRAIN))
    assert not miner.owes()
    change(bench, miner, opened_after(TRAIN, 4))
    assert miner.owes(), "due, though its model is not held yet"
    change(bench, miner, replace(opened_after(TRAIN, 4), seats=()))
    assert not miner.owes(), "not enrolled"
