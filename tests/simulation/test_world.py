"""Lives: what is durable when, what a crash takes, and that one seed is one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from potd.node import events as ev
from potd.simulation.disk import Write
from potd.simulation.network import Place
from potd.simulation.run import run_seed
from potd.simulation.world import World

ROOT = Path(__file__).parents[2]


def test_nothing_leaves_before_what_was_written_ahead_of_it_is_durable(tmp_path: Path) -> None:
    world = World(tmp_path)
    vote: dict[Place, list[int]] = {place: [] for place in world.places}

    def watch(place: Place, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Keep):
            vote[place].append(world.now)
        if isinstance(effect, ev.Run):
            return
        member = world.members[place]
        if isinstance(effect, ev.Send) and member.busy:
            assert not any(isinstance(one, Write) for one in member.unsynced), "it sent while a write was waiting"

    world.watchers.append(watch)
    for member in world.members.values():
        member.disk_ms = (30, 30)
    world.submit(rounds=3)
    world.reach(2, 600)
    assert all(vote.values())


def test_a_crash_keeps_a_first_part_of_what_was_being_written(tmp_path: Path) -> None:
    """Of one sync's writes, each number is kept in some run, none without those before it."""
    kept: set[int] = set()
    for seed in range(60):
        world = World(tmp_path, seed=seed)
        place = world.keys[0]
        member = world.members[place]
        world.submit(rounds=3)
        world.run(lambda member=member: len([one for one in member.unsynced if isinstance(one, Write)]) == 2, 600)  # type: ignore[misc]  # binds the loop's value
        waiting = [one for one in member.unsynced if isinstance(one, Write)]
        durable: list[ev.Effect] = []
        world.watchers.append(lambda at, effect, durable=durable: durable.append(effect))  # type: ignore[misc]  # binds the loop's value
        world.stop(place)
        assert durable == waiting[: len(durable)]
        kept.add(len(durable))
        if kept == {0, 1, 2}:
            return
    pytest.fail(f"only {kept} of two writes were ever kept")


def test_whoever_is_doomed_dies_after_just_so_many_effects(tmp_path: Path) -> None:
    world = World(tmp_path)
    place, seen = world.keys[1], 0

    def watch(at: Place, _: ev.Effect) -> None:
        nonlocal seen
        seen += at == place

    world.doom(place, 17)
    world.watchers.append(watch)
    world.run(lambda: world.members[place].node is None, 600)
    assert seen == 17


def test_twins_are_two_machines_with_one_key_and_no_common_friends(tmp_path: Path) -> None:
    world = World(tmp_path, twins=[3])
    key = world.keys[3]
    twin = world.twins[key]
    assert world.members[twin].signer.key == key
    for other in world.keys[:3]:
        known = world.place_of(key, other)
        assert known in (key, twin)
        stranger = twin if known == key else key
        assert known is not None
        assert world.place_of(other, known) == other
        assert world.place_of(other, stranger) is None


def test_one_seed_gives_one_trace_whatever_the_order_of_sets_and_the_number_of_threads() -> None:
    program = "from potd.simulation.run import run_seed; print(run_seed(7, 'hostile').trace)"
    traces = []
    for hash_seed, threads in (("1", "1"), ("2", "8")):
        pools = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        child = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), **pools},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        traces.append(child.stdout.strip())
    assert traces[0] == traces[1]
    assert len(traces[0]) == 64


@pytest.mark.parametrize(
    ("profile", "seed"),
    [
        ("churn", 64),  # a key gave way in the middle of a round, and its payload stayed hidden for ever
        ("churn", 104),  # blocks let consensus execute the last height of an era, which came again as a block
    ],
)
def test_what_once_went_wrong_goes_well(profile: str, seed: int) -> None:
    outcome = run_seed(seed, profile)
    assert outcome.good, outcome.violation or outcome.stall


@pytest.mark.parametrize(
    ("profile", "seeds"), [("lan", range(2)), ("wan", range(3)), ("hostile", range(8)), ("churn", range(4))]
)
def test_whatever_befalls_a_network_it_shows_nothing_that_none_may_and_goes_on(profile: str, seeds: range) -> None:
    for seed in seeds:
        outcome = run_seed(seed, profile)
        assert outcome.good, f"scripts/sim --seed {seed} --profile {profile}: {outcome.violation or outcome.stall}"
        assert outcome.counters["rounds"] >= 2
