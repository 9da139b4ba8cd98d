from __future__ import annotations

import numpy as np
import sklearn.datasets

from potd.trainer import digits
from potd.trainer.data import check_shard, training_samples
from potd.wire.blobs import blob_ref
from potd.wire.codec import encode

MANIFEST = "0c9df1cfec8691437a2f2e182284bdda5f2852cccb841d5adde5dc9331fad7c7"


def test_the_carried_digits_are_those_of_scikit_learn() -> None:
    features, labels = digits.arrays()
    theirs = sklearn.datasets.load_digits()
    assert features.dtype == np.float32
    assert np.array_equal(features * 16, theirs.images)
    assert np.array_equal(labels, theirs.target)


def test_the_held_out_samples_are_the_last_fifth_of_the_permutation() -> None:
    carried = digits.data_set()
    manifest = carried.manifest
    shards = [
        check_shard(data, shard, manifest)
        for data, shard in zip(carried.shards, manifest.training + manifest.held_out, strict=True)
    ]
    theirs = sklearn.datasets.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    training, held_out = order[:1437], order[1437:]
    count = len(manifest.training)
    for indices, part in ((training, shards[:count]), (held_out, shards[count:])):
        assert np.array_equal(np.concatenate([one.features for one in part]) * 16, theirs.data[indices])
        assert np.array_equal(np.concatenate([one.labels for one in part]), theirs.target[indices])


def test_the_manifest_is_the_same_bytes_everywhere() -> None:
    manifest = digits.data_set().manifest
    assert [shard.samples for shard in manifest.training] == [96] * 14 + [93]
    assert [shard.samples for shard in manifest.held_out] == [96] * 3 + [72]
    assert training_samples(manifest) == 1437
    assert (manifest.shape, manifest.classes, manifest.licence) == ((8, 8), 10, "CC-BY-4.0")
    assert blob_ref(encode(manifest)).root.hex() == MANIFEST
