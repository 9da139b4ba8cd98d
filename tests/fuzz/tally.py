"""What fuzzing has given, and what it has met with."""

from __future__ import annotations

import re
from collections import Counter


class Tally:
    """Counts by kind. A reason is counted without the numbers in it."""

    def __init__(self) -> None:
        self.inputs: Counter[str] = Counter()
        self.hostile = 0  # inputs that a liar chose, or a scheduler that means ill
        self.effects: Counter[str] = Counter()
        self.votes: Counter[str] = Counter()  # of correct replicas, by kind
        self.reasons: Counter[str] = Counter()  # of what was refused or passed over

    @property
    def total(self) -> int:
        return self.inputs.total()

    def reason(self, kind: str, text: str) -> None:
        self.reasons[f"{kind}: {re.sub(r'[0-9a-f]*[0-9][0-9a-f]*', 'N', text)}"] += 1


class Violation(Exception):
    """What no run may ever show; says the seed that shows it."""
