"""What is told of a contribution: claims about words and facts, over ledgers that hold a past round."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from potd.consensus.quorum import Group, certificate_fault
from potd.ledger.entries import Miner, Past, Phase, Row, Standing, Task, Voice, past_key, task_key
from potd.ledger.state import Ledger
from potd.runtime.why import why_view
from potd.wire.audits import Status
from potd.wire.blocks import Certificate
from potd.wire.codec import decode, encode
from potd.wire.envelope import attestation_of
from potd.wire.ids import digest
from potd.wire.merkle_map import Proof, verify_proof
from potd.wire.rounds import Outcome
from tests.ledger.world import VALIDATORS, World, blob, spec

NUMBER = 3


def row(world: World, who: int, outcome: Outcome, **changes: Any) -> Row:
    pay = 7_000 if outcome == Outcome.COUNTED else 0
    made = Row(
        miner=world.ids[who],
        commitment=digest("commitment of", bytes([who])),
        payload=blob(f"payload {who}"),
        units=1,
        outcome=outcome.value,
        weight=65_536 if outcome == Outcome.COUNTED else 0,
        norm=2**20,
        pay_micro=pay,
        standing=Standing.UNCONTESTED.value,
        voices=(),
    )
    return replace(made, **changes)


def miner(world: World, who: int, joined: int) -> Miner:
    return Miner(world.ids[who], world.people[who].key, 1, 1, 0, False, joined, 0, False)


def ended(*rows: tuple[int, Outcome, dict[str, Any]], now: int = 5) -> tuple[World, Task, Certificate]:
    """A task in round `now` whose third round has these contributions, and the certificate of that state."""
    world = World()
    name = world.opened(4, 5, rule=replace(spec().rule, kind="clip", radius_milli=2_000))
    miners = tuple(sorted((miner(world, who, 0 if who < 6 else 4) for who in (4, 5, 6)), key=lambda one: one.account))
    task = replace(world.task(name), phase=Phase.TRAINING.value, round=now, miners=miners, norm=2**19)
    made = tuple(sorted((row(world, who, outcome, **changes) for who, outcome, changes in rows), key=lambda x: x.miner))
    past = Past(name, NUMBER, 40, blob("model"), digest("seed"), 0, VALIDATORS, 0, (), made)
    entries = world.ledger.entries.updated([(task_key(name), encode(task)), (past_key(name, NUMBER), encode(past))])
    header = replace(world.ledger.header, state=entries.root()) if world.ledger.header is not None else None
    assert header is not None
    world.ledger = Ledger(entries, header)
    voters = sorted(world.people[:VALIDATORS], key=lambda one: one.key)[:3]
    return world, task, Certificate(header, tuple(attestation_of(one.sign(header)) for one in voters))


def story(world: World, task: Task, number: int = NUMBER, who: int | None = None) -> list[str]:
    told = why_view(world.ledger, None, task, number, world.ids[who] if who is not None else None)
    return [*told["story"], *(text for one in told["contributions"] for text in one["story"])]


def test_a_contribution_that_was_clipped_is_told_by_how_much() -> None:
    world, task, _ = ended((4, Outcome.COUNTED, {"weight": 32_768}))
    assert "revealed and counted by 50.0 %, as rule clip has it; its norm is 1" in story(world, task)
    assert "7000 micro-units are owed, and vest with round 203, now is 5" in story(world, task)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome.WITHHELD, "not revealed in time"),
        (Outcome.MALFORMED, "no encoding of this task"),
        (Outcome.NON_FINITE, "not finite"),
        (Outcome.PROBATION, "on probation"),
    ],
)
def test_whoever_is_not_paid_is_told_why(outcome: Outcome, words: str) -> None:
    world, task, _ = ended((4, outcome, {}))
    assert any(words in text for text in story(world, task, who=4))


def test_who_audited_with_which_distance_against_which_tolerance() -> None:
    world, task, _ = ended(
        (
            4,
            Outcome.COUNTED,
            {
                "standing": Standing.SLASHED.value,
                "pay_micro": 0,
                "voices": (
                    Voice(World().ids[0], False, Status.BAD.value, 180_000_000),
                    Voice(World().ids[1], True, Status.UNABLE.value, 0),
                ),
            },
        )
    )
    told = story(world, task, who=4)
    assert f"audited by {world.ids[0].hex()[:8]}: bad, distance 0.18 where 4e-07 is tolerated" in told
    assert f"ruled on by {world.ids[1].hex()[:8]}, who could not replay it" in told
    assert any(text.startswith("slashed: ") for text in told)
    assert told[-1] == "nothing is paid"


def test_a_miner_that_is_not_in_a_round_is_told_why_not() -> None:
    world, task, _ = ended((4, Outcome.COUNTED, {}))
    assert any("fewer than f + 1 validators heard" in text for text in story(world, task, who=5))
    assert any("is expected from round 4 on" in text for text in story(world, task, who=6))
    assert any("is not enrolled" in text for text in story(world, task, who=7))


def test_rounds_of_which_the_ledger_holds_nothing_are_told_apart() -> None:
    world, task, _ = ended((4, Outcome.COUNTED, {}), now=500)
    assert story(world, task, 500) == ["round 500 is open: nothing is sealed yet"]
    assert story(world, task, 501)[0].startswith("round 501 has not begun")
    assert story(world, task, 400)[0].startswith("round 400 lapsed")
    assert story(world, task, 200)[0].startswith("round 200 is settled")


def test_the_answer_can_be_checked_with_the_validators_keys_alone() -> None:
    world, task, certificate = ended((4, Outcome.COUNTED, {}))
    proof = why_view(world.ledger, certificate, task, NUMBER, None)["proof"]
    shown = decode(base64.b64decode(proof["certificate"]), Certificate)
    keys = tuple(sorted(one.key for one in world.people[:VALIDATORS]))
    assert certificate_fault(shown, Group(world.ledger.network, keys, 0, ())) == ""
    entry, way = base64.b64decode(proof["entry"]), decode(base64.b64decode(proof["proof"]), Proof)
    assert verify_proof(shown.header.state, bytes.fromhex(proof["key"]), entry, way)
    assert decode(entry, Past).rows[0].miner == world.ids[4]
    assert not verify_proof(shown.header.state, bytes.fromhex(proof["key"]), entry[:-1] + b"\1", way)


def test_without_the_newest_heights_certificate_there_is_no_proof() -> None:
    world, task, certificate = ended((4, Outcome.COUNTED, {}))
    older = replace(certificate, header=replace(certificate.header, height=0))
    assert why_view(world.ledger, older, task, NUMBER, None)["proof"] is None
