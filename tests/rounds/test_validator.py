"""A validator reports once, drafts once, aggregates for itself, and refuses what it has not worked out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.rounds.aggregation import RETRY_TICKS
from potd.rounds.chains import Chains
from potd.rounds.events import Accuse, Await, Effect, Fetch, Ignore, Note, Propose, Run, Settle, Share, Unfetch, View
from potd.rounds.tally import choose, make_seal, make_update, name_of, seal_fault, seal_reports
from potd.rounds.validator import SAY_AGAIN_TICKS, Validator, draft_note, report_note
from potd.wire.blocks import miners_max
from potd.wire.codec import decode, encode
from potd.wire.envelope import Signed, Verified, verify
from potd.wire.ids import NO_BLOB, account_id
from potd.wire.jobs import Aggregate, Aggregated, Failed, Judgement, Payload
from potd.wire.rounds import (
    Commitment,
    Draft,
    Outcome,
    Report,
    Seal,
    Step,
    Update,
    payload_binding,
    report_fault,
)
from tests.rounds.bench import (
    ELECTORATE,
    KEYS,
    MINERS,
    NETWORK,
    SIGNERS,
    SPEC,
    STRANGER,
    TASK,
    TRAIN,
    Bench,
    blob,
    commitment,
    draft,
    model_blobs,
    only,
    opened_after,
    revealing,
    seal_report,
    signed,
    update_report,
    why_not,
)

ALL = [commitment(index) for index in range(4)]
SEALED = revealing(TRAIN, *ALL)
PAYLOADS = tuple(one.body.payload for one in sorted(ALL, key=lambda one: one.body.miner))
PARTS = tuple(
    Payload(one.body.payload, 1, payload_binding(TASK, 3, one.body.miner, TRAIN.model.root))
    for one in sorted(ALL, key=lambda one: one.body.miner)
)
RESULTS = (blob("aggregate 4"), blob("model 4"), blob("momentum 4"))


def added_up(job: int, count: int = 4) -> Aggregated:
    return Aggregated(job, (Judgement(Outcome.COUNTED.value, 65_536),) * count, *RESULTS, 3)


def bench(index: int = 0) -> Bench:
    return Bench(index, *model_blobs(TRAIN))


def change(parts: Bench, validator: Validator, view: View) -> list[Effect]:
    return parts.keeper.on_changed(view) + validator.on_changed(view)


def training(index: int = 0, primary: int = 0) -> tuple[Bench, Validator]:
    parts = bench(index)
    validator = parts.validator()
    validator.on_entered(0, KEYS[primary])
    assert change(parts, validator, TRAIN) == []
    return parts, validator


def sealed(index: int = 0, primary: int = 0, view: View = SEALED) -> tuple[Bench, Validator]:
    """In the phase of revealing, with the seal certified and no payload held."""
    parts, validator = training(index, primary)
    change(parts, validator, view)
    validator.on_certified()
    return parts, validator


def get(parts: Bench, validator: Validator, *refs: object) -> list[Effect]:
    effects: list[Effect] = []
    for ref in refs:
        parts.held.add(ref)  # type: ignore[arg-type]  # a BlobRef
        effects += validator.on_fetched(ref)  # type: ignore[arg-type]  # a BlobRef
    return effects


def ticks(validator: Validator, count: int) -> list[Effect]:
    effects: list[Effect] = []
    for _ in range(count):
        effects += validator.on_tick()
    return effects


def reports_in(effects: list[Effect]) -> list[Verified[Report]]:
    """The reports shared, each checked to have been noted just before."""
    found: list[Verified[Report]] = []
    for before, effect in zip([None, *effects], effects, strict=False):
        if isinstance(effect, Share):
            message = verify(effect.signed, NETWORK, Report, Draft, Commitment)
            if isinstance(message.body, Report):
                assert isinstance(before, Note), "said before it was written"
                assert before.name == report_note(TASK, Step(message.body.step))
                assert noted(before.data) == effect.signed
                found.append(message)  # type: ignore[arg-type]  # its body is a Report
    return found


def noted(data: bytes) -> Signed:
    """The report that a note remembers."""
    note = decode(data, Seal, Signed)
    if isinstance(note, Signed):
        return note
    assert isinstance(note, Seal)
    return seal_reports(note, NETWORK)[0].signed


# Seal


def test_it_reports_when_all_are_in() -> None:
    _, validator = training()
    for one in ALL[:3]:
        assert validator.on_heard(one) == ([], "")
    ticks(validator, 2)
    effects, reason = validator.on_heard(ALL[3])
    assert reason == ""
    report = reports_in(effects)[0].body
    assert report == Report(TASK, 3, Step.SEAL.value, tuple(sorted(map(name_of, ALL))), (), (), b"", 2)


def test_it_reports_at_the_deadline_what_it_has() -> None:
    _, validator = training()
    validator.on_heard(ALL[1])
    assert reports_in(ticks(validator, TRAIN.deadline_ticks - 1)) == []
    (report,) = reports_in(ticks(validator, 1))
    assert report.body.names == (name_of(ALL[1]),)


def test_it_does_not_wait_for_who_is_suspended_or_not_yet_counted() -> None:
    parts, validator = training()
    seats = tuple(
        replace(one, suspended=one.account == MINERS[0], joined=9 if one.account == MINERS[1] else 0)
        for one in TRAIN.seats
    )
    change(parts, validator, replace(TRAIN, seats=seats))
    validator.on_heard(ALL[0])
    validator.on_heard(ALL[2])
    effects, _ = validator.on_heard(ALL[3])
    (report,) = reports_in(effects)
    assert set(report.body.names) == {name_of(one) for one in ALL[2:]}, "the suspended one is not named"


def test_a_report_is_final() -> None:
    _, validator = training()
    assert len(reports_in(ticks(validator, TRAIN.deadline_ticks))) == 1
    for one in ALL:
        effects, _ = validator.on_heard(one)
        assert reports_in(effects) == []


def test_a_report_is_final_over_a_restart() -> None:
    _, validator = training()
    said = ticks(validator, TRAIN.deadline_ticks)
    first = next(one for one in said if isinstance(one, Share)).signed
    parts = bench()
    again = parts.validator({Step.SEAL: next(one for one in said if isinstance(one, Note)).data})
    again.on_entered(0, KEYS[0])
    effects = change(parts, again, TRAIN)
    for one in ALL:
        effects += again.on_heard(one)[0]
    effects += ticks(again, 2 * TRAIN.deadline_ticks)
    assert only(effects, Note) == []
    assert {one.signed for one in effects if isinstance(one, Share)} - {one.signed for one in ALL} == {first}


def test_a_report_that_others_show_it_is_final_though_its_home_forgot_it() -> None:
    _, before = training()
    (first,) = reports_in(ticks(before, TRAIN.deadline_ticks))
    _, validator = training()
    validator.on_report(first)
    assert validator.said_by(KEYS[0]) == [first.signed]
    effects = [effect for one in ALL for effect in validator.on_heard(one)[0]]
    assert reports_in(effects + ticks(validator, 2 * TRAIN.deadline_ticks)) == []


def test_a_restarted_primary_counts_its_own_report() -> None:
    _, validator = training()
    said = ticks(validator, TRAIN.deadline_ticks)
    parts = bench()
    again = parts.validator({Step.SEAL: next(one for one in said if isinstance(one, Note)).data})
    again.on_entered(0, KEYS[0])
    effects = change(parts, again, TRAIN)
    for index in (1, 2):
        effects += again.on_report(seal_report(index))[0]
    assert len(only(effects, Propose)) == 1


def test_what_a_report_names_can_be_shown_after_a_restart() -> None:
    """Whoever named it may be the only one who has it."""
    _, validator = training()
    validator.on_heard(ALL[0])
    said = ticks(validator, TRAIN.deadline_ticks)
    parts = bench()
    again = parts.validator({Step.SEAL: next(one for one in said if isinstance(one, Note)).data})
    again.on_entered(0, KEYS[0])
    effects = change(parts, again, TRAIN)
    for index in (1, 2):
        effects += again.on_report(seal_report(index, ALL[0]))[0]
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Seal)
    assert proposed.commitments == (ALL[0].signed,)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (commitment(0, replace(TRAIN, round=2)), "untimely: commitment to another round"),
        (commitment(0, replace(TRAIN, round=5)), "untimely: commitment to another round"),
        (commitment(0, miner=MINERS[1]), "untimely: commitment by somebody who is not enrolled"),
        (STRANGER.verified(commitment(0).body), "untimely: commitment by somebody who is not enrolled"),
        (
            STRANGER.verified(replace(commitment(0).body, miner=account_id(STRANGER.key))),
            "untimely: commitment by somebody who is not enrolled",
        ),
        (commitment(0, model=blob("stale").root), "false: commitment to another model, batch or size"),
        (commitment(0, samples=16), "false: commitment to another model, batch or size"),
    ],
)
def test_a_commitment_that_cannot_count_is_refused(message: Verified[Commitment], reason: str) -> None:
    _, validator = training()
    assert why_not(validator.on_heard(message)) == reason
    (report,) = reports_in(ticks(validator, TRAIN.deadline_ticks))
    assert report.body.names == ()


def test_a_commitment_to_the_next_round_waits_for_it() -> None:
    parts, validator = training()
    after = opened_after(TRAIN, 4)
    early = [commitment(index, after) for index in range(4)]
    for one in early[:3]:
        assert validator.on_heard(one) == ([], "")
    assert validator.on_heard(commitment(3, replace(after, model=blob("wrong")))) == ([], "")
    change(parts, validator, SEALED)
    (report,) = reports_in(change(parts, validator, after))
    assert set(report.body.names) == {name_of(one) for one in early[:3]}, "the one to another model is not named"
    assert report.body.ticks == 0


def test_the_primary_proposes_the_seal_that_a_quorum_of_reports_obliges_to() -> None:
    _, validator = training()
    for one in ALL:
        validator.on_heard(one)
    assert validator.on_report(seal_report(1, *ALL))[0] == []
    effects, _ = validator.on_report(seal_report(2, *ALL[:3]))
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Seal)
    expected = make_seal(
        TASK,
        3,
        seal_reports(proposed, NETWORK),
        {name_of(one): one.signed for one in ALL},
        2,
    )
    assert proposed == expected
    assert seal_fault(proposed, ELECTORATE) == ""
    assert only(validator.on_tick(), Propose) == [], "once in a view"


def test_a_backup_awaits_the_seal_and_proposes_nothing() -> None:
    _, validator = training(index=1)
    effects = [effect for index in (0, 2, 3) for effect in validator.on_report(seal_report(index))[0]]
    assert [type(one) for one in only(effects, Await, Propose)] == [Await]


def test_a_new_primary_proposes_what_the_old_one_owed() -> None:
    _, validator = training(index=1)
    for index in (0, 2, 3):
        validator.on_report(seal_report(index))
    gave_up = validator.on_entered(0, None)
    assert [type(one) for one in gave_up] == [Settle]
    effects = validator.on_entered(1, KEYS[1])
    assert [type(one) for one in only(effects, Await, Propose)] == [Await, Propose]


def test_the_primary_learns_the_half_of_an_equivocation_that_reports_name() -> None:
    """A miner told the primary one thing and the others another: without the other half there is nothing to propose."""
    _, validator = training()
    two_faced = commitment(3, salt="the other face")
    for one in ALL:
        validator.on_heard(one)
    reports = [seal_report(index, *ALL[:3], two_faced) for index in (1, 2)]
    effects = [effect for one in reports for effect in validator.on_report(one)[0]]
    assert only(effects, Propose) == [], "named, and not held"
    effects, reason = validator.on_heard(two_faced)
    assert reason == ""
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Seal)
    assert two_faced.signed in proposed.commitments
    assert ALL[3].signed not in proposed.commitments
    assert seal_fault(proposed, ELECTORATE) == ""


def test_a_second_face_that_no_report_names_is_not_kept() -> None:
    _, validator = training()
    validator.on_heard(ALL[3])
    effects, reason = validator.on_heard(commitment(3, salt="the other face"))
    assert ([type(one) for one in effects], reason) == ([Accuse], "")
    (report,) = reports_in(ticks(validator, TRAIN.deadline_ticks))
    assert report.body.names == (name_of(ALL[3]),)


TWO_FACED = commitment(3, salt="the other face")
TWICE = Accuse(KEYS[3], "made two commitments to one round", (ALL[3].signed, TWO_FACED.signed))


@pytest.mark.parametrize("late", [False, True])
def test_two_commitments_to_one_round_are_proof_of_guilt_whenever_the_second_comes(late: bool) -> None:
    parts, validator = training()
    validator.on_heard(ALL[3])
    assert validator.on_heard(ALL[3]) == ([], ""), "the same again"
    if late:
        change(parts, validator, SEALED)
    assert validator.on_heard(TWO_FACED) == ([TWICE], "")
    assert TWO_FACED.body.payload == ALL[3].body.payload, "another salt is another commitment"
    assert validator.on_heard(TWO_FACED) == ([], ""), "told once: a liar may repeat itself without end"


def test_a_seal_that_shows_another_commitment_than_was_heard_proves_its_miner_guilty() -> None:
    parts, validator = training()
    for one in (*ALL[:3], TWO_FACED):
        validator.on_heard(one)
    guilt = Accuse(KEYS[3], TWICE.reason, (TWO_FACED.signed, ALL[3].signed))
    assert only(change(parts, validator, SEALED), Accuse) == [guilt]


def test_two_commitments_by_two_keys_of_one_account_prove_nothing() -> None:
    """Its owner has changed keys within the round."""
    parts, validator = training()
    validator.on_heard(ALL[3])
    seats = tuple(replace(one, key=STRANGER.key) if one.account == MINERS[3] else one for one in TRAIN.seats)
    change(parts, validator, replace(TRAIN, seats=seats))
    assert validator.on_heard(STRANGER.verified(TWO_FACED.body)) == ([], "")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (STRANGER.verified(seal_report(0).body), "untimely: report by somebody who is not a validator now"),
        (seal_report(1, view=replace(TRAIN, round=2)), "untimely: report on a round that is past, or far to come"),
        (seal_report(1, view=replace(TRAIN, round=5)), "untimely: report on a round that is past, or far to come"),
        (SIGNERS[1].verified(replace(seal_report(1).body, step=77)), "false: report on a step that is not known"),
        (
            SIGNERS[1].verified(replace(seal_report(1, *ALL).body, step=Step.EVALUATION.value)),
            "false: report on a step that is not known",
        ),
    ],
)
def test_a_report_that_cannot_count_is_refused(message: Verified[Report], reason: str) -> None:
    _, validator = training()
    assert why_not(validator.on_report(message)) == reason


def test_a_miner_that_all_have_heard_may_leave_before_their_reports_have_come() -> None:
    parts, validator = training()
    change(parts, validator, replace(TRAIN, seats=TRAIN.seats[1:]))
    effects, reason = validator.on_report(seal_report(1, *ALL))
    assert reason == ""
    assert only(effects, Ignore) == []


def test_a_report_that_names_more_than_can_be_is_refused() -> None:
    parts = bench()
    electorate = replace(ELECTORATE, keys=(*KEYS, *(bytes([index]) * 32 for index in range(27))))
    validator = Validator(
        SIGNERS[0],
        MINERS[0],
        Chains(SIGNERS[0], MINERS[0], TASK),
        electorate,
        parts.desk,
        parts.keeper,
        reveal_ticks=20,
        work_ticks_max=50,
        noted={},
        drafted=b"",
    )
    change(parts, validator, TRAIN)
    names = tuple(at.to_bytes(12, "big") + bytes(20) for at in range(2 * miners_max(31) + 1))
    said = [SIGNERS[1].verified(replace(seal_report(1).body, names=each)) for each in (names, names[1:])]
    assert why_not(validator.on_report(said[0])) == "false: report on more than there can be"
    assert validator.on_report(said[1]) == ([], "")


def test_two_miners_whose_names_begin_alike_do_not_make_a_report_that_is_none() -> None:
    """Who makes two accounts of twelve equal bytes can be named with one of them only."""
    parts, validator = training()
    twin = MINERS[0][:12] + bytes(20)
    seats = tuple(sorted((*TRAIN.seats, replace(TRAIN.seats[0], account=twin, key=KEYS[1])), key=lambda s: s.account))
    change(parts, validator, replace(TRAIN, seats=seats))
    for one in ALL:
        validator.on_heard(one)
    effects, _ = validator.on_heard(SIGNERS[1].verified(replace(ALL[0].body, miner=twin)))
    (report,) = reports_in(effects)
    assert report_fault(report.body) == ""
    assert len(report.body.names) == 4


def test_a_validators_first_report_stands() -> None:
    _, validator = training()
    for one in (seal_report(1), seal_report(2), seal_report(1, *ALL)):
        validator.on_report(one)
    (proposed,) = [one.record for one in ticks(validator, TRAIN.deadline_ticks) if isinstance(one, Propose)]
    assert isinstance(proposed, Seal)
    assert set(seal_reports(proposed, NETWORK)) >= {seal_report(1), seal_report(2)}


def test_an_unanswered_report_is_said_again_with_what_it_names_and_the_primarys_does_not() -> None:
    """Not with all of it: with a thousand miners that would fill every line."""
    _, validator = training(index=1)
    for one in ALL[:3]:
        validator.on_heard(one)
    effects, _ = validator.on_heard(ALL[3])
    (report,) = reports_in(effects)
    again = [one.signed for one in ticks(validator, SAY_AGAIN_TICKS) if isinstance(one, Share)]
    assert again == [report.signed], "the primary has not said yet what it has"
    validator.on_report(seal_report(0, *ALL[:3]))
    again = [one.signed for one in ticks(validator, SAY_AGAIN_TICKS) if isinstance(one, Share)]
    assert again == [report.signed, ALL[3].signed]


def test_it_reports_what_it_has_when_a_quorum_has() -> None:
    """A primary that lacks something does not wait for its own deadline: its report says what it must be shown."""
    _, validator = training()
    validator.on_heard(ALL[0])
    assert reports_in([effect for index in (1, 2) for effect in validator.on_report(seal_report(index, *ALL))[0]]) == []
    effects, _ = validator.on_report(seal_report(3, *ALL))
    (report,) = reports_in(effects)
    assert report.body.names == (name_of(ALL[0]),)
    assert only(effects, Propose) == [], "three are named that it has not seen"
    effects = [effect for one in ALL[1:] for effect in validator.on_heard(one)[0]]
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Seal)
    assert len(proposed.commitments) == 4


# Reveal and update


def test_nothing_is_fetched_before_the_seal_is_certified() -> None:
    parts, validator = training()
    assert only(change(parts, validator, SEALED), Fetch) == []
    fetched = [one for one in validator.on_certified() if isinstance(one, Fetch)]
    assert {one.ref: one.holders[0] for one in fetched} == {
        one.body.payload: key for one, key in zip(ALL, KEYS, strict=True)
    }
    assert validator.on_certified() == []


def test_it_reports_payloads_when_all_are_held() -> None:
    parts, validator = sealed()
    assert reports_in(get(parts, validator, *PAYLOADS[:3])) == []
    effects = get(parts, validator, PAYLOADS[3])
    (report,) = reports_in(effects)
    assert report.body.held == b"\xf0"
    job = Aggregate(1, SPEC, 3, TRAIN.model, TRAIN.momentum, PARTS)
    assert only(effects, Run) == [Run("arithmetic", job)], "most often what the draft will ask for"


def test_it_reports_what_it_holds_when_its_patience_ends() -> None:
    parts, validator = sealed()
    get(parts, validator, PAYLOADS[0])
    assert reports_in(ticks(validator, 19)) == []
    (report,) = reports_in(ticks(validator, 1))
    assert report.body.held == b"\x80"


LYING = SIGNERS[2].verified(replace(update_report(2).body, held=b"\xff\xff"))


def test_a_report_on_other_payloads_than_were_sealed_is_refused() -> None:
    _, validator = sealed()
    assert why_not(validator.on_report(LYING)) == "false: report of a set of 4 positions in 2 bytes"


def test_a_report_on_other_payloads_that_came_before_the_seal_is_forgotten_with_it() -> None:
    """Else a liar's could not be told from an honest one that is early, and would stand in the draft."""
    parts, validator = training()
    assert validator.on_report(LYING) == ([], "")
    change(parts, validator, SEALED)
    validator.on_certified()
    get(parts, validator, *PAYLOADS)
    validator.on_report(update_report(1, *ALL))
    effects, _ = validator.on_report(update_report(3, *ALL))
    drafts = [verify(one.signed, NETWORK, Report, Draft).body for one in effects if isinstance(one, Share)]
    assert [LYING.signed in one.reports for one in drafts if isinstance(one, Draft)] == [False]


