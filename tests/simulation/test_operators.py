"""Validators that change, and homes that are put back: what is asked for comes about, and what is drawn is fair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from potd.node import events as ev
from potd.simulation.disk import NEWEST
from potd.simulation.network import Weather
from potd.simulation.profiles import draw
from potd.simulation.run import Outcome, run
from potd.simulation.schedule import (
    Backup,
    Crash,
    Elect,
    Event,
    Oppose,
    Resign,
    Restart,
    Restore,
    Rotate,
    Schedule,
    Wish,
)
from potd.simulation.world import World
from potd.wire.ids import NOTHING, account_id
from potd.wire.operations import Possession, Rekey


def schedule(*events: Event, validators: int = 5, candidates: int = 0) -> Schedule:
    """A quiet run in which only this happens."""
    return replace(
        draw(0, "lan"),
        validators=validators,
        candidates=candidates,
        miners=1,
        idle=1,
        patience_ticks=60,
        window_heights=4,
        weather=Weather(delay_ms=(1, 5)),
        disk_ms=(1, 2),
        events=events,
        heals_ms=8_000,
    )


def gone_through(schedule: Schedule) -> tuple[World, Outcome]:
    worlds: list[World] = []
    outcome = run(schedule, worlds.append)
    assert outcome.good, outcome.violation or outcome.stall
    return worlds[0], outcome


@pytest.mark.parametrize("wish", [Elect(1_000, 5), Resign(1_000, 1), Oppose(1_000, 2), Rotate(1_000, 3)])
def test_what_is_asked_for_is_the_next_set(wish: Wish) -> None:
    world, outcome = gone_through(schedule(wish, candidates=1))
    assert outcome.counters["eras"] == 2
    before, key = set(world.validators), world.keys[wish.who]
    after = {seat.key for seat in world.checks.ledger.validators()}
    match wish:
        case Elect():
            assert after == before | {key}
        case Rotate():
            assert after == before - {key} | {world.heirs[key]}
            assert (world.members[key].node is None, world.node(world.heirs[key]).seat()) == (True, "4 of 5")
        case _:
            assert after == before - {key}


def test_operators_ask_again_for_what_a_crash_took() -> None:
    """The operation dies with the node that was to say it, which comes back later."""
    world, outcome = gone_through(schedule(Crash(1_000, 1, 0), Resign(1_100, 1), Restart(3_000, 1)))
    assert outcome.counters["eras"] == 2
    assert any("our seat has ended" in line for line in world.members[world.keys[1]].log)


def test_a_key_does_not_give_way_before_the_set_that_knows_the_next_one_decides(tmp_path: Path) -> None:
    world = World(tmp_path, heirs=[1], window_heights=8)
    key = world.keys[1]
    heir = world.heirs[key]
    world.pass_time(20)
    world.offer(key)
    world.run(lambda: world.node(key).height > 0, 200)
    world.agree()

    def handed_over() -> bool:
        world.run(lambda: not world.members[key].busy, 100)
        return world.succeed(key)

    assert not handed_over()
    assert (world.members[key].node is None, world.members[heir].node is None) == (False, True)
    node, account = world.node(key), account_id(key)
    proof = world.members[heir].signer.sign(Possession(account)).signature
    operation = Rekey(account, node.ledger.nonce(account), NOTHING, heir, proof)
    world.tell(key, ev.OperationAsked(world.members[key].signer.sign(operation)))
    world.run(lambda: world.node(key).group.base > 0, 900)
    world.agree()
    world.members[key].disk.settle()  # as a daemon does that ends in order
    said = [(NEWEST, world.members[key].signer.sign(Possession(account)))]
    world.members[key].disk.records += said
    assert handed_over()
    assert world.members[key].node is None
    assert not set(said) & set(world.members[heir].disk.records)
    assert (world.node(heir).account, world.node(heir).height) == (account, world.node(world.keys[0]).height)


@pytest.mark.parametrize("copied", [True, False])
def test_a_home_that_was_put_back_is_silent_until_what_it_forgot_is_past(copied: bool) -> None:
    before = (Backup(1_500, 1),) if copied else ()
    world, _ = gone_through(schedule(*before, Crash(3_000, 1, 10), Restore(4_000, 1)))
    log = world.members[world.keys[1]].log
    assert sum("silent until height" in line for line in log) == 1
    assert sum("votes again" in line for line in log) == 1


def test_a_copy_of_a_disk_stays_as_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.submit(rounds=3)
    disk = world.members[world.keys[0]].disk
    copy = disk.copy()
    then = {name: repr(value) for name, value in vars(copy).items()}
    assert then == {name: repr(value) for name, value in vars(disk).items()}
    world.reach(2, 600)
    assert then == {name: repr(value) for name, value in vars(copy).items()}
    assert set(vars(disk)) - {"snapshot", "owed"} == {name for name in then if repr(vars(disk)[name]) != then[name]}


@pytest.mark.parametrize("profile", ["churn", "hostile"])
def test_no_more_lie_or_forget_than_the_smallest_set_bears(profile: str) -> None:
    kinds: set[type[Event]] = set()
    for seed in range(150):
        drawn = draw(seed, profile)
        wishes = [one for one in drawn.events if isinstance(one, Elect | Resign | Oppose | Rotate)]
        leaving = sum(isinstance(one, Resign | Oppose) for one in wishes)
        forgetful = {one.who for one in drawn.events if isinstance(one, Restore)}
        liars = {one.who for one in drawn.liars}
        assert len(forgetful | liars) <= (drawn.validators - leaving - 1) // 3, seed
        assert not forgetful & liars, seed
        assert len({one.who for one in wishes}) == len(wishes), seed
        assert all(one.who not in liars or isinstance(one, Oppose) for one in wishes), seed
        assert all(one.who < drawn.validators + drawn.candidates for one in wishes), seed
        assert wishes or profile == "hostile", seed
        kinds.update(type(one) for one in drawn.events)
    assert {Elect, Resign, Oppose, Rotate, Backup, Restore} <= kinds
