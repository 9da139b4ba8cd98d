"""What a quorum of reports says, exactly."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.rounds.tally import Choice, choose, make_seal, make_update, named, read_reports, seal_fault
from potd.wire.codec import Malformed
from potd.wire.envelope import Signer
from potd.wire.ids import NO_BLOB, digest
from potd.wire.jobs import Judgement
from potd.wire.rounds import Contribution, Named, Outcome, Report, Seal, Step
from tests.rounds.bench import (
    ELECTORATE,
    MINERS,
    SIGNERS,
    STRANGER,
    TASK,
    TRAIN,
    blob,
    commitment,
    name_of,
    seal_report,
    signed,
    update_report,
)

ALL = [commitment(index) for index in range(4)]
HELD = {name_of(one): one.signed for one in ALL}


def report(*pairs: tuple[int, int]) -> Report:
    held = sorted(Named(bytes([subject]) * 32, bytes([name]) * 32, 0) for subject, name in pairs)
    return Report(TASK, 3, Step.SEAL.value, tuple(held), (), ())


def test_what_f_plus_1_hold_is_named_and_nothing_else() -> None:
    reports = [report((1, 1), (2, 2)), report((1, 1)), report((3, 3))]
    assert named(reports, 2) == {bytes([1]) * 32: bytes([1]) * 32}


def test_one_report_counts_once_however_often_it_names_a_thing() -> None:
    assert named([report((1, 1), (1, 1), (1, 1))], 2) == {}


def test_a_subject_of_which_two_things_are_named_so_often_is_left_out() -> None:
    reports = [report((1, 1), (2, 2)), report((1, 1)), report((1, 9)), report((1, 9), (2, 2))]
    assert named(reports, 2) == {bytes([2]) * 32: bytes([2]) * 32}


@given(st.lists(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2))), min_size=3, max_size=7), st.randoms())
def test_the_order_of_reports_decides_nothing(held: list[set[tuple[int, int]]], random: Random) -> None:
    reports = [report(*pairs) for pairs in held]
    turned = random.sample(reports, len(reports))
    assert named(reports, 3) == named(turned, 3)
    assert list(named(reports, 3)) == list(named(turned, 3))


@given(st.lists(st.sets(st.tuples(st.integers(0, 2), st.just(1))), min_size=4, max_size=4), st.sets(st.integers(0, 2)))
def test_what_all_honest_hold_is_in_whatever_one_liar_says(
    held: list[set[tuple[int, int]]], everybodys: set[int]
) -> None:
    """Of any quorum of three, two are honest."""
    common = {(subject, 1) for subject in everybodys}
    honest = [report(*(pairs | common)) for pairs in held[:3]]
    liar = report(*held[3])
    for left_out in range(3):
        quorum = [one for index, one in enumerate(honest) if index != left_out] + [liar]
        assert {bytes([one]) * 32 for one in everybodys} <= set(named(quorum, 2))


def test_a_seal_holds_what_was_named_by_miner() -> None:
    reports = [seal_report(0, *ALL), seal_report(1, *ALL[:2]), seal_report(2, *ALL[1:3])]
    seal = make_seal(TASK, 3, reports, HELD, 2)
    assert isinstance(seal, Seal)
    assert seal.reports == signed(reports)
    assert seal.commitments == tuple(one.signed for one in sorted(ALL[:3], key=lambda one: one.body.miner))
    assert seal_fault(seal, ELECTORATE) == ""


def test_a_seal_waits_for_what_is_named_and_not_held() -> None:
    reports = [seal_report(index, *ALL) for index in range(3)]
    held = {name: one for name, one in HELD.items() if name != name_of(ALL[2])}
    assert make_seal(TASK, 3, reports, held, 2) == (name_of(ALL[2]),)


def good_seal() -> Seal:
    seal = make_seal(TASK, 3, [seal_report(index, *ALL) for index in range(3)], HELD, 2)
    assert isinstance(seal, Seal)
    return seal


ANOTHER = Signer(bytes([1]) * 32, digest("another network"))

FAULTS = {
    "two of three reports": (replace(good_seal(), reports=good_seal().reports[:2]), "2 reports of 3"),
    "a report twice": (
        replace(good_seal(), reports=(good_seal().reports[0], *good_seal().reports[:2])),
        "reports out of order, twice, or by strangers",
    ),
    "reports out of order": (
        replace(good_seal(), reports=good_seal().reports[::-1]),
        "reports out of order, twice, or by strangers",
    ),
    "a report of the round before": (
        replace(
            good_seal(),
            reports=signed([seal_report(0, *ALL), seal_report(1, *ALL), seal_report(2, view=replace(TRAIN, round=2))]),
        ),
        "a report of another round or step",
    ),
    "a report on payloads": (
        replace(good_seal(), reports=signed([seal_report(0, *ALL), seal_report(1, *ALL), update_report(2)])),
        "a report of another round or step",
    ),
    "a commitment left out": (
        replace(good_seal(), commitments=good_seal().commitments[1:]),
        "the commitments are not those that f + 1 reports name",
    ),
    "commitments out of order": (
        replace(good_seal(), commitments=good_seal().commitments[::-1]),
        "the commitments are not those that f + 1 reports name",
    ),
    "a commitment too many": (
        replace(
            good_seal(),
            reports=signed([seal_report(0, *ALL), seal_report(1, *ALL[1:]), seal_report(2, *ALL[1:])]),
        ),
        "the commitments are not those that f + 1 reports name",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_seal_that_does_not_follow_from_its_reports_is_refused(case: str) -> None:
    seal, reason = FAULTS[case]
    assert seal_fault(seal, ELECTORATE) == reason


def test_reports_of_strangers_decide_nothing() -> None:
    held = seal_report(0, *ALL).body.held
    stranger = STRANGER.verified(Report(TASK, 3, Step.SEAL.value, held, (), ()))
    reports = signed([seal_report(0, *ALL), seal_report(1, *ALL), stranger])
    with pytest.raises(Malformed, match="strangers"):
        read_reports(reports, TASK, 3, Step.SEAL, ELECTORATE)


def test_a_report_signed_for_another_network_is_none() -> None:
    foreign = ANOTHER.sign(seal_report(0, *ALL).body)
    with pytest.raises(Malformed, match="wrong signature on Report"):
        read_reports((foreign,), TASK, 3, Step.SEAL, ELECTORATE)


def test_a_commitment_of_another_round_is_in_no_seal() -> None:
    late = commitment(0, replace(TRAIN, round=2))
    reports = [seal_report(index, late) for index in range(3)]
    seal = make_seal(TASK, 3, reports, {name_of(late): late.signed}, 2)
    assert isinstance(seal, Seal)
    assert seal_fault(seal, ELECTORATE) == "a commitment of another round"


def test_an_update_counts_what_f_plus_1_hold_and_says_what_became_of_the_rest() -> None:
    sealed = sorted((*ALL[:3], commitment(3, finite=False, payload=NO_BLOB)), key=lambda one: one.body.miner)
    reports = [update_report(0, *ALL[:3]), update_report(1, *ALL[:2]), update_report(2, ALL[0])]
    choice = choose([one.body for one in reports], [one.body for one in sealed], 2)
    outcomes = {
        MINERS[0]: Outcome.COUNTED,
        MINERS[1]: Outcome.COUNTED,
        MINERS[2]: Outcome.WITHHELD,
        MINERS[3]: Outcome.NON_FINITE,
    }
    assert dict(choice.outcomes) == outcomes
    assert [one.miner for one in choice.counted] == sorted(MINERS[:2])
    assert choice.payloads() == tuple(one.payload for one in choice.counted)


def test_a_payload_named_by_another_digest_than_the_sealed_one_is_withheld() -> None:
    other = commitment(0, payload=blob("another"))
    reports = [update_report(index, other) for index in range(3)]
    choice = choose([one.body for one in reports], [ALL[0].body], 2)
    assert choice == Choice((), ((MINERS[0], Outcome.WITHHELD),))


def test_an_update_carries_what_aggregation_made_of_each_payload() -> None:
    bodies = sorted((one.body for one in ALL[:3]), key=lambda one: one.miner)
    choice = Choice(
        (bodies[0], bodies[2]),
        ((bodies[0].miner, Outcome.COUNTED), (bodies[1].miner, Outcome.WITHHELD), (bodies[2].miner, Outcome.COUNTED)),
    )
    judged = (Judgement(Outcome.COUNTED.value, 40_000), Judgement(Outcome.MALFORMED.value, 0))
    results = (blob("aggregate"), blob("model"), blob("momentum"))
    reports = signed([update_report(index) for index in range(3)])
    update = make_update(TASK, 3, reports, choice, judged, results)
    assert update.contributions == (
        Contribution(bodies[0].miner, Outcome.COUNTED.value, 40_000),
        Contribution(bodies[1].miner, Outcome.WITHHELD.value, 0),
        Contribution(bodies[2].miner, Outcome.MALFORMED.value, 0),
    )
    assert (update.aggregate, update.model, update.momentum) == results
    assert update.reports == reports
    assert {one.key for one in reports} == {one.key for one in SIGNERS[:3]}