def test_a_draft_with_a_report_on_other_payloads_is_refused() -> None:
    _, validator = sealed(index=1)
    lying = draft(0, [update_report(0, *ALL), LYING, update_report(3, *ALL)])
    assert why_not(validator.on_draft(lying)) == "false: draft with a set of 4 positions in 2 bytes"


def test_a_draft_with_such_a_report_that_came_before_the_seal_is_forgotten_with_it() -> None:
    parts, validator = training(index=1)
    lying = draft(0, [update_report(0, *ALL), LYING, update_report(3, *ALL)])
    assert validator.on_draft(lying) == ([], "")
    change(parts, validator, SEALED)
    validator.on_certified()
    get(parts, validator, *PAYLOADS)
    assert only(validator.on_answer(added_up(1)), Await) == [], "it expects no update of it"
    assert only(ticks(validator, 60), Await) == []


def test_an_update_with_a_report_on_other_payloads_is_refused() -> None:
    _, validator = backup()
    update = replace(right_update(ALL, REPORTS), reports=signed([REPORTS[0], LYING, REPORTS[2]]))
    assert validator.judge_update(update, 0, final=False) == ("a set of 4 positions in 2 bytes", [])


def test_what_is_not_wanted_any_more_is_not_fetched_any_more() -> None:
    parts, validator = sealed()
    get(parts, validator, PAYLOADS[0])
    effects = change(parts, validator, opened_after(TRAIN, 4))
    assert {one.ref for one in effects if isinstance(one, Unfetch)} >= set(PAYLOADS[1:])
    assert Unfetch(PAYLOADS[0]) not in effects


