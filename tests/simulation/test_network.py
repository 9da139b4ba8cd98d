"""Links: what arrives, when, how often, and what does not."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from potd.simulation.clock import Clock
from potd.simulation.network import PPM, Network, Weather

A, B, C = b"a", b"b", b"c"
STILL = Weather(delay_ms=(10, 10))


def arrivals(weather: Weather, count: int = 1, size: int = 100) -> tuple[Network, list[tuple[int, int]]]:
    """So many messages from A to B at once: when each arrived, and which."""
    clock = Clock()
    links = Network((A, B, C), clock, Random(1))
    links.weather = weather
    came: list[tuple[int, int]] = []
    for index in range(count):
        links.send(A, B, size, lambda index=index: came.append((clock.now, index)))  # type: ignore[misc]  # binds the loop's value
    while clock.next() is not None:
        clock.step()
    return links, came


def test_a_message_arrives_after_its_delay() -> None:
    assert arrivals(STILL)[1] == [(10, 0)]


def test_messages_wait_for_the_one_before_them_at_the_links_rate() -> None:
    assert arrivals(replace(STILL, bytes_per_ms=10), 3)[1] == [(20, 0), (30, 1), (40, 2)]


def test_a_full_outbox_drops_its_oldest_and_counts_it() -> None:
    links, came = arrivals(replace(STILL, bytes_per_ms=10, outbox_bytes=200), 5)
    assert [index for _, index in came] == [0, 3, 4], "the first is under way, the next two make room"
    assert links.dropped == 2


def test_messages_overtake_each_other() -> None:
    came = [index for _, index in arrivals(Weather(delay_ms=(1, 50)), 50)[1]]
    assert sorted(came) == list(range(50))
    assert came != sorted(came)


def test_weather_loses_and_doubles() -> None:
    links, came = arrivals(replace(STILL, loss_ppm=PPM), 5)
    assert (came, links.lost) == ([], 5)
    assert len(arrivals(replace(STILL, twice_ppm=PPM), 5)[1]) == 10


def test_a_cut_is_one_way_for_frames_and_gossip_finds_a_way_by_a_third() -> None:
    clock = Clock()
    links = Network((A, B, C), clock, Random(1))
    links.cut = {(A, B)}
    came: list[str] = []
    links.send(A, B, 1, lambda: came.append("frame there"))
    links.send(B, A, 1, lambda: came.append("frame back"))
    links.gossip(A, B, 1, lambda: came.append("gossip"))
    while clock.next() is not None:
        clock.step()
    assert sorted(came) == ["frame back", "gossip"]
    links.cut = {(A, B), (A, C)}
    links.gossip(A, B, 1, lambda: came.append("nobody passes it on"))
    assert clock.next() is None


def test_whoever_stands_astride_reaches_both_sides() -> None:
    links = Network((A, B, C), Clock(), Random(1))
    links.part((A,), (B,))
    assert not links.linked(A, B)
    assert links.linked(A, C)
    assert links.linked(B, C)


@pytest.mark.parametrize("slow", [A, B])
def test_a_slow_place_delays_what_it_says_and_hears(slow: bytes) -> None:
    clock = Clock()
    links = Network((A, B), clock, Random(1))
    links.weather, links.slow_ms = STILL, {slow: 300}
    links.send(A, B, 1, lambda: None)
    assert clock.next() == 310
