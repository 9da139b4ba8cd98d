"""What a chain says has happened, round by round: worked out again from its blocks, by the same ledger and plan.

Needs only genesis and certified blocks, and believes neither: every certificate is checked, every header is recomputed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from potd.consensus.quorum import blocks_fault, certified_runs
from potd.ledger.apply import execute
from potd.ledger.entries import Task
from potd.ledger.state import Ledger, genesis_ledger, supply
from potd.node.eras import group_of, horizon
from potd.node.tasks import view_of
from potd.rounds.plan import assign, in_whole
from potd.wire.blocks import Block
from potd.wire.codec import decode
from potd.wire.genesis import Genesis
from potd.wire.ids import AccountId, TaskId
from potd.wire.rounds import Commitment, Outcome, Update
from potd.wire.tasks import TaskSpec


@dataclass(frozen=True)
class Contribution:
    """One sealed commitment of a round: what became of it, and the samples it stands for as indices into the whole
    training set."""

    miner: AccountId
    outcome: Outcome
    units: int
    loss_micro: int
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """A committed update. `counted` says whether the model moved; if not, the round lapsed."""

    number: int
    height: int
    counted: bool
    contributions: tuple[Contribution, ...]

    def loss(self) -> float | None:
        """Mean over the samples that counted, in nats, as their miners said; None if none counted."""
        parts = [one for one in self.contributions if one.outcome == Outcome.COUNTED]
        units = sum(one.units for one in parts)
        return sum(one.units * one.loss_micro for one in parts) / units / 1e6 if units else None


@dataclass(frozen=True)
class History:
    rounds: tuple[Round, ...]
    ledger: Ledger  # after the last block
    supply_conserved: bool  # to the unit, at every height


def replay(genesis: Genesis, blocks: Iterable[Block], task: TaskId, sizes: Sequence[int]) -> History:
    """The history of one task whose training shards have these sizes. It takes all blocks from height 1 on, so whoever
    has joined by a snapshot cannot tell it.

    Raises ValueError, naming the height, for a block that does not follow from genesis."""
    ledger = genesis_ledger(genesis)
    opening = supply(ledger)
    conserved = True
    rounds: list[Round] = []
    for run in certified_runs(blocks):
        _check(run, ledger)
        for block in run:
            header = block.header
            before = ledger.task(task)
            executed = execute(ledger, block.batch)
            if executed.header != header:
                raise ValueError(f"height {header.height}: its header does not follow from the blocks before it")
            ledger = executed.ledger
            conserved = conserved and supply(ledger) == opening
            after, spec = ledger.task(task), ledger.spec(task)
            if before is None or after is None or spec is None:
                continue
            for record in block.batch.records:
                if isinstance(record, Update) and record.task == task and record.round == before.round:
                    counted = after.counted_rounds > before.counted_rounds
                    parts = _contributions(before, spec, record, sizes)
                    rounds.append(Round(record.round, header.height, counted, parts))
    return History(tuple(rounds), ledger, conserved)


def _check(run: Sequence[Block], ledger: Ledger) -> None:
    """Whether those vouch for these blocks who decide what comes after the ledger's height, as it says itself.

    Raises ValueError. The last height of an era is always certified, so that no run goes beyond it."""
    first = ledger.height + 1
    fault = blocks_fault(run, group_of(ledger.network, ledger.seats()))
    if [block.header.height for block in run] != list(range(first, first + len(run))):
        fault = "a height is missing"
    elif run[-1].header.height > horizon(ledger):
        fault = "other validators began before the last height of those before them was certified"
    if fault:
        raise ValueError(f"height {first}: {fault}")


def _contributions(task: Task, spec: TaskSpec, update: Update, sizes: Sequence[int]) -> tuple[Contribution, ...]:
    view = view_of(task, spec)
    sealed = {body.miner: body for body in (decode(one.payload, Commitment) for one in task.sealed)}
    parts: list[Contribution] = []
    for one in update.contributions:
        body = sealed[one.miner]
        units = body.samples // spec.unit_batch
        given = assign(view.window, sizes, view.seed, one.miner, units, spec.unit_batch)
        parts.append(Contribution(one.miner, Outcome(one.outcome), units, body.loss_micro, in_whole(given, sizes)))
    return tuple(parts)