def test_the_primary_drafts_adds_up_and_proposes() -> None:
    parts, validator = sealed()
    get(parts, validator, *PAYLOADS)
    validator.on_report(update_report(1, *ALL))
    effects, _ = validator.on_report(update_report(2, *ALL))
    said = [one for one in effects if isinstance(one, Share)]
    message = verify(said[0].signed, NETWORK, Draft)
    assert only(effects, Note) == [Note(draft_note(TASK), encode(said[0].signed))], "written before it is said"
    assert effects.index(only(effects, Note)[0]) < effects.index(said[0])
    assert only(effects, Propose) == []
    effects = validator.on_answer(added_up(1))
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Update)
    assert proposed.reports == message.body.reports
    assert (proposed.aggregate, proposed.model, proposed.momentum) == RESULTS
    assert [one.miner for one in proposed.contributions] == sorted(MINERS)


def test_a_draft_is_final_over_a_restart() -> None:
    """To propose other than one's draft is to lie, so it has to be known again."""
    parts, validator = sealed()
    get(parts, validator, *PAYLOADS)
    validator.on_report(update_report(1, *ALL))
    effects, _ = validator.on_report(update_report(2, *ALL))
    note = next(one for one in effects if isinstance(one, Note))
    parts = Bench(0, *model_blobs(TRAIN), *PAYLOADS)
    again = parts.validator(drafted=note.data)
    again.on_entered(0, KEYS[0])
    effects = change(parts, again, SEALED) + again.on_certified()
    for index in (1, 2, 3):
        effects += again.on_report(update_report(index, *ALL))[0]
    effects += ticks(again, SAY_AGAIN_TICKS)
    drafts = [one.signed for one in effects if isinstance(one, Share) and encode(one.signed) == note.data]
    assert drafts == [decode(note.data, Signed)]
    assert [one for one in effects if isinstance(one, Note) and one.name == note.name] == []


