"""Opening tasks and enrolling for them. What rounds make of a task is `training`.

A task starts, and wakes, with the enrolment that gives it `miners_min` active miners. An enrolment is refused that
could make a round cost more than the escrow holds, or its exact sums overflow; so neither can ever happen.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from potd.ledger import bonds, training
from potd.ledger.entries import (
    INDEX,
    TASKS_MAX,
    Account,
    Miner,
    Phase,
    Task,
    TaskIndex,
    Window,
    spec_key,
    task_key,
)
from potd.ledger.working import Working
from potd.wire.blocks import miners_max
from potd.wire.codec import encode
from potd.wire.envelope import Signed
from potd.wire.ids import NO_BLOB, NOTHING, digest, short, task_id
from potd.wire.operations import Enrol, Leave, Submit
from potd.wire.rounds import MINERS_MAX
from potd.wire.rules import rule_problems, weight_max
from potd.wire.tasks import BATCH_SAMPLES_MAX, TaskSpec

# What this protocol number can train. A validator must know every one of them to vote.
ARCHITECTURES = ("mlp", "cnn")
LOSSES = ("cross_entropy",)
OPTIMISERS = ("sgd", "nesterov")
ENCODINGS = ("int8",)
RIG_CLASSES = ("float32",)
TOLERANCE_MIN_NANO = 100  # with less an owner could have miners slashed whose rigs are as good as any

_CODE_MAX = 127  # of an int8 code

# Characters that move the cursor or the text around them. Listed here, for what "printable" means depends on the
# Unicode tables of whoever runs this, and a receipt must not.
_CONTROLS = frozenset(
    (*range(0x20), *range(0x7F, 0xA0), *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF)
)


def units_max(spec: TaskSpec) -> int:
    """The most units whose exact sums provably fit 64-bit integers, over all miners of a round."""
    span = spec.encoding.exponent_max - spec.encoding.exponent_min
    return (2**63 - 1) // ((_CODE_MAX * weight_max(spec.rule)) << span)


def escrow_min_micro(spec: TaskSpec) -> int:
    """What one round of `miners_min` units costs."""
    return spec.pay_micro * spec.unit_batch * spec.miners_min


def spec_problems(spec: TaskSpec) -> tuple[str, ...]:
    """Everything that is wrong with a task as far as its spec alone can tell."""
    problems = []
    for what, name, known in (
        ("model", spec.model.architecture, ARCHITECTURES),
        ("loss", spec.loss, LOSSES),
        ("optimiser", spec.optimiser.kind, OPTIMISERS),
        ("encoding", spec.encoding.kind, ENCODINGS),
        ("rig class", spec.rig_class, RIG_CLASSES),
    ):
        if name not in known:
            problems.append(f"unknown {what}, known: {', '.join(known)}")
    unsound = rule_problems(spec.rule)
    problems += unsound
    if any(ord(one) in _CONTROLS for one in spec.name):
        problems.append("a name that cannot be printed")
    if spec.weights.root == NOTHING or spec.weights.size != 4 * spec.model.parameters:
        problems.append(f"weights of {spec.weights.size} bytes for {spec.model.parameters} float32 parameters")
    if spec.manifest.root == NOTHING or spec.manifest.size == 0:
        problems.append("no manifest")
    if spec.encoding.exponent_min > spec.encoding.exponent_max:
        problems.append(f"exponents from {spec.encoding.exponent_min} down to {spec.encoding.exponent_max}")
    elif not unsound and units_max(spec) < spec.miners_min:
        problems.append(f"sums of {spec.miners_min} units could overflow, at most {units_max(spec)} units fit")
    if 0 < spec.tolerance_nano < TOLERANCE_MIN_NANO:
        problems.append(f"a tolerance of {spec.tolerance_nano}, at least {TOLERANCE_MIN_NANO} or 0 for no audits")
    if spec.deadline_ticks_min > spec.deadline_ticks_max:
        problems.append(f"a deadline of at least {spec.deadline_ticks_min} and at most {spec.deadline_ticks_max} ticks")
    if spec.miners_min > MINERS_MAX:
        problems.append(f"at least {spec.miners_min} miners, of at most {MINERS_MAX}")
    return tuple(problems)


def submit(work: Working, operation: Submit, account: Account, signed: Signed) -> str:
    spec = operation.spec
    problems = spec_problems(spec)
    if problems:
        return "; ".join(problems)
    if operation.escrow_micro < escrow_min_micro(spec):
        return f"an escrow of {operation.escrow_micro} micro-units, a round costs at least {escrow_min_micro(spec)}"
    if account.balance_micro < operation.escrow_micro:
        return f"an escrow of {operation.escrow_micro} micro-units, and a balance of {account.balance_micro}"
    ids = work.task_ids()
    if len(ids) >= TASKS_MAX:
        finished = _oldest_finished(work)
        if finished is None:
            return f"there are {TASKS_MAX} tasks, none of them finished and settled"
        work.delete(task_key(finished))
        work.delete(spec_key(finished))
        ids = tuple(one for one in ids if one != finished)
    name = task_id(encode(signed))
    work.debit(operation.account, operation.escrow_micro)
    work.put(INDEX, TaskIndex((*ids, name), work.settling()))
    work.put(spec_key(name), spec)
    nobody = Window(0, NOTHING, ())
    work.put_task(
        Task(
            id=name,
            owner=operation.account,
            spec=digest("spec", encode(spec)),
            opened_height=work.height,
            phase=Phase.WAITING.value,
            round=0,
            counted_rounds=0,
            lapses=0,
            model=spec.weights,
            momentum=NO_BLOB,
            aggregate=NO_BLOB,
            seed=digest("seed", name),
            escrow_micro=operation.escrow_micro,
            deadline_ticks=spec.deadline_ticks_max,
            miners=(),
            window=nobody,
            next_window=nobody,
            seal=NOTHING,
            sealed=(),
            probation=b"",
            measured=(),
            loss_micro=0,
            norm=0,
            rested_height=0,
        )
    )
    return ""


def enrol(work: Working, operation: Enrol, account: Account) -> str:
    task = work.task(operation.task)
    if task is None:
        return f"there is no task {short(operation.task)}"
    if task.phase == Phase.DONE:
        return f"task {short(task.id)} is done"
    known = task.miner(operation.account)
    idle = known is None or known.suspended
    same = known is not None and (known.units_next, known.key) == (operation.units, account.node_key)
    tops_up = known is not None and known.probation and account.balance_micro > 0
    if same and not idle and not tops_up and task.phase != Phase.ASLEEP:
        return f"already enrolled with {operation.units} units"
    if operation.account in work.parting(task.id).slashed:
        return f"it was slashed in task {short(task.id)}: enrol for another one"
    spec = work.spec(task.id)
    reason = _too_much(task, spec, operation)
    if reason:
        return reason
    others = tuple(one for one in task.miners if one.account != operation.account)
    most = miners_max(len(work.seats))
    if len(others) >= most:
        dismissed = next((one for one in others if one.suspended), None)
        if dismissed is None:
            return f"there are {most} miners, none of them suspended"
        others = tuple(one for one in others if one is not dismissed)
        bonds.part(work, task, dismissed.account)
    enough = bonds.locked(work, task.id, spec, operation.account, operation.units)
    if known is not None and not idle:
        miner = replace(known, key=account.node_key, units_next=operation.units, probation=not enough)
    else:
        miner = Miner(
            account=operation.account,
            key=account.node_key,
            units=training.units_in(task.window, operation.account, operation.units),
            units_next=operation.units,
            missed=0,
            suspended=False,
            joined_round=task.round + 1 if task.phase in (Phase.TRAINING, Phase.REVEALING) else task.round,
            earned_micro=0 if known is None else known.earned_micro,
            probation=not enough,
        )
    at = bisect_left(others, miner.account, key=lambda one: one.account)
    task = replace(task, miners=(*others[:at], miner, *others[at:]))
    if task.phase in (Phase.WAITING, Phase.ASLEEP) and sum(1 for _ in task.active()) >= spec.miners_min:
        task = training.opened(task, spec, work.previous)
    work.put_task(task)
    return ""


def leave(work: Working, operation: Leave) -> str:
    """What it has in a sealed round still counts and is owed."""
    task = work.task(operation.task)
    if task is None:
        return f"there is no task {short(operation.task)}"
    if task.miner(operation.account) is None:
        return f"not enrolled for task {short(task.id)}"
    bonds.part(work, task, operation.account)
    work.put_task(replace(task, miners=tuple(one for one in task.miners if one.account != operation.account)))
    return ""


def make_room(work: Working, validators: int) -> None:
    """With more validators, seals carry more reports: a task that has more miners than now fit dismisses some, the
    suspended first, then those who came last."""
    most = miners_max(validators)
    for name in work.task_ids():
        task = work.task(name)
        assert task is not None, "a listed task that is not there"
        if task.phase == Phase.DONE or len(task.miners) <= most:
            continue
        by_claim = sorted(task.miners, key=lambda one: (one.suspended, one.joined_round, one.account))
        kept = {one.account for one in by_claim[:most]}
        for one in task.miners:
            if one.account not in kept:
                bonds.part(work, task, one.account)
        work.put_task(replace(task, miners=tuple(one for one in task.miners if one.account in kept)))


def _too_much(task: Task, spec: TaskSpec, operation: Enrol) -> str:
    """Why so many units are too many, or nothing. Counts for every miner the most that it may yet stand for."""
    if operation.units * spec.unit_batch > BATCH_SAMPLES_MAX:
        return f"{operation.units} units are more than {BATCH_SAMPLES_MAX} samples"
    claims = {operation.account: operation.units}
    for miner in task.active():
        claims[miner.account] = max(claims.get(miner.account, 0), miner.units, miner.units_next)
    for window in (task.window, task.next_window):
        for member in window.members:
            if member.miner in claims:
                claims[member.miner] = max(claims[member.miner], member.units)
    total = sum(claims.values())
    if total > units_max(spec):
        return f"sums of {total} units could overflow, at most {units_max(spec)} units fit"
    cost = training.cost_micro(spec, total)
    if cost > task.escrow_micro:
        return f"a round of {total} units costs {cost} micro-units, the escrow holds {task.escrow_micro}"
    return ""


def _oldest_finished(work: Working) -> bytes | None:
    """That owes nothing any more."""
    settling = set(work.settling())
    for one in work.task_ids():
        task = work.task(one)
        if task is not None and task.phase == Phase.DONE and one not in settling:
            return one
    return None
