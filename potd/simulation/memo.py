"""Work that all nodes of a world would do alike is done once. Changes nothing but how long a run takes.

Decoding a frame and executing a batch are functions of their arguments, and what they return is frozen. In production
each node does them on a machine of its own; here one process is all of them, so the names by which the node calls
them are bound, for as long as a world runs, to the same functions with a memory. Nothing else is replaced, and what
raises is not remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

from potd.gossip import admit
from potd.ledger import apply
from potd.ledger.state import Ledger
from potd.node import node
from potd.simulation import checks
from potd.wire.blocks import Batch, header_digest
from potd.wire.ids import Digest

FRAMES_MAX = 1 << 14
HEIGHTS_MAX = 1 << 9


class Executions:
    """Batches executed, by the state before them."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Digest, Batch], apply.Executed] = OrderedDict()

    def execute(self, ledger: Ledger, batch: Batch) -> apply.Executed:
        before = header_digest(ledger.header) if ledger.header is not None else ledger.root()
        done = self._known.get((before, batch))
        if done is None:
            done = self._known[(before, batch)] = apply.execute(ledger, batch)
            if len(self._known) > HEIGHTS_MAX:
                self._known.popitem(last=False)
        return done


@contextmanager
def shared() -> Iterator[None]:
    """While this lasts, the nodes of this process share what they decode and execute."""
    admitted = lru_cache(FRAMES_MAX)
    execute = Executions().execute
    bound: list[tuple[ModuleType, str, Any]] = [
        (node, "admit_frame", admitted(admit.admit_frame)),
        (node, "admit_commitment", admitted(admit.admit_commitment)),
        (node, "admit_certificate", admitted(admit.admit_certificate)),
        (node, "admit_operation", admitted(admit.admit_operation)),
        (node, "execute", execute),
        (checks, "execute", execute),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in bound]
    for module, name, function in bound:
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)