REPORTS = [update_report(index, *ALL) for index in (0, 2, 3)]


def backup() -> tuple[Bench, Validator]:
    parts, validator = sealed(index=1)
    get(parts, validator, *PAYLOADS)
    return parts, validator


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (draft(2, REPORTS), "false: draft by another than the primary"),
        (STRANGER.verified(draft(0, REPORTS).body), "false: draft by another than the primary"),
        (draft(0, REPORTS, view=replace(TRAIN, round=5)), "untimely: draft for another round"),
        (draft(0, REPORTS[:2]), "false: draft of 2 reports of 3"),
        (
            SIGNERS[0].verified(replace(draft(0, REPORTS).body, step=Step.SEAL.value)),
            "false: draft of a step that has none",
        ),
    ],
)
def test_a_draft_that_cannot_count_is_refused(message: Verified[Draft], reason: str) -> None:
    _, validator = backup()
    assert why_not(validator.on_draft(message)) == reason


def test_a_draft_of_an_old_view_is_refused() -> None:
    _, validator = backup()
    validator.on_entered(1, KEYS[1])
    assert why_not(validator.on_draft(draft(0, REPORTS))) == "untimely: draft of a view that is past"


def test_a_liars_draft_of_a_far_view_does_not_keep_the_primarys_out() -> None:
    _, validator = backup()
    validator.on_answer(added_up(1))
    validator.on_draft(draft(2, REPORTS, number=2**40))
    effects, reason = validator.on_draft(draft(0, REPORTS))
    assert reason == ""
    assert [type(one) for one in effects] == [Await], "the update is due: we have done the same work ourselves"


