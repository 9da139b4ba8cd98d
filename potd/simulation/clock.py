"""Virtual time: what is to happen, in order. Milliseconds, from 0; nothing takes time but waiting."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Act = Callable[[], None]


class Clock:
    def __init__(self) -> None:
        self.now = 0
        self._queue: list[tuple[int, int, Act]] = []
        self._order = itertools.count()  # what is due at one moment happens in the order in which it was asked for

    def later(self, ms: int, act: Act) -> None:
        heapq.heappush(self._queue, (self.now + ms, next(self._order), act))

    def next(self) -> int | None:
        """When something happens next; None if nothing ever will."""
        return self._queue[0][0] if self._queue else None

    def step(self) -> None:
        """Move on to the next thing that is due, and do it."""
        self.now, _, act = heapq.heappop(self._queue)
        act()
