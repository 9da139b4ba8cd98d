"""The large profile at a size for tests: what it reports of a network is what has befallen it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from potd.simulation.clock import Clock
from potd.simulation.crowd import BYTES_PER_MS, SPONSORS, Crowd, Lines
from potd.simulation.thousand import Shape, run_thousand
from potd.wire.ids import digest

ONE, OTHER = digest("one"), digest("other")
SMALL = Shape(seed=1, hours=0.3, validators=4, miners=12, probe_seconds=20)


def test_a_small_crowd_has_its_probes_committed_and_its_rounds_counted() -> None:
    found = run_thousand(SMALL, lambda _: None)
    assert found["violation"] == ""
    assert found["bonds_lost"] == []
    assert (found["probes"], found["probes_late"], found["uptime_percent"]) == (54, 0, 100.0)
    assert found["rounds_counted"] >= 2
    assert found["hours"] == SMALL.hours
    again = run_thousand(SMALL, lambda _: None)
    assert found["trace"] == again["trace"]


def test_what_was_found_so_far_is_shown_every_hour() -> None:
    kept: list[dict[str, Any]] = []
    run_thousand(Shape(seed=1, hours=1.02, validators=4, miners=3), lambda _: None, kept.append)
    assert [one["hours"] for one in kept] == [0, 1]
    assert (kept[1]["violation"], kept[1]["probes_late"]) == ("", 0)


def test_what_is_fetched_waits_for_the_line_and_control_does_not() -> None:
    clock = Clock()
    lines = Lines((ONE, OTHER), clock, Random(0))
    second = 1_000 * BYTES_PER_MS
    assert 1_000 <= lines.fetch_ms(ONE, OTHER, second) < 1_500
    assert 2_000 <= lines.fetch_ms(ONE, OTHER, second) < 2_500
    arrived: list[int] = []
    lines.send(ONE, OTHER, 100, lambda: arrived.append(clock.now))
    clock.step()
    assert arrived[0] < 500


def test_validators_know_each_other_and_a_miner_a_few_of_them(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path, 7, 3, 0, patience_ticks=5, reveal_ticks=60, lapses_max=255)
    assert crowd.neighbours(crowd.keys[0]) == list(crowd.keys[1:7])
    for miner in crowd.keys[7:]:
        assert len(crowd.neighbours(miner)) == SPONSORS
        assert set(crowd.neighbours(miner)) < set(crowd.validators)
