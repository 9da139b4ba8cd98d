"""Whole tasks from submission to the last score, by nodes of every role, through absence and sleep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from potd.ledger.entries import Phase
from potd.node import events as ev
from potd.simulation.world import World
from potd.wire.blobs import read_blob
from potd.wire.blocks import record_digest
from potd.wire.envelope import Signer
from potd.wire.ids import Key, TaskId, account_id, digest
from potd.wire.jobs import Train
from potd.wire.operations import Transfer
from potd.wire.rules import MEAN


def done(world: World, task: TaskId) -> None:
    """Run until everybody knows the task to be done and its last model scored."""

    def finished() -> bool:
        known = [world.node(key).ledger.task(task) for key in world.running()]
        return all(one is not None and one.phase == Phase.DONE and one.measured[0].round == one.round for one in known)

    world.run(finished, 3_000)
    world.agree()
    world.check()


def same_everywhere(world: World) -> None:
    assert len({world.node(key).ledger.root() for key in world.running()}) == 1
    assert len({world.task(key).model for key in world.running()}) == 1


def earned(world: World, key: Key) -> int:
    return sum(one.earned_micro for one in world.task(key).miners if one.account == account_id(key))


def asleep(world: World, *keys: Key) -> None:
    """From now on these nodes' trainers answer nothing."""

    def tamper(key: Key, effect: ev.Effect) -> ev.Effect | None:
        return None if key in keys and isinstance(effect, ev.Run) and isinstance(effect.job, Train) else effect

    world.tamper = tamper


def test_a_task_is_trained_paid_and_scored(tmp_path: Path) -> None:
    world = World(tmp_path)
    task = world.submit(rounds=10)
    done(world, task)
    same_everywhere(world)
    state = world.task(world.keys[0])
    assert (state.round, state.counted_rounds, state.escrow_micro) == (10, 10, 0)
    assert state.measured[0].correct == 7
    shares = {key: earned(world, key) for key in world.keys}
    a_round = 8 * 1_000 * 9 // 10  # for eight samples, less a tenth for the validators
    assert all(each >= 7 * a_round for each in shares.values())
    theta = np.frombuffer(read_blob(tmp_path, state.model), "<f4")
    assert float(np.square(theta - 1).mean()) < 0.05, "towards the point that its trainers pull to"
    for key in world.keys:
        replica = world.node(key).replica
        assert replica is not None
        assert replica.view == 0, "nothing gave reason to change the primary"


def test_miners_that_do_not_vote_are_counted_and_clients_follow(tmp_path: Path) -> None:
    world = World(tmp_path, seed=1, miners=2, clients=1)
    task = world.submit(rounds=8)
    done(world, task)
    same_everywhere(world)
    client = world.keys[-1]
    assert all(earned(world, key) > 0 for key in world.keys if key != client)
    assert world.task(client).miner(account_id(client)) is None
    assert world.members[client].sent == {}, "a client has nothing to say"


def test_who_joins_late_starts_from_nothing_and_is_counted(tmp_path: Path) -> None:
    """A validator that was never there, a miner and a client: all of them begin with genesis alone."""
    world = World(tmp_path, seed=2, miners=1, clients=1)
    late = world.keys[3:]
    for key in late:
        world.stop(key)
    world.submit(rounds=14)
    world.reach(4, 1_500)
    assert all(world.members[key].disk.blocks == {} for key in late)
    for key in late:
        world.start(key)
    done(world, world.task(world.keys[0]).id)
    same_everywhere(world)
    assert all(earned(world, key) > 0 for key in late[:2])


def test_a_miner_that_was_away_is_suspended_comes_back_and_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path, seed=3)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    away = world.keys[2]
    world.stop(away)

    def seat() -> bool:
        miner = world.task(world.keys[0]).miner(account_id(away))
        assert miner is not None
        return miner.suspended

    world.run(seat, 1_000)
    before, began = earned(world, world.keys[0]), world.round(world.keys[0])
    world.reach(began + 2, 400)
    assert earned(world, world.keys[0]) > before, "the others go on"
    kept = earned(world, world.keys[0])
    world.start(away)
    world.run(lambda: not seat(), 400)
    joined = world.round(world.keys[0]) + 3
    world.reach(joined, 600)
    world.agree()
    world.check()
    same_everywhere(world)
    assert earned(world, away) > 0
    assert earned(world, world.keys[0]) > kept


def test_rounds_without_enough_miners_lapse_unpaid_until_the_task_sleeps_and_an_enrolment_wakes_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, seed=4)
    world.submit(rounds=1_000, miners_min=3, deadline_ticks_max=30)
    world.reach(2, 600)
    asleep(world, *world.keys[:2])
    world.run(lambda: world.task(world.keys[2]).phase == Phase.ASLEEP, 2_000)
    world.agree()
    state = world.task(world.keys[2])
    assert state.lapses == 3
    escrow, seed, number = state.escrow_micro, state.seed, state.round
    world.tamper = None
    world.run(lambda: world.task(world.keys[2]).phase == Phase.TRAINING, 2_000)
    woken = world.task(world.keys[2])
    assert (woken.escrow_micro, woken.round) == (escrow, number), "nobody was paid for what lapsed"
    assert woken.seed != seed
    world.run(lambda: world.task(world.keys[2]).counted_rounds > state.counted_rounds, 1_000)
    world.agree()
    world.check()
    same_everywhere(world)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_group_of_any_size_trains(tmp_path: Path, size: int) -> None:
    world = World(tmp_path, size=size, seed=size)
    done(world, world.submit(rounds=5, miners_min=1))
    same_everywhere(world)
    assert world.task(world.keys[0]).counted_rounds == 5


