"""A newcomer, or a node long away, joins by a certified state; liars and deaths do not hold it up for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from potd.ledger.entries import Phase
from potd.node import events as ev
from potd.simulation.words import signed_by
from potd.simulation.world import World
from potd.wire.blocks import Block, Header, record_digest
from potd.wire.codec import Malformed, encode
from potd.wire.envelope import Signed, verify
from potd.wire.ids import NOTHING, Key, account_id
from potd.wire.merkle_map import MerkleMap
from potd.wire.operations import Possession, Rekey, Submit, Transfer
from potd.wire.transfer import Part, Snapshot


def header_in(world: World, signed: Signed) -> Header | None:
    try:
        return verify(signed, world.network, Header).body
    except Malformed:
        return None


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the distances that count as far, so that heights are had soon."""
    monkeypatch.setattr("potd.node.shelf.SNAPSHOT_HEIGHTS", 16)
    monkeypatch.setattr("potd.node.node.SNAPSHOT_LAG", 64)
    monkeypatch.setattr("potd.node.node.WORTH_HEIGHTS", 32)


def a_network_at(height: int, folder: Path, *, miners: int = 1, seed: int = 0) -> World:
    """Four validators that have come so far without anybody else, a heavy node or a newcomer with only genesis."""
    world = World(folder, seed=seed, miners=miners, absent=miners)
    grow(world, height)
    return world


def grow(world: World, height: int) -> None:
    """Operation by operation, until the network stands there."""
    first = next(key for key in world.validators if world.members[key].node is not None)
    node = world.node(first)
    while node.height < height:
        before = node.height
        signed = world.members[first].signer.sign(Transfer(node.account, node.next_nonce(), bytes(31) + b"\x01", 1, ""))
        world.input(first, ev.OperationAsked(signed))
        world.run(lambda: node.height > before, 400)  # noqa: B023  # run within the loop


def said(world: World, key: Key, text: str) -> int:
    return sum(text in line for line in world.members[key].log)


def synced(world: World, key: Key, height: int) -> None:
    """Until it stands there, and all that it did to get there is durable and said."""
    world.run(lambda: world.node(key).height >= height and not world.members[key].busy, 3_000)


def joined(world: World, key: Key, height: int) -> None:
    """By the state of that height, and then by blocks."""
    synced(world, key, world.node(world.validators[0]).height)
    assert said(world, key, f"took over the state of height {height}") == 1
    disk = world.members[key].disk
    assert disk.snapshot is not None
    assert (disk.snapshot.header.height, world.node(key).begins) == (height, height)
    assert not any(at <= height for at in disk.blocks)
    assert world.node(key).ledger.root() == MerkleMap.of(disk.entries.items()).root()


def test_a_newcomer_with_only_genesis_takes_the_state_and_mines(tmp_path: Path) -> None:
    world = a_network_at(300, tmp_path)
    world.submit(rounds=1_000)
    newcomer = world.keys[4]
    world.reach(2, 600, *world.validators)
    world.start(newcomer)
    joined(world, newcomer, 256)
    world.run(lambda: any(one.key == newcomer and one.earned_micro for one in world.task(newcomer).miners), 1_000)
    world.agree()
    world.check()
    assert world.members[newcomer].refused == []


@pytest.mark.usefixtures("near")
def test_who_is_behind_by_less_takes_blocks(tmp_path: Path) -> None:
    world = a_network_at(60, tmp_path)
    newcomer = world.keys[4]
    world.start(newcomer)
    synced(world, newcomer, 60)
    assert world.members[newcomer].disk.snapshot is None
    assert min(world.members[newcomer].disk.blocks) == 1


