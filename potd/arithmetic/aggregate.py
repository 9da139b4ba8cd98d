"""Exact weighted sums of encoded vectors, in any order, and their mean rounded to the aggregate's grid. Integers only.

A sum is kept in quanta of 2^exponent_min, in int64, and `bounds` proves that it fits. Whatever is faster, such as int32
sums at a block's own least exponent, is used only where it gives the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from potd.arithmetic.bounds import PAYLOAD_CODE_MAX, sum_max
from potd.arithmetic.quantise import Blocks, Grid, aggregate_grid, payload_grid
from potd.wire.tasks import EncodingSpec

Sums = npt.NDArray[np.int64]


def zero_sums(parameters: int) -> Sums:
    return np.zeros(parameters, np.int64)


def accumulate(sums: Sums, contributions: Sequence[Blocks], weights: Sequence[int]) -> None:
    """Add weight * vector of each contribution into `sums` [parameters], in quanta.

    The weights are not negative, and the caller answers for the total of all that ever goes into `sums` (see `bounds`).
    """
    if not contributions:
        return
    grid = contributions[0].grid
    assert all(one.grid == grid and len(one.codes) == len(sums) for one in contributions)
    assert all(weight >= 0 for weight in weights)
    span = grid.exponent_max - grid.exponent_min
    assert (grid.code_max * sum(weights)) << span < 2**63, "the sums could overflow"

    exponents = np.stack([one.exponents for one in contributions])
    scales = np.array(weights, np.int64)[:, None]
    for part in grid.slices(len(sums)):
        lifts = exponents[:, part.blocks].astype(np.int64)
        least = lifts.min(axis=0)
        factors = scales << (lifts - least)
        small = int(factors.sum(axis=0).max()) * grid.code_max < 2**31
        partial = _partial(contributions, factors, part.elements, part.shape, np.int32 if small else np.int64)
        target = sums[part.elements].reshape(part.shape)
        target += partial.astype(np.int64, copy=False) << (least - grid.exponent_min)[:, None]


def _partial(
    contributions: Sequence[Blocks],
    factors: npt.NDArray[np.int64],
    elements: slice,
    shape: tuple[int, int],
    dtype: type[np.int32] | type[np.int64],
) -> npt.NDArray[np.signedinteger[Any]]:
    """The sum over contributions of codes times factors [contributions, blocks], for the blocks of one slice."""
    total = np.zeros(shape, dtype)
    term = np.empty(shape, dtype)
    for one, factor in zip(contributions, factors.astype(dtype), strict=True):
        term[...] = one.codes[elements].reshape(shape)
        term *= factor[:, None]
        total += term
    return total


def mean(sums: Sums, divisor: int, spec: EncodingSpec) -> Blocks:
    """sums / divisor, rounded half to even to the aggregate's grid, by integers only.

    `divisor` is at least the total weight that went into `sums`: no mean exceeds a contribution's greatest value.
    """
    fine, coarse = aggregate_grid(spec), payload_grid(spec)
    assert divisor > 0
    # The proof that every product below fits: divisor << span is within 2^63 / 127, and 32768 * divisor within 2^63.
    assert sum_max(spec, divisor) < 2**63 and divisor < 2**47
    exponents = np.empty(fine.blocks(len(sums)), np.int8)
    codes = np.empty(len(sums), fine.dtype)
    limits = _limits(divisor, fine, coarse)
    for part in fine.slices(len(sums)):
        seen = sums[part.elements].reshape(part.shape)
        largest = np.abs(seen).max(axis=1)
        steps = np.searchsorted(limits, largest, side="left")
        assert int(steps.max()) < len(limits), "a mean beyond every contribution"
        rounded = codes[part.elements].reshape(part.shape)
        for step in range(int(steps.min()), int(steps.max()) + 1):
            rows = np.flatnonzero(steps == step)
            if len(rows):
                # The value of a sum S at exponent e is S * 2^(exponent_min - e) / divisor.
                shift = coarse.exponent_min - (fine.exponent_min + step)
                rounded[rows] = _quotients(seen[rows], max(shift, 0), divisor << max(-shift, 0))
        exponents[part.blocks] = fine.exponent_min + steps
    return Blocks(fine, exponents, codes)


def _limits(divisor: int, fine: Grid, coarse: Grid) -> Sums:
    """By exponent of the fine grid, the greatest sum whose quotient still rounds to at most code_max."""
    limits = []
    # S * 2^shift / divisor < code_max + 1/2, which itself would round up, to even.
    below = (2 * fine.code_max + 1) * divisor - 1
    for exponent in range(fine.exponent_min, fine.exponent_max + 1):
        shift = coarse.exponent_min - exponent + 1
        limit = below >> shift if shift >= 0 else ((below + 1) << -shift) - 1
        limits.append(min(limit, 2**63 - 1))
    # No contribution exceeds 127 * 2^exponent_max, which is 32512 on the fine grid's last exponent.
    assert PAYLOAD_CODE_MAX << (coarse.exponent_max - fine.exponent_max) <= fine.code_max
    return np.array(limits, np.int64)


def _quotients(sums: Sums, shift: int, divisor: int) -> Sums:
    """sums * 2^shift / divisor, rounded half to even."""
    shifted = sums << shift
    quotients = shifted // divisor
    shifted -= quotients * divisor  # the remainder, 0 <= remainder < divisor
    shifted *= 2
    quotients += (shifted > divisor) | ((shifted == divisor) & ((quotients & 1) == 1))
    return quotients
