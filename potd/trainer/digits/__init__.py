"""The handwritten digits that the package carries (SOURCE.txt), and how they are split. Needs no torch.

With p = numpy.random.RandomState(0).permutation(1797), whose stream numpy has frozen: the last fifth of p,
360 samples, is held out; the first 1,437 are for training, both in the order of p, so that every shard is a fair
sample. Shards hold 96 samples, the last training shard 93. Features are the pixels / 16, float32, exact.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
from safetensors.numpy import load

from potd.trainer.data import DataSet, Labels, import_arrays
from potd.trainer.layout import Floats

SAMPLES = 1797
TRAINING = SAMPLES * 4 // 5
SHARD_SAMPLES = 96
CLASSES = 10
SPLIT_SEED = 0

_SOURCE = "Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, as in scikit-learn's load_digits"


def arrays() -> tuple[Floats, Labels]:
    """Features [1797, 8, 8] in 0..1 and labels [1797], in the source's order."""
    found = load(resources.files(__package__).joinpath("digits.safetensors").read_bytes())
    return found["images"].astype(np.float32) / np.float32(16), found["labels"].astype(np.int64)


def data_set() -> DataSet:
    """The digits as shards: the same bytes on every machine."""
    features, labels = arrays()
    order = np.random.RandomState(SPLIT_SEED).permutation(SAMPLES)
    return import_arrays(
        features[order],
        labels[order],
        np.arange(SAMPLES) >= TRAINING,
        name="digits",
        classes=CLASSES,
        shard_samples=SHARD_SAMPLES,
        source=_SOURCE,
        licence="CC-BY-4.0",
    )