@pytest.mark.usefixtures("near")
def test_wrong_parts_are_refused_and_the_others_give_right_ones(tmp_path: Path) -> None:
    world = a_network_at(75, tmp_path)
    newcomer, liar = world.keys[4], world.keys[1]

    def corrupt(peer: Key, answer: Snapshot | Part) -> Snapshot | Part:
        if peer != liar or isinstance(answer, Snapshot):
            return answer
        return replace(answer, keys=(*answer.keys, b"g"), values=(*answer.values, b"forged"))

    asked: list[Key] = []

    def watch(key: Key, effect: ev.Effect) -> None:
        if isinstance(effect, ev.FetchPart):
            asked.append(effect.peer)

    world.corrupt = corrupt
    world.watchers.append(watch)
    world.start(newcomer)
    joined(world, newcomer, 64)
    assert world.members[newcomer].refused.count("a part that is not of its state") == 1
    assert asked.count(liar) == 1
    assert len(set(asked)) == 4
    world.agree()
    world.check()


@pytest.mark.usefixtures("near")
def test_blocks_that_come_late_beside_the_last_part_are_what_counts(tmp_path: Path) -> None:
    """A peer may have kept them back since before the state was asked for."""
    world = a_network_at(75, tmp_path)
    newcomer, late = world.keys[4], world.keys[1]
    first_parts, given = 16, 0

    def delay(peer: Key, answer: Snapshot | Part) -> Snapshot | Part:
        nonlocal given
        given += isinstance(answer, Part)
        if given == first_parts:
            disk, blocks = world.members[late].disk, tuple[Block, ...]()
            while len(blocks) < 75:
                blocks += disk.answer(len(blocks) + 1)
            world.input(newcomer, ev.BlocksFetched(late, blocks))
        return answer

    world.corrupt = delay
    world.start(newcomer)
    synced(world, newcomer, 75)
    assert given == first_parts
    assert said(world, newcomer, "took over") == 0
    world.agree()
    world.check()


@pytest.mark.usefixtures("near")
def test_a_snapshot_that_f_plus_1_have_signed_is_taken_from_nobody(tmp_path: Path) -> None:
    world = a_network_at(75, tmp_path)
    newcomer = world.keys[4]

    def corrupt(peer: Key, answer: Snapshot | Part) -> Snapshot | Part:
        if isinstance(answer, Part):
            return answer
        return replace(
            answer, certificate=replace(answer.certificate, attestations=answer.certificate.attestations[:2])
        )

    world.corrupt = corrupt
    world.start(newcomer)
    synced(world, newcomer, 75)  # by blocks
    assert said(world, newcomer, "took over") == 0
    assert world.members[newcomer].refused.count("a snapshot with a certificate with 2 signatures of 3") == 4


@pytest.mark.usefixtures("near")
def test_where_nobody_has_a_state_to_give_blocks_are_taken(tmp_path: Path) -> None:
    world = a_network_at(75, tmp_path)
    world.corrupt = lambda peer, answer: None
    world.start(world.keys[4])
    synced(world, world.keys[4], 75)
    assert said(world, world.keys[4], "took over") == 0


@pytest.mark.usefixtures("near")
def test_peers_may_go_in_the_middle_and_others_come(tmp_path: Path) -> None:
    """Three of four are killed when the first part has come; one that was away brings the rest."""
    world = a_network_at(75, tmp_path)
    newcomer, late = world.keys[4], world.keys[3]
    world.stop(late)
    parts = 0

    def watch(key: Key, effect: ev.Effect) -> None:
        nonlocal parts
        parts += key == newcomer and isinstance(effect, ev.FetchPart)

    world.watchers.append(watch)
    world.start(newcomer)
    world.run(lambda: parts >= 5, 400)
    for key in world.validators[:3]:
        world.stop(key)
    world.pass_time(1_000)
    assert said(world, newcomer, "took over") == 0
    for key in world.validators[:3]:
        world.start(key)  # the state of their newest height is all that they keep now
    synced(world, newcomer, 75)
    assert said(world, newcomer, "no peer has the state of height 64 any more") == 1
    assert said(world, newcomer, "took over the state of height 75") == 1
    world.start(late)
    grow(world, 80)
    world.agree()
    world.check()


