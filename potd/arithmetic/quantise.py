"""Vectors of float32 as integer codes in blocks, each with a power-of-two scale. Knows nothing of what they stand for.

A vector of n parameters is cut into blocks of `grid.block`, the last one shorter. A block has one exponent e, and each
of its values is code * 2^e, exactly. The exponent is the least one, within the grid's bounds, at which no code exceeds
`code_max`; codes are rounded half to even. A block that would need a greater exponent than the grid has saturates at
+-code_max. A block of zeros has the least exponent.

The bytes are the exponents (int8), then the codes (little-endian), and nothing else. Each encodable vector has one
encoding: the greatest code of a block is more than half of `code_max`, unless its exponent is the least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from potd.arithmetic.bounds import AGGREGATE_CODE_MAX, PAYLOAD_CODE_MAX
from potd.wire.codec import Malformed
from potd.wire.rules import FINE_BITS
from potd.wire.tasks import EncodingSpec

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8] | npt.NDArray[np.int16]

SLICE_ELEMENTS = 64 * 1024  # what is worked on at a time: a few arrays of it fit a core's second-level cache


@dataclass(frozen=True)
class Grid:
    """The values that a block can hold: codes up to code_max, times two to an exponent within the bounds."""

    code_max: int
    exponent_min: int
    exponent_max: int
    block: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("i1") if self.code_max == PAYLOAD_CODE_MAX else np.dtype("<i2")

    def blocks(self, parameters: int) -> int:
        """How many blocks a vector of so many parameters has."""
        return -(-parameters // self.block)

    def encoded_bytes(self, parameters: int) -> int:
        """The exact size of an encoded vector of so many parameters."""
        return self.blocks(parameters) + parameters * self.dtype.itemsize

    def slices(self, parameters: int, elements: int = SLICE_ELEMENTS) -> Iterator[Slice]:
        """A vector of so many parameters as rectangles of whole blocks, of so many elements if a block has no more; a
        shorter last block is one of its own."""
        whole, rest = divmod(parameters, self.block)
        rows = max(1, elements // self.block)
        for first in range(0, whole, rows):
            last = min(first + rows, whole)
            yield Slice(slice(first, last), slice(first * self.block, last * self.block), (last - first, self.block))
        if rest:
            yield Slice(slice(whole, whole + 1), slice(whole * self.block, parameters), (1, rest))


@dataclass(frozen=True)
class Slice:
    """Some blocks, where their elements lie, and the shape [blocks, elements of a block] to see them in."""

    blocks: slice
    elements: slice
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Blocks:
    """An encoded vector: exponents int8 [blocks], codes int8 or int16 [parameters], checked to lie on the grid."""

    grid: Grid
    exponents: npt.NDArray[np.int8]
    codes: Codes


def payload_grid(spec: EncodingSpec) -> Grid:
    """The grid of a contribution."""
    return Grid(PAYLOAD_CODE_MAX, spec.exponent_min, spec.exponent_max, spec.block)


def aggregate_grid(spec: EncodingSpec) -> Grid:
    """The grid of an aggregate: finer by the bits that its codes are longer, so that no mean saturates."""
    return Grid(AGGREGATE_CODE_MAX, spec.exponent_min - FINE_BITS, spec.exponent_max - FINE_BITS, spec.block)


def encode(values: Floats, grid: Grid) -> Blocks:
    """The nearest vector on the grid to finite float32 `values` [parameters]. Raises ValueError for NaN or infinity."""
    assert values.dtype == np.float32 and values.ndim == 1
    exponents = np.empty(grid.blocks(len(values)), np.int8)
    codes = np.empty(len(values), grid.dtype)
    # A block's greatest code rounds to more than code_max from code_max + 1/2 on; here as m * 2^x, with m in [1/2, 1).
    limit, bits = np.frexp(np.float32(grid.code_max + 0.5))
    room = np.empty(max(SLICE_ELEMENTS, grid.block), np.float32)
    for part in grid.slices(len(values)):
        seen = values[part.elements].reshape(part.shape)
        scaled = room[: seen.size].reshape(part.shape)
        np.abs(seen, out=scaled)
        # Not negative, floats are ordered as their bits are, with infinity and NaN above all others.
        largest = scaled.view(np.int32).max(axis=1).view(np.float32)
        if not np.isfinite(largest).all():
            raise ValueError("the vector holds NaN or infinity")
        mantissa, power = np.frexp(largest)
        least = power - bits + (mantissa >= limit)
        least[largest == 0] = grid.exponent_min
        least = np.clip(least, grid.exponent_min, grid.exponent_max)
        # Multiplying by a power of two is exact, but for what is far below one half, and what overflows is clipped.
        with np.errstate(over="ignore", under="ignore"):
            np.multiply(seen, np.ldexp(np.float32(1), -least)[:, None], out=scaled)
        np.rint(scaled, out=scaled)
        if int(least.max()) == grid.exponent_max:
            np.clip(scaled, -grid.code_max, grid.code_max, out=scaled)
        codes[part.elements] = scaled.reshape(-1)
        exponents[part.blocks] = least
    return Blocks(grid, exponents, codes)


def to_bytes(blocks: Blocks) -> bytes:
    """What `from_bytes` reads back: the one encoding of this vector."""
    return b"".join((blocks.exponents.data, blocks.codes.data))


def from_bytes(data: bytes | memoryview, parameters: int, grid: Grid) -> Blocks:
    """The vector in foreign bytes, without copying them. Raises Malformed for all that `to_bytes` never gives."""
    if len(data) != grid.encoded_bytes(parameters):
        raise Malformed(f"{len(data)} bytes, not {grid.encoded_bytes(parameters)}")
    count = grid.blocks(parameters)
    exponents = np.frombuffer(data, np.int8, count)
    codes = np.frombuffer(data, grid.dtype, parameters, offset=count)
    low, high = int(exponents.min()), int(exponents.max())
    if low < grid.exponent_min or high > grid.exponent_max:
        raise Malformed(f"exponents from {low} to {high}, not {grid.exponent_min}..{grid.exponent_max}")
    unsigned = np.dtype(grid.dtype.str.replace("i", "u"))
    for part in grid.slices(parameters):
        seen = codes[part.elements].reshape(part.shape)
        # The magnitude of the least integer, which has no positive twin, is right once it is read as unsigned.
        largest = np.abs(seen).view(unsigned).max(axis=1)
        if int(largest.max()) > grid.code_max:
            raise Malformed(f"a code of {-int(largest.max())}, below {-grid.code_max}")
        loose = (largest <= grid.code_max // 2) & (exponents[part.blocks] != grid.exponent_min)
        if loose.any():
            block = part.blocks.start + int(loose.argmax())
            raise Malformed(f"block {block} has exponent {int(exponents[block])} where a lesser one would do")
    return Blocks(grid, exponents, codes)


def to_floats(blocks: Blocks) -> Floats:
    """The vector's exact values, float32 [parameters]: codes have at most 16 bits, and exponents are at least -68."""
    values = np.empty(len(blocks.codes), np.float32)
    for part in blocks.grid.slices(len(values)):
        floats_of_slice(blocks, part, values[part.elements])
    return values


def floats_of_slice(blocks: Blocks, part: Slice, out: Floats) -> None:
    """The exact values of one slice into `out` [elements]."""
    seen = out.reshape(part.shape)
    seen[...] = blocks.codes[part.elements].reshape(part.shape)
    seen *= np.ldexp(np.float32(1), blocks.exponents[part.blocks].astype(np.int32))[:, None]


def encode_payload(values: Floats, spec: EncodingSpec) -> bytes:
    """A gradient, float32 [parameters], as the bytes that a miner commits to. Raises ValueError for NaN or infinity."""
    return to_bytes(encode(values, payload_grid(spec)))


def decode_payload(data: bytes | memoryview, parameters: int, spec: EncodingSpec) -> Blocks:
    """A contribution from foreign bytes. Raises Malformed."""
    return from_bytes(data, parameters, payload_grid(spec))


def decode_aggregate(data: bytes | memoryview, parameters: int, spec: EncodingSpec) -> Blocks:
    """An aggregate from foreign bytes. Raises Malformed."""
    return from_bytes(data, parameters, aggregate_grid(spec))
