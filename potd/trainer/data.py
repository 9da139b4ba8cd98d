"""Data sets: safetensors shards under a manifest of digests, and batches by index. Needs no torch.

A shard is one safetensors file of two tensors: `features` (F32) [samples, *shape] and `labels` (I64) [samples]. A data
set on disk is a folder with `manifest` (the canonical bytes of a wire Manifest) and each shard under its root in hex.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from potd.trainer.layout import Floats, read_tensors
from potd.wire.blobs import blob_path, blob_ref, write_blob
from potd.wire.codec import Malformed, decode, encode
from potd.wire.tasks import Manifest, Shard

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MANIFEST_FILE = "manifest"
SAMPLES_MAX = 2**32  # training samples in a data set: a job names them by 32 bits
CACHE_BYTES_MAX = 256 * 2**20  # of decoded shards that a trainer keeps; digits need 0.5 MiB

T = TypeVar("T")


@dataclass(frozen=True)
class Samples:
    """Features [samples, features] float32, finite; labels [samples] int64, in 0..classes-1."""

    features: Floats
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bytes(self) -> int:
        return self.features.nbytes + self.labels.nbytes


@dataclass(frozen=True)
class DataSet:
    """A manifest and the bytes of its shards, training first, in the manifest's order."""

    manifest: Manifest
    shards: tuple[bytes, ...]


def decode_shard(data: bytes, shape: tuple[int, ...] | None, features: int, classes: int) -> Samples:
    """The samples of a shard. `shape` is one sample's, or None where only its size is known.

    Raises Malformed with the first thing that is not as declared: tensors, types, shapes, values, labels.
    """
    found = read_tensors(data)
    if set(found) != {"features", "labels"}:
        raise Malformed(f"holds the tensors {sorted(found)}, not ['features', 'labels']")
    for name, dtype in (("features", "F32"), ("labels", "I64")):
        if found[name].dtype != dtype:
            raise Malformed(f"{name} are {found[name].dtype}, not {dtype}")
    count, *sample = found["features"].shape or (0,)
    if found["labels"].shape != (count,):
        raise Malformed(f"{count} features, and labels of the shape {list(found['labels'].shape)}")
    if count < 1:
        raise Malformed("holds no samples")
    if math.prod(sample) != features or (shape is not None and tuple(sample) != shape):
        raise Malformed(f"a sample has the shape {sample}, not {list(shape or (features,))}")
    values = np.frombuffer(found["features"].data, dtype="<f4").astype(np.float32, copy=False)
    labels = np.frombuffer(found["labels"].data, dtype="<i8").astype(np.int64, copy=False)
    samples = Samples(values.reshape(count, features), labels)
    problem = _values_problem(samples, classes)
    if problem:
        raise Malformed(problem)
    return samples


def check_shard(data: bytes, shard: Shard, manifest: Manifest) -> Samples:
    """The samples of a shard that is what the manifest says, digest and all. Raises Malformed if it is not."""
    if len(data) != shard.blob.size:
        raise Malformed(f"is of {len(data)} bytes, not {shard.blob.size}")
    if blob_ref(data) != shard.blob:
        raise Malformed("does not have the digest that the manifest names")
    samples = decode_shard(data, manifest.shape, math.prod(manifest.shape), manifest.classes)
    if len(samples) != shard.samples:
        raise Malformed(f"holds {len(samples)} samples, not {shard.samples}")
    return samples


def training_samples(manifest: Manifest) -> int:
    return sum(shard.samples for shard in manifest.training)


def import_arrays(
    features: Floats,
    labels: Labels,
    held_out: Mask,
    *,
    name: str,
    classes: int,
    shard_samples: int,
    source: str = "",
    licence: str = "",
) -> DataSet:
    """Cut arrays into shards of `shard_samples`, the last of each kind shorter; samples keep their order.

    `features` [samples, *shape] float32, `labels` [samples] int64, `held_out` [samples] bool. Put the samples into
    random order first: a miner trains on whole shards. Raises Malformed with the first thing that is wrong.
    """
    if features.dtype != np.float32 or labels.dtype != np.int64 or held_out.dtype != np.bool_:
        raise Malformed(f"features, labels and mask are {features.dtype}, {labels.dtype}, {held_out.dtype}")
    if features.ndim < 2 or labels.shape != features.shape[:1] or held_out.shape != labels.shape:
        raise Malformed(f"shapes {features.shape}, {labels.shape} and {held_out.shape} don't belong together")
    if shard_samples < 1:
        raise Malformed(f"shards of {shard_samples} samples")
    if held_out.all() or len(labels) - int(held_out.sum()) > SAMPLES_MAX:
        raise Malformed(f"{len(labels) - int(held_out.sum())} training samples, not 1..{SAMPLES_MAX}")
    problem = _values_problem(Samples(features.reshape(len(features), -1), labels), classes)
    if problem:
        raise Malformed(problem)

    blobs: list[bytes] = []

    def cut(part: Mask) -> tuple[Shard, ...]:
        chosen = np.flatnonzero(part)
        shards: list[Shard] = []
        for start in range(0, len(chosen), shard_samples):
            rows = chosen[start : start + shard_samples]
            blobs.append(save({"features": features[rows], "labels": labels[rows]}))
            shards.append(Shard(blob_ref(blobs[-1]), len(rows)))
        return tuple(shards)

    training = cut(~held_out)
    manifest = Manifest(name, source, licence, tuple(features.shape[1:]), classes, training, cut(held_out))
    return DataSet(manifest, tuple(blobs))


