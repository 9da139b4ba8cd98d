"""Nobody sees a payload before everybody is bound, and what was copied, repeated or made too late earns nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from potd.node import events as ev
from potd.simulation.network import Place
from potd.simulation.world import World
from potd.wire.blobs import read_blob, write_blob
from potd.wire.codec import decode, encode
from potd.wire.envelope import Signed, verify
from potd.wire.ids import BlobRef, Key, account_id
from potd.wire.jobs import Trained
from potd.wire.rounds import Commitment, Outcome, Seal, Update, payload_binding

HEADER_BYTES = 32  # of a payload: its binding


def records(world: World, kind: type[Seal] | type[Update]) -> Iterator[tuple[int, Seal | Update]]:
    """Those executed, with their heights."""
    for height, (_, batch) in sorted(world.members[world.keys[0]].disk.blocks.items()):
        for record in batch.records:
            if isinstance(record, kind):
                yield height, record


def sealed_by(world: World, key: Key) -> dict[int, Commitment]:
    """What a miner has in each round's seal."""
    found: dict[int, Commitment] = {}
    for _, record in records(world, Seal):
        assert isinstance(record, Seal)
        for one in record.commitments:
            body = decode(one.payload, Commitment)
            if body.miner == account_id(key):
                found[record.round] = body
    return found


def outcomes(world: World, key: Key) -> dict[int, Outcome]:
    """What became of a miner's commitments, by round."""
    found: dict[int, Outcome] = {}
    for _, record in records(world, Update):
        assert isinstance(record, Update)
        for one in record.contributions:
            if one.miner == account_id(key):
                found[record.round] = Outcome(one.outcome)
    return found


def last_paid(world: World, key: Key) -> int:
    """The newest round in which something of a miner's counted."""
    return max(number for number, outcome in outcomes(world, key).items() if outcome == Outcome.COUNTED)


def committed(world: World, place: Place, effect: ev.Effect) -> Commitment | None:
    """What a node commits to with this effect."""
    if not isinstance(effect, ev.Publish) or effect.topic != "commitments":
        return None
    return verify(decode(effect.data, Signed), world.network, Commitment).body


def with_thief(folder: Path, seed: int) -> tuple[World, Key, Key]:
    """A network with a victim and a thief who only mine."""
    world = World(folder, seed=seed, miners=2)
    world.submit(rounds=1_000)
    world.reach(2, 800)
    victim, thief = world.keys[-2:]
    world.distrust(thief)
    return world, victim, thief


def say(world: World, key: Key, body: Commitment) -> None:
    world.publish(key, "commitments", encode(world.members[key].signer.sign(body)))


def test_a_copied_payload_root_is_worth_nothing_to_the_copier(tmp_path: Path) -> None:
    """The root is public as soon as its miner commits; what it names begins with that miner's name."""
    world, victim, thief = with_thief(tmp_path, seed=1)
    began = world.round(world.keys[0]) + 1

    def tamper(place: Place, effect: ev.Effect) -> ev.Effect | None:
        said = committed(world, place, effect)
        if said is None or said.round < began:
            return effect
        if place == victim:
            say(world, thief, replace(said, miner=account_id(thief), salt=bytes(32)))
        return None if place == thief else effect

    world.tamper = tamper
    world.reach(began + 3, 800)
    stolen = {number for number, one in sealed_by(world, thief).items() if number >= began}
    assert stolen >= {began, began + 1}, "a copy can be sealed"
    assert all(sealed_by(world, thief)[number].payload == sealed_by(world, victim)[number].payload for number in stolen)
    ended = stolen & outcomes(world, thief).keys()
    assert {outcomes(world, thief)[number] for number in ended} == {Outcome.MALFORMED}
    assert {outcomes(world, victim)[number] for number in ended} == {Outcome.COUNTED}
    assert last_paid(world, thief) < began <= last_paid(world, victim)


