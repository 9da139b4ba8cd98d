"""A validator's own sums of a round: begun as soon as they can be, kept for the proposal. Compares nothing."""

from __future__ import annotations

from potd.rounds.events import Effect, Run, Told, View
from potd.rounds.keeper import Desk, Keeper
from potd.wire.jobs import Aggregate, Aggregated, Answer, Failed, Payload
from potd.wire.rounds import Commitment, payload_binding

RETRY_TICKS = 20  # after a failed job


class Aggregation:
    """The aggregates of one round of one task, by the positions that they add up of what was sealed."""

    def __init__(self, desk: Desk, keeper: Keeper) -> None:
        self._desk = desk
        self._keeper = keeper
        self._done: dict[bytes, Aggregated] = {}
        self._running: tuple[int, bytes] | None = None  # the job, and what it adds up
        self._pause = 0  # ticks until a failed job is tried again

    def begin_round(self) -> None:
        self._done.clear()
        self._running = None
        self._pause = 0

    def get(self, chosen: bytes) -> Aggregated | None:
        return self._done.get(chosen)

    def want(self, view: View, chosen: bytes, counted: tuple[Commitment, ...]) -> list[Effect]:
        """Add these up, unless it is done, cannot be done yet, or another sum is under way."""
        if chosen in self._done or self._running is not None or self._pause:
            return []
        if not self._keeper.ready() or not all(self._desk.holds(one.payload) for one in counted):
            return []
        parts = tuple(
            Payload(
                one.payload,
                one.samples // view.spec.unit_batch,
                payload_binding(one.task, one.round, one.miner, one.model),
            )
            for one in counted
        )
        job = self._desk.job()
        self._running = (job, chosen)
        return [Run("arithmetic", Aggregate(job, view.spec, view.round, view.model, view.momentum, parts))]

    def on_answer(self, answer: Answer) -> list[Effect]:
        if self._running is None or answer.job != self._running[0]:
            return []
        _, chosen = self._running
        self._running = None
        match answer:
            case Aggregated():
                self._done[chosen] = answer
                return [Told("aggregated", (("ms", answer.milliseconds),))]
            case Failed(_, reason):
                self._pause = RETRY_TICKS
                return [Told("aggregation failed", (("reason", reason),))]
            case _:
                return []

    def on_tick(self) -> None:
        self._pause = max(0, self._pause - 1)
