"""Exact norms and products of encoded vectors, as Python integers. Knows nothing of what they are compared for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from potd.arithmetic.quantise import Blocks, Grid, Slice

_LIFT_BITS = 8  # products whose exponents differ by less share one sum: 2^46 of a slice's codes, times 2^8, fit int64


def norm_squared(vector: Blocks) -> int:
    """The squared L2 norm, in squared quanta of 2^exponent_min."""
    return product(vector, vector)


def product(one: Blocks, other: Blocks) -> int:
    """The dot product of vectors in blocks of one size, in quanta of the one grid times quanta of the other's."""
    assert one.grid.block == other.grid.block and len(one.codes) == len(other.codes)
    exact = _exact(one.grid, other.grid)
    span = sum(grid.exponent_max - grid.exponent_min for grid in (one.grid, other.grid))
    by_lift = [0] * (span + 1)
    for part in one.grid.slices(len(one.codes)):
        left = one.codes[part.elements].reshape(part.shape).astype(exact)
        right = left if other is one else other.codes[part.elements].reshape(part.shape).astype(exact)
        products = np.matmul(left[:, None, :], right[:, :, None])[:, 0, 0]
        # A slice's products come to at most 2^46 in all: float64 holds each sum of them.
        sums = np.bincount(_lifts(one, part) + _lifts(other, part), weights=products)
        for lift in np.flatnonzero(sums).tolist():
            by_lift[lift] += int(sums[lift])
    return sum(total << lift for lift, total in enumerate(by_lift))


def squared_distances(vectors: Sequence[Blocks]) -> list[list[int]]:
    """The squared distance of each to each, in squared quanta. The vectors lie on one grid."""
    products = _products(vectors)
    lengths = [products[at][at] for at in range(len(vectors))]
    return [
        [lengths[one] + lengths[other] - 2 * products[one][other] for other in range(len(vectors))]
        for one in range(len(vectors))
    ]


def _products(vectors: Sequence[Blocks]) -> list[list[int]]:
    """The dot product of each with each."""
    grid, count = vectors[0].grid, len(vectors)
    assert all(one.grid == grid for one in vectors)
    exact = _exact(grid, grid)
    total = [[0] * count for _ in vectors]
    for part in grid.slices(len(vectors[0].codes)):
        codes: npt.NDArray[Any] = np.stack([one.codes[part.elements].reshape(part.shape) for one in vectors], axis=1)
        lifts = np.stack([_lifts(one, part) for one in vectors], axis=1)
        for start, sums in _slice_products(codes, lifts, exact):
            for row, found in zip(total, sums.tolist(), strict=True):
                row[:] = [have + (more << start) for have, more in zip(row, found, strict=True)]
    return total


def _slice_products(
    codes: npt.NDArray[Any], lifts: npt.NDArray[np.int64], exact: type[np.float32] | type[np.float64]
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """What one slice adds to each product, as sums [vectors, vectors] in quanta times 2^start: `codes` are
    [blocks, vectors, elements], `lifts` [blocks, vectors]."""
    count = codes.shape[1]
    sums = {start: np.zeros((count, count), np.int64) for start in range(0, 2 * int(lifts.max()) + 1, _LIFT_BITS)}
    for seen, raised in zip(codes, lifts, strict=True):
        floats = seen.astype(exact)
        products = (floats @ floats.T).astype(np.int64)
        lift = raised[:, None] + raised[None, :]
        for start in range(int(lift.min()) // _LIFT_BITS * _LIFT_BITS, int(lift.max()) + 1, _LIFT_BITS):
            inside = (lift >= start) & (lift < start + _LIFT_BITS)
            sums[start] += np.where(inside, products << np.where(inside, lift - start, 0), 0)
    yield from sums.items()


def _exact(one: Grid, other: Grid) -> type[np.float32] | type[np.float64]:
    """Floats in which every partial sum of a block's products is exact, in whatever order it is taken."""
    most = one.block * one.code_max * other.code_max
    assert most <= 2**53
    return np.float32 if most <= 2**24 else np.float64


def _lifts(vector: Blocks, part: Slice) -> npt.NDArray[np.int64]:
    lifts: npt.NDArray[np.int64] = vector.exponents[part.blocks].astype(np.int64) - vector.grid.exponent_min
    return lifts
