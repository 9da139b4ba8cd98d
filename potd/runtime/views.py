"""The node's state as plain values, for people and their scripts. Reads, and decides nothing.

Amounts are integer micro-units, names are hexadecimal; losses are nats and accuracies fractions, as floats, since
nobody votes on what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from potd.ledger.entries import Phase, Task
from potd.node.node import Node, silence_text
from potd.wire.consensus import quorum_of
from potd.wire.ids import AccountId, Key, short
from potd.wire.jobs import Aggregate, Apply, Evaluate, Job, Replay, Train


def task_view(node: Node, task: Task) -> dict[str, Any]:
    """One task as the ledger has it."""
    spec = node.ledger.spec(task.id)
    assert spec is not None, "a task without its spec"
    told: dict[str, Any] = {
        "task": task.id.hex(),
        "name": spec.name,
        "phase": Phase(task.phase).name.lower(),
        "round": task.round,
        "rounds": spec.rounds,
        "counted_rounds": task.counted_rounds,
        "lapses": task.lapses,
        "miners": sum(1 for _ in task.active()),
        "units": sum(one.units for one in task.active()),
        "miners_min": spec.miners_min,
        "escrow_micro": task.escrow_micro,
        "deadline_ticks": task.deadline_ticks,
        "model": task.model.root.hex(),
        "owner": task.owner.hex(),
        "opened_height": task.opened_height,
        "loss": task.loss_micro / 1e6 if task.counted_rounds else None,
        "accuracy": None,
    }
    if task.measured:
        newest = task.measured[0]
        told["accuracy"] = newest.correct / newest.samples if newest.samples else None
        told["held_out_loss"] = newest.loss_micro / 1e6
        told["measured_round"] = newest.round
    seat = task.miner(node.account)
    if seat is not None:
        bond = node.ledger.bond(task.id, node.account)
        told["mine"] = {
            "units": seat.units,
            "units_next": seat.units_next,
            "missed": seat.missed,
            "suspended": seat.suspended,
            "earned_micro": seat.earned_micro,
            "probation": seat.probation,
            "bond_micro": bond.amount_micro if bond is not None else 0,
        }
    return told


def tasks_view(node: Node) -> list[dict[str, Any]]:
    return [task_view(node, task) for task in node.ledger.tasks()]


def task_detail(node: Node, task: Task) -> dict[str, Any]:
    """One task and everybody who mines for it."""
    return {
        **task_view(node, task),
        "enrolled": [
            {
                "account": one.account.hex(),
                "units": one.units,
                "missed": one.missed,
                "suspended": one.suspended,
                "earned_micro": one.earned_micro,
            }
            for one in task.miners
        ],
    }


def balance_view(node: Node, account: AccountId) -> dict[str, Any]:
    """What an account has and has earned; one that nobody has paid has nothing."""
    held = node.ledger.account(account)
    return {
        "account": account.hex(),
        "balance_micro": held.balance_micro if held is not None else 0,
        "nonce": held.nonce if held is not None else 0,
        "earned_micro": earned_micro(node, account),
        "bonds_micro": bonds_micro(node, account),
        "known": held is not None,
    }


def validators_view(node: Node) -> dict[str, Any]:
    """Who has a seat, who stands for one, and what is about to change."""
    ledger = node.ledger
    council, seats, change = ledger.council(), ledger.validators(), ledger.change()
    opposed = {one.account: one.opposers for one in council.opposed}
    rotating = {one.account: one.key for one in council.rotations}
    told: dict[str, Any] = {
        "height": node.height,
        "quorum": quorum_of(len(seats)),
        "seat_bond_micro": node.parameters.seat_bond_micro,
        "validators": [
            {
                "account": seat.account.hex(),
                "key": seat.key.hex(),
                "bond_micro": seat.bond_micro,
                "since_height": seat.since_height,
                "resigning": seat.account in council.resigning,
                "guilty": seat.account in council.condemned,
                "key_next": rotating[seat.account].hex() if seat.account in rotating else None,
                "opposers": [name.hex() for name in opposed.get(seat.account, ())],
                "mine": seat.account == node.account,
            }
            for seat in seats
        ],
        "candidates": [
            {
                "account": one.account.hex(),
                "key": one.key.hex(),
                "bond_micro": one.bond_micro,
                "since_height": one.since_height,
                "backers": [name.hex() for name in one.backers],
                "mine": one.account == node.account,
            }
            for one in council.candidates
        ],
        "change": None,
    }
    if change is not None:
        told["change"] = {
            "height": change.height,
            "validators": [{"account": seat.account.hex(), "key": seat.key.hex()} for seat in change.seats],
        }
    unbonding = ledger.unbonding(node.account)
    if unbonding is not None:
        told["unbonding"] = {"amount_micro": unbonding.amount_micro, "due_height": unbonding.due_height}
    return told


def earned_micro(node: Node, account: AccountId) -> int:
    """By mining, in the tasks that it is enrolled for."""
    seats = (task.miner(account) for task in node.ledger.tasks())
    return sum(seat.earned_micro for seat in seats if seat is not None)


def bonds_micro(node: Node, account: AccountId) -> int:
    """What it has locked for enrolments, those that it has left included."""
    bonds = (node.ledger.bond(task, account) for task in node.ledger.task_ids())
    return sum(bond.amount_micro for bond in bonds if bond is not None)


def node_view(node: Node, running: Iterable[Job]) -> dict[str, Any]:
    """What the node itself has to say. `running` are the jobs that workers are on."""
    replica = node.replica
    told: dict[str, Any] = {
        "network": node.network.hex(),
        "account": node.account.hex(),
        "key": node.signer.key.hex(),
        "height": node.height,
        "certified": node.certified,
        "history_begins": node.begins,
        "doing": doing(node, running),
        "tasks": tasks_view(node),
        "supply_micro": node.ledger.globals().supply_micro,
        "validators": [key.hex() for key in node.group.keys],
    }
    successor = node.successor()
    if successor is not None:
        told["successor"] = successor.hex()
    if node.settings.validator:
        told["seat"] = node.seat()
    if replica is not None:
        told["view"] = replica.view
        told["primary"] = replica.primary.hex() if replica.active else ""
        told["stable"] = replica.stable
        told["consensus"] = replica.describe()
        if replica.silent_until:
            told["silent_until"] = replica.silent_until
    if node.trouble:
        told["trouble"] = node.trouble
    return {**told, **balance_view(node, node.account)}


def doing(node: Node, running: Iterable[Job]) -> str:
    """What the node is at, in a few words."""
    if node.replica is not None and node.replica.silent_until:
        return silence_text(node.replica.silent_until)
    successor = node.successor()
    if successor is not None and (node.settings.validator or node.settings.miner):
        return successor_text(successor)
    said = [_job_text(job) for job in running]
    if said:
        return ", ".join(said)
    validators, needed = len(node.group.keys), node.group.quorum
    if node.replica is not None and node.connected() + 1 < needed:
        return f"waiting for validators: {node.connected() + 1} of {validators} are here, {needed} are needed"
    if node.replica is None and not node.connected():
        return "connected to no validator"
    if node.trouble:
        return f"cannot enrol: {node.trouble}"
    if node.replica is not None and not node.replica.active:
        return f"changing to view {node.replica.view}"
    if node.replica is not None and node.replica.silent:
        return "asking the other validators what it said last"
    open_tasks = [task for task in node.ledger.tasks() if task.phase != Phase.DONE]
    if not open_tasks:
        return "idle: no task is open"
    return ", ".join(_waiting_text(node, task) for task in open_tasks)


def successor_text(key: Key) -> str:
    """What a node says that has been left with a key that speaks for nobody."""
    return f"key {short(key)} has taken over from this node's: put it into node.key.next, and restart"


def _job_text(job: Job) -> str:
    match job:
        case Train():
            return f"training round {job.round} of {job.spec.name}"
        case Aggregate():
            return f"aggregating round {job.round} of {job.spec.name}"
        case Apply():
            return f"applying round {job.round} of {job.spec.name}"
        case Evaluate():
            return f"evaluating {job.spec.name}"
        case Replay():
            return f"auditing round {job.round} of {job.spec.name}"


def _waiting_text(node: Node, task: Task) -> str:
    spec = node.ledger.spec(task.id)
    name = spec.name if spec is not None else task.id.hex()[:8]
    match Phase(task.phase):
        case Phase.WAITING:
            missing = spec.miners_min if spec is not None else 1
            return f"{name} waits for miners: {len(task.miners)} of {missing}"
        case Phase.TRAINING:
            return f"waiting for commitments of round {task.round} of {name}"
        case Phase.REVEALING:
            return f"waiting for payloads of round {task.round} of {name}"
        case Phase.ASLEEP:
            return f"{name} is asleep until somebody enrols"
        case Phase.DONE:
            return f"{name} is done"
