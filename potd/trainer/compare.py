"""The agreed model beside its centralised twin, for a task whose data set the package carries. Needs torch.

    python -m potd.trainer.compare TASK.toml MODEL.safetensors < rounds.json

reads the rounds that counted, `[[number, [[units, [sample, ...]], ...]], ...]`, and prints
`{"accuracy": .., "twin_accuracy": .., "twin_losses": [..]}`. A process of its own, so that nobody who asks needs torch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from potd.trainer.data import Samples, check_shard, gather
from potd.trainer.layout import from_safetensors, weights_from_bytes
from potd.trainer.task import Prepared, read_task
from potd.trainer.twin import TwinContribution, TwinResult, TwinRound, module, train_twin
from potd.wire.blobs import blob_ref
from potd.wire.tasks import Shard


def twin_of(prepared: Prepared, rounds: Sequence[TwinRound]) -> TwinResult:
    """What one process learns from what counted in these rounds, from the same initial weights."""
    spec = prepared.spec
    blobs = {blob_ref(data): data for data in prepared.blobs}
    weights = weights_from_bytes(spec.model, blobs[spec.weights])
    training = _samples(prepared, prepared.manifest.training)
    return train_twin(spec, weights, training, _samples(prepared, prepared.manifest.held_out), rounds)


def score_file(prepared: Prepared, path: Path) -> float:
    """The accuracy on the held-out shards of a model that was fetched as safetensors."""
    spec = prepared.spec.model
    weights = weights_from_bytes(spec, from_safetensors(spec, path.read_bytes()))
    held_out = _samples(prepared, prepared.manifest.held_out)
    with torch.no_grad():
        named = module(spec, weights)(torch.tensor(held_out.features)).argmax(dim=1)
    return int((named == torch.tensor(held_out.labels)).sum()) / len(held_out)


def _samples(prepared: Prepared, shards: Sequence[Shard]) -> Samples:
    blobs = {blob_ref(data): data for data in prepared.blobs}
    loaded = [check_shard(blobs[shard.blob], shard, prepared.manifest) for shard in shards]
    return gather(loaded, range(sum(shard.samples for shard in shards)))


def main(task: Path, model: Path) -> None:
    prepared = read_task(task)
    rounds = [
        TwinRound(number, tuple(TwinContribution(units, tuple(samples)) for units, samples in parts))
        for number, parts in json.load(sys.stdin)
    ]
    twin = twin_of(prepared, rounds)
    found = {"accuracy": score_file(prepared, model), "twin_accuracy": twin.accuracy, "twin_losses": twin.losses}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
