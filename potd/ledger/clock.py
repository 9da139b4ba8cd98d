"""When a past round is audited, and when it is paid: by rounds while its task runs, by heights once it is done.

Knows nothing of what is said in that time."""

from __future__ import annotations

from enum import IntEnum

from potd.ledger.entries import Past, Phase, Task
from potd.wire.genesis import Parameters


class AuditPhase(IntEnum):
    """What those who audit a past round may do now."""

    PROMISE = 0  # bind themselves to what they have found
    TELL = 1  # say it
    RULE = 2  # only rule on what is contested, as they may all along
    OVER = 3


def audit_phase(task: Task, past: Past, height: int, parameters: Parameters) -> AuditPhase:
    """As an operation finds it that is executed at this height.

    While a task sleeps the time stands still. Once it is done what has begun goes on by heights, and a round whose time
    to promise was over does not get another."""
    age, most = task.round - past.round, parameters.audit_rounds
    quarter = most // 4
    promises, tells, over = age <= quarter, age <= 2 * quarter, age > most
    if task.phase == Phase.DONE:
        rested, settles = height - task.rested_height, parameters.settle_heights
        promises, tells = promises and rested <= settles // 4, tells and rested <= settles // 2
        over = over or rested > settles
    if over:
        return AuditPhase.OVER
    if promises:
        return AuditPhase.PROMISE
    return AuditPhase.TELL if tells else AuditPhase.RULE


def vests_after(parameters: Parameters) -> int:
    """After how many rounds pay is paid, and the bond of who leaves goes back: never before the round is judged."""
    return max(parameters.vest_rounds, parameters.audit_rounds + 1)
