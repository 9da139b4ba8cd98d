"""Claims about norms, products and distances, against fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.distances import norm_squared, product, squared_distances
from potd.arithmetic.quantise import aggregate_grid, encode, payload_grid, to_floats
from potd.wire.tasks import EncodingSpec

SPEC = EncodingSpec("int8", 16, -30, -10)
numbers = st.lists(st.floats(-2.0, 2.0, width=32), min_size=1, max_size=70)


@given(numbers, st.integers(-40, 0))
def test_a_norm_is_exact(values: list[float], scale: int) -> None:
    vector = encode(np.ldexp(np.array(values, np.float32), scale), payload_grid(SPEC))
    exact = sum(Fraction(value) ** 2 for value in to_floats(vector).tolist())
    assert norm_squared(vector) == exact * 4**-SPEC.exponent_min


def test_a_norm_is_exact_at_the_greatest_block_and_span() -> None:
    widest = EncodingSpec("int8", 65_536, -60, 30)
    for grid, code in ((payload_grid(widest), 127), (aggregate_grid(widest), 32_767)):
        vector = encode(np.full(65_536, 1e30, np.float32), grid)
        assert norm_squared(vector) == 65_536 * code**2 * 4**90


@given(numbers, st.integers(0, 2**32), st.integers(-40, 0), st.integers(-40, 0))
def test_a_product_of_vectors_on_two_grids_is_exact(values: list[float], seed: int, one: int, other: int) -> None:
    chance = np.random.default_rng(seed)
    left = encode(np.ldexp(np.array(values, np.float32), one), payload_grid(SPEC))
    drawn = np.ldexp(chance.standard_normal(len(values)).astype(np.float32), other)
    right = encode(drawn, aggregate_grid(SPEC))
    exact = sum(
        Fraction(a) * Fraction(b) for a, b in zip(to_floats(left).tolist(), to_floats(right).tolist(), strict=True)
    )
    assert product(left, right) == exact * 2 ** (8 - 2 * SPEC.exponent_min)


@pytest.mark.parametrize("block", [16, 64, 1024, 2048])
def test_distances_are_exact_in_blocks_of_any_size_and_exponents_that_differ(block: int) -> None:
    chance = np.random.default_rng(block)
    spec = EncodingSpec("int8", block, -45, -5)
    for grid in (payload_grid(spec), aggregate_grid(spec)):
        parameters = 3 * block + 7
        vectors = []
        for _ in range(5):
            scales = np.repeat(chance.integers(-46, -6, 4), block)[:parameters].astype(np.int32)
            vectors.append(encode(np.ldexp(chance.standard_normal(parameters).astype(np.float32), scales), grid))
        exact = [[Fraction(value) for value in to_floats(one).tolist()] for one in vectors]
        for row, one in zip(squared_distances(vectors), exact, strict=True):
            for found, other in zip(row, exact, strict=True):
                apart = sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
                assert found == apart * 4**-grid.exponent_min
