"""Counting what peers sent in vain: by reason for people, by peer for the decision to hang up."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from potd.wire.ids import Key

REASONS_MAX = 256  # different ones; a peer may choose its mistakes
OTHER = "other reasons"
PEERS_MAX = 4096
ALLOWED = 100  # refusals of one peer at once
FORGIVEN_PER_S = 1


class Refusals:
    """Totals by reason, and a leaky bucket for each peer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.by_reason: Counter[str] = Counter()  # of what was false
        self.untimely: Counter[str] = Counter()  # of what came early or late, or by gossip: held against nobody
        self._clock = clock
        self._buckets: OrderedDict[Key, tuple[float, float]] = OrderedDict()  # how full, and when that was

    def note(self, reason: str) -> None:
        """Count one input that changed nothing and is held against nobody."""
        _add(self.untimely, reason)

    def count(self, peer: Key, reason: str) -> bool:
        """Count one refusal. Returns whether the peer has used up its allowance, and gives it a new one if so."""
        _add(self.by_reason, reason)
        now = self._clock()
        level, since = self._buckets.pop(peer, (0.0, now))
        level = max(0.0, level - FORGIVEN_PER_S * (now - since)) + 1
        if level > ALLOWED:
            return True
        self._buckets[peer] = level, now
        if len(self._buckets) > PEERS_MAX:
            self._buckets.popitem(last=False)
        return False


def _add(counts: Counter[str], reason: str) -> None:
    counts[reason if reason in counts or len(counts) < REASONS_MAX else OTHER] += 1