@pytest.mark.usefixtures("near")
def test_a_validator_that_was_long_away_takes_the_state_and_votes_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    grow(world, 5)
    away, other = world.keys[3], world.keys[2]
    world.stop(away)
    grow(world, 80)  # with nothing behind it, so that no blocks follow
    world.agree()
    world.start(away)
    joined(world, away, 80)
    world.stop(other)  # now a quorum takes its vote
    grow(world, 88)
    world.start(other)
    world.agree()
    world.check()


def took_over(effect: ev.Effect) -> bool:
    """The first that it does once all is written."""
    return isinstance(effect, ev.Log) and "took over the state" in effect.text


@pytest.mark.parametrize(
    "last",
    [
        lambda effect: isinstance(effect, ev.FetchPart),
        lambda effect: isinstance(effect, ev.StoreSnapshot),
        lambda effect: isinstance(effect, ev.Forget),
        took_over,
    ],
    ids=["a part asked for", "the state written", "the journal cut", "all written and nothing said"],
)
@pytest.mark.usefixtures("near")
def test_a_validator_may_die_while_it_takes_a_state(tmp_path: Path, last: Callable[[ev.Effect], bool]) -> None:
    world = World(tmp_path, seed=3)
    grow(world, 10)
    away = world.keys[3]
    world.stop(away)
    grow(world, 75)
    world.members[away].assassin = last
    world.start(away)
    world.run(lambda: world.members[away].node is None, 400)
    world.start(away)
    world.run(lambda: world.node(away).height == 75, 2_000)
    assert world.node(away).begins == 64
    world.stop(world.keys[2])
    grow(world, 80)
    world.start(world.keys[2])
    world.agree()
    world.check()


@pytest.mark.usefixtures("near")
def test_nodes_with_their_next_keys_can_show_a_newcomer_all_sets_since_genesis(tmp_path: Path) -> None:
    """A key that gives way takes with it what it has said, not who decided."""
    world = World(tmp_path, miners=1, absent=1, heirs=range(4), window_heights=4)
    world.pass_time(20)
    for key, heir in world.heirs.items():
        base, account = world.node(key).group.base, account_id(key)
        proof = world.members[heir].signer.sign(Possession(account)).signature
        operation = Rekey(account, world.node(key).next_nonce(), NOTHING, heir, proof)
        world.tell(key, ev.OperationAsked(world.members[key].signer.sign(operation)))
        world.run(lambda: all(world.node(one).group.base > base for one in world.running()), 900)  # noqa: B023  # run here
        world.run(lambda: not world.members[key].busy, 100)  # noqa: B023  # run here
        assert world.succeed(key)
    first, newcomer = next(iter(world.heirs.values())), world.keys[4]
    while world.node(first).height < 75:
        height = world.node(first).height
        world.offer(first)
        world.run(lambda: world.node(first).height > height, 400)  # noqa: B023  # run here
    world.start(newcomer)
    synced(world, newcomer, 75)
    assert said(world, newcomer, "took over the state of height 64") == 1
    assert not any("snapshot" in reason for reason in world.members[newcomer].refused)


@pytest.mark.usefixtures("near")
def test_who_finds_the_blocks_that_it_lacks_nowhere_takes_a_state_however_near(tmp_path: Path) -> None:
    world = a_network_at(25, tmp_path)
    for key in world.validators:  # as if all had joined by the state of height 16
        disk = world.members[key].disk
        disk.blocks = {height: block for height, block in disk.blocks.items() if height > 16}
    world.start(world.keys[4])
    world.pass_time(100)
    grow(world, 27)  # whose certificate it hears
    world.run(lambda: world.node(world.keys[4]).height == 27, 3_000)
    assert world.node(world.keys[4]).begins == 16


@pytest.mark.usefixtures("near")
def test_a_restarted_node_gives_the_state_that_it_began_with(tmp_path: Path) -> None:
    world = a_network_at(75, tmp_path)
    world.agree()
    for key in world.validators:
        world.stop(key)
        world.start(key)
    world.start(world.keys[4])
    joined(world, world.keys[4], 75)


