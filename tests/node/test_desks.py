"""What a task's parts are told of a height: nothing if it left the task alone, and no more than has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from potd.ledger.state import Ledger
from potd.node.tasks import Desks, view_of
from potd.rounds.events import UNAUDITED, Opened
from potd.rounds.keeper import Desk
from potd.rounds.part import Roles
from potd.rounds.tally import Electorate
from potd.wire.envelope import Signer
from potd.wire.ids import NOTHING, TaskId, digest
from tests.ledger.world import World

NOBODY = Electorate(NOTHING, (), 1, 1)


def desks_of(world: World, who: int = 1, key: Signer | None = None) -> Desks:
    roles = Roles(
        key or world.people[who],
        world.ids[who],
        NOBODY,
        validator=False,
        miner=True,
        trainer=False,
        reveal_ticks=1,
        work_ticks_max=1,
    )
    return Desks(roles, Desk(set(), iter(range(9))), {})


def tell(desks: Desks, ledger: Ledger, task: TaskId) -> bool:
    """Whether anything came of the state after a height."""
    entry = ledger.task(task)
    assert entry is not None
    return desks.changed(entry, ledger.spec(task), ledger.height, UNAUDITED) != []


def test_the_view_moves_on_to_what_it_would_be_made_afresh() -> None:
    world = World()
    task = world.opened(1, 2, 3, rounds=9)
    desks = desks_of(world)
    for _ in range(9):
        steps: list[Callable[[], object]] = [
            lambda: world.execute(world.enrol(3, task, world.task(task).round + 2)),
            lambda: world.sealed(task, 1, 2, 3),
            lambda: world.execute(world.update(task)),
        ]
        for step in steps:
            step()
            tell(desks, world.ledger, task)
            spec = world.ledger.spec(task)
            assert spec is not None
            assert task not in desks.parts or desks.parts[task].view == view_of(world.task(task), spec)
    assert task not in desks.parts, "it is done"


def test_a_height_that_left_a_task_alone_leaves_its_view() -> None:
    world = World()
    task = world.opened(1, 2)
    desks = desks_of(world)
    assert tell(desks, world.ledger, task)
    view = desks.parts[task].view
    world.execute(world.transfer(5, digest("to"), 1))
    assert not tell(desks, world.ledger, task)
    assert desks.parts[task].view is view


def test_an_entry_that_is_the_same_to_the_rounds_tells_them_nothing() -> None:
    world = World()
    task = world.opened(1, 2)
    desks = desks_of(world)
    assert tell(desks, world.ledger, task)
    entry = replace(world.task(task), lapses=1)
    assert desks.changed(entry, world.ledger.spec(task), 9, UNAUDITED) == []


def test_a_seal_from_which_nobody_was_absent_leaves_seats_and_windows_as_they_were() -> None:
    world = World()
    task = world.opened(1, 2)
    desks = desks_of(world)
    tell(desks, world.ledger, task)
    before = desks.parts[task].view
    assert before is not None
    world.sealed(task, 1, 2)
    assert tell(desks, world.ledger, task)
    after = desks.parts[task].view
    assert after is not None
    assert after.phase != before.phase
    assert (after.seats is before.seats, after.window is before.window) == (True, True)


def test_a_seat_that_has_not_changed_is_the_one_of_before() -> None:
    world = World()
    task = world.opened(1, 2)
    desks = desks_of(world)
    tell(desks, world.ledger, task)
    before = desks.parts[task].view
    world.execute(world.enrol(3, task))
    assert tell(desks, world.ledger, task)
    after = desks.parts[task].view
    assert before is not None
    assert after is not None
    kept = [one for one in after.seats if any(one is old for old in before.seats)]
    assert (len(kept), len(after.seats)) == (2, 3)


def test_a_miner_whose_key_was_rotated_enrols_afresh_with_the_new_one() -> None:
    world = World()
    task = world.opened(5, 6, rounds=9)
    coming = Signer(b"\x77" * 32, world.ledger.network)
    before, after = desks_of(world, 5), desks_of(world, 5, coming)

    def due(desks: Desks) -> list[TaskId]:
        tell(desks, world.ledger, task)
        desks.parts[task].opened = Opened((), (), ())
        return desks.to_enrol(None, 0, {})

    assert world.reasons(world.rekey(5, node=coming)) == [""]
    assert (due(before), due(after)) == ([], [task])
    assert world.reasons(world.enrol(5, task)) == [""]
    assert due(after) == []
