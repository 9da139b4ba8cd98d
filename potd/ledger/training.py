"""Rounds of a task: what seals, updates and lapses do to it. What a round owes is `rewards`. Knows no gradients.

Rounds are numbered from 0. One ends in an update that counts, or lapses; either way its number is used up and a new
seed drawn. The task is done when the number reaches the spec's rounds, or when the escrow cannot pay the next round in
full; the rest of the escrow goes back to the owner.

Windows. From round `window.begins` to the one before `next_window.begins` (a multiple of window_rounds), the shards of
`window.members` follow from `window.seed`. At that edge the next window becomes the current one, and another is fixed,
from the seed final then and the active miners with the units they last asked for. A miner's units in force are those
of its place in the current window; who has none there has what it last asked for. A task that starts or wakes fixes
both windows.

Missing a round is to be expected and not sealed, or to be sealed and reveal nothing that is an encoding. A row of
missed rounds ends with one that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from potd.ledger import chains, rewards
from potd.ledger.entries import Member, Miner, Phase, Task, Window
from potd.ledger.reasons import receipt
from potd.ledger.working import Working
from potd.wire.blocks import Receipt, record_digest
from potd.wire.codec import Malformed, decode
from potd.wire.envelope import Signed
from potd.wire.ids import NO_BLOB, NOTHING, AccountId, Digest, TaskId, digest, short
from potd.wire.rounds import (
    Commitment,
    Contribution,
    Evaluation,
    Measured,
    Outcome,
    Report,
    Seal,
    Step,
    Update,
    positions,
)
from potd.wire.tasks import TaskSpec, payload_bytes

DEADLINE_FACTOR = 2  # a deadline is so many times the slowest arrival,
DEADLINE_SLACK_TICKS = 4  # and a little more, so that quick rounds do not fail by the network's noise


def cost_micro(spec: TaskSpec, units: int) -> int:
    """What a round of so many units costs if everything counts."""
    return units * spec.unit_batch * spec.pay_micro


def units_in(window: Window, miner: AccountId, otherwise: int) -> int:
    """The units of a miner's place in a window, or `otherwise` if it has none there."""
    return next((one.units for one in window.members if one.miner == miner), otherwise)


def lower_median(values: Iterable[int]) -> int:
    """The middle one, of an even number the lower: at most half can lie without it staying among the honest."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def sealed_commitments(task: Task) -> tuple[Commitment, ...]:
    """By miner; empty unless the task is revealing."""
    return tuple(decode(one.payload, Commitment) for one in task.sealed)


# Seals


def seal(work: Working, record: Seal) -> list[Receipt]:
    """The seal's receipt, and one for each commitment that was dropped from it."""
    name = record_digest(record)
    task = work.task(record.task)
    if task is None:
        return [receipt(name, f"there is no task {short(record.task)}")]
    if task.phase != Phase.TRAINING or task.round != record.round:
        return [receipt(name, f"a seal of round {record.round}, the task is {_where(task)}")]
    spec = work.spec(task.id)
    accepted, dropped = _accepted(task, spec, record.commitments)
    task = _absent(work, task, {one.miner for one, _ in accepted})
    if len(accepted) < spec.miners_min:
        task = replace(task, deadline_ticks=min(task.deadline_ticks * 2, spec.deadline_ticks_max))
        _lapse(work, task, spec, digest("seed", task.seed))  # of nothing that whoever made the seal could choose
    else:
        deadline = _deadline(work, spec, record)
        sealed = tuple(signed for _, signed in accepted)
        trying = {one.account for one in task.miners if one.probation}
        probation = positions([one.miner in trying for one, _ in accepted]) if trying else b""
        work.put_task(
            replace(
                task,
                phase=Phase.REVEALING.value,
                seal=name,
                sealed=sealed,
                probation=probation,
                deadline_ticks=deadline,
            )
        )
    return [receipt(name), *dropped]


def _accepted(
    task: Task, spec: TaskSpec, commitments: Sequence[Signed]
) -> tuple[list[tuple[Commitment, Signed]], list[Receipt]]:
    """The commitments whose premises hold, and receipts for the others."""
    expected = {one.account: one for one in task.expected()}
    accepted: list[tuple[Commitment, Signed]] = []
    dropped: list[Receipt] = []
    newest = b""  # miners are in order, each once
    for signed in commitments:
        try:
            body = decode(signed.payload, Commitment)
        except Malformed:
            dropped.append(receipt(record_digest(signed), "not a commitment"))
            continue
        reason = _commitment_fault(task, spec, expected.get(body.miner), body, signed)
        if not reason and body.miner <= newest:
            reason = f"miner {short(body.miner)} twice or out of order"
        if reason:
            dropped.append(receipt(record_digest(signed), reason))
            continue
        newest = body.miner
        accepted.append((body, signed))
    return accepted, dropped


