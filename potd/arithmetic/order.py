"""Sums of the middle of each coordinate, by sorting. Integers only, and the same in any order of the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from potd.arithmetic.aggregate import Sums, zero_sums
from potd.arithmetic.quantise import Blocks, Slice

Values = npt.NDArray[np.signedinteger[Any]]

SORTED_ELEMENTS = 1 << 22  # at a time, over all vectors


def trimmed_sums(vectors: Sequence[Blocks], units: Sequence[int], cut: int) -> tuple[Sums, int]:
    """The sum of each coordinate [parameters], in quanta, without its `cut` least units and its `cut` greatest, and
    how many units that leaves; both in lowest terms."""
    middle: _EqualMiddle | _WeighedMiddle
    left = sum(units) - 2 * cut
    assert cut >= 0 and left > 0
    if len(set(units)) == 1:
        kept = _kept_by_rank(units, cut)
        common = gcd(left, *kept)
        middle = _EqualMiddle([one // common for one in kept])
        left //= common
    else:
        middle = _WeighedMiddle(units, cut)
    grid = vectors[0].grid
    assert all(one.grid == grid for one in vectors)
    sums = zero_sums(len(vectors[0].codes))
    for part in grid.slices(len(sums), SORTED_ELEMENTS // len(vectors)):
        lifts = np.stack([one.exponents[part.blocks] for one in vectors]).astype(np.int64)
        least = lifts.min(axis=0)
        lifts -= least
        target = sums[part.elements].reshape(part.shape)
        target += (
            middle.sums(vectors, part, lifts, grid.code_max << int(lifts.max())) << (least - grid.exponent_min)[:, None]
        )
    return sums, left


class _EqualMiddle:
    """All vectors stand for as many units: what is kept of a value follows from its rank."""

    def __init__(self, kept: Sequence[int]) -> None:
        self._kept = kept

    def sums(self, vectors: Sequence[Blocks], part: Slice, lifts: npt.NDArray[np.int64], top: int) -> Sums:
        values = _values(vectors, part, lifts, np.int16 if top < 2**15 else np.int32 if top < 2**31 else np.int64)
        _sort(values)
        total = np.zeros(part.shape, np.int64)
        room = np.int32 if top * len(vectors) < 2**31 else np.int64
        for kept, ranks in groupby(range(len(values)), key=lambda rank: self._kept[rank]):
            if kept:
                partial = np.zeros(part.shape, room)
                for rank in ranks:
                    partial += values[rank]
                total += partial * np.int64(kept)
        return total


class _WeighedMiddle:
    """Each value carries whose it is in its last bits, so that its units are known once it is sorted."""

    def __init__(self, units: Sequence[int], cut: int) -> None:
        self._units = np.array(units, np.int64)
        self._first, self._last = cut, sum(units) - cut
        self._bits = (len(units) - 1).bit_length()

    def sums(self, vectors: Sequence[Blocks], part: Slice, lifts: npt.NDArray[np.int64], top: int) -> Sums:
        small = (top + 1) << self._bits < 2**31
        assert (top + 1) << self._bits < 2**63
        values = _values(vectors, part, lifts, np.int32 if small else np.int64)
        for index, value in enumerate(values):
            value <<= self._bits
            value |= index
        _sort(values)
        total, seen = np.zeros(part.shape, np.int64), np.zeros(part.shape, np.int64)
        for value in values:
            before = np.maximum(seen, self._first)
            seen += self._units[value & ((1 << self._bits) - 1)]
            kept = np.minimum(seen, self._last) - before
            np.maximum(kept, 0, out=kept)
            kept *= value >> self._bits
            total += kept
        return total


def _kept_by_rank(units: Sequence[int], cut: int) -> list[int]:
    """How many units of each rank lie between the cuts."""
    ends = list(accumulate(units))
    return [max(0, min(end, ends[-1] - cut) - max(end - one, cut)) for end, one in zip(ends, units, strict=True)]


def _values(vectors: Sequence[Blocks], part: Slice, lifts: npt.NDArray[np.int64], dtype: Any) -> list[Values]:
    """The vectors' values [blocks, elements], in quanta of each block's own least exponent."""
    rises = lifts.astype(dtype)
    return [
        one.codes[part.elements].reshape(part.shape).astype(dtype) << rise[:, None]
        for one, rise in zip(vectors, rises, strict=True)
    ]


def _sort(values: list[Values]) -> None:
    """Each coordinate in ascending order, in place: the exchanges of a network are a few operations on whole arrays."""
    spare = np.empty_like(values[0])
    for low, high in _network(len(values)):
        np.minimum(values[low], values[high], out=spare)
        np.maximum(values[low], values[high], out=values[high])
        values[low], spare = spare, values[low]


@lru_cache(maxsize=8)
def _network(count: int) -> tuple[tuple[int, int], ...]:
    """Batcher's odd-even merge sort: the pairs to put in order, one after the other. [Batcher 1968]"""
    pairs = []
    size = 1
    while size < count:
        step = size
        while step:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, min(start + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        pairs.append((low, low + step))
            step //= 2
        size *= 2
    return tuple(pairs)
