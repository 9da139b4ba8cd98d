"""How far a contribution is from its replay, on a grid finer than its own. Knows no files and computes no gradient.

Rigs that compute honestly differ in the last bits of a gradient, so that a few of its codes differ by one: those whose
value lay next to the middle between two. Comparing codes would take that for a whole step. So the replay is put on the
contribution's own grid, block by block, made 2^16 times finer, and what counts of a difference is only what exceeds
half a step: what no rounding explains. All from there on is integers, so that a replay gives one distance everywhere.

A block's exponent has to be the one that `encode` gives. Within `tolerance` of where the next exponent begins it may be
either. A block with another exponent is one of the wrong ones, and its codes are compared all the same.

A gradient has jumps, where a ReLU's input is nought or two pixels of a pool are alike: there the last bit decides on
which side a rig stands, and a sample's share of some weights comes or goes whole. So who is beyond the tolerance is
compared with gradients at weights next to the given ones, too: about half of them stand on either side of such a place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isqrt

import numpy as np
import numpy.typing as npt

from potd.arithmetic.distances import norm_squared
from potd.arithmetic.quantise import Blocks, Floats, Grid, Slice

FINER_BITS = 16  # by how many bits the grid of comparison is finer than a block's own
FAR_NANO = 2**63 - 1  # what is farther, or can't be compared, is said to be so far
NANO = 1_000_000_000
NEIGHBOURS = 16  # one side of a jump is missing from all of them once in 65,536 times
NUDGE = np.float32(2.0**-22)  # relative to each weight: more than kernels differ by, and far below the tolerance

OWN_BITS = 20  # a vanishing gradient of a small batch is honestly off by as much as itself: the unit must stay above

_HALF_STEP = 1 << (FINER_BITS - 1)
_VALUE_MAX = 2**45  # 2^29 steps of the block, more than any grid holds: what is replayed as greater counts as this
_LIMB_BITS = 23  # an excess has two limbs; 2^16 products of them, the most that a block has, fit int64

_Integers = npt.NDArray[np.int64]


def unit_of(payload: Blocks, norm: int) -> int:
    """What a payload's distances are measured in: the task's norm, 0 if it has none, but no more than a
    million times (2^20) the payload's own, and at least one step of its grid.

    Whoever is first in a task can make its norm as great as it likes. So it hides behind that no more than a tenth of
    a gradient's length, at a tolerance of 100."""
    own = isqrt(norm_squared(payload)) << OWN_BITS
    return max(1, min(norm, own) if norm else own)


def nearest(payload: Blocks, replays: Iterable[Floats], norm: int, tolerance_nano: int) -> tuple[int, int]:
    """`distance` from the first of the replays within the tolerance, with every exponent right; or else the least."""
    least = (FAR_NANO, len(payload.exponents))
    for replay in replays:
        found, wrong = distance(payload, replay, norm, tolerance_nano)
        if found <= tolerance_nano and wrong == 0:
            return found, wrong
        least = min(least, (found, wrong))
    return least


def neighbours(weights: Floats) -> Iterator[Floats]:
    """The weights [parameters] themselves, then each a little longer or shorter, by chance that never changes."""
    yield weights
    for seed in range(NEIGHBOURS):
        signs = np.random.RandomState(seed).randint(0, 2, len(weights)).astype(np.float32) * 2 - 1
        yield weights * (1 + signs * NUDGE)


def distance(payload: Blocks, replay: Floats, norm: int, tolerance_nano: int) -> tuple[int, int]:
    """The L2 norm of what exceeds half a step, in billionths of `norm`, rounded down; and how many exponents are wrong.

    `replay` is float32 [parameters], `norm` is positive, in steps of 2^exponent_min, and the tolerance is in billionths
    of it. A replay that is not finite is as far from everything as can be, with every exponent wrong.
    """
    assert norm > 0 and replay.shape == payload.codes.shape
    if not np.isfinite(replay).all():
        return FAR_NANO, len(payload.exponents)
    grid = payload.grid
    slack = float(np.ldexp(float(tolerance_nano * norm) / NANO, grid.exponent_min))
    squared, wrong = 0, 0  # in squared steps of 2^(exponent_min - FINER_BITS)
    for part in grid.slices(len(replay)):
        values = replay[part.elements].reshape(part.shape).astype(np.float64)
        exponents = payload.exponents[part.blocks].astype(np.int64)
        lifts = (2 * (exponents - grid.exponent_min)).tolist()
        squared += sum(
            total << lift for total, lift in zip(_squares(_excess(payload, part, values)), lifts, strict=True)
        )
        largest = np.abs(values).max(axis=1)
        low, high = (_exponents(np.maximum(largest + by, 0), grid) for by in (-slack, slack))
        wrong += int(((exponents < low) | (exponents > high)).sum())
    return min(isqrt(squared * NANO**2 // (norm << FINER_BITS) ** 2), FAR_NANO), wrong


def _excess(payload: Blocks, part: Slice, values: npt.NDArray[np.float64]) -> _Integers:
    """By how much each value [blocks, elements] lies beyond half a step of its code, in 2^-16 of the block's step."""
    grid, exponents = payload.grid, payload.exponents[part.blocks].astype(np.int32)[:, None]
    codes = payload.codes[part.elements].reshape(part.shape).astype(np.int64)
    # float32 times a power of two is exact in float64; the one rounding is to the finer grid, half to even.
    fine = np.rint(np.ldexp(values, FINER_BITS - exponents))
    off = np.clip(fine, -_VALUE_MAX, _VALUE_MAX).astype(np.int64) - (codes << FINER_BITS)
    # A code at the end of the greatest grid stands for everything beyond it, too.
    endless = (np.abs(codes) == grid.code_max) & (exponents == grid.exponent_max) & (off * codes > 0)
    return np.where(endless, 0, np.maximum(np.abs(off) - _HALF_STEP, 0))


def _squares(excess: _Integers) -> list[int]:
    """The sum of the squares of each row, exactly."""
    low, high = excess & ((1 << _LIMB_BITS) - 1), excess >> _LIMB_BITS
    products = [(one * other).sum(axis=1).tolist() for one, other in ((low, low), (low, high), (high, high))]
    return [
        squares + (mixed << (_LIMB_BITS + 1)) + (upper << (2 * _LIMB_BITS))
        for squares, mixed, upper in zip(*products, strict=True)
    ]


def _exponents(largest: npt.NDArray[np.float64], grid: Grid) -> _Integers:
    """The exponent that `encode` gives to blocks of these greatest magnitudes."""
    limit, bits = np.frexp(grid.code_max + 0.5)
    mantissa, power = np.frexp(largest)
    least = power.astype(np.int64) - int(bits) + (mantissa >= limit)
    return np.clip(np.where(largest == 0, grid.exponent_min, least), grid.exponent_min, grid.exponent_max)
