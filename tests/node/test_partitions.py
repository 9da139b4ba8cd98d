"""Links fail and come back: no two sides ever decide differently, and afterwards the rounds go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from potd.simulation.network import Weather
from potd.simulation.world import World


def same_everywhere(world: World) -> None:
    assert len({world.node(key).ledger.root() for key in world.running()}) == 1
    assert len({world.task(key).model for key in world.running()}) == 1


def test_half_and_half_decide_nothing_and_go_on_when_healed(tmp_path: Path) -> None:
    world = World(tmp_path, seed=0, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(3, 600)
    world.links.part(world.keys[:2], world.keys[2:])
    world.pass_time(20)
    heights = [world.node(key).certified for key in world.keys]
    world.pass_time(200)
    assert [world.node(key).certified for key in world.keys] == heights
    world.links.heal()
    world.reach(max(map(world.round, world.keys)) + 3, 3_000)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("alone", range(4))
def test_three_go_on_without_the_fourth_and_it_catches_up(tmp_path: Path, alone: int) -> None:
    world = World(tmp_path, seed=alone, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(3, 600)
    lost = world.keys[alone]
    others = tuple(key for key in world.keys if key != lost)
    world.links.part((lost,), others)
    world.reach(max(map(world.round, others)) + 3, 1_500, *others)
    assert world.round(lost) < min(map(world.round, others))
    world.links.heal()
    world.reach(max(map(world.round, others)) + 2, 1_500)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_links_do_nobody_decides_twice(tmp_path: Path, seed: int) -> None:
    """Partitions drawn at random, deaths among them, then peace."""
    world = World(tmp_path, seed=100 + seed, patience_ticks=25, miners=1, clients=1)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    for _ in range(8):
        left = tuple(key for key in world.keys if world.random.random() < 0.5)
        world.links.part(left, tuple(key for key in world.keys if key not in left))
        world.pass_time(world.random.randint(5, 60))
        if world.random.random() < 0.5:
            victim = world.random.choice(world.keys)
            world.stop(victim)
            world.pass_time(world.random.randint(1, 30))
            world.start(victim)
        world.links.heal()
        world.pass_time(world.random.randint(1, 40))
    world.reach(max(map(world.round, world.keys)) + 2, 4_000)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("seed", range(2))
def test_frames_that_get_lost_are_made_up_for(tmp_path: Path, seed: int) -> None:
    """A tenth of all frames and gossip never arrives."""
    world = World(tmp_path, seed=200 + seed)
    world.submit(rounds=1_000)
    world.links.weather = Weather(loss_ppm=100_000)
    world.reach(6, 4_000)
    world.links.weather = Weather()
    world.reach(max(map(world.round, world.keys)) + 1, 2_000)
    world.agree()
    world.check()
    same_everywhere(world)


def run_traced(folder: Path) -> str:
    """The trace of a run with a death and a partition in it."""
    world = World(folder, seed=42, patience_ticks=30, miners=1)
    world.submit(rounds=8)
    world.reach(2, 600)
    world.stop(world.keys[0])
    world.reach(4, 1_000, *world.keys[1:])
    world.start(world.keys[0])
    world.links.part(world.keys[:1], world.keys[1:])
    world.pass_time(30)
    world.links.heal()
    world.reach(8, 2_000)
    world.agree()
    return world.trace()


def test_the_same_seed_gives_the_same_run_whatever_the_order_of_sets(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    program = "import sys; from pathlib import Path; from tests.node.test_partitions import run_traced as run;"
    program += "print(run(Path(sys.argv[1])))"
    traces = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        folder.mkdir()
        child = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            cwd=root,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        traces.append(child.stdout)
    assert traces[0] == traces[1]
    assert len(traces[0].strip()) == 64
