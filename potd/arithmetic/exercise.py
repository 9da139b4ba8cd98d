"""The self-test: every operation on fixed vectors, as one digest. Knows nothing of what it should come to.

The vectors are made from integers by a generator of our own, with exact scaling only, so that nothing but the
operations under test can differ between machines.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from potd.arithmetic.optimise import from_micro, step
from potd.arithmetic.quantise import Blocks, Floats, decode_payload, encode_payload, to_bytes, to_floats
from potd.arithmetic.robust import Contribution, aggregate
from potd.wire.ids import Digest, digest
from potd.wire.tasks import EncodingSpec, OptimiserSpec, RuleSpec

_PARAMETERS = 5_003  # a prime: the last block is short
_ENCODING = EncodingSpec("int8", 64, -30, -12)
_UNITS = (1, 2, 255, 7, 16)
_RULES = (
    RuleSpec("mean", 0, 0, 0, 1),
    RuleSpec("clip", 0, 2_000, 0, 1),
    RuleSpec("trimmed", 200_000, 0, 0, 1),
    RuleSpec("median", 0, 0, 0, 2),
    RuleSpec("centred", 0, 1_500, 2, 1),
    RuleSpec("krum", 200_000, 0, 0, 1),
    RuleSpec("multi-krum", 200_000, 0, 0, 2),
)


def exercise() -> Digest:
    """The digest of all results. Takes some milliseconds."""
    payloads = [encode_payload(vector(seed, 5 * seed - 24), _ENCODING) for seed in range(len(_UNITS))]
    results = list(payloads)
    vectors = [decode_payload(payload, _PARAMETERS, _ENCODING) for payload in payloads]
    for units, rule in product((_UNITS, (1,) * len(_UNITS)), _RULES):
        contributions = [
            Contribution(vector, count, digest("place", bytes([at])))
            for at, (vector, count) in enumerate(zip(vectors, units, strict=True))
        ]
        average, weights = aggregate(contributions, rule, _ENCODING)
        results.append(b"".join(weight.to_bytes(4, "big") for weight in weights))
        results.append(to_bytes(average))
        results.append(to_floats(average).astype("<f4").tobytes())
        for kind in ("sgd", "nesterov"):
            results.extend(_trained(average, kind))
    results.extend(_roundings())
    return digest("arithmetic self-test", *results)


def vector(seed: int, scale: int) -> Floats:
    """Fixed values, float32 [5003], below 2^scale, every fifty of another magnitude."""
    state, values = seed + 1, np.empty(_PARAMETERS, np.float32)
    for index in range(_PARAMETERS):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        values[index] = (state >> 40) - 2**23
    depths = -(np.arange(_PARAMETERS, dtype=np.int32) // 50 * 7 % 24)
    scaled: Floats = np.ldexp(values, depths + np.int32(scale - 23))
    return scaled


def _trained(gradient: Blocks, kind: str) -> tuple[bytes, bytes]:
    """Weights and momentum after five steps that start, and in places stay, among the denormals."""
    theta, momentum = vector(99, 0), np.ldexp(vector(98, 0), -140)
    for rate in (500_000, 300_001, 100_000, 1, 4_000_000_000):
        step(theta, momentum, gradient, OptimiserSpec(kind, 900_001, (1,)), from_micro(rate))
    return theta.astype("<f4").tobytes(), momentum.astype("<f4").tobytes()


def _roundings() -> tuple[bytes, bytes, bytes]:
    """Ties, and denormals that a flush to zero would lose."""
    ties = np.arange(-300, 301, dtype=np.float32) / np.float32(2)
    least = np.ldexp(np.arange(-64, 65, dtype=np.float32), -149)
    halves = least * np.float32(0.5)
    sums = least + halves
    return (
        encode_payload(ties, EncodingSpec("int8", 16, 0, 0)),
        least.astype("<f4").tobytes() + halves.astype("<f4").tobytes() + sums.astype("<f4").tobytes(),
        b"".join(from_micro(amount).astype("<f4").tobytes() for amount in (1, 3, 999_999, 123_457, 2**32 - 1)),
    )
