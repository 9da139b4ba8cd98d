"""What the tests of the trainer share: the digits as a task, with all its blobs in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from potd.trainer import digits
from potd.trainer.data import Samples, decode_shard, gather
from potd.trainer.layout import model_spec, weights_to_bytes
from potd.trainer.weights import initial_weights
from potd.wire.blobs import write_blob
from potd.wire.codec import encode
from potd.wire.rules import MEAN
from potd.wire.tasks import EncodingSpec, Manifest, OptimiserSpec, TaskSpec


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return digits.data_set().manifest


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits' shards and manifest, and the initial weights of `spec`."""
    folder = tmp_path_factory.mktemp("blobs")
    carried = digits.data_set()
    for data in (*carried.shards, encode(carried.manifest)):
        write_blob(folder, data)
    return folder


@pytest.fixture(scope="session")
def spec(blobs: Path, manifest: Manifest) -> TaskSpec:
    model = model_spec("mlp", (64, 256, 10))
    return TaskSpec(
        name="digits",
        model=model,
        weights=write_blob(blobs, weights_to_bytes(initial_weights(model, seed=1))),
        manifest=write_blob(blobs, encode(manifest)),
        samples=1437,
        loss="cross_entropy",
        optimiser=OptimiserSpec("nesterov", 900_000, (500_000,)),
        encoding=EncodingSpec("int8", 256, -24, -4),
        rule=MEAN,
        rig_class="float32",
        unit_batch=64,
        rounds=130,
        window_rounds=10,
        miners_min=2,
        pay_micro=1000,
        validators_ppm=100_000,
        deadline_ticks_min=20,
        deadline_ticks_max=400,
        evaluate_every=10,
        tolerance_nano=400,
    )


@pytest.fixture(scope="session")
def training() -> Samples:
    """The 1,437 training samples, in the manifest's order."""
    carried = digits.data_set()
    count = len(carried.manifest.training)
    return gather([decode_shard(data, (8, 8), 64, 10) for data in carried.shards[:count]], range(1437))


@pytest.fixture(scope="session")
def held_out() -> Samples:
    """The 360 samples held out."""
    carried = digits.data_set()
    count = len(carried.manifest.training)
    return gather([decode_shard(data, (8, 8), 64, 10) for data in carried.shards[count:]], range(360))