def test_the_primarys_time_counts_from_our_own_work_or_its_cap() -> None:
    _, validator = backup()
    validator.on_draft(draft(0, REPORTS))
    assert only(ticks(validator, 49), Await) == []
    assert len(only(ticks(validator, 1), Await)) == 1


def test_an_update_of_nothing_needs_no_arithmetic() -> None:
    nobody = [replace(one) for one in (commitment(index, finite=False, payload=NO_BLOB) for index in range(4))]
    _, validator = sealed(view=revealing(TRAIN, *nobody))
    validator.on_report(update_report(1))
    effects, _ = validator.on_report(update_report(2))
    (proposed,) = [one.record for one in effects if isinstance(one, Propose)]
    assert isinstance(proposed, Update)
    assert {one.outcome for one in proposed.contributions} == {Outcome.NON_FINITE}
    assert proposed.model == NO_BLOB


def test_a_failed_sum_is_tried_again_after_a_pause() -> None:
    _, validator = backup()
    validator.on_draft(draft(0, REPORTS))
    assert only(validator.on_answer(Failed(1, "the worker died")), Run) == []
    assert only(ticks(validator, RETRY_TICKS - 1), Run) == []
    assert len(only(ticks(validator, 1), Run)) == 1


# Judgement


def right_update(counted: list[Verified[Commitment]], reports: list[Verified[Report]]) -> Update:
    bodies = sorted((one.body for one in ALL), key=lambda one: one.miner)
    choice = choose([one.body for one in reports], bodies, 2)
    assert len(choice.counted) == len(counted)
    judged = (Judgement(Outcome.COUNTED.value, 65_536),) * len(counted)
    return make_update(TASK, 3, signed(reports), choice, judged, RESULTS)


