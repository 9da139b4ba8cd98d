"""Random runs: loss, delay, duplication, reordering, partitions, crashes and liars; then healing, then progress."""

from __future__ import annotations

from random import Random

import pytest

from tests.consensus.cluster import Cluster
from tests.consensus.liars import any_lie

SIZES = (1, 2, 3, 4, 4, 4, 5, 6, 7, 10)
CHAOS_TICKS = 250
RUNS = 120
RUNS_OF_ONE_TEST = 20


def troubled(seed: int) -> Cluster:
    """A cluster that has been through trouble, drawn from the seed."""
    chance = Random(seed)
    size = SIZES[seed % len(SIZES)]
    faulty = chance.sample(range(size), chance.randint(0, (size - 1) // 3))
    cluster = Cluster(
        size,
        seed,
        liars={index: any_lie(chance) for index in faulty},
        patience=chance.choice([30, 60]),
        window=chance.choice([2, 4, 8]),
        delay=(0, chance.choice([1, 3, 8])),
        judging=(0, chance.choice([0, 0, 10])),
    )
    cluster.loss = chance.choice([0.0, 0.05, 0.3])
    cluster.twice = chance.choice([0.0, 0.2])
    asked = 0
    for _ in range(CHAOS_TICKS):
        cluster.run(1)
        if chance.random() < 0.1:
            cluster.request(b"operation %d" % asked)
            asked += 1
        if chance.random() < 0.01:
            side = set(chance.sample(range(size), chance.randint(0, size // 2)))
            cluster.cut = lambda sender, to, side=side: (sender in side) != (to in side)  # type: ignore[misc]  # lambda with defaults
        if chance.random() < 0.02:
            member = cluster.members[chance.randrange(size)]
            if member.up:
                member.crash_at = member.boundaries + chance.randint(1, 20)
        for member in cluster.members:
            if not member.up and chance.random() < 0.03:
                cluster.restart(member.index)
    return cluster


@pytest.mark.parametrize("first", range(0, RUNS, RUNS_OF_ONE_TEST))
def test_after_any_trouble_the_honest_agree_and_make_progress(first: int) -> None:
    for seed in range(first, first + RUNS_OF_ONE_TEST):
        cluster = troubled(seed)
        cluster.heal()
        cluster.request(b"after healing")
        cluster.settle()
