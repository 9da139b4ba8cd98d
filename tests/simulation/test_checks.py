"""The checks catch what they are for: each by a hand-made wrong of its kind."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from potd.ledger.apply import execute
from potd.ledger.entries import account_key
from potd.ledger.state import Ledger, genesis_ledger
from potd.node import events as ev
from potd.rounds.tally import written_once
from potd.simulation import checks as checks_module
from potd.simulation.checks import Checks, Violation
from potd.simulation.disk import NEWEST
from potd.simulation.world import World
from potd.wire.blocks import NULL, Batch, Certificate, Header
from potd.wire.codec import encode
from potd.wire.consensus import Commit, NewView, Prepare, Refusal, ViewChange
from potd.wire.envelope import Attestation, Signed, Signer
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import account_id, digest, short
from potd.wire.operations import Transfer
from potd.wire.rounds import Report, Step

SEEDS = [bytes([index + 1]) * 32 for index in range(4)]
KEYS = tuple(Signer(seed, bytes(32)).key for seed in SEEDS)
GENESIS = Genesis("test", 1, 0, KEYS, tuple(Allotment(key, 10**12) for key in KEYS), Parameters())
SIGNERS = [Signer(seed, genesis_digest(GENESIS)) for seed in SEEDS]
ONE, OTHER = digest("one"), digest("other")
FIRST = execute(genesis_ledger(GENESIS), NULL)


def watching() -> Checks:
    return Checks(GENESIS, KEYS)


def store(header: Header, batch: Batch = NULL) -> ev.Store:
    return ev.Store(header, batch, ())


def certificate(header: Header, count: int = 3) -> Certificate:
    signed = sorted((one.key, one.sign(header).signature) for one in SIGNERS[:count])
    return Certificate(header, tuple(Attestation(*one) for one in signed))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Commit(0, 1, ONE), Commit(0, 1, OTHER)),
        (Prepare(2, 1, ONE, bytes(64)), Prepare(2, 1, OTHER, bytes(64))),
        (Refusal(0, 1, ONE, bytes(64), "no"), Prepare(0, 1, ONE, bytes(64))),
        (FIRST.header, replace(FIRST.header, state=ONE)),
        (ViewChange(1, 0, (), ()), ViewChange(1, 1, (certificate(FIRST.header),), ())),
        (Report(ONE, 0, Step.SEAL.value, (), (), ()), Report(ONE, 0, Step.SEAL.value, (ONE,), (), ())),
    ],
    ids=lambda body: type(body).__name__,
)
def test_two_answers_to_one_question_are_found(first: object, second: object) -> None:
    for write_first in (False, True):
        watch = watching()
        signed, other = SIGNERS[0].sign(first), SIGNERS[0].sign(second)
        watch.carried_out(KEYS[0], ev.Keep(1, signed) if write_first else ev.Send(KEYS[1], encode(signed)))
        watch.carried_out(KEYS[0], ev.Send(KEYS[2], encode(signed)))
        with pytest.raises(Violation, match="said two things"):
            watch.carried_out(KEYS[0], ev.Send(KEYS[1], encode(other)))


def test_a_second_report_is_found_in_a_note_too() -> None:
    watch = watching()
    first = Report(ONE, 0, Step.SEAL.value, (), (), ())
    second = replace(first, names=(ONE,))
    for body, found in ((first, nullcontext()), (second, pytest.raises(Violation, match="said two things: Report"))):
        seal = written_once(ONE, 0, [SIGNERS[0].verified(body)], ())
        with found:
            watch.carried_out(KEYS[0], ev.Note("seal", encode(seal)))


def test_of_a_liar_nothing_is_asked() -> None:
    watch = watching()
    watch.distrust(KEYS[0])
    for name in (ONE, OTHER):
        watch.carried_out(KEYS[0], ev.Send(KEYS[1], encode(SIGNERS[0].sign(Commit(0, 1, name)))))


def test_what_is_passed_on_for_another_is_not_ones_own_word() -> None:
    watch = watching()
    for name in (ONE, OTHER):
        watch.carried_out(KEYS[0], ev.Send(KEYS[1], encode(SIGNERS[1].sign(Commit(0, 1, name)))))


def test_two_headers_of_one_height_are_found() -> None:
    transfer = Batch((SIGNERS[0].sign(Transfer(account_id(KEYS[0]), 0, ONE, 5, "")),))
    other = execute(genesis_ledger(GENESIS), transfer)
    watch = watching()
    watch.carried_out(KEYS[0], store(FIRST.header))
    watch.carried_out(KEYS[1], store(FIRST.header))
    with pytest.raises(Violation, match="two headers at height 1"):
        watch.carried_out(KEYS[2], store(other.header, transfer))


def test_a_state_that_does_not_follow_from_the_batch_is_found() -> None:
    with pytest.raises(Violation, match="made something else of height 1"):
        watching().carried_out(KEYS[0], store(replace(FIRST.header, state=ONE)))


def test_lost_supply_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger in which one account has become poorer by a unit, and nobody richer."""
    name, account = account_id(KEYS[0]), FIRST.ledger.account(account_id(KEYS[0]))
    assert account is not None
    less = replace(account, balance_micro=account.balance_micro - 1)
    poorer = FIRST.ledger.entries.updated([(account_key(name), encode(less))])
    header = replace(FIRST.header, state=poorer.root())
    leaking = replace(FIRST, ledger=Ledger(poorer, header), header=header)
    monkeypatch.setattr(checks_module, "execute", lambda ledger, batch: leaking)
    with pytest.raises(Violation, match=f"height 1 has {4 * 10**12 - 1} micro-units of {4 * 10**12}"):
        watching().carried_out(KEYS[0], store(header))


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (certificate(FIRST.header, 2), "certificate with 2 signatures of 3"),
        (replace(certificate(FIRST.header), header=replace(FIRST.header, state=ONE)), "two certified headers"),
        (
            Certificate(FIRST.header, tuple(Attestation(key, bytes(64)) for key in sorted(KEYS))),
            "certificate with a wrong signature",
        ),
    ],
)
def test_a_certificate_that_genesis_does_not_bear_out_is_found(shown: Certificate, reason: str) -> None:
    watch = watching()
    watch.carried_out(KEYS[0], store(FIRST.header))
    watch.carried_out(KEYS[0], ev.StoreCertificate(certificate(FIRST.header)))
    with pytest.raises(Violation, match=reason):
        watch.carried_out(KEYS[1], ev.StoreCertificate(shown))