def write_data_set(data_set: DataSet, folder: Path) -> None:
    """Write the shards, then the manifest, so that a folder with a manifest is whole. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in data_set.shards:
        write_blob(folder, data)
    partial = folder / f"{MANIFEST_FILE}.partial"
    partial.write_bytes(encode(data_set.manifest))
    partial.replace(folder / MANIFEST_FILE)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a data set on disk; its shards are not looked at. Raises Malformed or OSError."""
    return decode((folder / MANIFEST_FILE).read_bytes(), Manifest)


def data_set_problems(manifest: Manifest, folder: Path) -> tuple[str, ...]:
    """Everything that is wrong with the shards of a data set on disk, as sentences. Reads them one at a time."""
    problems: list[str] = []
    if training_samples(manifest) > SAMPLES_MAX:
        problems.append(f"{training_samples(manifest)} training samples, at most {SAMPLES_MAX}")
    kinds = (("training", manifest.training), ("held-out", manifest.held_out))
    for kind, shards in kinds:
        for index, shard in enumerate(shards):
            path = blob_path(folder, shard.blob)
            try:
                check_shard(path.read_bytes(), shard, manifest)
            except FileNotFoundError:
                problems.append(f"{kind} shard {index} is missing: no file {path}")
            except OSError as error:
                problems.append(f"{kind} shard {index} can't be read: {error.strerror}: {path}")
            except Malformed as error:
                problems.append(f"{kind} shard {index} {error}")
    return tuple(problems)


def gather(shards: Iterable[Samples], indices: Sequence[int]) -> Samples:
    """The samples at `indices` of the shards laid end to end, in the order asked. Raises Malformed for one beyond.

    Looks at each shard once, so an iterator that loads them needs memory for one.
    """
    wanted = np.asarray(indices, dtype=np.int64)
    features = np.empty((len(wanted), 0), dtype=np.float32)
    labels = np.empty(len(wanted), dtype=np.int64)
    start = 0
    for shard in shards:
        if start == 0:
            features = np.empty((len(wanted), shard.features.shape[1]), dtype=np.float32)
        here = (wanted >= start) & (wanted < start + len(shard))
        rows = wanted[here] - start
        features[here] = shard.features[rows]
        labels[here] = shard.labels[rows]
        start += len(shard)
    if len(wanted) == 0 or wanted.min() < 0 or wanted.max() >= start:
        raise Malformed(f"samples {wanted.min(initial=0)}..{wanted.max(initial=0)} of {start}")
    return Samples(features, labels)


class Cache(Generic[T]):
    """Decoded blobs, those used last, up to a number of bytes. What is larger than all of it is not kept."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._kept: OrderedDict[object, tuple[T, int]] = OrderedDict()

    def get(self, key: object, load: Callable[[], tuple[T, int]]) -> T:
        """What is kept under `key`; otherwise what `load` returns with its size in bytes."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value, size = load()
        if size <= self._bytes_max:
            self._kept[key] = value, size
            self.bytes += size
        while self.bytes > self._bytes_max:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.bytes -= dropped
        return value


def _values_problem(samples: Samples, classes: int) -> str:
    """What is wrong with the values, naming the first sample that has it; nothing if they are fine."""
    finite = np.isfinite(samples.features).all(axis=1)
    if not finite.all():
        return f"sample {int(np.argmin(finite))} holds a feature that is not a finite number"
    inside = (samples.labels >= 0) & (samples.labels < classes)
    if not inside.all():
        first = int(np.argmin(inside))
        return f"sample {first} has the label {int(samples.labels[first])}, not in 0..{classes - 1}"
    return ""
