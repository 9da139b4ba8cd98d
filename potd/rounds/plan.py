"""Who trains on which samples: a pure function of committed state. Nobody chooses, nobody can dodge.

For a window of rounds the shards are laid on a ring in an order drawn from the window's seed, and every
member is given an arc in proportion to its units: arcs are disjoint, and known a window ahead so that shards
can be fetched in time. Within its arc the seed of the round draws a miner's batch. An arc too short for a
batch is lengthened, and then overlaps its neighbour's; a miner who joins between two windows is given an
overlapping arc of its own until the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from potd.wire.ids import AccountId, Digest, digest


@dataclass(frozen=True)
class Window:
    """A stretch of rounds with one dealing of shards. `members` are accounts with their units, by account."""

    seed: Digest
    members: tuple[tuple[AccountId, int], ...]


@dataclass(frozen=True)
class Arc:
    """Positions `start`, `start + 1`, ... on the ring of samples, modulo its length."""

    start: int
    length: int


@dataclass(frozen=True)
class Assignment:
    """Shards by their index in the manifest, and indices into those shards laid end to end."""

    shards: tuple[int, ...]
    samples: tuple[int, ...]


def stream(seed: Digest, *context: bytes) -> Iterator[int]:
    """Endless 64-bit integers from a seed: SHA-256 in counter mode."""
    base = digest("stream", seed, *context)
    counter = 0
    while True:
        block = hashlib.sha256(base + counter.to_bytes(8, "big")).digest()
        for offset in range(0, 32, 8):
            yield int.from_bytes(block[offset : offset + 8], "big")
        counter += 1


def below(numbers: Iterator[int], bound: int) -> int:
    """An unbiased integer in 0 .. bound - 1."""
    limit = 2**64 - 2**64 % bound
    while True:
        number = next(numbers)
        if number < limit:
            return number % bound


def draw(numbers: Iterator[int], population: int, count: int) -> list[int]:
    """`count` different integers below `population`, in the order drawn: the start of a Fisher-Yates shuffle."""
    assert count <= population
    moved: dict[int, int] = {}
    drawn: list[int] = []
    for here in range(count):
        there = here + below(numbers, population - here)
        drawn.append(moved.get(there, there))
        moved[there] = moved.get(here, here)
    return drawn


def places_of(window: Window) -> tuple[dict[AccountId, tuple[int, int]], int]:
    """Each member's stretch of all units, from and to, by the rank that the seed draws for it; and how many units there
    are."""
    places: dict[AccountId, tuple[int, int]] = {}
    before = 0
    for member, units in sorted(window.members, key=lambda one: digest("rank", window.seed, one[0])):
        places[member] = before, before + units
        before += units
    return places, before


def arc(window: Window, account: AccountId, units: int, samples: int, need: int) -> Arc:
    """The stretch of the ring, of `samples` positions, on which a miner with `units` trains in this window."""
    places, total = places_of(window)
    if account in places:
        before, after = places[account]
        start, end = before * samples // total, after * samples // total
        return Arc(start, min(samples, max(end - start, need)))
    start = below(stream(window.seed, b"newcomer", account), samples)
    share = units * samples // (total + units)
    return Arc(start, min(samples, max(share, need, 1)))


def _ring(window: Window, sizes: Sequence[int]) -> list[int]:
    """The order of the shards on the ring."""
    return draw(stream(window.seed, b"ring"), len(sizes), len(sizes))


def _covered(ring: Sequence[int], sizes: Sequence[int], stretch: Arc) -> list[tuple[int, int]]:
    """The shards that an arc touches, each with the ring position at which it begins, in the arc's order."""
    total = sum(sizes)
    touched: list[tuple[int, int]] = []
    for lap in (0, total):  # an arc may run over the end of the ring
        position = lap
        for shard in ring:
            if position < stretch.start + stretch.length and stretch.start < position + sizes[shard]:
                touched.append((shard, position))
            position += sizes[shard]
    return touched


def shards_of(window: Window, sizes: Sequence[int], account: AccountId, units: int, need: int) -> tuple[int, ...]:
    """The shards that a miner needs in this window, by their index in the manifest, each once."""
    stretch = arc(window, account, units, sum(sizes), need)
    return tuple(dict.fromkeys(shard for shard, _ in _covered(_ring(window, sizes), sizes, stretch)))


def assign(
    window: Window, sizes: Sequence[int], seed: Digest, account: AccountId, units: int, unit_batch: int
) -> Assignment:
    """The batch of one miner in one round: `units * unit_batch` samples, drawn by the round's seed from its arc."""
    need = units * unit_batch
    total = sum(sizes)
    stretch = arc(window, account, units, total, need)
    covered = _covered(_ring(window, sizes), sizes, stretch)
    shards = tuple(dict.fromkeys(shard for shard, _ in covered))
    offsets: dict[int, int] = {}
    laid = 0
    for shard in shards:
        offsets[shard] = laid
        laid += sizes[shard]
    numbers = stream(seed, b"batch", account)
    positions: list[int] = []
    while len(positions) < need:  # more than one pass only where the whole data set is smaller than the batch
        positions += draw(numbers, stretch.length, min(stretch.length, need - len(positions)))
    samples: list[int] = []
    for position in positions:
        place = stretch.start + position
        for shard, begins in covered:
            if begins <= place < begins + sizes[shard]:
                samples.append(offsets[shard] + place - begins)
                break
    assert len(samples) == need, "an arc is not covered by its shards"
    return Assignment(shards, tuple(samples))


def in_whole(given: Assignment, sizes: Sequence[int]) -> tuple[int, ...]:
    """An assignment's samples as indices into all shards laid end to end, in the manifest's order."""
    places = [sum(sizes[:shard]) + index for shard in given.shards for index in range(sizes[shard])]
    return tuple(places[sample] for sample in given.samples)
