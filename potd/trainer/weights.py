"""Initial weights from a seed, the same bits on every machine. Needs no torch.

A counter-based integer generator (SplitMix64's finaliser over seed and position) gives 24 bits a weight; they are an
odd multiple of 2^-24 in (-1, 1), so exact in float32, and one multiplication by the layer's bound rounds once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from potd.trainer.layout import Floats, Parameter, model_spec, parameters, weights_to_bytes
from potd.wire.ids import Digest, digest
from potd.wire.tasks import ModelSpec

_STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, odd [Steele, Lea & Flood 2014, SplitMix]
_MASK = 2**64 - 1
_SLICE = 2**18  # weights at once, so that the 64-bit temporaries stay in the cache

SEED_MAX = 2**63 - 1
GOLDEN = bytes.fromhex("20ea234d91cfea4b5745df63982a41cd3c0996bb92e39fab3a584d647a295536")


def initial_weights(spec: ModelSpec, seed: int) -> Floats:
    """Uniform weights within Kaiming's bound for ReLU, sqrt(6 / fan_in), and zero biases: a vector [parameters].

    Draws by position in the vector, so a tensor's values don't depend on the shapes before it being drawn first.
    """
    assert 0 <= seed <= SEED_MAX
    weights = np.zeros(spec.parameters, dtype=np.float32)
    offset = 0
    for one in parameters(spec):
        if one.name.endswith(".weight"):
            bound = _bound(one)
            for start in range(offset, offset + one.count, _SLICE):
                end = min(start + _SLICE, offset + one.count)
                weights[start:end] = _uniform(seed, start, end) * bound
        offset += one.count
    return weights


def self_test() -> Digest:
    """The digest of a few initial weights; equal to GOLDEN where integers and IEEE floats are what they should be."""
    spec = model_spec("cnn", (1, 8, 8, 4, 10))
    return digest("trainer self-test", weights_to_bytes(initial_weights(spec, seed=1)))


def _bound(one: Parameter) -> np.float32:
    return np.float32(np.sqrt(np.float64(6) / np.float64(one.fan_in)))  # division and square root are exact in IEEE 754


def _uniform(seed: int, start: int, end: int) -> Floats:
    position = np.arange(start, end, dtype=np.uint64)
    key = np.uint64(_mixed(seed))
    bits = _finalised(key + (position + np.uint64(1)) * np.uint64(_STEP)) >> np.uint64(40)
    odd = (2 * bits.astype(np.int64) + 1 - 2**24).astype(np.float32)  # odd, within 24 bits: exact
    return odd * np.float32(2.0**-24)


def _finalised(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def _mixed(seed: int) -> int:
    """The seed as a key, so that neighbouring seeds have nothing in common."""
    return int(_finalised(np.array([(seed + _STEP) & _MASK], dtype=np.uint64))[0])
