"""From genesis to whoever decides now: each set of validators names the next, and a quorum of it must have signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.consensus.quorum import Group
from potd.consensus.succession import Handover, Line, succeed
from potd.wire.blocks import Certificate, Header, validators_digest
from potd.wire.envelope import attestation_of
from potd.wire.ids import NOTHING
from tests.consensus.cluster import NETWORK, signer

FIRST, SECOND, THIRD = (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5, 6)


def group(members: tuple[int, ...], base: int = 0, before: tuple[int, ...] = ()) -> Group:
    keys, others = (tuple(signer(one).key for one in who) for who in (members, before))
    return Group(NETWORK, keys, base, others)


def certified(height: int, by: tuple[int, ...], following: tuple[int, ...]) -> Certificate:
    """A height that some sign, and after which others decide."""
    validators = validators_digest(group(following).keys)
    header = Header(NETWORK, 1, height, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, validators)
    return Certificate(header, tuple(sorted(attestation_of(signer(one).sign(header)) for one in by)))


def handover(height: int, by: tuple[int, ...], following: tuple[int, ...]) -> Handover:
    return Handover(certified(height, by, following), group(following).keys)


GENESIS = Line.begin(group(FIRST))
ONE = handover(10, FIRST[:3], SECOND)
TWO = handover(25, SECOND[1:], THIRD)


def grown(*handovers: Handover) -> Line:
    line = succeed(GENESIS, handovers)
    assert isinstance(line, Line), line
    return line


def test_each_set_hands_over_to_the_next() -> None:
    line = grown(ONE, TWO)
    assert line.base == 25
    assert line.groups == (group(FIRST), group(SECOND, 10, FIRST), group(THIRD, 25, SECOND))
    assert line.handovers == (ONE, TWO)


def test_a_height_is_decided_by_those_of_its_time() -> None:
    line = grown(ONE, TWO)
    deciders = {height: line.group_at(height) for height in (1, 10, 11, 25, 26, 10**9)}
    first, second, third = line.groups
    assert deciders == {1: first, 10: first, 11: second, 25: second, 26: third, 10**9: third}
    assert line.group_at(0) is None


@pytest.mark.parametrize(
    ("height", "by", "fault"),
    [
        (9, FIRST[:3], ""),
        (10, FIRST[:3], ""),
        (11, SECOND[:3], ""),
        (40, THIRD[:4], ""),
        (9, FIRST[:2], "certificate with 2 signatures of 3"),
        (40, THIRD[:2], "certificate with 2 signatures of 4"),  # f + 1: an honest one among them is not enough
        (40, THIRD[:3], "certificate with 3 signatures of 4"),
        (11, FIRST[:3], "certificate signed by a stranger"),
        (10, SECOND[1:], "certificate signed by a stranger"),
        (40, (*SECOND[:3], 0), "certificate signed by a stranger"),
    ],
)
def test_a_quorum_of_those_who_decided_a_height_must_have_signed_it(
    height: int, by: tuple[int, ...], fault: str
) -> None:
    assert grown(ONE, TWO).certificate_fault(certified(height, by, THIRD)) == fault


def test_what_was_decided_before_those_that_are_known_proves_nothing() -> None:
    line = Line.begin(group(SECOND, 10))
    assert line.certificate_fault(certified(10, FIRST[:3], SECOND)).startswith("certificate from before")
    assert line.certificate_fault(certified(11, SECOND[:3], SECOND)) == ""


@pytest.mark.parametrize(
    ("handovers", "reason"),
    [
        ([handover(10, FIRST[:2], SECOND)], "certificate with 2 signatures of 3"),
        ([handover(10, SECOND[1:], SECOND)], "certificate signed by a stranger"),
        ([replace(ONE, keys=group(THIRD).keys)], "handover to others than its header names"),
        ([replace(ONE, keys=ONE.keys[::-1])], "handover to others than its header names"),
        ([TWO], "certificate signed by a stranger"),  # the one before it is missing
        ([ONE, handover(25, FIRST[:3], THIRD)], "certificate signed by a stranger"),  # it had handed over
    ],
)
def test_a_handover_that_the_set_before_did_not_sign_moves_nothing(handovers: list[Handover], reason: str) -> None:
    assert succeed(GENESIS, handovers) == reason


def test_a_certificate_of_another_network_hands_over_nothing() -> None:
    header = replace(ONE.certificate.header, network=bytes(31) + b"\x07")
    elsewhere = Certificate(header, tuple(sorted(attestation_of(signer(one).sign(header)) for one in FIRST[:3])))
    assert succeed(GENESIS, [Handover(elsewhere, ONE.keys)]) == "certificate of another network"


def test_handovers_that_are_known_are_skipped_and_the_line_goes_on_behind_them() -> None:
    line = grown(ONE)
    assert succeed(line, [ONE]) == line
    assert succeed(line, [ONE, TWO]) == succeed(line, [TWO]) == grown(ONE, TWO)