def test_two_tasks_are_trained_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, seed=5)
    tasks = [world.submit(rounds=8), world.submit(rounds=6, name="another", rule=MEAN)]
    for task in tasks:
        done(world, task)
    same_everywhere(world)
    assert [world.task(world.keys[1], index).counted_rounds for index in range(2)] == [8, 6]
    assert world.task(world.keys[1], 0).model != world.task(world.keys[1], 1).model


def test_a_task_may_begin_with_a_model_that_another_lets_go(tmp_path: Path) -> None:
    """The weights of a second task are an early model of the first, which forgets it sixteen rounds later."""
    world = World(tmp_path, seed=6)
    world.submit(rounds=24)
    world.reach(2, 600)
    world.agree()
    early = world.task(world.keys[0]).model
    world.submit(rounds=24, weights=early, miners_min=5)  # it waits for a miner that never comes
    world.run(lambda: world.task(world.keys[0]).phase == Phase.DONE, 4_000)
    assert all(early in world.members[key].disk.held for key in world.keys)


def test_a_node_that_cannot_be_heard_enrols_once_however_long_it_takes(tmp_path: Path) -> None:
    world = World(tmp_path, seed=7, miners=1)
    deaf = world.keys[-1]
    world.tamper = lambda key, effect: None if key == deaf and isinstance(effect, ev.Publish) else effect
    world.submit(rounds=1_000)
    world.pass_time(300)
    account = world.node(deaf).ledger.account(account_id(deaf))
    assert account is not None
    assert world.node(deaf).next_nonce() == account.nonce + 1, "one enrolment waits, not one for every attempt"
    world.tamper = None
    world.reach(world.round(deaf) + 3, 600)
    world.agree()
    world.check()
    assert world.task(deaf).miner(account_id(deaf)) is not None


def test_an_operation_that_the_primary_has_not_heard_is_forwarded_to_it(tmp_path: Path) -> None:
    """Castro & Liskov 1999, 4.4: else a backup that alone has heard it would give up a primary that is not at fault."""
    world = World(tmp_path, seed=21)
    backup, primary = world.keys[1], world.keys[0]
    world.tamper = lambda key, effect: None if isinstance(effect, ev.Publish) and key == backup else effect
    node = world.members[backup].node
    assert node is not None
    operation = Transfer(node.account, node.next_nonce(), digest("somebody"), 5, "")
    signed = world.members[backup].signer.sign(operation)
    world.input(backup, ev.OperationAsked(signed))
    world.run(lambda: node.receipt(record_digest(signed)) == "", 200)
    assert node.replica is not None
    assert (node.replica.view, node.replica.primary) == (0, primary)


def test_an_operation_that_was_refused_once_is_judged_afresh_when_it_is_asked_again(tmp_path: Path) -> None:
    """The same bytes: what was refused for want of money may be paid for by now. And it is told to nobody before."""
    world = World(tmp_path, seed=22)
    node, poor = world.node(world.keys[0]), Signer(bytes([201]) * 32, world.network)
    operation = poor.sign(Transfer(account_id(poor.key), 0, digest("somebody"), 5, ""))
    name = record_digest(operation)
    effects = node.step(ev.OperationAsked(operation))
    assert not any(isinstance(one, ev.Publish) for one in effects)
    assert "a balance of 0" in str(node.receipt(name))
    rich = world.members[world.keys[1]].signer
    giver = world.node(world.keys[1])
    gift = rich.sign(Transfer(giver.account, giver.next_nonce(), account_id(poor.key), 10**6, ""))
    world.tell(world.keys[1], ev.OperationAsked(gift))
    world.run(lambda: node.ledger.account(account_id(poor.key)) is not None, 200)
    world.input(world.keys[0], ev.OperationAsked(operation))
    world.run(lambda: node.receipt(name) is None, 20)
    world.run(lambda: node.receipt(name) == "", 200)


def test_a_nodes_public_key_is_told_from_an_account(tmp_path: Path) -> None:
    """What is paid to a key lies in an account that nobody can open."""
    world = World(tmp_path, seed=23)
    world.pass_time(5)
    node, stranger = world.node(world.keys[0]), Signer(bytes([202]) * 32, world.network).key
    assert all(node.is_public_key(key) and not node.is_public_key(account_id(key)) for key in world.keys)
    assert not node.is_public_key(stranger), "not met yet"
    world.input(world.keys[0], ev.PeerUp(stranger, 0))
    assert node.is_public_key(stranger)