def leave(watch: Checks, who: int, view: int) -> Signed:
    signed = SIGNERS[who].sign(ViewChange(view, 0, (), ()))
    watch.carried_out(KEYS[who], ev.Keep(NEWEST, signed))
    return signed


def test_a_view_given_up_before_a_quorum_has_left_for_it_is_found() -> None:
    watch = watching()
    leave(watch, 0, 1)
    leave(watch, 1, 1)
    with pytest.raises(Violation, match="gives up view 1, for which no quorum has left"):
        leave(watch, 0, 2)


def test_a_view_may_be_given_up_by_who_follows_a_quorum_or_joins_some_or_has_seen_it_begin() -> None:
    alone, liar = watching(), watching()
    liar.distrust(KEYS[3])
    for watch, quorum in ((alone, 3), (liar, 2)):  # what the liar has said is not known
        for who in range(quorum):
            leave(watch, who, 1)
        leave(watch, 0, 2)
    joins = watching()
    leave(joins, 0, 1)
    for who in (1, 2):
        leave(joins, who, 5)
    leave(joins, 0, 5)
    begins = watching()
    left = leave(begins, 0, 1)
    begins.carried_out(KEYS[0], ev.Keep(NEWEST, SIGNERS[1].sign(NewView(1, (left,), ()))))
    leave(begins, 0, 2)


def test_an_honest_one_accused_is_found_and_a_liar_may_be() -> None:
    watch = watching()
    watch.distrust(KEYS[3])
    watch.carried_out(KEYS[0], ev.Note(f"evidence/{KEYS[3].hex()}", b"two orders"))
    with pytest.raises(Violation, match="which is honest"):
        watch.carried_out(KEYS[0], ev.Note(f"evidence/{KEYS[1].hex()}", b"two orders"))


def test_a_log_that_outgrows_its_window_is_found(tmp_path: Path) -> None:
    world = World(tmp_path, window_heights=4)
    world.pass_time(3)
    node = world.node(world.keys[0])
    assert node.replica is not None
    world.checks.stepped(world.keys[0], node)
    node.replica._log.slot(5)
    with pytest.raises(Violation, match="keeps slots"):
        world.checks.stepped(world.keys[0], node)


def test_a_broken_invariant_of_an_honest_node_is_a_violation_and_of_a_liar_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: ev.Input) -> list[ev.Effect]:
        raise AssertionError("executed out of order")

    world = World(tmp_path)
    honest, liar = world.keys[:2]
    world.distrust(liar)
    monkeypatch.setattr(world.node(liar), "step", broken)
    world.pass_time(3)
    assert world.members[liar].node is None
    monkeypatch.setattr(world.node(honest), "step", broken)
    with pytest.raises(Violation, match=f"{short(honest)} ended: executed out of order"):
        world.pass_time(3)