def test_it_agrees_to_the_very_bits_that_it_has_worked_out() -> None:
    _, validator = backup()
    update = right_update(ALL, REPORTS)
    assert validator.judge_update(update, 0, final=False) == (None, []), "the sum is not done"
    validator.on_answer(added_up(1))
    assert validator.judge_update(update, 0, final=False) == ("", [])


def test_it_refuses_any_other_bits() -> None:
    _, validator = backup()
    validator.on_answer(added_up(1))
    update = right_update(ALL, REPORTS)
    for changed in (
        replace(update, aggregate=blob("a unit more")),
        replace(update, model=blob("another")),
        replace(update, momentum=blob("another")),
        replace(update, contributions=update.contributions[1:]),
        replace(update, contributions=(replace(update.contributions[0], weight=1), *update.contributions[1:])),
    ):
        reason, _ = validator.judge_update(changed, 0, final=False)
        assert reason


def test_it_adds_up_another_choice_than_its_own_when_that_is_proposed() -> None:
    _, validator = backup()
    validator.on_answer(added_up(1))
    fewer = [update_report(index, *ALL[:3]) for index in (0, 2, 3)]
    update = right_update(ALL[:3], fewer)
    verdict, effects = validator.judge_update(update, 0, final=False)
    assert verdict is None
    (run,) = [one.job for one in effects if isinstance(one, Run)]
    assert isinstance(run, Aggregate)
    assert len(run.payloads) == 3
    validator.on_answer(added_up(run.job, 3))
    assert validator.judge_update(update, 0, final=False) == ("", [])


