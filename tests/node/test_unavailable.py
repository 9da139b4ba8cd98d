"""Tasks that cannot be trained come to an end; they do not hold the network up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from potd.ledger.entries import Phase
from potd.simulation.trainer import MODEL
from potd.simulation.world import World
from potd.wire.blobs import write_blob
from potd.wire.ids import BlobRef, digest


def phases(world: World) -> set[int]:
    found: set[int] = set()
    for member in world.members.values():
        assert member.node is not None
        found |= {task.phase for task in member.node.ledger.tasks()}
    return found


def test_a_task_whose_weights_nobody_has_falls_asleep(tmp_path: Path) -> None:
    """Its miners cannot train, and whoever pretends to have is not paid: validators without the model name nothing."""
    world = World(tmp_path, seed=3)
    world.submit(weights=BlobRef(digest("nowhere"), 4 * MODEL.parameters))
    world.run(lambda: phases(world) == {Phase.ASLEEP}, 2_000)


def test_a_task_whose_weights_are_not_finite_falls_asleep(tmp_path: Path) -> None:
    """Every validator finds alike that no step can be taken from there, so its rounds lapse."""
    world = World(tmp_path, seed=4)
    weights = write_blob(tmp_path, np.full(MODEL.parameters, np.nan, "<f4").tobytes())
    for member in world.members.values():
        member.disk.held.add(weights)
    world.submit(weights=weights)
    world.run(lambda: phases(world) == {Phase.ASLEEP}, 2_000)
