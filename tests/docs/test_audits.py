"""What section 12 of PROTOCOL.md says of links, draws and times, worked out from it beside what the program does."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import Past, Phase, Task
from potd.rounds.chains import _chain
from potd.wire import audits
from potd.wire.audits import CHAIN_ROUNDS, Finding
from potd.wire.genesis import Parameters
from tests.docs.verifier import digest, encode, u64
from tests.wire.values import SOME, fixed

NAMES = [digest("miner", bytes([number])) for number in range(40)]
SECRET, SEED, TASK, SALT = (digest(name) for name in ("secret", "seed", "task", "salt"))


def linked(secret: bytes, times: int) -> bytes:
    for _ in range(times):
        secret = digest("link", secret)
    return secret


def test_a_link_is_its_secret_hashed_as_often_as_rounds_are_left() -> None:
    for number in (7, 8, 500, 7 + CHAIN_ROUNDS - 1):
        assert _chain(SECRET)[number - 7 + 1] == linked(SECRET, 7 + 1023 - number)
    assert _chain(SECRET)[0] == linked(SECRET, 1024) == digest("link", _chain(SECRET)[1])


@pytest.mark.parametrize("validators", [1, 2, 4, 7, 31])
@pytest.mark.parametrize("audit_ppm", [0, 1, 100_000, 900_000])
def test_a_link_draws_what_the_text_says(validators: int, audit_ppm: int) -> None:
    def chance(ppm: int) -> int:
        honest = validators - (validators - 1) // 3
        return next(c for c in count() if (10**6 - c) ** honest <= (10**6 - ppm) * 10 ** (6 * (honest - 1)))

    link = linked(SECRET, 3)
    rows = [(name, outcome % 5) for outcome, name in enumerate(NAMES)]
    due = []
    for name, outcome in rows:
        ppm = {0: audit_ppm, 4: 500_000 if audit_ppm else 0}.get(outcome, 0)
        number = int.from_bytes(digest("lot", link, SEED, name)[:8], "big")
        if name != NAMES[4] and number * 10**6 < chance(ppm) * 2**64:
            due.append(name)
    assert audits.drawn(link, SEED, rows, NAMES[4], audit_ppm, validators) == tuple(due)
    assert due if audit_ppm == 900_000 and validators == 1 else audit_ppm or not due


def test_a_promise_binds_to_findings_as_they_are_encoded() -> None:
    findings = [Finding(NAMES[0], 0, 7), Finding(NAMES[1], 1, 500)]
    said = [encode([132, one.miner, one.status, one.distance_nano]) for one in findings]
    promise = digest("promise", NAMES[2], TASK, u64(9), SALT, *said)
    assert audits.promised(NAMES[2], TASK, 9, SALT, findings) == promise


def told(age: int, rested: int | None, most: int, settles: int) -> AuditPhase:
    """The table under "When"."""
    quarter = most // 4
    rows = ((quarter, settles // 4), (2 * quarter, settles // 2), (most, settles))
    for phase, (rounds, heights) in zip(AuditPhase, rows, strict=False):
        if age <= rounds and (rested is None or rested <= heights):
            return phase
    return AuditPhase.OVER


@pytest.mark.parametrize("most", [4, 7, 16])
@pytest.mark.parametrize("settles", [4, 9])
def test_everything_has_the_time_that_the_table_gives_it(most: int, settles: int) -> None:
    parameters = Parameters(audit_rounds=most, settle_heights=settles)
    task, past = fixed(Task, SOME), replace(fixed(Past, SOME), round=3)
    for age in range(1, most + 3):
        running = replace(task, phase=Phase.TRAINING.value, round=3 + age)
        assert audit_phase(running, past, 10, parameters) == told(age, None, most, settles)
        for rested in range(settles + 2):
            done = replace(running, phase=Phase.DONE.value, rested_height=10)
            assert audit_phase(done, past, 10 + rested, parameters) == told(age, rested, most, settles)