@pytest.mark.usefixtures("near")
def test_a_certificate_that_comes_late_for_a_height_that_was_skipped_is_not_stored(tmp_path: Path) -> None:
    """There is no block that it could stand beside."""
    world = World(tmp_path)
    first, second, third, away = world.keys
    stored: list[int] = []

    def tamper(key: Key, effect: ev.Effect) -> ev.Effect | None:
        if isinstance(effect, ev.FetchBlocks | ev.FetchBatch):
            return None
        if not isinstance(effect, ev.Send) or effect.to != away:
            return effect
        said = signed_by(key, [effect.data])
        return effect if key in (first, second) and any(header_in(world, one) for one in said) else None

    def watch(key: Key, effect: ev.Effect) -> None:
        if key == away and isinstance(effect, ev.StoreCertificate):
            stored.append(effect.certificate.header.height)

    world.tamper = tamper
    world.watchers.append(watch)
    grow(world, 20)
    world.run(lambda: world.node(away).begins == 16, 2_000)
    headers = {
        one.height: signed
        for signed in signed_by(third, world.members[third].sent)
        if (one := header_in(world, signed))
    }
    world.tell(away, ev.Framed(third, encode(headers[10])))  # the third of three
    world.pass_time(5)
    assert not any(height <= 16 for height in stored)


def keep_from_blocks(world: World, away: Key) -> None:
    """This node gets no blocks, so that it stays where it is until a state is worth taking."""
    world.tamper = lambda key, effect: None if key == away and isinstance(effect, ev.FetchBlocks) else effect


@pytest.mark.usefixtures("near")
def test_what_became_of_an_operation_in_heights_that_were_skipped_is_said_to_nobody(tmp_path: Path) -> None:
    """It is not known here: to say that it failed would have its operator do it twice."""
    world = World(tmp_path, miners=1)
    away, first = world.keys[4], world.keys[0]
    keep_from_blocks(world, away)
    signed = world.members[away].signer.sign(Transfer(world.node(away).account, 0, bytes(31) + b"\x01", 1, ""))
    world.tell(away, ev.OperationAsked(signed))
    world.run(lambda: world.node(first).receipt(record_digest(signed)) == "", 200)
    grow(world, 75)
    world.run(lambda: world.node(away).begins == 64, 1_000)
    world.tamper = None
    grow(world, 77)
    world.agree()
    assert world.node(away).next_nonce() == 1
    assert world.node(away).receipt(record_digest(signed)) is None
    sent: list[ev.Effect] = []

    def watch(key: Key, effect: ev.Effect) -> None:
        if key == away and isinstance(effect, ev.Send | ev.Publish):
            sent.append(effect)

    world.watchers.append(watch)
    world.pass_time(100)
    assert sent == []  # nor is it said again


@pytest.mark.usefixtures("near")
def test_a_task_that_ended_and_was_forgotten_in_heights_that_were_skipped_is_put_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potd.ledger.tasks.TASKS_MAX", 1)
    world = World(tmp_path, miners=1, settle_heights=4)
    away = world.keys[4]
    forgotten = world.submit(rounds=3)
    world.reach(1, 600)
    assert list(world.node(away).desks.parts) == [forgotten]
    keep_from_blocks(world, away)
    node = world.node(world.keys[0])
    world.run(lambda: next(node.ledger.tasks()).phase == Phase.DONE, 1_000)
    world.run(lambda: node.ledger.settling() == (), 400)
    spec = node.ledger.spec(forgotten)
    assert spec is not None
    longer = replace(spec, rounds=1_000)
    submission = world.members[world.keys[0]].signer.sign(Submit(node.account, node.next_nonce(), longer, 10**9))
    world.input(world.keys[0], ev.OperationAsked(submission))
    world.run(lambda: node.ledger.task(forgotten) is None, 100)
    (following,) = node.ledger.task_ids()
    grow(world, 100)
    world.run(lambda: world.node(away).begins > 0, 1_000)
    assert list(world.node(away).desks.parts) == [following]
    assert not any(data for name, data in world.members[away].disk.notes.items() if forgotten.hex() in name)
    world.tamper = None
    world.agree()
    world.check()