def test_a_primary_is_held_to_its_draft_in_the_view_in_which_it_made_it() -> None:
    """Everybody has worked for the draft; in another view another primary drafts."""
    _, validator = backup()
    validator.on_draft(draft(0, REPORTS))
    validator.on_answer(added_up(1))
    other = right_update(ALL, [update_report(index, *ALL) for index in (0, 1, 2)])
    assert validator.judge_update(other, 0, final=False) == ("its reports are not those of its primary's draft", [])
    assert validator.judge_update(other, 1, final=False) == ("", [])
    assert validator.judge_update(right_update(ALL, REPORTS), 0, final=False) == ("", [])


def test_two_drafts_or_two_reports_of_one_key_are_proof_of_guilt() -> None:
    _, validator = backup()
    first, other = draft(0, REPORTS), draft(0, [update_report(index, *ALL) for index in (0, 1, 2)])
    assert only(validator.on_draft(first)[0], Accuse) == []
    guilt = Accuse(KEYS[0], "made two drafts of one update", (first.signed, other.signed))
    assert validator.on_draft(other) == ([guilt], "")
    assert validator.on_draft(other) == ([guilt], ""), "whoever keeps it once is told again"
    said, less = update_report(2, *ALL), update_report(2, *ALL[:3])
    validator.on_report(said)
    guilt = Accuse(KEYS[2], "made two reports on one step", (said.signed, less.signed))
    assert validator.on_report(less) == ([guilt], "")
    assert validator.on_report(said) == ([], ""), "the same again"


