"""Seeds of rounds hang on links that nobody knows before the seal, and that no validator can choose."""

from __future__ import annotations

from pathlib import Path

from potd.ledger.entries import Phase
from potd.node import events as ev
from potd.simulation.network import Place
from potd.simulation.words import body_of, signed_in
from potd.simulation.world import World
from potd.wire.audits import CHAIN_AHEAD_ROUNDS
from potd.wire.blocks import record_digest
from potd.wire.codec import decode
from potd.wire.ids import AccountId, Digest, account_id, digest
from potd.wire.rounds import Link, Named, Report, Seal, Update

BEGINS_MAX = CHAIN_AHEAD_ROUNDS + 4  # a round of a new task by which everybody's chain has begun


class Seeds:
    """Watches a world: the seals and updates of its task, and the seed of each round."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seals: dict[int, tuple[int, Digest]] = {}  # by round, with its height
        self.updates: dict[int, Update] = {}
        self.seeds: dict[int, Digest] = {}
        world.watchers.append(self._watch)

    def _watch(self, place: Place, effect: ev.Effect) -> None:
        if not isinstance(effect, ev.Store):
            return
        for record in effect.batch.records:
            if isinstance(record, Seal):
                self.seals[record.round] = effect.header.height, record_digest(record)
            elif isinstance(record, Update):
                self.updates[record.round] = record
        node = self.world.members[place].node
        for task in node.ledger.tasks() if node is not None and node.height == effect.header.height else ():
            self.seeds.setdefault(task.round, task.seed)

    def named(self, number: int) -> list[set[Named]]:
        """What the reports of a round's update name."""
        return [set(decode(one.payload, Report).links) for one in self.updates[number].reports]

    def hangs_on(self, number: int) -> frozenset[AccountId]:
        """Whose links are in the seed that follows a round; everybody's that f + 1 of the reports name."""
        named = self.named(number)
        links = sorted({one for each in named for one in each if sum(one in other for other in named) >= 2})
        follows = digest(
            "seed", self.seeds[number], self.seals[number][1], *(one.subject + one.digest for one in links)
        )
        assert follows == self.seeds[number + 1]
        return frozenset(one.subject for one in links)


def linked(folder: Path, seed: int) -> tuple[World, Seeds]:
    """A task whose validators' chains have begun."""
    world = World(folder, seed=seed)
    seeds = Seeds(world)
    world.submit(rounds=1_000)
    world.reach(BEGINS_MAX, 2_000)
    return world, seeds


def link_in(effect: ev.Effect) -> Link | None:
    signed = signed_in(effect.data) if isinstance(effect, ev.Send) else None
    body = body_of(signed.payload) if signed is not None else None
    return body if isinstance(body, Link) else None


def test_every_validators_link_is_in_every_seed_and_none_is_sent_before_the_seal_is_certified(tmp_path: Path) -> None:
    world, seeds = linked(tmp_path, seed=1)
    early: list[Link] = []
    sent: set[tuple[Place, int]] = set()

    def watch(place: Place, effect: ev.Effect) -> None:
        link = link_in(effect)
        if link is not None:
            sent.add((place, link.round))
            if link.round not in seeds.seals or world.node(place).certified < seeds.seals[link.round][0]:
                early.append(link)

    world.watchers.append(watch)
    began = world.round(world.keys[0]) + 1
    world.reach(began + 4, 800)
    assert early == []
    everybody = {account_id(key) for key in world.validators}
    for number in range(began, began + 4):
        assert {(key, number) for key in world.validators} <= sent
        assert seeds.hangs_on(number) == everybody
    world.agree()
    world.check()


def test_a_dead_validators_link_is_missing_and_the_others_go_on_without_it(tmp_path: Path) -> None:
    world, seeds = linked(tmp_path, seed=2)
    dead, *living = world.keys
    world.stop(dead)
    began = world.round(living[0]) + 1
    world.reach(began + 3, 1_500, *living)
    for number in range(began + 1, began + 3):
        assert seeds.hangs_on(number) == {account_id(key) for key in living}
    world.start(dead)
    world.reach(world.round(living[0]) + 4, 1_500)
    last = max(number for number in seeds.updates if number + 1 in seeds.seeds)
    assert seeds.hangs_on(last) == {account_id(key) for key in world.keys}, "and it is back once it follows again"


def test_a_validator_that_keeps_its_link_back_changes_one_bit_and_is_seen(tmp_path: Path) -> None:
    """Its own report names its link all the same: one report is less than f + 1."""
    world, seeds = linked(tmp_path, seed=3)
    liar, *honest = world.keys
    world.distrust(liar)

    def tamper(place: Place, effect: ev.Effect) -> ev.Effect | None:
        return None if place == liar and link_in(effect) is not None else effect

    world.tamper = tamper
    began = world.round(honest[0]) + 1
    world.reach(began + 3, 1_500)
    for number in range(began, began + 3):
        assert seeds.hangs_on(number) == {account_id(key) for key in honest}


def test_links_outlive_a_restart_between_the_seal_and_the_update(tmp_path: Path) -> None:
    """They follow from the key: who comes back releases the same link again."""
    world, seeds = linked(tmp_path, seed=4)
    key = world.keys[1]
    world.run(lambda: world.task(key).phase == Phase.REVEALING, 400)
    world.stop(key)
    world.start(key)
    number = world.round(key)
    world.reach(number + 3, 1_500)
    said: dict[int, set[Digest]] = {}
    for data in world.members[key].sent:
        link = link_in(ev.Send(key, data))
        if link is not None:
            said.setdefault(link.round, set()).add(link.link)
    assert said.keys() >= {number + 1, number + 2}
    assert all(len(links) == 1 for links in said.values())
    assert account_id(key) in seeds.hangs_on(number + 1)
    world.check()
