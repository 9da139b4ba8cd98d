"""Claims about the block encoding, against a slow reference in fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.quantise import (
    Blocks,
    Floats,
    Grid,
    aggregate_grid,
    encode,
    encode_payload,
    from_bytes,
    payload_grid,
    to_bytes,
    to_floats,
)
from potd.wire.codec import Malformed
from potd.wire.tasks import EncodingSpec

SPEC = EncodingSpec("int8", 16, -20, -4)
GRID = payload_grid(SPEC)

grids = st.builds(
    lambda code_max, low, span, block: Grid(code_max, low, low + span, block),
    st.sampled_from((127, 32_767)),
    st.integers(-68, 10),
    st.integers(0, 20),
    st.integers(16, 40),
)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(floats32, min_size=1, max_size=100).map(lambda values: np.array(values, np.float32))


def reference(values: Floats, grid: Grid) -> tuple[list[int], list[int]]:
    """Exponents and codes by the definition, with exact fractions; Python rounds half to even."""
    exponents, codes = [], []
    for start in range(0, len(values), grid.block):
        exact = [Fraction(float(value)) for value in values[start : start + grid.block]]
        exponent = grid.exponent_min
        rounded = [round(value / Fraction(2) ** exponent) for value in exact]
        while max(map(abs, rounded)) > grid.code_max and exponent < grid.exponent_max:
            exponent += 1
            rounded = [round(value / Fraction(2) ** exponent) for value in exact]
        exponents.append(exponent)
        codes += [max(-grid.code_max, min(grid.code_max, code)) for code in rounded]
    return exponents, codes


@given(vectors, grids)
def test_encoding_is_what_the_definition_says(values: Floats, grid: Grid) -> None:
    blocks = encode(values, grid)
    assert (blocks.exponents.tolist(), blocks.codes.tolist()) == reference(values, grid)


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60), st.integers(-20, -4))
def test_ties_round_to_even(halves: list[int], exponent: int) -> None:
    values = np.ldexp(np.array(halves, np.float32), exponent - 1)
    blocks = encode(values, GRID)
    assert (blocks.exponents.tolist(), blocks.codes.tolist()) == reference(values, GRID)


@given(vectors, grids)
def test_bytes_decode_to_the_same_vector_whose_values_encode_to_the_same_bytes(values: Floats, grid: Grid) -> None:
    data = to_bytes(encode(values, grid))
    assert len(data) == grid.encoded_bytes(len(values))
    decoded = from_bytes(data, len(values), grid)
    assert to_bytes(decoded) == data
    assert to_bytes(encode(to_floats(decoded), grid)) == data


@given(st.binary(min_size=1, max_size=80), grids)
def test_arbitrary_bytes_are_refused_or_are_the_one_encoding_of_a_vector(data: bytes, grid: Grid) -> None:
    for parameters in range(1, 81):
        try:
            decoded = from_bytes(data, parameters, grid)
        except Malformed:
            continue
        assert to_bytes(encode(to_floats(decoded), grid)) == data


@given(vectors, grids)
def test_values_are_codes_times_powers_of_two_exactly(values: Floats, grid: Grid) -> None:
    blocks = encode(values, grid)
    for index, value in enumerate(to_floats(blocks)):
        power = Fraction(2) ** int(blocks.exponents[index // grid.block])
        assert Fraction(float(value)) == int(blocks.codes[index]) * power


def test_a_vector_longer_than_a_slice_is_the_same_blocks_side_by_side() -> None:
    values = np.random.default_rng(0).standard_normal(300_001, np.float32) * np.float32(0.01)
    grid = payload_grid(EncodingSpec("int8", 1000, -30, -4))
    whole = encode(values, grid)
    for start in range(0, len(values), 7000):
        part = encode(values[start : start + 7000], grid)
        assert part.codes.tolist() == whole.codes[start : start + 7000].tolist()
        assert part.exponents.tolist() == whole.exponents[start // 1000 : start // 1000 + 7].tolist()


def test_a_block_may_be_longer_than_a_slice() -> None:
    values = np.ones(65_537, np.float32)
    assert set(encode(values, Grid(127, -20, 0, 65_536)).codes.tolist()) == {64}


def test_a_block_of_zeros_has_the_least_exponent() -> None:
    blocks = encode(np.array([0.0, -0.0] * 10, np.float32), GRID)
    assert (blocks.exponents.tolist(), set(blocks.codes.tolist())) == ([-20, -20], {0})


def test_denormals_are_encoded_as_the_nothing_that_they_are_on_any_grid() -> None:
    tiny = np.ldexp(np.arange(-8, 8, dtype=np.float32), -149)
    assert to_bytes(encode(tiny, Grid(127, -60, 30, 16))) == bytes([256 - 60]) + bytes(16)


def test_the_greatest_floats_saturate() -> None:
    most = np.finfo(np.float32).max
    blocks = encode(np.array([most, -most, 1.0, 0.0], np.float32), Grid(127, -60, -60, 16))
    assert blocks.codes.tolist() == [127, -127, 127, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(bad: float) -> None:
    values = np.zeros(40, np.float32)
    values[37] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        encode_payload(values, SPEC)


def _edited(position: int, value: int) -> bytes:
    data = bytearray(to_bytes(encode(np.full(20, 0.01, np.float32), GRID)))
    data[position] = value % 256
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes, not 22"),
        (bytes(21), "21 bytes, not 22"),
        (bytes(23), "23 bytes, not 22"),
        (_edited(0, -21), "exponents from -21"),
        (_edited(1, -3), "to -3, not -20..-4"),
        (_edited(5, -128), "a code of -128"),
        (bytes([256 - 10, 256 - 20]) + bytes(20), "block 0 has exponent -10"),
        (bytes([256 - 20, 256 - 4]) + bytes(16) + bytes([63, 193, 0, 0]), "block 1 has exponent -4"),
    ],
)
def test_malformed_payloads_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        from_bytes(data, 20, GRID)


def test_malformed_aggregates_are_refused_with_the_reason() -> None:
    grid = aggregate_grid(SPEC)
    assert (grid.exponent_min, grid.exponent_max, grid.code_max) == (-28, -12, 32_767)
    good = Blocks(grid, np.array([-12], np.int8), np.array([16_384, -1], "<i2"))
    assert to_floats(from_bytes(to_bytes(good), 2, grid)).tolist() == [4.0, -(2.0**-12)]
    with pytest.raises(Malformed, match="a code of -32768"):
        from_bytes(b"\xf4\x00\x80\x00\x00", 2, grid)
    with pytest.raises(Malformed, match="lesser one"):
        from_bytes(b"\xf4\xff\x3f\x00\x00", 2, grid)


def test_an_aggregates_codes_are_little_endian() -> None:
    data = to_bytes(encode(np.array([300.0, -2.0], np.float32), Grid(32_767, 0, 0, 16)))
    assert data == b"\x00" + b"\x2c\x01" + b"\xfe\xff"
