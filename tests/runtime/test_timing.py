from __future__ import annotations

from potd.node.events import Tell
from potd.runtime.timing import Timing

TASK = bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tell(timing: Timing, clock: Clock, at: float, kind: str, **values: int | str) -> None:
    clock.now = at
    timing.listen(Tell(kind, TASK, tuple(values.items())))


def test_a_round_is_split_at_what_the_machine_tells() -> None:
    clock = Clock()
    timing = Timing(clock)
    tell(timing, clock, 1.00, "moved", phase="train", round=3)
    tell(timing, clock, 1.05, "trained", round=3)
    tell(timing, clock, 1.10, "reported", step="seal", round=3)
    tell(timing, clock, 1.20, "moved", phase="reveal", round=3)
    tell(timing, clock, 1.25, "reported", step="update", round=3)
    tell(timing, clock, 1.28, "aggregated", ms=20)
    tell(timing, clock, 1.40, "moved", phase="train", round=4)
    assert timing.told() == {
        "train": 50.0,
        "commit": 50.0,
        "seal": 100.0,
        "reveal": 50.0,
        "aggregate": 30.0,
        "agree": 120.0,
        "round": 400.0,
    }


def test_a_round_that_was_joined_midway_counts_for_nothing() -> None:
    clock = Clock()
    timing = Timing(clock)
    tell(timing, clock, 1.0, "aggregated", ms=20)
    tell(timing, clock, 1.5, "moved", phase="train", round=4)
    assert timing.told() == {}
