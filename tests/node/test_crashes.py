"""kill -9 at any moment of a round: the others go on, and whoever comes back never contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from potd.simulation.world import World
from potd.wire.ids import Key

ROUND_EFFECTS = 68  # what one node orders in one round, and a few more


def killed_after(world: World, victim: Key, effects: int) -> None:
    """Run until the victim has carried out so many more effects, and kill it there."""
    world.doom(victim, effects)
    world.run(lambda: world.members[victim].node is None, 600)


def same_everywhere(world: World) -> None:
    assert len({world.node(key).ledger.root() for key in world.running()}) == 1
    assert len({(world.task(key).model, world.task(key).momentum) for key in world.running()}) == 1


@pytest.mark.parametrize("walk", range(2))
@pytest.mark.parametrize("place", range(4))
def test_a_node_may_die_after_any_effect_of_a_round(tmp_path: Path, place: int, walk: int) -> None:
    """Four walks twice, one for each node, with a step of four effects and an offset of their own: every boundary is
    met. Effects reach the disk first, one by one, and then the network: one sync serves many of them."""
    world = World(tmp_path, seed=place + 10 * walk, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    victim = world.keys[place]
    others = tuple(key for key in world.keys if key != victim)
    for effects in range(1 + place, ROUND_EFFECTS, 4):
        killed_after(world, victim, effects)
        world.reach(max(map(world.round, others)) + 1, 1_000, *others)
        world.start(victim)
        world.reach(max(map(world.round, others)) + 1, 1_000)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("offset", range(3))
def test_whoever_leads_may_die_after_any_effect_of_a_round(tmp_path: Path, offset: int) -> None:
    """Each time the primary of the moment: it drafts, proposes and enters views besides."""
    world = World(tmp_path, seed=20 + offset, patience_ticks=20)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    for effects in range(1 + offset, ROUND_EFFECTS, 3):
        replica = world.node(world.keys[effects % 4]).replica
        assert replica is not None
        victim = replica.primary
        others = tuple(key for key in world.keys if key != victim)
        killed_after(world, victim, effects)
        world.reach(max(map(world.round, others)) + 1, 1_000, *others)
        world.start(victim)
        world.reach(max(map(world.round, others)), 1_000)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("seed", range(3))
def test_all_nodes_may_die_at_once(tmp_path: Path, seed: int) -> None:
    """A power cut in whatever phase; what is durable is enough to go on from, also with a seal already certified."""
    world = World(tmp_path, seed=seed, patience_ticks=30)
    world.submit(rounds=1_000)
    for pause in range(12):
        world.reach(max(map(world.round, world.keys)) + 1, 1_500)
        world.pass_time(pause + seed)
        for key in world.keys:
            world.stop(key)
        world.pass_time(5)
        for key in world.keys:
            world.start(key)
    world.reach(max(map(world.round, world.keys)) + 2, 1_500)
    world.agree()
    world.check()
    same_everywhere(world)


def test_the_primary_may_die_again_and_again(tmp_path: Path) -> None:
    world = World(tmp_path, seed=5, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    for turn in range(4):
        replica = world.node(world.keys[turn - 1]).replica
        assert replica is not None
        primary = replica.primary
        others = tuple(key for key in world.keys if key != primary)
        world.stop(primary)
        world.reach(max(map(world.round, others)) + 2, 1_500, *others)
        assert all(world.node(key).replica.view > turn for key in others)  # type: ignore[union-attr]  # all validate
        world.start(primary)
        world.reach(max(map(world.round, others)), 1_500)
    world.agree()
    world.check()
    same_everywhere(world)