def test_a_payload_is_held_by_nobody_else_before_its_seal_is_certified_though_asked_for(tmp_path: Path) -> None:
    """A peer asks for it from the moment on at which its miner commits, and the miner is killed and starts again."""
    world, victim, thief = with_thief(tmp_path, seed=2)
    robber, home = world.members[thief], world.members[victim]
    sealed_at: dict[int, int] = {}  # by round: the height of the seal
    wanted: dict[int, BlobRef] = {}
    early: list[int] = []

    def watch(place: Place, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Store):
            for record in effect.batch.records:
                if isinstance(record, Seal):
                    sealed_at[record.round] = effect.header.height
        said = committed(world, place, effect)
        if said is not None and place == victim and said.round not in wanted:
            wanted[said.round] = said.payload
            robber.wanted.add(said.payload)
            fetched = ev.Fetched(said.payload)
            world.clock.later(1, lambda: world._fetch(robber, fetched.ref, robber.life, fetched))

    def certified(number: int) -> bool:
        known = [world.node(key).certified for key in world.running()]
        return number in sealed_at and max(known) >= sealed_at[number]

    def done() -> bool:
        for number, ref in wanted.items():
            holders = [one for one in world.members.values() if ref in one.disk.held and one is not home]
            if holders and not certified(number):
                early.append(number)
        return bool(wanted) and world.round(world.keys[0]) >= min(wanted) + 4

    def hit() -> bool:
        done()
        return any(number not in sealed_at for number in wanted)

    world.watchers.append(watch)
    world.run(hit, 800)
    world.stop(victim)
    world.start(victim)
    assert home.hidden == {wanted[number] for number in wanted if number not in sealed_at}, "hidden before all else"
    world.run(done, 800)
    assert early == []
    got = [number for number, ref in wanted.items() if ref in robber.disk.held]
    assert len(got) >= 3, "and served to whoever asks from then on"


def test_a_commitment_made_after_a_payload_was_seen_is_in_no_seal(tmp_path: Path) -> None:
    """The thief has nothing but the bytes of another, which it puts under its own name as soon as it gets them."""
    world, victim, thief = with_thief(tmp_path, seed=3)
    began = world.round(world.keys[0]) + 1
    robber = world.members[thief]
    tried: dict[int, BlobRef] = {}

    def rob(said: Commitment) -> None:
        if said.payload not in robber.disk.held:
            world.clock.later(5, lambda: rob(said))
            return
        mine = account_id(thief)
        binding = payload_binding(said.task, said.round, mine, said.model)
        copy = write_blob(tmp_path, binding + read_blob(tmp_path, said.payload)[HEADER_BYTES:])
        robber.disk.held.add(copy)
        tried[said.round] = copy
        say(world, thief, replace(said, miner=mine, payload=copy))

    def tamper(place: Place, effect: ev.Effect) -> ev.Effect | None:
        said = committed(world, place, effect)
        if said is None or said.round < began:
            return effect
        if place == victim and said.payload not in robber.wanted | robber.disk.held:
            robber.wanted.add(said.payload)
            world.clock.later(1, lambda: world._fetch(robber, said.payload, robber.life, ev.Fetched(said.payload)))
            rob(said)
        return None if place == thief else effect

    world.tamper = tamper
    world.reach(began + 4, 1_500)
    assert len(tried) >= 3
    assert not any(number >= began for number in sealed_by(world, thief))
    assert last_paid(world, thief) < began <= last_paid(world, victim)


def test_the_payload_of_the_round_before_counts_no_second_time(tmp_path: Path) -> None:
    world, _, lazy = with_thief(tmp_path, seed=4)
    first: list[BlobRef] = []

    def repeat(done: Trained) -> Trained:
        first.append(done.payload)
        return replace(done, payload=first[0])

    world.members[lazy].noise = repeat
    began = world.round(world.keys[0])
    world.reach(began + 4, 800)
    repeated = [number for number, one in sealed_by(world, lazy).items() if one.payload == first[0]]
    ended = [outcomes(world, lazy)[number] for number in sorted(repeated) if number in outcomes(world, lazy)]
    assert ended[0] == Outcome.COUNTED
    assert len(ended) >= 3
    assert set(ended[1:]) == {Outcome.MALFORMED}


def test_a_miner_that_shows_two_commitments_is_found_out_by_every_validator_and_slashed(tmp_path: Path) -> None:
    world, _, liar = with_thief(tmp_path, seed=5)
    began = world.round(world.keys[0]) + 1
    twice: list[int] = []

    def tamper(place: Place, effect: ev.Effect) -> ev.Effect | None:
        said = committed(world, place, effect)
        if said is not None and place == liar and said.round >= began and not twice:
            twice.append(said.round)
            say(world, liar, replace(said, salt=bytes(32)))
        return effect

    world.tamper = tamper
    guilty = "is guilty: made two commitments to one round"
    world.run(lambda: all(any(guilty in line for line in world.members[key].log) for key in world.validators), 800)
    world.run(lambda: all(world.task(key).miner(account_id(liar)) is None for key in world.validators), 800)
    world.pass_time(100)
    for key in world.validators:
        assert not any(one.startswith("evidence/") and data for one, data in world.members[key].disk.notes.items())
    world.agree()
    world.check()
