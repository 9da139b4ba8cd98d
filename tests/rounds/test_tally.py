"""What a quorum of reports says, exactly."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.rounds.tally import (
    Choice,
    choose,
    make_seal,
    make_update,
    name_of,
    named,
    read_reports,
    seal_fault,
    seal_reports,
    written_once,
)
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import NO_BLOB, digest
from potd.wire.jobs import Judgement
from potd.wire.rounds import (
    MINER_BYTES,
    Contribution,
    Named,
    Outcome,
    Report,
    Seal,
    Step,
    flags_of,
    positions,
    report_fault,
)
from tests.rounds.bench import (
    ELECTORATE,
    MINERS,
    NETWORK,
    SIGNERS,
    STRANGER,
    TASK,
    TRAIN,
    blob,
    commitment,
    seal_report,
    signed,
    update_report,
)

ALL = [commitment(index) for index in range(4)]
HELD = {name_of(one): one.signed for one in ALL}


def report(*pairs: tuple[int, int]) -> Report:
    """Each pair is a miner and what it has said."""
    return Report(TASK, 3, Step.SEAL.value, tuple(sorted(a_name(*pair) for pair in pairs)), (), ())


def a_name(subject: int, said: int) -> bytes:
    return bytes([subject]) * MINER_BYTES + bytes([said]) * (32 - MINER_BYTES)


def test_what_f_plus_1_hold_is_named_and_nothing_else() -> None:
    reports = [report((1, 1), (2, 2)), report((1, 1)), report((3, 3))]
    assert named(reports, 2) == (a_name(1, 1),)


@pytest.mark.parametrize("pairs", [((1, 1), (1, 1)), ((1, 1), (1, 2))])
def test_a_report_names_a_miner_once(pairs: tuple[tuple[int, int], ...]) -> None:
    """So f liars and one honest validator for each of two faces are more than there are."""
    assert report_fault(report(*pairs)) == "report that names a miner twice, or out of order"
    assert report_fault(report((1, 1), (2, 1))) == ""
    backwards = replace(report((1, 1), (2, 1)), names=(a_name(2, 1), a_name(1, 1)))
    assert report_fault(backwards) == "report that names a miner twice, or out of order"


def test_a_report_speaks_of_its_own_step_only() -> None:
    fault = "report that holds something of another step"
    assert report_fault(replace(report((1, 1)), step=Step.UPDATE.value)) == fault
    assert report_fault(replace(report(), held=b"\x80")) == fault
    assert report_fault(replace(report(), links=(Named(TASK, TASK),))) == fault


def test_a_report_names_one_link_of_a_validator() -> None:
    one, other = Named(digest("a"), digest("link")), Named(digest("a"), digest("another"))
    fault = "report that names a validator's link twice, or out of order"
    links = [(one, one), (one, other), tuple(sorted((one, Named(digest("b"), digest("link"))), reverse=True))]
    for each in links:
        assert report_fault(replace(report(), step=Step.UPDATE.value, links=each)) == fault
    assert report_fault(replace(report(), step=Step.UPDATE.value, links=links[2][::-1])) == ""


def test_a_subject_of_which_two_things_are_named_so_often_is_left_out() -> None:
    reports = [report((1, 1), (2, 2)), report((1, 1)), report((1, 9)), report((1, 9), (2, 2))]
    assert named(reports, 2) == (a_name(2, 2),)


@given(st.lists(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2))), min_size=3, max_size=7), st.randoms())
def test_the_order_of_reports_decides_nothing(held: list[set[tuple[int, int]]], random: Random) -> None:
    reports = [report(*pairs) for pairs in held]
    turned = random.sample(reports, len(reports))
    assert named(reports, 3) == named(turned, 3)


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
        assert {a_name(one, 1) for one in everybodys} <= set(named(quorum, 2))


def test_a_seal_holds_what_was_named_by_miner() -> None:
    reports = [seal_report(0, *ALL), seal_report(1, *ALL[:2]), seal_report(2, *ALL[1:3])]
    seal = make_seal(TASK, 3, reports, HELD, 2)
    assert isinstance(seal, Seal)
    assert [one.signed for one in seal_reports(seal, NETWORK)] == list(signed(reports))
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


def sealing(*reports: Verified[Report], commitments: tuple[Signed, ...] | None = None, **changes: object) -> Seal:
    """What a lying primary may put together from reports, with fields changed afterwards."""
    seal = written_once(TASK, 3, reports, good_seal().commitments if commitments is None else commitments)
    return replace(seal, **changes)  # type: ignore[arg-type]  # fields of a seal


GOOD = good_seal()
THREE = [seal_report(index, *ALL) for index in range(3)]
UNHEARD = commitment(3, salt="said to nobody")

FAULTS = {
    "two of three reports": (sealing(*THREE[:2]), "2 reports of 3"),
    "a report twice": (sealing(*THREE, THREE[0]), "reports out of order, twice, or by strangers"),
    "reports out of order": (
        replace(GOOD, reports=GOOD.reports[::-1]),
        "reports out of order, twice, or by strangers",
    ),
    "a report of the round before": (
        sealing(*THREE[:2], seal_report(2, *ALL, view=replace(TRAIN, round=2))),
        "wrong signature on Report",
    ),
    "a report on payloads": (sealing(*THREE[:2], update_report(2)), "wrong signature on Report"),
    "a report that names a miner twice": (
        sealing(*THREE[:2], seal_report(2, *ALL, UNHEARD)),
        "report that names a miner twice, or out of order",
    ),
    "fewer sets than reports": (replace(GOOD, held=GOOD.held[1:]), "not as many sets and ticks as reports"),
    "fewer ticks than reports": (replace(GOOD, ticks=GOOD.ticks[1:]), "not as many sets and ticks as reports"),
    "a set in more bytes": (
        replace(GOOD, held=(*GOOD.held[1:], b"\xf0\x00")),
        "a set of 4 positions in 2 bytes",
    ),
    "a set with a position too many": (
        replace(GOOD, held=(b"\xf8", *GOOD.held[1:])),
        "a set with a position beyond 4",
    ),
    "another set than was signed": (replace(GOOD, held=(b"\xe0", *GOOD.held[1:])), "wrong signature on Report"),
    "other ticks than were signed": (replace(GOOD, ticks=(9, *GOOD.ticks[1:])), "wrong signature on Report"),
    "names out of order": (replace(GOOD, names=GOOD.names[::-1]), "names twice, or out of order"),
    "a name that nobody said": (
        replace(GOOD, names=tuple(sorted((*GOOD.names, bytes([255]) * 32)))),
        "a name that no report has",
    ),
    "a commitment left out": (
        replace(GOOD, commitments=GOOD.commitments[1:]),
        "the commitments are not those that f + 1 reports name",
    ),
    "commitments out of order": (
        replace(GOOD, commitments=GOOD.commitments[::-1]),
        "the commitments are not those that f + 1 reports name",
    ),
    "a commitment too many": (
        sealing(THREE[0], seal_report(1, *ALL[1:]), seal_report(2, *ALL[1:])),
        "the commitments are not those that f + 1 reports name",
    ),
    "another commitment of the same miner": (
        replace(GOOD, commitments=tuple(UNHEARD.signed if one == ALL[3].signed else one for one in GOOD.commitments)),
        "the commitments are not those that f + 1 reports name",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_seal_that_does_not_follow_from_its_reports_is_refused(case: str) -> None:
    """Also by who has heard every report and commitment before, and does not check their signatures again."""
    seal, reason = FAULTS[case]
    assert seal_fault(seal, ELECTORATE) == reason
    assert seal_fault(seal, ELECTORATE, {one.sender: one for one in THREE}, HELD) == reason


def test_a_seal_says_again_what_was_signed_to_the_bit() -> None:
    reports = [
        seal_report(0, *ALL, ticks=7),
        seal_report(1, *ALL[:2], ticks=300),
        seal_report(2),
        seal_report(3, ALL[3]),
    ]
    seal = written_once(TASK, 3, reports, ())
    assert seal_reports(seal, NETWORK) == tuple(sorted(reports, key=lambda one: one.sender))
    assert seal_reports(decode(encode(seal), Seal), NETWORK) == seal_reports(seal, NETWORK)


def test_reports_of_strangers_decide_nothing() -> None:
    stranger = STRANGER.verified(seal_report(0, *ALL).body)
    assert seal_fault(sealing(*THREE[:2], stranger), ELECTORATE) == "reports out of order, twice, or by strangers"
    reports = signed([update_report(0, *ALL), update_report(1, *ALL), STRANGER.verified(update_report(2, *ALL).body)])
    with pytest.raises(Malformed, match="strangers"):
        read_reports(reports, TASK, 3, Step.UPDATE, ELECTORATE)


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


def test_what_is_revealed_on_probation_stands_in_no_sum() -> None:
    sealed = sorted(ALL[:3], key=lambda one: one.body.miner)
    reports = [update_report(0, *ALL[:2]), update_report(1, *ALL[:2])]
    trying = {MINERS[1], MINERS[2]}
    shown = [replace(one.body, held=positions([each in ALL[:2] for each in sealed])) for one in reports]
    choice = choose(shown, [one.body for one in sealed], 2, trying)
    outcomes = {MINERS[0]: Outcome.COUNTED, MINERS[1]: Outcome.PROBATION, MINERS[2]: Outcome.WITHHELD}
    assert dict(choice.outcomes) == outcomes
    assert [one.miner for one in choice.counted] == [MINERS[0]]


@pytest.mark.parametrize("held", [b"", b"\xf0\x00", b"\xf8"])
def test_a_report_on_another_number_of_payloads_than_were_sealed_is_none(held: bytes) -> None:
    bodies = [one.body for one in sorted(ALL, key=lambda one: one.body.miner)]
    reports = [replace(update_report(0).body, held=held), *(update_report(index, *ALL).body for index in (1, 2))]
    with pytest.raises(Malformed, match="a set"):
        choose(reports, bodies, 2)


@given(st.lists(st.booleans(), max_size=40))
def test_a_set_of_positions_is_written_in_one_way(flags: list[bool]) -> None:
    data = positions(flags)
    assert flags_of(data, len(flags)) == tuple(flags)
    assert len(data) == -(-len(flags) // 8)
    with pytest.raises(Malformed):
        flags_of(data + b"\x00", len(flags))
    if len(flags) % 8:
        with pytest.raises(Malformed):
            flags_of(bytes((*data[:-1], data[-1] | 1)), len(flags))


def test_an_update_carries_what_aggregation_made_of_each_payload() -> None:
    bodies = sorted((one.body for one in ALL[:3]), key=lambda one: one.miner)
    choice = Choice(
        (bodies[0], bodies[2]),
        ((bodies[0].miner, Outcome.COUNTED), (bodies[1].miner, Outcome.WITHHELD), (bodies[2].miner, Outcome.COUNTED)),
        b"\xa0",
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
