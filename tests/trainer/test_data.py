from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from potd.trainer.data import (
    Cache,
    DataSet,
    Samples,
    check_shard,
    data_set_problems,
    decode_shard,
    gather,
    import_arrays,
    read_manifest,
    write_data_set,
)
from potd.wire.blobs import blob_path, blob_ref
from potd.wire.codec import Malformed

CHANCE = np.random.default_rng(0)
FEATURES = CHANCE.random((10, 2, 3), np.float32)
LABELS = np.arange(10, dtype=np.int64) % 4
HELD_OUT = np.arange(10) % 5 == 0


def small() -> DataSet:
    return import_arrays(FEATURES, LABELS, HELD_OUT, name="small", classes=4, shard_samples=3)


def test_imported_arrays_come_back_in_their_order() -> None:
    data_set = small()
    manifest = data_set.manifest
    assert [shard.samples for shard in manifest.training] == [3, 3, 2]
    assert [shard.samples for shard in manifest.held_out] == [2]
    assert manifest.shape == (2, 3)
    shards = [
        check_shard(data, shard, manifest)
        for data, shard in zip(data_set.shards, manifest.training + manifest.held_out, strict=True)
    ]
    training = gather(shards[:3], range(8))
    assert np.array_equal(training.features, FEATURES[~HELD_OUT].reshape(8, 6))
    assert np.array_equal(training.labels, LABELS[~HELD_OUT])
    assert np.array_equal(shards[3].labels, LABELS[HELD_OUT])


def with_value(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    features = FEATURES.copy()
    features[7, 1, 2] = value
    return features


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"features": FEATURES}, r"holds the tensors \['features'\], not \['features', 'labels'\]"),
        ({"features": FEATURES, "labels": LABELS, "x": LABELS}, "holds the tensors"),
        ({"features": FEATURES.astype(np.float64), "labels": LABELS}, "features are F64, not F32"),
        ({"features": FEATURES, "labels": LABELS.astype(np.int32)}, "labels are I32, not I64"),
        ({"features": FEATURES, "labels": LABELS[:9]}, r"10 features, and labels of the shape \[9\]"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, "holds no samples"),
        ({"features": FEATURES.reshape(10, 3, 2), "labels": LABELS}, r"a sample has the shape \[3, 2\], not \[2, 3\]"),
        ({"features": with_value(np.nan), "labels": LABELS}, "sample 7 holds a feature that is not a finite number"),
        ({"features": with_value(-np.inf), "labels": LABELS}, "sample 7 holds a feature that is not a finite number"),
        ({"features": FEATURES, "labels": LABELS + 1}, r"sample 3 has the label 4, not in 0\.\.3"),
        ({"features": FEATURES, "labels": LABELS - 1}, r"sample 0 has the label -1, not in 0\.\.3"),
    ],
)
def test_a_shard_that_is_not_as_declared_is_refused(tensors: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_shard(save(tensors), (2, 3), 6, 4)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_shard(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_shard(data, None, 6, 4)


@given(st.data())
def test_a_shard_with_one_wrong_byte_is_refused_or_another(data: st.DataObject) -> None:
    shard = bytearray(small().shards[0])
    place = data.draw(st.integers(0, len(shard) - 1))
    shard[place] ^= data.draw(st.integers(1, 255))
    try:
        decode_shard(bytes(shard), None, 6, 4)
    except Malformed:
        return
    assert blob_ref(bytes(shard)) != small().manifest.training[0].blob


def test_a_shard_is_held_to_its_manifest() -> None:
    data_set = small()
    manifest, data = data_set.manifest, data_set.shards[0]
    shard = manifest.training[0]
    with pytest.raises(Malformed, match="holds 3 samples, not 4"):
        check_shard(data, replace(shard, samples=4), manifest)
    with pytest.raises(Malformed, match="does not have the digest"):
        check_shard(data_set.shards[1], shard, manifest)
    with pytest.raises(Malformed, match=f"is of {len(data) - 1} bytes, not {len(data)}"):
        check_shard(data[:-1], shard, manifest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": FEATURES.astype(np.float64)}, "are float64, int64, bool"),
        ({"labels": LABELS[:5]}, "don't belong together"),
        ({"held_out": np.ones(10, dtype=np.bool_)}, "0 training samples"),
        ({"features": with_value(np.nan)}, "sample 7 holds a feature that is not a finite number"),
        ({"classes": 3}, r"sample 3 has the label 3, not in 0\.\.2"),
        ({"shard_samples": 0}, "shards of 0 samples"),
    ],
)
def test_arrays_that_are_wrong_are_not_imported(change: dict[str, object], reason: str) -> None:
    arguments: dict[str, object] = {"features": FEATURES, "labels": LABELS, "held_out": HELD_OUT}
    arguments |= {"name": "small", "classes": 4, "shard_samples": 3}
    with pytest.raises(Malformed, match=reason):
        import_arrays(**(arguments | change))  # type: ignore[arg-type]  # wrong on purpose


def test_a_written_data_set_reads_back_and_is_whole(tmp_path: Path) -> None:
    write_data_set(small(), tmp_path)
    assert read_manifest(tmp_path) == small().manifest
    assert data_set_problems(small().manifest, tmp_path) == ()


def test_every_shard_that_is_wrong_on_disk_is_named(tmp_path: Path) -> None:
    data_set = small()
    write_data_set(data_set, tmp_path)
    missing = blob_path(tmp_path, data_set.manifest.training[1].blob)
    missing.unlink()
    blob_path(tmp_path, data_set.manifest.held_out[0].blob).write_bytes(data_set.shards[0])
    assert data_set_problems(data_set.manifest, tmp_path) == (
        f"training shard 1 is missing: no file {missing}",
        f"held-out shard 0 is of {len(data_set.shards[0])} bytes, not {len(data_set.shards[3])}",
    )


def two_shards() -> list[Samples]:
    values = np.arange(5, dtype=np.float32).reshape(5, 1)
    labels = np.arange(5, dtype=np.int64)
    return [Samples(values[:2], labels[:2]), Samples(values[2:], labels[2:])]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_a_batch_is_the_samples_asked_for_in_the_order_asked(indices: list[int]) -> None:
    batch = gather(two_shards(), indices)
    assert batch.labels.tolist() == indices
    assert batch.features.ravel().tolist() == indices


@pytest.mark.parametrize("indices", [[], [5], [-1], [0, 2**32 - 1]])
def test_a_batch_beyond_the_shards_is_refused(indices: list[int]) -> None:
    with pytest.raises(Malformed, match="of 5"):
        gather(two_shards(), indices)


def test_the_cache_keeps_what_was_used_last_within_its_bytes() -> None:
    cache: Cache[str] = Cache(bytes_max=10)
    loads: list[str] = []

    def get(key: str, size: int) -> str:
        def load() -> tuple[str, int]:
            loads.append(key)
            return key.upper(), size

        return cache.get(key, load)

    assert [get("a", 4), get("b", 4), get("a", 4), get("c", 4)] == ["A", "B", "A", "C"]
    assert (loads, cache.bytes) == (["a", "b", "c"], 8)
    get("a", 4)  # still here: b was the one used longest ago
    get("b", 4)
    get("large", 11)
    assert (loads, cache.bytes) == (["a", "b", "c", "b", "large"], 8)