def _commitment_fault(task: Task, spec: TaskSpec, miner: Miner | None, body: Commitment, signed: Signed) -> str:
    """Why this commitment cannot count, or nothing."""
    if (body.task, body.round) != (task.id, task.round):
        return f"a commitment to round {body.round} of task {short(body.task)}"
    if miner is None:
        return f"miner {short(body.miner)} is not expected in round {task.round}"
    if signed.key != miner.key:
        return f"key {short(signed.key)} is not that of miner {short(body.miner)}"
    if body.model != task.model.root:
        return f"taken at model {short(body.model)}, not {short(task.model.root)}"
    if body.samples != miner.units * spec.unit_batch:
        return f"{body.samples} samples, assigned were {miner.units * spec.unit_batch}"
    if body.finite and body.payload.size != payload_bytes(spec):
        return f"a payload of {body.payload.size} bytes, not {payload_bytes(spec)}"
    if body.rig_class != spec.rig_class:
        return f"not of the task's rig class, {spec.rig_class}"
    return ""


def _deadline(work: Working, spec: TaskSpec, record: Seal) -> int:
    """Twice the arrival of the slowest as most validators saw it, within the task's bounds, in ticks.

    It is the lower median over the reports that name something of when the last of it came. Their signatures have been
    checked."""
    keys = {seat.key for seat in work.seats}
    arrivals: list[int] = []
    for report, held, ticks in zip(record.reports, record.held, record.ticks, strict=False):
        if report.key in keys and any(held):
            keys.discard(report.key)
            arrivals.append(ticks)
    slowest = lower_median(arrivals) if arrivals else 0
    ticks = DEADLINE_FACTOR * slowest + DEADLINE_SLACK_TICKS
    return max(spec.deadline_ticks_min, min(ticks, spec.deadline_ticks_max))


def _absent(work: Working, task: Task, present: set[AccountId]) -> Task:
    """One more missed round for whoever was expected and is not there."""
    absent = {one.account: one for one in task.expected() if one.account not in present}
    return _changed(task, {name: _missed(work, one) for name, one in absent.items()})


def _missed(work: Working, miner: Miner) -> Miner:
    missed = min(miner.missed + 1, 255)
    return replace(miner, missed=missed, suspended=missed >= work.parameters.misses_max)


# Updates


def update(work: Working, record: Update) -> Receipt:
    name = record_digest(record)
    task = work.task(record.task)
    if task is None:
        return receipt(name, f"there is no task {short(record.task)}")
    if task.phase != Phase.REVEALING or task.round != record.round:
        return receipt(name, f"an update of round {record.round}, the task is {_where(task)}")
    commitments = sealed_commitments(task)
    if [one.miner for one in record.contributions] != [one.miner for one in commitments]:
        return receipt(name, "an update that does not speak of what was sealed, each once and in order")
    spec = work.spec(task.id)
    reports = _reports(work, record.reports, task.id, task.round, Step.UPDATE)
    counted = [
        commitment
        for commitment, one in zip(commitments, record.contributions, strict=True)
        if one.outcome == Outcome.COUNTED
    ]
    task = _revealed(work, task, record.contributions)
    links = chains.named_links(work, task, reports)
    seed = digest("seed", task.seed, task.seal, *(account + link for account, link in sorted(links.items())))
    if len(counted) < spec.miners_min or NO_BLOB in (record.aggregate, record.model):
        _lapse(work, task, spec, seed)
        return receipt(name)
    norms = [one.norm for one in record.contributions if one.outcome == Outcome.COUNTED]
    task = replace(task, norm=task.norm or lower_median(norms))
    task = rewards.recorded(work, task, spec, commitments, record.contributions, links.keys())
    task = replace(
        task,
        model=record.model,
        momentum=record.momentum,
        aggregate=record.aggregate,
        counted_rounds=task.counted_rounds + 1,
        lapses=0,
        loss_micro=lower_median(one.loss_micro for one in counted),
    )
    _move_on(work, _advanced(task, spec, seed), spec)
    return receipt(name)


def _revealed(work: Working, task: Task, contributions: Sequence[Contribution]) -> Task:
    """What the outcomes say of the miners' presence."""
    changed: dict[AccountId, Miner] = {}
    for one in contributions:
        miner = task.miner(one.miner)
        if miner is None or miner.joined_round > task.round:
            continue  # it has left, and may have come back, since it was sealed
        if one.outcome in (Outcome.COUNTED, Outcome.PROBATION):
            changed[one.miner] = replace(miner, missed=0)
        elif one.outcome in (Outcome.WITHHELD, Outcome.MALFORMED) and not miner.suspended:
            changed[one.miner] = _missed(work, miner)
    return _changed(task, changed)


# Evaluations


