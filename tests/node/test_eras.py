"""Validators change while rounds, operations and crashes go on: nothing accepted is lost, and nobody needs to know."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potd.consensus.quorum import certificate_fault
from potd.gossip.admit import Screening
from potd.ledger.entries import COUNCIL, Council
from potd.node import events as ev
from potd.node.eras import ERA_NOTE
from potd.node.history import replay
from potd.rounds.tally import Electorate
from potd.simulation.disk import Write
from potd.simulation.world import World
from potd.wire.blocks import Block, Certificate
from potd.wire.codec import decode, encode
from potd.wire.consensus import Proposal, Status
from potd.wire.envelope import Signed
from potd.wire.genesis import TICK_MS
from potd.wire.ids import Key, account_id
from potd.wire.operations import Back, Possession, Resign, Stand, Transfer


def network(folder: Path, seed: int = 0, *, miners: int = 1, candidates: int = 1) -> World:
    """Four validators that mine, some that only mine, and some that will validate once they are given a seat."""
    world = World(folder, seed=seed, miners=miners, clients=candidates, window_heights=4, unbonding_heights=1)
    for key in world.keys[4 + miners :]:
        member = world.members[key]
        member.settings = replace(member.settings, validator=True)
        world.stop(key)
        world.start(key)
    return world


def ask(world: World, key: Key, *bodies: Any) -> None:
    """Have this node want these operations, with the next nonces."""
    for body in bodies:
        node, signer = world.node(key), world.members[key].signer
        signed = signer.sign(replace(body, nonce=node.next_nonce()))
        world.tell(key, ev.OperationAsked(signed))
        world.pass_time(1)


def admit(world: World, key: Key) -> None:
    """Have it stand for a seat, and those who have one back it."""
    account = account_id(key)
    proof = world.members[key].signer.sign(Possession(account)).signature
    ask(world, key, Stand(account, 0, key, proof))
    world.run(lambda: account in {one.account for one in council(world).candidates}, 600)
    for each in seated(world):
        ask(world, each, Back(account_id(each), 0, account, True))


def council(world: World) -> Council:
    found = world.node(world.running()[0]).ledger.read(COUNCIL, Council)
    assert found is not None
    return found


def seated(world: World) -> tuple[Key, ...]:
    """Who has a seat, as far as the furthest node knows."""
    return max((world.node(key) for key in world.running()), key=lambda node: node.height).group.keys


def turned(world: World, keys: set[Key]) -> Callable[[], bool]:
    """Whether every node that runs has turned to this set."""
    return lambda: all(set(world.node(key).group.keys) == keys for key in world.running())


def blocks(world: World) -> Iterator[Block]:
    """The longest chain on any disk, with every certificate on any."""
    disks = [member.disk for member in world.members.values()]
    longest = max(disks, key=lambda disk: len(disk.blocks))
    for height, (header, batch) in sorted(longest.blocks.items()):
        proofs = [disk.certificates[height] for disk in disks if height in disk.certificates]
        yield Block(header, proofs[0].attestations if proofs else (), batch)


def check(world: World) -> None:
    """No run may show otherwise, and nobody was told that it had no seat when it spoke."""
    world.check()
    for member in world.members.values():
        assert "not a validator" not in member.refused


def test_a_new_validator_is_given_a_seat_and_an_old_one_gives_its_own_up(tmp_path: Path) -> None:
    world = network(tmp_path)
    old, new = world.keys[0], world.keys[-1]
    world.submit(rounds=1_000)
    world.reach(3, 900)
    assert world.node(new).seat() == "none"
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 600)
    assert world.node(new).seat() == "5 of 5"
    world.reach(world.round(new) + 2, 900)
    ask(world, old, Resign(account_id(old), 0))
    world.run(turned(world, {*world.keys[1:4], new}), 600)
    base = world.node(old).group.base
    assert world.node(old).seat() == f"ended at height {base}"
    assert any(f"our seat has ended at height {base}" in line for line in world.members[old].log)
    world.reach(world.round(new) + 4, 1_500)
    world.agree()
    check(world)
    lapsed = [world.task(key).lapses for key in world.running()]
    assert lapsed == [0] * len(lapsed)


def test_an_idle_network_changes_its_validators_and_comes_to_rest(tmp_path: Path) -> None:
    world = network(tmp_path)
    admit(world, world.keys[-1])
    world.run(turned(world, {*world.keys[:4], world.keys[-1]}), 600)
    height = world.node(world.keys[0]).group.base
    world.pass_time(300)
    assert {world.node(key).height for key in world.keys} == {height}
    assert {world.node(key).certified for key in world.keys} == {height}
    assert {world.node(key).replica.view for key in world.node(world.keys[0]).group.keys} == {0}  # type: ignore[union-attr]  # they validate
    check(world)


@pytest.mark.parametrize("offset", range(8))
def test_training_and_operations_go_on_through_a_change_in_any_phase(tmp_path: Path, offset: int) -> None:
    """The offset moves the change through the phases of a round."""
    world = network(tmp_path, offset)
    first, last, new = world.keys[0], world.keys[3], world.keys[-1]
    world.submit(rounds=1_000)
    world.reach(2, 900)
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 600)
    world.pass_time(3 * offset)
    ask(world, last, Resign(account_id(last), 0))
    sent = [Transfer(account_id(key), 0, account_id(first), 1, f"{key.hex()[:6]}") for key in world.keys[1:3]]
    for key, body in zip(itertools.cycle(world.keys[1:3]), sent * 4, strict=False):
        ask(world, key, body)
    world.run(turned(world, {*world.keys[:3], new}), 600)
    before = world.round(new)
    began = world.now
    world.reach(before + 4, 1_200)
    assert world.now - began < 600 * TICK_MS
    nodes = [world.node(key) for key in world.keys[1:3]]  # which go on to ask as auditors
    world.run(lambda: all(one.ledger.nonce(one.account) == one.next_nonce() for one in nodes), 100)
    world.agree()
    check(world)
    task = world.task(first)
    assert task.lapses == 0
    assert task.counted_rounds == task.round


def test_who_loses_a_seat_and_is_given_one_again_reports_no_round_twice(tmp_path: Path) -> None:
    """It remembers what it has said in its first seat, also if the round is still the same."""
    world = network(tmp_path, 5)
    key = world.keys[3]
    world.submit(rounds=1_000, deadline_ticks_min=400, deadline_ticks_max=2_000)
    world.reach(1, 2_500)
    admit(world, world.keys[-1])
    world.run(turned(world, {*world.keys[:4], world.keys[-1]}), 600)
    number = world.round(key)
    for _ in range(2):
        ask(world, key, Resign(account_id(key), 0))
        world.run(turned(world, {*world.keys[:3], world.keys[-1]}), 900)
        world.run(lambda: world.node(key).ledger.height > world.node(key).group.base + 2, 900)
        admit(world, key)
        world.run(turned(world, {*world.keys[:4], world.keys[-1]}), 900)
    world.reach(number + 2, 4_000)
    check(world)


@pytest.mark.parametrize("away", [0, 3, 4, 5])
def test_who_was_cut_off_while_the_validators_changed_follows(tmp_path: Path, away: int) -> None:
    """The first keeps its seat, the fourth loses it, the fifth mines, the sixth is given one."""
    world = network(tmp_path, away)
    lost, new = world.keys[away], world.keys[-1]
    others = tuple(key for key in world.keys if key != lost)
    world.submit(rounds=1_000)
    world.reach(2, 900)
    admit(world, new)
    if away != 3:
        world.links.part((lost,), others)
    world.run(lambda: all(len(world.node(key).group.keys) == 5 for key in others), 900)
    ask(world, world.keys[3], Resign(account_id(world.keys[3]), 0))
    if away == 3:
        world.pass_time(5)
        world.links.part((lost,), others)
    world.run(lambda: all(world.node(key).group.keys == (*world.keys[:3], new) for key in others), 1_500)
    world.reach(world.round(others[0]) + 2, 1_500, *others)
    world.links.heal()
    for other in others:
        world._meet(lost, other)
    world.run(turned(world, {*world.keys[:3], new}), 900)
    world.reach(world.round(others[0]) + 2, 1_500)
    world.agree()
    check(world)


def kills(world: World, victim: Key, count: int) -> Callable[[ev.Effect], bool]:
    """Kill the victim after so many writes since the first that it made with the end of its era in sight."""
    seen = itertools.count(1)

    def kill(effect: ev.Effect) -> bool:
        if not isinstance(effect, Write):
            return False
        node = world.members[victim].node
        if node is None or (node._ends is None and node.group.base == 0):
            return False
        return next(seen) == count

    return kill


@pytest.mark.parametrize("who", [0, 3, 5])
def test_a_node_may_die_at_any_write_around_the_end_of_an_era(tmp_path: Path, who: int) -> None:
    """The first keeps its seat, the fourth loses it, the sixth is given one; the network is idle otherwise."""
    for count in itertools.count(1, 2):
        world = network(tmp_path, who)
        victim, new = world.keys[who], world.keys[-1]
        admit(world, new)
        if who == 3:
            world.run(turned(world, {*world.keys[:4], new}), 600)
            ask(world, victim, Resign(account_id(victim), 0))
        world.members[victim].assassin = kills(world, victim, count)
        wanted = {*world.keys[:4], new} if who != 3 else {*world.keys[:3], new}
        others = [key for key in world.keys if key != victim]
        world.run(lambda: all(set(world.node(key).group.keys) == wanted for key in others), 900)  # noqa: B023  # run here
        world.members[victim].assassin = None
        world.pass_time(20)
        died = victim not in world.running()
        if died:
            world.start(victim)
        world.run(turned(world, wanted), 600)
        assert (world.node(victim).replica is not None) == (victim in wanted)
        ask(world, world.keys[1], Transfer(account_id(world.keys[1]), 0, account_id(new), 1, ""))
        world.agree()
        check(world)
        if not died:
            break
    assert count > 6


def test_the_end_of_an_era_is_remembered_until_it_is_certified(tmp_path: Path) -> None:
    """The ledger has gone on to the next set when the last height is executed; who decided it is in a note."""
    world = network(tmp_path, 1)
    new = world.keys[-1]
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 600)
    victim = world.keys[0]
    ask(world, world.keys[3], Resign(account_id(world.keys[3]), 0))
    world.members[victim].assassin = lambda effect: (
        isinstance(effect, ev.Store) and effect.header.height == world.node(victim)._ends
    )
    world.run(lambda: victim not in world.running(), 900)
    disk = world.members[victim].disk
    assert disk.notes[ERA_NOTE] != b""
    world.start(victim)
    node = world.node(victim)
    assert node.certified < node.height == node._ends
    assert set(node.group.keys) == {*world.keys[:4], new}
    assert node.group.before == world.keys[:4]
    world.run(turned(world, {*world.keys[:3], new}), 600)
    check(world)


def test_a_chain_through_changes_is_replayed_from_genesis_alone(tmp_path: Path) -> None:
    world = network(tmp_path)
    new = world.keys[-1]
    task = world.submit(rounds=1_000)
    world.reach(2, 900)
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 600)
    ask(world, world.keys[0], Resign(account_id(world.keys[0]), 0))
    world.run(turned(world, {*world.keys[1:4], new}), 600)
    world.reach(world.round(new) + 2, 900)
    world.agree()
    chain = list(blocks(world))
    history = replay(world.genesis, chain, task, [16] * 8)
    assert history.ledger.height == world.node(new).height
    assert history.supply_conserved
    cut = [replace(one, attestations=()) if one.header.height == world.node(new).group.base else one for one in chain]
    with pytest.raises(ValueError, match="before the last height of those before them was certified"):
        replay(world.genesis, cut, task, [16] * 8)


def test_a_certificate_of_later_validators_is_a_hint_and_held_against_nobody(tmp_path: Path) -> None:
    world = network(tmp_path, 2)
    lost, new = world.keys[4], world.keys[-1]
    others = tuple(key for key in world.keys if key != lost)
    world.links.part((lost,), others)
    admit(world, new)
    world.run(lambda: all(len(world.node(key).group.keys) == 5 for key in others), 900)
    ask(world, world.keys[0], Resign(account_id(world.keys[0]), 0))
    world.run(lambda: all(world.node(key).group.keys == (*world.keys[1:4], new) for key in others), 900)
    for _ in range(3):
        ask(world, world.keys[1], Transfer(account_id(world.keys[1]), 0, account_id(new), 1, ""))
        world.pass_time(20)
    known = world.members[new].disk.certificates
    newest = known[max(height for height, one in known.items() if new in {sign.key for sign in one.attestations})]
    node = world.node(lost)
    assert certificate_fault(newest, node.group)
    assert node.screen(newest) is Screening.ACCEPT
    for peer in world.keys[1:4]:
        (told,) = node.step(ev.Framed(peer, encode(newest)))
        assert isinstance(told, ev.Ignore)
    world.links.heal()
    world.run(turned(world, {*world.keys[1:4], new}), 600)
    check(world)


def test_a_late_certificate_of_the_validators_before_is_no_fault_of_who_passes_it_on(tmp_path: Path) -> None:
    world = network(tmp_path, 2)
    admit(world, world.keys[-1])
    world.run(turned(world, {*world.keys[:4], world.keys[-1]}), 900)
    node, known = world.node(world.keys[4]), world.members[world.keys[4]].disk.certificates
    late = next(known[height] for height in sorted(known, reverse=True) if height < node.group.base)
    assert node.screen(late) is Screening.ACCEPT
    assert node.screen(replace(late, attestations=late.attestations[1:])) is Screening.REJECT
    assert node.screen(replace(late, header=replace(late.header, state=bytes(32)))) is Screening.REJECT
    ask(world, world.keys[0], Resign(account_id(world.keys[0]), 0))
    world.run(turned(world, {*world.keys[1:4], world.keys[-1]}), 900)
    assert node.screen(late) is Screening.IGNORE


def test_a_primary_that_does_not_bring_an_idle_network_to_the_end_is_replaced(tmp_path: Path) -> None:
    world = network(tmp_path, 3, miners=0)
    lazy, new = world.keys[0], world.keys[-1]

    def lose(key: Key, effect: ev.Effect) -> ev.Effect | None:
        proposal = decode(effect.data, Signed, Proposal, Certificate) if isinstance(effect, ev.Send) else None
        empty = isinstance(proposal, Proposal) and not proposal.batch.records
        return None if key == lazy and empty else effect

    world.tamper = lose
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 1_500)
    assert any("without height" in line for line in world.members[world.keys[1]].log)
    check(world)


def behind(world: World) -> tuple[Key, list[Block]]:
    """A node that has heard nothing while a set gave way to another that went on, and the chain of the others."""
    lost, new = world.keys[4], world.keys[-1]
    others = tuple(key for key in world.keys if key != lost)
    world.links.part((lost,), others)
    admit(world, new)
    world.run(lambda: all(len(world.node(key).group.keys) == 5 for key in others), 900)
    ask(world, world.keys[1], Transfer(account_id(world.keys[1]), 0, account_id(new), 1, ""))
    world.run(lambda: world.node(new).certified > world.node(new).group.base, 600)
    return lost, list(blocks(world))


def test_a_run_of_blocks_that_hides_the_end_of_an_era_is_refused(tmp_path: Path) -> None:
    """The quorum of the next set may be one of this set as well: four of five, of which all are known."""
    world = network(tmp_path)
    lost, chain = behind(world)
    node, base = world.node(lost), world.node(world.keys[0]).group.base
    bare = [replace(one, attestations=()) if one.header.height <= base else one for one in chain]
    known = [
        one for one in chain[-1].attestations if one.key in world.keys[:4]
    ]  # what the lost node takes for a quorum, if there are three
    assert len(known) >= 3
    bare[-1] = replace(bare[-1], attestations=tuple(known[:3]))
    effects = node.step(ev.BlocksFetched(world.keys[0], tuple(bare)))
    reason = "blocks beyond the end of an era without the certificate of its last height"
    assert [one for one in effects if isinstance(one, ev.Refuse)] == [ev.Refuse(world.keys[0], reason)]
    assert node.height == 0
    node.step(ev.BlocksFetched(world.keys[0], tuple(chain)))
    assert (node.height, node.group.base) == (len(chain), base)


def test_a_node_without_a_seat_shows_those_behind_that_there_is_more(tmp_path: Path) -> None:
    world = network(tmp_path)
    lost, chain = behind(world)
    node = world.node(lost)
    node.step(ev.BlocksFetched(world.keys[0], tuple(chain)))
    signer = world.members[world.keys[3]].signer
    asked_for = ev.Framed(signer.key, encode(signer.sign(Status(0, False, 0, 0))))
    assert node.step(asked_for) == [ev.Send(signer.key, encode(chain[-1].certificate()))]
    level = ev.Framed(signer.key, encode(signer.sign(Status(0, False, len(chain), len(chain)))))
    assert node.step(level) == []


def test_reports_of_those_without_a_seat_count_no_more(tmp_path: Path) -> None:
    """The round waits for its reveals while the set changes; what is sealed or added up then is by the new set."""
    world = network(tmp_path, 7)
    new = world.keys[-1]
    world.submit(rounds=1_000)
    world.reach(2, 900)
    admit(world, new)
    world.run(turned(world, {*world.keys[:4], new}), 600)
    validator = next(iter(world.node(world.keys[0]).desks.parts.values())).validator
    assert validator is not None
    ask(world, world.keys[3], Resign(account_id(world.keys[3]), 0))
    world.run(lambda: world.node(world.keys[0]).group.base == world.node(world.keys[0]).height > 6, 900)
    world.run(lambda: set(world.node(world.keys[0]).group.keys) == {*world.keys[:3], new}, 600)
    said = [key for by_key in validator._reports.values() for key in by_key]
    assert world.keys[3] not in said
    check(world)


def test_whoever_is_given_a_seat_again_knows_what_it_reported_in_its_first_one(tmp_path: Path) -> None:
    """A report is final, and a round may outlast a seat."""
    world = network(tmp_path, 8)
    world.submit(rounds=1_000)
    world.reach(3, 900)
    desks = world.node(world.keys[0]).desks
    (part,) = desks.parts.values()
    first = part.validator
    assert first is not None
    group = world.node(world.keys[0]).group
    electorate = Electorate(world.network, group.keys, group.quorum, group.some_honest, 9)
    desks.reseated(electorate, False)
    between = part.validator
    desks.reseated(electorate, True)
    again = part.validator
    assert again is not None
    assert (between, again is first) == (None, False)
    assert again._own == first._own != {}
    assert again._view == first._view
