"""How fast a primary brings what is due, against those before it. Counts ticks, gives nobody up.

A primary that is slow on purpose, and never quite slow enough for a timer, could hold the replicas to a crawl for
ever. [Clement et al. 2009, 5.2 (Aardvark)] What is measured is the time from when the replica itself held what the
primary needs to when it was done, so a slow rig or a slow sum is not the primary's fault; and only while something is
due, so that an idle network makes nobody slow.
"""

from __future__ import annotations

from collections import deque

SAMPLES = 16  # the newest that count; so many must be there before anybody is judged
FACTOR = 4  # a primary may be so many times as slow as those before it
FIRST_SHARE = 8  # who has no predecessors, or quick ones, may take this part of the patience


class Pace:
    """Medians throughout: one pause of the machine, or a liar among the predecessors, moves nothing."""

    def __init__(self, base_ticks: int, members: int) -> None:
        self._least = max(2, base_ticks // FIRST_SHARE)
        self._before: deque[int] = deque(maxlen=members)  # of each view that was measured, the newest last
        self._taken: deque[int] = deque(maxlen=SAMPLES)  # ticks, in this view
        self._busy = 0  # ticks with something due, since something last came
        self._came = False  # whether something has come since the last tick

    def tick(self, due: bool) -> None:
        self._came = False
        if due:
            self._busy += 1

    def came(self) -> None:
        """Something that was due has come. What comes within one tick was brought together."""
        if not self._came:
            self._came = True
            self._taken.append(self._busy)
        self._busy = 0

    def allowed(self) -> int:
        """How many ticks a primary may take at the median."""
        return max(self._least, FACTOR * (_lower_median(self._before) + 1)) if self._before else self._least

    def slow(self) -> str:
        """Why this primary is too slow, or nothing."""
        if len(self._taken) < SAMPLES:
            return ""
        median = _lower_median(self._taken)
        if median <= self.allowed():
            return ""
        return f"{median} ticks at the median for what is due, where {self.allowed()} are allowed"

    def entered(self) -> None:
        """Another primary leads; the one before is what it is measured by, if it led for long enough."""
        if len(self._taken) == SAMPLES:
            self._before.append(_lower_median(self._taken))
        self._taken.clear()
        self._busy = 0


def _lower_median(values: deque[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]
