"""What miners lock for their enrolment in a task: locked, made up, given back, taken. Judges nobody.

A bond is as much as `bond_rounds` contributions can earn its miner. Who has less than that locks what it has, and is on
probation: what it earns goes into the bond until it is made up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from potd.ledger.clock import vests_after
from potd.ledger.entries import FOR_EVER, Bond, Parting, Past, Phase, Row, Standing, Task, bond_key, past_key
from potd.ledger.working import Working
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.ids import AccountId, TaskId
from potd.wire.rounds import MINERS_MAX
from potd.wire.tasks import TaskSpec

PPM = 1_000_000
SLASHED_PART = 2  # one part in so many of what is slashed goes to those who have shown the guilt


def parts_micro(spec: TaskSpec, samples: int) -> tuple[int, int]:
    """What so many samples earn their miner, and the validators, whose share is rounded down."""
    gross = samples * spec.pay_micro
    share = gross * spec.validators_ppm // PPM
    return gross - share, share


def required_micro(work: Working, spec: TaskSpec, units: int) -> int:
    """The bond of a miner with so many units."""
    return min(SUPPLY_MAX, work.parameters.bond_rounds * parts_micro(spec, units * spec.unit_batch)[0])


# Enrolled


def locked(work: Working, task: TaskId, spec: TaskSpec, account: AccountId, units: int) -> bool:
    """Lock what the balance holds of what an enrolment with so many units takes. Whether it is enough.

    A miner that asks for fewer units gets nothing back before it leaves. One that has left and comes back has its bond
    there yet."""
    known = work.bond(task, account) or Bond(account, 0, 0, FOR_EVER)
    required = required_micro(work, spec, units)
    if known.until_round == FOR_EVER:
        required = max(required, known.required_micro)
    else:
        _struck(work, task, account)
    held = work.account(account)
    assert held is not None, "an enrolment of nobody"
    paid = min(held.balance_micro, max(0, required - known.amount_micro))
    work.debit(account, paid)
    bond = Bond(account, known.amount_micro + paid, required, FOR_EVER)
    if bond.required_micro or bond.amount_micro:
        work.put(bond_key(task, account), bond)
    return bond.amount_micro >= required


def made_up(work: Working, task: TaskId, account: AccountId, pay_micro: int) -> tuple[int, bool]:
    """How much of a pay goes into the bond of a miner that is on probation, and whether that was enough."""
    bond = work.bond(task, account)
    assert bond is not None and bond.until_round == FOR_EVER, "on probation without a bond to make up"
    kept = min(pay_micro, bond.required_micro - bond.amount_micro)
    bond = replace(bond, amount_micro=bond.amount_micro + kept)
    work.put(bond_key(task, account), bond)
    return kept, bond.amount_micro == bond.required_micro


# Gone


def part(work: Working, task: Task, account: AccountId) -> None:
    """A miner has left, or is dismissed: its bond goes back when all that it has earned so far has vested.

    Of a task that has not begun it goes back at once. There is room for so many who wait; then the least bond does not
    wait any longer, for that one secures the least."""
    bond = work.bond(task.id, account)
    if bond is None:
        return
    if bond.amount_micro == 0 or task.phase == Phase.WAITING:
        _given_back(work, task.id, account)
        return
    work.put(bond_key(task.id, account), replace(bond, until_round=task.round + vests_after(work.parameters)))
    parting = work.parting(task.id)
    waiting = (*parting.accounts, account)
    if len(waiting) > MINERS_MAX:
        least = min(waiting, key=lambda one: _amount(work, task.id, one))
        _given_back(work, task.id, least)
        waiting = tuple(one for one in waiting if one != least)
    work.put_parting(task.id, replace(parting, accounts=waiting))


def returned(work: Working, task: Task) -> None:
    """A round has opened: the bonds that waited for it go back."""
    parting = work.parting(task.id)
    waiting = parting.accounts
    while waiting and _bond(work, task.id, waiting[0]).until_round <= task.round:
        _given_back(work, task.id, waiting[0])
        waiting = waiting[1:]
    if waiting != parting.accounts:
        work.put_parting(task.id, replace(parting, accounts=waiting))


def settled(work: Working, task: Task) -> None:
    """A task owes nothing any more, and keeps nobody away."""
    parting = work.parting(task.id)
    for account in (*(one.account for one in task.miners), *parting.accounts):
        if work.bond(task.id, account) is not None:
            _given_back(work, task.id, account)
    work.put_parting(task.id, Parting((), ()))


# Slashed


def at_stake(work: Working, task: Task, account: AccountId) -> bool:
    """Whether there is anything to take from an account: a bond, pay that has not vested, or an enrolment; of a task
    that has settled there is nothing."""
    if task.phase == Phase.DONE and task.id not in work.settling():
        return False
    if task.miner(account) is not None or work.bond(task.id, account) is not None:
        return True
    return any(row.pay_micro for _, _, row in _rows(work, task, account))


def slash(work: Working, task: Task, account: AccountId, shown_by: Sequence[AccountId]) -> None:
    """Take the bond of a miner and all of its pay that has not vested, and its enrolment for good.

    A half, in equal parts, goes to those who have shown its guilt; the rest to the task, or to its owner if the task is
    done. Who may read here of a task or of past rounds has to read them again."""
    taken = 0
    for past, at, row in _rows(work, task, account):
        taken += row.pay_micro
        guilty = replace(row, pay_micro=0, standing=Standing.SLASHED.value)
        work.put(past_key(task.id, past.round), with_row(past, at, guilty))
    bond = work.bond(task.id, account)
    if bond is not None:
        taken += bond.amount_micro
        work.delete(bond_key(task.id, account))
    parting = work.parting(task.id)
    waiting = tuple(one for one in parting.accounts if one != account)
    work.put_parting(task.id, Parting(waiting, (*parting.slashed, account)[-MINERS_MAX:]))
    each = taken // SLASHED_PART // len(shown_by) if shown_by else 0
    for one in shown_by:
        work.credit(one, each)
    rest = taken - each * len(shown_by)
    miners = tuple(one for one in task.miners if one.account != account)
    if task.phase == Phase.DONE:
        work.credit(task.owner, rest)
        work.put_task(replace(task, miners=miners))
    else:
        work.put_task(replace(task, miners=miners, escrow_micro=task.escrow_micro + rest))


def is_contested(work: Working, task: Task, account: AccountId) -> bool:
    """Whether a contribution of this miner waits for rulings."""
    return any(row.standing == Standing.CONTESTED for _, _, row in _rows(work, task, account))


# Rows


def row_of(past: Past, account: AccountId) -> int | None:
    """Where in a past round the row of a miner is."""
    at = bisect_left(past.rows, account, key=lambda one: one.miner)
    return at if at < len(past.rows) and past.rows[at].miner == account else None


def with_row(past: Past, at: int, row: Row) -> Past:
    return replace(past, rows=(*past.rows[:at], row, *past.rows[at + 1 :]))


def _rows(work: Working, task: Task, account: AccountId) -> list[tuple[Past, int, Row]]:
    """An account's contributions to a task, as far as they have not vested."""
    found: list[tuple[Past, int, Row]] = []
    for past in work.pasts_of(task, account):
        at = row_of(past, account)
        if at is not None:
            found.append((past, at, past.rows[at]))
    return found


def _bond(work: Working, task: TaskId, account: AccountId) -> Bond:
    bond = work.bond(task, account)
    assert bond is not None, "who waits for a bond has none"
    return bond


def _amount(work: Working, task: TaskId, account: AccountId) -> int:
    return _bond(work, task, account).amount_micro


def _given_back(work: Working, task: TaskId, account: AccountId) -> None:
    work.credit(account, _bond(work, task, account).amount_micro)
    work.delete(bond_key(task, account))


def _struck(work: Working, task: TaskId, account: AccountId) -> None:
    """Off the list of those who have left."""
    parting = work.parting(task)
    work.put_parting(task, replace(parting, accounts=tuple(one for one in parting.accounts if one != account)))
