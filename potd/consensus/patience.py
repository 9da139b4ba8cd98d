"""How long a primary may take: what it owes, since when, and when it is given up. Counts ticks, decides nothing else.

As in the paper one thing is timed at a time, the oldest that is due; what comes behind it waits its turn, so that
a long queue is no reason to give up a primary that works it off. [4.4, 4.5.2]
"""

from __future__ import annotations

from potd.consensus.pace import Pace

SLOT = "slot "
DOUBLINGS_MAX = 8  # patience grows no further; 2^8 times the genesis value is hours of nothing


class Patience:
    """Doubled with each view that ends too soon.

    Each height takes one doubling back, not all of them: where the network is slower than the genesis patience
    allows, views that bring one height each would follow each other for ever.
    """

    def __init__(self, base_ticks: int, members: int) -> None:
        self._base = base_ticks
        self._pace = Pace(base_ticks, members)
        self._due: dict[str, None] = {}  # oldest first
        self._waited = 0  # ticks for the oldest
        self._leaving: int | None = None  # ticks since a quorum left for our next view; None before
        self._failures = 0  # views that ended too soon, less one for each height executed since; DOUBLINGS_MAX at most

    def ticks(self) -> int:
        return self._base << self._failures

    def owe(self, key: str) -> None:
        """The primary owes this from now on, or since before."""
        self._due.setdefault(key)

    def settle(self, key: str) -> None:
        if key not in self._due:
            return
        if not key.startswith(SLOT):  # a slot is the primary's own; what it was to bring is what counts
            self._pace.came()
        if next(iter(self._due)) == key:
            self._waited = 0
        del self._due[key]

    def settle_slots(self, height: int) -> None:
        """Nothing up to this height is due any more."""
        for key in [key for key in self._due if key.startswith(SLOT) and int(key[len(SLOT) :]) <= height]:
            self.settle(key)

    def late(self) -> str:
        """A tick within a view. Why its primary is given up, if it is."""
        self._pace.tick(any(not key.startswith(SLOT) for key in self._due))
        if self._due:
            self._waited += 1
            if self._waited >= self.ticks():
                return f"{self.ticks()} ticks without {next(iter(self._due))}"
        return self._pace.slow()

    def begin_leaving(self) -> None:
        """A quorum has left for our next view: now its primary is timed. [4.5.2]"""
        if self._leaving is None:
            self._leaving = 0

    def late_view(self) -> bool:
        """A tick between views. Whether the next one has taken too long."""
        if self._leaving is None:
            return False
        self._leaving += 1
        return self._leaving >= self.ticks()

    def left(self) -> None:
        """Another view is aimed at; nobody is timed until a quorum has left for it."""
        self._leaving = None

    def failed(self) -> None:
        """A view ended without having brought what was due."""
        self._failures = min(self._failures + 1, DOUBLINGS_MAX)

    def progressed(self, heights: int) -> None:
        self._failures = max(0, self._failures - heights)

    def entered(self) -> None:
        """A view has begun: its primary owes what the one before did, from now on, but for slots, which are given out
        afresh."""
        self._leaving = None
        self._waited = 0
        self._due = dict.fromkeys(key for key in self._due if not key.startswith(SLOT))
        self._pace.entered()


def slot_key(seq: int) -> str:
    return f"{SLOT}{seq}"
