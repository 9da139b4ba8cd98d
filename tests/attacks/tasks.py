"""The tasks of the laboratory: digits, which the package carries, and Fashion-MNIST, where Debian's package has it."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

from potd.trainer import digits
from potd.trainer.data import DataSet, import_arrays
from potd.trainer.layout import model_spec, weights_to_bytes
from potd.trainer.task import Prepared, read_task
from potd.trainer.weights import initial_weights
from potd.wire.blobs import blob_ref
from potd.wire.codec import encode
from potd.wire.rules import CLIP

TASKS = ("digits", "fashion")
DIGITS_TASK = Path(__file__).parents[2] / "docs" / "tasks" / "digits.toml"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
FASHION_SIZES = (784, 128, 10)
FASHION_SHARD = 1_000
DEADLINE_TICKS = 400  # nobody is too late: what is measured are lies
IDX_BYTES, IDX_LABELS = 0x00000803, 0x00000801


def prepared(name: str, rounds: int, seed: int, miners: int) -> Prepared:
    """The task by name, by the default rule, with weights and batches that follow from the seed."""
    base = read_task(DIGITS_TASK)
    data = digits.data_set() if name == "digits" else fashion(FASHION)
    model = base.spec.model if name == "digits" else model_spec("mlp", FASHION_SIZES)
    weights = weights_to_bytes(initial_weights(model, seed))
    manifest = encode(data.manifest)
    spec = replace(
        base.spec,
        name=f"{name} {seed}",
        model=model,
        weights=blob_ref(weights),
        manifest=blob_ref(manifest),
        samples=sum(shard.samples for shard in data.manifest.training),
        rule=CLIP,
        rounds=rounds,
        miners_min=miners // 2,
        deadline_ticks_min=DEADLINE_TICKS,
        deadline_ticks_max=DEADLINE_TICKS,
        evaluate_every=0,
    )
    return Prepared(spec, data.manifest, (manifest, weights, *data.shards), None)


def fashion(folder: Path) -> DataSet:
    """Fashion-MNIST, as its files have it: 60,000 to train on, 10,000 held out. Raises OSError where they are not."""
    parts = [(_idx(folder, f"{kind}-images-idx3"), _idx(folder, f"{kind}-labels-idx1")) for kind in ("train", "t10k")]
    order = np.random.RandomState(0).permutation(len(parts[0][0]))
    images = np.concatenate([parts[0][0][order], parts[1][0]]).astype(np.float32) / np.float32(255)
    labels = np.concatenate([parts[0][1][order], parts[1][1]]).astype(np.int64)
    held_out = np.arange(len(images)) >= len(order)
    return import_arrays(images, labels, held_out, name="fashion", classes=10, shard_samples=FASHION_SHARD)


def _idx(folder: Path, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An array of bytes in the IDX format, gzipped."""
    with gzip.open(folder / f"{name}-ubyte.gz") as file:
        data = file.read()
    magic = int.from_bytes(data[:4], "big")
    if magic not in (IDX_BYTES, IDX_LABELS):
        raise OSError(f"{name} is no IDX file of bytes")
    dimensions = magic & 0xFF
    shape = [int.from_bytes(data[4 + 4 * at : 8 + 4 * at], "big") for at in range(dimensions)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
