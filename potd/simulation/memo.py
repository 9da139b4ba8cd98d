"""Work that all nodes of a world would do alike is done once. Changes nothing but how long a run takes.

Decoding a frame and executing a batch are functions of their arguments, and what they return is frozen. In production
each node does them on a machine of its own; here one process is all of them, so the names by which the node calls
them are bound, for as long as a world runs, to the same functions with a memory. Nothing else is replaced, and what
raises is not remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

from potd.consensus import quorum, replica
from potd.consensus.quorum import Group
from potd.gossip import admit
from potd.ledger import apply, state
from potd.ledger.entries import Task
from potd.ledger.state import Ledger
from potd.node import agenda, node, operations, shelf, tasks
from potd.node.snapshot import SNAPSHOT_LAG, WORTH_HEIGHTS
from potd.node.tasks import _moved_on
from potd.rounds import plan
from potd.rounds.events import Tip, View
from potd.simulation import checks, transcript, world
from potd.wire import blocks, codec, genesis
from potd.wire.blocks import Batch, Certificate, header_digest
from potd.wire.ids import Digest

FRAMES_MAX = 1 << 13
HEIGHTS_MAX = 1 << 9
OBJECTS_MAX = 1 << 11
BATCHES_MAX = 1 << 6
CERTIFICATES_MAX = 1 << 11
VIEWS_MAX = 64  # of a task that somebody begins with, and windows of it


class BySame:
    """What a function makes of the very same objects: to compare them would cost as much as the function does."""

    def __init__(self, function: Callable[..., Any], most: int) -> None:
        self._function = function
        self._most = most
        self._known: OrderedDict[tuple[int, ...], tuple[tuple[Any, ...], Any]] = OrderedDict()

    def __call__(self, *arguments: Any) -> Any:
        names = tuple(map(id, arguments))
        known = self._known.get(names)  # it keeps its arguments, so that no other object can have their names
        if known is not None:
            return known[1]
        done = self._function(*arguments)
        self._known[names] = arguments, done
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return done


class Views:
    """Tasks as the rounds see them, one view for each entry of a ledger and the chains beside it, from whatever view a
    node comes: one that has started again has read its own from the disk."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Task, View]] = OrderedDict()

    def moved_on(self, view: View, last: Task | None, task: Task, tips: tuple[Tip, ...]) -> View:
        known = self._known.get(id(task))  # it keeps the task, so that no other object can have its name
        if known is None or known[1].tips != tips:
            known = self._known[id(task)] = task, _moved_on(view, last, task, tips)
            if len(self._known) > HEIGHTS_MAX:  # whoever has been away goes through all the heights that it missed
                self._known.popitem(last=False)
        return known[1]


class Faults:
    """What is wrong with certificates: of the very same one, to hash what it holds would take longest of all."""

    def __init__(self, function: Callable[[Certificate, Group], str]) -> None:
        self._function = function
        self._known: OrderedDict[tuple[object, ...], tuple[Certificate, str]] = OrderedDict()

    def of(self, certificate: Certificate, group: Group) -> str:
        of_group = group.network, group.keys, group.base, group.before
        name = id(certificate.header), id(certificate.attestations), of_group  # as in BySame
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = certificate, self._function(certificate, group)
            if len(self._known) > CERTIFICATES_MAX:
                self._known.popitem(last=False)
        return known[1]


class Executions:
    """Batches executed, by the state before them and their digest."""

    def __init__(self, digest_of: Callable[[Batch], Digest]) -> None:
        self._digest_of = digest_of
        self._known: OrderedDict[tuple[Digest, Digest], apply.Executed] = OrderedDict()

    def execute(self, ledger: Ledger, batch: Batch) -> apply.Executed:
        before = header_digest(ledger.header) if ledger.header is not None else ledger.root()
        name = before, self._digest_of(batch)
        done = self._known.get(name)
        if done is None:
            done = self._known[name] = apply.execute(ledger, batch)
            if len(self._known) > HEIGHTS_MAX:
                self._known.popitem(last=False)
        return done


@contextmanager
def shared(snapshot_lag: int = SNAPSHOT_LAG) -> Iterator[None]:
    """While this lasts, the nodes of this process share what they decode and execute; and who is behind by more heights
    than this takes a state and not the blocks, a number that a run of seconds could not reach otherwise."""
    admitted, certified = lru_cache(FRAMES_MAX), lru_cache(CERTIFICATES_MAX)
    fault = Faults(certified(quorum.certificate_fault)).of
    # Where somebody looks for what a mistake breaks, who checks has it otherwise than who is checked.
    sure = vars(checks)["certificate_fault"]
    sure = fault if sure is quorum.certificate_fault else Faults(certified(sure)).of
    of_batch, of_record = BySame(blocks.batch_digest, HEIGHTS_MAX), BySame(blocks.record_digest, OBJECTS_MAX)
    execute = Executions(of_batch).execute
    bound: list[tuple[ModuleType, str, Any]] = [
        (node, "admit_frame", admitted(admit.admit_frame)),
        (node, "admit_commitment", admitted(admit.admit_commitment)),
        (node, "admit_certificate", certified(admit.admit_certificate)),
        (node, "admit_operation", admitted(admit.admit_operation)),
        (node, "execute", execute),
        (node, "certificate_fault", fault),
        (quorum, "certificate_fault", fault),
        (replica, "certificate_fault", fault),
        (checks, "certificate_fault", sure),
        (node, "batch_digest", of_batch),
        (node, "decode", lru_cache(BATCHES_MAX)(codec.decode)),  # batches that were fetched
        (world, "encode", BySame(codec.encode, BATCHES_MAX)),
        (checks, "batch_digest", of_batch),
        (quorum, "batch_digest", of_batch),
        (node, "record_digest", of_record),
        (agenda, "record_digest", of_record),
        (operations, "record_digest", of_record),
        (node, "genesis_ledger", BySame(state.genesis_ledger, 1)),
        (node, "genesis_digest", BySame(genesis.genesis_digest, 1)),
        (transcript, "encode", BySame(codec.encode, HEIGHTS_MAX)),
        (tasks, "view_of", BySame(tasks.view_of, VIEWS_MAX)),
        (tasks, "_moved_on", Views().moved_on),
        (plan, "places_of", BySame(plan.places_of, VIEWS_MAX)),
        (checks, "execute", execute),
        (node, "SNAPSHOT_LAG", snapshot_lag),
        (node, "WORTH_HEIGHTS", min(WORTH_HEIGHTS, snapshot_lag // 2)),
        (shelf, "SNAPSHOT_HEIGHTS", min(shelf.SNAPSHOT_HEIGHTS, snapshot_lag)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in bound]
    for module, name, function in bound:
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)