def test_an_update_with_reports_of_strangers_is_refused() -> None:
    _, validator = backup()
    stranger = STRANGER.verified(update_report(0, *ALL).body)
    update = replace(right_update(ALL, REPORTS), reports=signed([*REPORTS[:2], stranger]))
    reason, effects = validator.judge_update(update, 0, final=False)
    assert (reason, effects) == ("reports out of order, twice, or by strangers", [])


def test_a_seal_with_reports_of_strangers_is_refused() -> None:
    stranger = STRANGER.verified(seal_report(0, *ALL).body)
    reports = [seal_report(0, *ALL), seal_report(2, *ALL), stranger]
    seal = make_seal(TASK, 3, reports, {name_of(one): one.signed for one in ALL}, 2)
    assert isinstance(seal, Seal)
    assert seal_fault(seal, ELECTORATE) == "reports out of order, twice, or by strangers"


def test_an_update_of_a_round_to_come_is_not_judged_before_it_is_known_to_stay_untimely() -> None:
    _, validator = training(index=1)
    update = right_update(ALL, REPORTS)
    assert validator.judge_update(update, 0, final=False) == (None, []), "the seal may be under way before it"
    assert validator.judge_update(update, 0, final=True) == ("", []), "the receipt will say so"
    assert validator.judge_update(replace(update, round=2), 0, final=False) == ("", [])
