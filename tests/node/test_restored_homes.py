"""A home that was put back from a backup: noticed, silent in all that it signs, and a validator again afterwards."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from potd.node import events as ev
from potd.simulation.disk import Disk
from potd.simulation.network import Place
from potd.simulation.words import body_of, signed_by
from potd.simulation.world import World
from potd.wire.codec import encode
from potd.wire.consensus import Recollect, Recollected, Status, report_name
from potd.wire.ids import Key
from potd.wire.rounds import Draft, Report


def backup(world: World, key: Key) -> Disk:
    return copy.deepcopy(world.members[key].disk)


def turn_back(world: World, key: Key, disk: Disk) -> None:
    """Start a stopped node from an older copy of its home."""
    world.members[key].disk = copy.deepcopy(disk)
    world.start(key)


def said_silent(world: World, key: Key) -> bool:
    return any("silent until height" in line for line in world.members[key].log)


@pytest.mark.parametrize("place", range(4))
def test_an_old_home_says_no_word_twice_at_whatever_moment_of_a_round_it_was_copied(tmp_path: Path, place: int) -> None:
    """Votes, reports and drafts, over all its lives; n0 leads."""
    world = World(tmp_path, seed=place, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    victim = world.keys[place]
    others = tuple(key for key in world.keys if key != victim)
    noticed = 0
    for turn in range(14):
        old = backup(world, victim)
        world.pass_time(3 + 5 * turn)
        world.stop(victim)
        world.pass_time(3)
        world.members[victim].log.clear()
        turn_back(world, victim, old)
        world.reach(max(map(world.round, others)) + 2, 1_500)
        replica = world.node(victim).replica
        assert replica is not None
        world.run(lambda replica=replica: not replica.silent, 1_500)  # type: ignore[misc]  # binds the loop's value
        noticed += said_silent(world, victim)
    world.agree()
    world.check()
    assert noticed > 3


def test_a_wiped_home_follows_and_votes_again(tmp_path: Path) -> None:
    world = World(tmp_path, seed=3, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(3, 600)
    victim = world.keys[2]
    world.stop(victim)
    turn_back(world, victim, Disk())
    world.reach(world.round(world.keys[0]) + 4, 2_000)
    replica = world.node(victim).replica
    assert replica is not None
    world.run(lambda: not replica.silent, 2_000)
    world.agree()
    world.check()


def test_a_silent_validator_reports_and_drafts_nothing_and_then_does(tmp_path: Path) -> None:
    world = World(tmp_path, seed=1, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    victim = world.keys[1]
    world.stop(victim)
    before = backup(world, victim)
    before.notes["silent"] = (world.node(world.keys[0]).height + 12).to_bytes(8, "big")
    sent: list[bytes] = []

    def watch(place: Place, effect: ev.Effect) -> None:
        if place == victim and isinstance(effect, ev.Send):
            sent.append(effect.data)

    world.watchers.append(watch)
    turn_back(world, victim, before)
    replica = world.node(victim).replica
    assert replica is not None

    def words() -> list[Report | Draft]:
        bodies = [body_of(one.payload) for one in signed_by(victim, sent)]
        return [one for one in bodies if isinstance(one, Report | Draft)]

    world.run(lambda: world.node(victim).height > world.node(world.keys[0]).height - 2, 600)
    world.run(lambda: not replica.silent, 1_500)
    assert not words()
    world.reach(world.round(victim) + 2, 1_500)
    assert words()
    assert "silent" not in {name for name, data in world.members[victim].disk.notes.items() if data}
    world.check()


@pytest.mark.parametrize("seed", [4, 8, 14])  # with which no vote was under way either
def test_a_report_that_a_home_forgot_is_not_made_again(tmp_path: Path, seed: int) -> None:
    """Nothing else was said since the copy was made, so that no vote tells that the home is old."""
    world = World(tmp_path, seed=seed, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    victim, others = world.keys[1], [world.keys[0], *world.keys[2:4]]
    old, height = backup(world, victim), world.node(victim).height

    def reported(key: Key) -> list[Report]:
        bodies = [body_of(one.payload) for one in world.node(key).desks.said_by(victim)]
        return [one for one in bodies if isinstance(one, Report) and one.round == world.round(key)]

    world.run(lambda: all(reported(key) for key in others), 600)
    assert world.node(victim).height == height
    (first,) = reported(others[0])
    world.stop(victim)
    turn_back(world, victim, old)
    world.links.part((victim,), tuple(one for one in world.members if one not in (victim, *others)))
    replica = world.node(victim).replica
    assert replica is not None
    world.run(lambda: not replica.silent, 600)
    assert not said_silent(world, victim)
    assert reported(victim) == [first]
    world.links.heal()
    world.reach(world.round(victim) + 3, 2_000)
    world.check()


def test_an_answer_that_comes_before_the_reports_that_it_names_is_of_no_use(tmp_path: Path) -> None:
    world = World(tmp_path)
    asker, other = world.keys[1], world.members[world.keys[0]].signer
    name = report_name(other.sign(Recollect(bytes(32))))
    frame = encode(other.sign(Recollected(bytes(32), asker, (), (), (name,))))
    (told,) = world.node(asker).step(ev.Framed(other.key, frame))
    assert told == ev.Ignore("answer to a recollection that came before what it names")


def test_what_was_said_long_ago_does_not_keep_a_start_from_its_answers(tmp_path: Path, monkeypatch: Any) -> None:
    """However many of our own reports a liar repeats, the newest that others show stand."""
    monkeypatch.setattr("potd.node.node.ECHOES_MAX", 2)
    world = World(tmp_path)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    asker, bearer = world.members[world.keys[1]], world.keys[0]
    world.stop(asker.place)
    world.start(asker.place)
    node = world.node(asker.place)
    assert node.replica is not None
    assert node.replica.silent
    said = [asker.signer.sign(Report(bytes(32), number, 0, (), (), ())) for number in range(4)]
    for one in said:
        node.step(ev.Framed(bearer, encode(one)))
    assert list(node._echoes) == [report_name(one) for one in said[2:]]


def test_a_question_that_another_passes_on_is_refused(tmp_path: Path) -> None:
    """An old one would use up the answer to a new one."""
    world = World(tmp_path)
    asker, bearer, node = world.keys[1], world.keys[2], world.node(world.keys[0])
    frame = encode(world.members[asker].signer.sign(Recollect(bytes(32))))
    assert node.step(ev.Framed(bearer, frame)) == [ev.Refuse(bearer, "another's recollection")]
    assert [one.to for one in node.step(ev.Framed(asker, frame)) if isinstance(one, ev.Send)] == [asker]


def test_where_another_stood_once_is_told_by_nobody_else(tmp_path: Path) -> None:
    """Whoever repeats an old Status in every tick would use up the answer to the new one: nothing were said again."""
    world = World(tmp_path)
    world.submit(rounds=1_000)
    world.reach(1, 600)
    behind, bearer, node = world.keys[1], world.keys[2], world.node(world.keys[0])
    node.step(ev.Ticked())
    old, new = (encode(world.members[behind].signer.sign(Status(0, False, at, at))) for at in (node.height, 0))
    assert node.step(ev.Framed(bearer, old)) == [ev.Refuse(bearer, "another's status")]
    assert {one.to for one in node.step(ev.Framed(behind, new)) if isinstance(one, ev.Send)} == {behind}
