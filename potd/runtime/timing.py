"""Where the time of a round goes on this node: stamps on what the machine tells. Decides nothing.

    train       the round opens → our own gradient is encoded
    commit      → every commitment is heard, or the deadline has passed, and our report is signed
    seal        → the seal is executed
    reveal      → every payload is held, or patience has ended, and our report is signed
    aggregate   → our own aggregate and the model that follows are worked out
    agree       → the update is executed: the next round opens

A validator works out the next model when it aggregates; on a node that only mines, `apply` stands for what follows
the update until the model is held, and falls into the next round's `train`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

from potd.node.events import Tell
from potd.runtime.pump import News
from potd.wire.ids import TaskId

STEPS = ("train", "commit", "seal", "reveal", "aggregate", "agree")
ROUNDS_MAX = 256  # of which a median is told


class Timing:
    """Listens to a pump. A step that did not happen here, or came out of order, counts for nothing in its round."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[TaskId, float] = {}
        self._ends: dict[TaskId, dict[str, float]] = {}
        self._taken: dict[str, deque[float]] = {step: deque(maxlen=ROUNDS_MAX) for step in STEPS}
        self._rounds: deque[float] = deque(maxlen=ROUNDS_MAX)

    def listen(self, event: News) -> None:
        if not isinstance(event, Tell):
            return
        values = dict(event.values)
        match event.kind:
            case "moved" if values["phase"] == "train":
                self._close(event.task)
                self._since[event.task] = self._clock()
            case "moved" if values["phase"] == "reveal":
                self._end(event.task, "seal")
            case "moved":  # done, or asleep
                self._close(event.task)
            case "trained":
                self._end(event.task, "train")
            case "reported" if values["step"] == "seal":
                self._end(event.task, "commit")
            case "reported" if values["step"] == "update":
                self._end(event.task, "reveal")
            case "aggregated":
                self._end(event.task, "aggregate")
            case _:
                pass

    def _end(self, task: TaskId, step: str) -> None:
        if task in self._since:
            self._ends.setdefault(task, {})[step] = self._clock()

    def _close(self, task: TaskId) -> None:
        """The update, or the lapse, is executed."""
        here, ends = self._since.pop(task, None), self._ends.pop(task, {})
        if here is None or "seal" not in ends:
            return
        now = self._clock()
        self._rounds.append(now - here)
        for step, end in [*((step, ends[step]) for step in STEPS if step in ends), ("agree", now)]:
            if end >= here:
                self._taken[step].append(end - here)
                here = end

    def told(self) -> dict[str, float]:
        """Median milliseconds by step over the last rounds, and of the whole round."""
        found = {step: round(1000 * median(taken), 1) for step, taken in self._taken.items() if taken}
        return {**found, "round": round(1000 * median(self._rounds), 1)} if self._rounds else found