def evaluate(work: Working, record: Evaluation) -> Receipt:
    """Keep the score of a newer model: the lower medians of what f + 1 reports or more have measured."""
    name = record_digest(record)
    task = work.task(record.task)
    if task is None:
        return receipt(name, f"there is no task {short(record.task)}")
    if record.round > task.round:
        return receipt(name, f"an evaluation of round {record.round}, the task is {_where(task)}")
    if task.measured and record.round <= task.measured[0].round:
        return receipt(name, f"an evaluation of round {record.round}, that of {task.measured[0].round} is known")
    said: list[Measured] = []
    for report in _reports(work, record.reports, task.id, record.round, Step.EVALUATION):
        said += [one for one in report.measured if one.round == record.round][:1]
    if len(said) < work.some_honest:
        return receipt(name, f"an evaluation by {len(said)} validators, {work.some_honest} are needed")
    measured = Measured(
        record.round,
        lower_median(one.correct for one in said),
        lower_median(one.samples for one in said),
        lower_median(one.loss_micro for one in said),
    )
    work.put_task(replace(task, measured=(measured,)))
    return receipt(name)


# What follows a round


def opened(task: Task, spec: TaskSpec, entropy: Digest) -> Task:
    """A task that starts or wakes: training, in windows fixed now. `entropy` was unknown when it was submitted."""
    seed = digest("seed", task.seed, entropy)
    task = replace(task, phase=Phase.TRAINING.value, lapses=0, seed=seed, deadline_ticks=spec.deadline_ticks_max)
    following = (task.round // spec.window_rounds + 1) * spec.window_rounds
    task = replace(task, window=_fixed(task, task.round), next_window=_fixed(task, following))
    return _in_force(task)


def _advanced(task: Task, spec: TaskSpec, seed: Digest) -> Task:
    """The next round, open."""
    task = replace(task, phase=Phase.TRAINING.value, round=task.round + 1, seed=seed)
    task = replace(task, seal=NOTHING, sealed=(), probation=b"")
    if task.round % spec.window_rounds:
        return task
    assert task.next_window.begins == task.round
    task = replace(task, window=task.next_window)
    task = replace(task, next_window=_fixed(task, task.round + spec.window_rounds))
    return _in_force(task)


def _lapse(work: Working, task: Task, spec: TaskSpec, seed: Digest) -> None:
    """Nobody is paid, and too many lapses in a row put the task to sleep."""
    task = _advanced(replace(task, lapses=min(task.lapses + 1, 255)), spec, seed)
    if task.lapses >= work.parameters.lapses_max:
        task = replace(task, phase=Phase.ASLEEP.value)
    _move_on(work, task, spec)


def _move_on(work: Working, task: Task, spec: TaskSpec) -> None:
    """What is due in the round that has opened; the task is done if there is none or it could not be paid in full."""
    rewards.moved_on(work, task)
    units = max(spec.miners_min, sum(one.units for one in task.active()))
    if task.round >= spec.rounds or task.escrow_micro < cost_micro(spec, units):
        task = rewards.rested(work, task)
    work.put_task(task)


def _fixed(task: Task, begins: int) -> Window:
    """The window that begins at this round, as the seed and the active miners of now determine it."""
    members = tuple(Member(one.account, one.units_next) for one in task.active())
    return Window(begins, digest("window", task.seed, begins.to_bytes(8, "big")), members)


def _in_force(task: Task) -> Task:
    """Units by the current window."""
    members = {one.miner: one.units for one in task.window.members}
    return replace(
        task,
        miners=tuple(replace(one, units=members.get(one.account, one.units_next)) for one in task.miners),
    )


def _changed(task: Task, miners: Mapping[AccountId, Miner]) -> Task:
    if not miners:
        return task
    return replace(task, miners=tuple(miners.get(one.account, one) for one in task.miners))


def _reports(work: Working, signed: Sequence[Signed], task: TaskId, number: int, step: Step) -> list[Report]:
    """What the validators report on this step of this round, one report each. Their signatures have been checked.

    The validators are those who decide this height, also where others sealed the round or reported on it."""
    keys = {seat.key for seat in work.seats}
    reports: list[Report] = []
    for one in signed:
        try:
            body = decode(one.payload, Report)
        except Malformed:
            continue
        if one.key in keys and (body.task, body.round, body.step) == (task, number, step):
            keys.discard(one.key)
            reports.append(body)
    return reports


def _where(task: Task) -> str:
    match Phase(task.phase):
        case Phase.WAITING:
            return "waiting for miners"
        case Phase.TRAINING:
            return f"training round {task.round}"
        case Phase.REVEALING:
            return f"revealing round {task.round}"
        case Phase.ASLEEP:
            return f"asleep before round {task.round}"
        case Phase.DONE:
            return "done"
