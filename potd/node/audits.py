"""What the ledger knows of a task's audits, as the rounds see it. Judges nothing."""

from __future__ import annotations

from dataclasses import replace

from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import Past, Phase, Standing, Task
from potd.ledger.state import Ledger
from potd.rounds.chains import Chained
from potd.rounds.events import UNAUDITED, Audited, Contested, Hour, PastRound
from potd.rounds.plan import Window
from potd.wire.audits import Status
from potd.wire.genesis import Parameters
from potd.wire.ids import AccountId, TaskId

_HOURS = {AuditPhase.PROMISE: Hour.PROMISE, AuditPhase.TELL: Hour.TELL, AuditPhase.RULE: Hour.RULE}
CLOSING_PART = 8  # of the heights until a task that is done is settled: so long before its time a promise is made


def audited_of(ledger: Ledger, task: Task, account: AccountId, replays: bool, before: Audited) -> Audited:
    """As it is for this account, which has a seat; who makes no replays is told of no rounds.

    What has not changed is that of `before`: to compare it with that costs nothing."""
    one = ledger.chains(task.id, account)
    chained = Chained(one.begins, one.seeds_round, one.seeds, one.lots_round, one.lots) if one is not None else None
    if not replays:
        return replace(UNAUDITED, chained=chained)
    known = {past.round: past for past in before.pasts}
    pasts = [_past_round(ledger, task, past, account, known.get(past.round)) for past in ledger.pasts(task.id)]
    return Audited(task.norm, chained, tuple(pasts))


def _past_round(ledger: Ledger, task: Task, past: Past, account: AccountId, before: PastRound | None) -> PastRound:
    parameters, height = ledger.parameters(), ledger.height + 1  # at which an operation would be executed
    hour = _HOURS[audit_phase(task, past, height, parameters)]
    closing = hour == Hour.PROMISE and _closing(task, past, height, parameters)
    if before is not None and (before.entry, before.hour, before.closing) == (past, hour, closing):
        return before
    ours = next((one for one in past.promises if one.validator == account), None)
    return PastRound(
        entry=past,
        hour=hour,
        closing=closing,
        window=before.window if before is not None else _window(ledger, task.id, past.window),
        audit_ppm=parameters.audit_ppm,
        promised=ours.findings if ours is not None else None,
        kept=ours is not None and ours.kept,
        contested=_contested(past, account),
    )


def _closing(task: Task, past: Past, height: int, parameters: Parameters) -> bool:
    """Whether a promise has to be made now: the round that is open ends soon, and the time to promise with it."""
    match Phase(task.phase):
        case Phase.DONE:
            later = height + parameters.settle_heights // CLOSING_PART
            return audit_phase(task, past, later, parameters) != AuditPhase.PROMISE
        case Phase.REVEALING:
            return audit_phase(replace(task, round=task.round + 1), past, height, parameters) != AuditPhase.PROMISE
        case _:
            return False


def _window(ledger: Ledger, task: TaskId, begins: int) -> Window:
    window = ledger.window(task, begins)
    assert window is not None, "a round that is audited has no window"
    return Window(window.seed, tuple((member.miner, member.units) for member in window.members))


def _contested(past: Past, account: AccountId) -> tuple[Contested, ...]:
    """What this account has not said yet whether it is bad, or good."""
    contested: list[Contested] = []
    for row in past.rows:
        if row.standing != Standing.CONTESTED:
            continue
        if any(one.validator == account and one.status != Status.UNABLE for one in row.voices):
            continue
        by = next(one.validator for one in row.voices if one.status == Status.BAD)
        contested.append(Contested(row, by))
    return tuple(contested)
