"""Rules that bound what one contribution can do to a sum. Integers only, so that everybody finds the same weights.

`mean` takes every contribution as it is. `clip` shortens each one to at most twice the median norm: its vector is
scaled, while its share in the divisor stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, isqrt

import numpy as np

from potd.arithmetic.bounds import WEIGHT_ONE
from potd.arithmetic.quantise import Blocks

CLIP_TO = 2  # times the median norm: it moves accuracy least while nobody attacks


def norm_squared(vector: Blocks) -> int:
    """The exact squared L2 norm of an encoded vector, in squared quanta of 2^exponent_min."""
    by_exponent = [0] * (vector.grid.exponent_max - vector.grid.exponent_min + 1)
    for part in vector.grid.slices(len(vector.codes)):
        # A block has at most 2^16 codes of at most 127: its sum of squares fits 31 bits.
        codes = vector.codes[part.elements].reshape(part.shape).astype(np.int32)
        codes *= codes
        lengths = codes.sum(axis=1, dtype=np.int32)
        lifts = vector.exponents[part.blocks].astype(np.int64) - vector.grid.exponent_min
        for lift in range(int(lifts.min()), int(lifts.max()) + 1):
            by_exponent[lift] += int(lengths[lifts == lift].sum(dtype=np.int64))
    return sum(length << (2 * lift) for lift, length in enumerate(by_exponent))


def median_low(norms_squared: Sequence[int]) -> int:
    """The middle one, or the lower of the two in the middle."""
    return sorted(norms_squared)[(len(norms_squared) - 1) // 2]


def clip_weight(norm_squared: int, median_squared: int) -> int:
    """floor(65536 * 2 * median / norm), at most 65536, in sixteen-bit fixed point."""
    if norm_squared <= CLIP_TO**2 * median_squared:
        return WEIGHT_ONE
    return isqrt((WEIGHT_ONE * CLIP_TO) ** 2 * median_squared // norm_squared)


def clip_weights(norms_squared: Sequence[int]) -> list[int]:
    """The weight of each contribution by the rule `clip`, in sixteen-bit fixed point."""
    if not norms_squared:
        return []
    median = median_low(norms_squared)
    return [clip_weight(norm, median) for norm in norms_squared]


def shares(units: Sequence[int], weights: Sequence[int]) -> tuple[list[int], int]:
    """The factor of each contribution in the sum, and the sum's divisor, in lowest terms.

    `units` are at least 1, `weights` in sixteen-bit fixed point. Lowest terms change no quotient, and leave small
    integers where nobody is clipped.
    """
    factors = [unit * weight for unit, weight in zip(units, weights, strict=True)]
    divisor = sum(units) * WEIGHT_ONE
    common = gcd(divisor, *factors)
    return [factor // common for factor in factors], divisor // common
