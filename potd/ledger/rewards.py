"""What a round that counted owes: to its miners, until it vests; to those who audit it; to the validators.

A row of a past round states what its miner is owed. It is paid `vests_after` rounds later, or when the task, done,
settles `settle_heights` after that. Who judges rows is `audits`."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from potd.ledger import bonds
from potd.ledger.clock import vests_after
from potd.ledger.entries import (
    INDEX,
    Miner,
    Past,
    Phase,
    Row,
    Standing,
    Task,
    TaskIndex,
    chains_key,
    past_key,
    window_key,
)
from potd.ledger.working import Working
from potd.wire.audits import PPM, Status
from potd.wire.blocks import record_digest
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.ids import AccountId
from potd.wire.rounds import Commitment, Contribution, Outcome
from potd.wire.tasks import TaskSpec


def is_audited(spec: TaskSpec) -> bool:
    """Whether there is a measure by which contributions to a task can be judged."""
    return spec.tolerance_nano > 0


def recorded(
    work: Working,
    task: Task,
    spec: TaskSpec,
    commitments: Sequence[Commitment],
    contributions: Sequence[Contribution],
    released: Set[AccountId],  # validators whose link is in the seed that follows
) -> Task:
    """A round has counted: its pay leaves the escrow for what was revealed, and waits in its rows and its pot."""
    slashed = frozenset(work.parting(task.id).slashed)
    changed: dict[AccountId, Miner] = {}
    rows: list[Row] = []
    escrow, shares = task.escrow_micro, 0
    for signed, commitment, one in zip(task.sealed, commitments, contributions, strict=True):
        pay = 0
        if one.outcome in (Outcome.COUNTED, Outcome.PROBATION) and one.miner not in slashed:
            pay, share = bonds.parts_micro(spec, commitment.samples)
            assert escrow >= pay + share, "a round that the escrow cannot pay was opened"
            escrow -= pay + share
            shares += share
            miner = task.miner(one.miner)
            if miner is not None:
                earned, kept, enough = min(SUPPLY_MAX, miner.earned_micro + pay), 0, True
                if miner.probation:
                    kept, enough = bonds.made_up(work, task.id, one.miner, pay)
                changed[one.miner] = replace(miner, earned_micro=earned, probation=not enough)
                pay -= kept
        rows.append(
            Row(
                miner=one.miner,
                commitment=record_digest(signed),
                payload=commitment.payload,
                units=commitment.samples // spec.unit_batch,
                outcome=one.outcome,
                weight=one.weight,
                norm=one.norm,
                pay_micro=pay,
                standing=(Standing.SLASHED if one.miner in slashed else Standing.UNCONTESTED).value,
                voices=(),
            )
        )
    pot = shares * work.parameters.audit_pay_ppm // PPM if is_audited(spec) else 0
    _shared(work, shares - pot, released)
    work.put(window_key(task.id, task.window.begins), task.window)
    work.put(
        past_key(task.id, task.round),
        Past(
            task=task.id,
            round=task.round,
            height=work.height,
            model=task.model,
            seed=task.seed,
            window=task.window.begins,
            validators=len(work.seats),
            pot_micro=pot,
            promises=(),
            rows=tuple(rows),
        ),
    )
    miners = tuple(changed.get(one.account, one) for one in task.miners)
    return replace(task, miners=miners, escrow_micro=escrow)


def _shared(work: Working, amount_micro: int, released: Set[AccountId]) -> None:
    """Among the validators that have released a link for the next seed; among all, if nobody has. What does not divide
    goes the way of fees."""
    paid = work.paid()
    sharing = tuple(one for one in paid if one in released) or paid
    each = amount_micro // len(sharing) if sharing else 0
    for account in sharing:
        work.credit(account, each)
    work.taken_micro += amount_micro - each * len(sharing)


# What the rounds after it bring


def moved_on(work: Working, task: Task) -> None:
    """A round of the task has opened, or would have if it were not done: what waited for it is due."""
    most = work.parameters.audit_rounds
    told = work.past(task.id, task.round - 2 * (most // 4) - 1)
    if told is not None:
        _put(work, _pot_shared(work, told))
    judged = work.past(task.id, task.round - most - 1)
    if judged is not None:
        _put(work, _acquitted(judged))
        _forget_window(work, task, judged)
    vested = work.past(task.id, task.round - vests_after(work.parameters))
    if vested is not None:
        _vest(work, vested)
    bonds.returned(work, task)


def _pot_shared(work: Working, past: Past) -> Past:
    """The time to tell is over: the pot is for all that was found and told, in equal parts, and without anything of
    the kind it goes the way of fees, like what does not divide."""
    found = [
        voice.validator
        for row in past.rows
        for voice in row.voices
        if not voice.ruling and voice.status != Status.UNABLE
    ]
    each = past.pot_micro // len(found) if found else 0
    for validator in dict.fromkeys(found) if each else ():
        work.credit(validator, each * found.count(validator))
    work.taken_micro += past.pot_micro - each * len(found)
    return replace(past, pot_micro=0)


def _acquitted(past: Past) -> Past:
    """What nobody has ruled on in time was good."""
    cleared = Standing.CLEARED.value
    rows = [replace(row, standing=cleared) if row.standing == Standing.CONTESTED else row for row in past.rows]
    return replace(past, rows=tuple(rows))


def _forget_window(work: Working, task: Task, judged: Past) -> None:
    """A window goes with the last round of it that can be audited."""
    later = (work.past(task.id, number) for number in range(judged.round + 1, task.round))
    following = next((one for one in later if one is not None), None)
    if following is None or following.window != judged.window:
        work.delete(window_key(task.id, judged.window))


def _vest(work: Working, past: Past) -> None:
    assert past.pot_micro == 0, "a pot that nobody can share in any more"
    assert all(row.standing != Standing.CONTESTED for row in past.rows), "pay that vests before it is judged"
    for row in past.rows:
        if row.pay_micro:
            work.credit(row.miner, row.pay_micro)
    work.delete(past_key(past.task, past.round))


def _put(work: Working, past: Past) -> None:
    work.put(past_key(past.task, past.round), past)


# What the end brings


def rested(work: Working, task: Task) -> Task:
    """A task is done: what is left of its escrow goes back, and what it owes is due when it settles."""
    work.credit(task.owner, task.escrow_micro)
    work.put(INDEX, TaskIndex(work.task_ids(), (*work.settling(), task.id)))
    return replace(task, phase=Phase.DONE.value, escrow_micro=0, rested_height=work.height)


def settle(work: Working) -> None:
    """At the end of a height: the tasks that have been done for long enough owe nothing any more."""
    settling = work.settling()
    while settling:
        task = work.task(settling[0])
        assert task is not None, "a task that was forgotten before it settled"
        if task.rested_height + work.parameters.settle_heights > work.height:
            break
        _settle(work, task)
        settling = settling[1:]
    if settling != work.settling():
        work.put(INDEX, TaskIndex(work.task_ids(), settling))


def _settle(work: Working, task: Task) -> None:
    for past in work.pasts(task):
        _vest(work, _pot_shared(work, _acquitted(past)))
        if work.window(task.id, past.window) is not None:
            work.delete(window_key(task.id, past.window))
    bonds.settled(work, task)
    for seat in work.seats:
        if work.chains(task.id, seat.account) is not None:
            work.delete(chains_key(task.id, seat.account))
