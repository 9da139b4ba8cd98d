"""Claims about clipping, against exact references."""

from __future__ import annotations

from fractions import Fraction
from math import floor, gcd, sqrt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.aggregate import accumulate, mean, zero_sums
from potd.arithmetic.quantise import encode, payload_grid, to_floats
from potd.arithmetic.robust import clip_weight, clip_weights, median_low, norm_squared, shares
from potd.wire.tasks import EncodingSpec

SPEC = EncodingSpec("int8", 16, -30, -10)

norms = st.one_of(st.integers(0, 1000), st.integers(0, 2**200))


@given(st.lists(st.floats(-2.0, 2.0, width=32), min_size=1, max_size=70), st.integers(-40, 0))
def test_a_norm_is_exact(values: list[float], scale: int) -> None:
    vector = encode(np.ldexp(np.array(values, np.float32), scale), payload_grid(SPEC))
    exact = sum(Fraction(value) ** 2 for value in to_floats(vector).tolist())
    assert norm_squared(vector) == exact * 4**-SPEC.exponent_min


def test_a_norm_is_exact_at_the_greatest_block_and_span() -> None:
    vector = encode(np.full(65_536, 1e30, np.float32), payload_grid(EncodingSpec("int8", 65_536, -60, 30)))
    assert norm_squared(vector) == 65_536 * 127**2 * 4**90


@given(norms, norms)
def test_a_weight_is_the_floor_of_twice_the_median_over_the_norm(norm: int, median: int) -> None:
    weight = clip_weight(norm, median)
    assert 0 <= weight <= 65_536
    # weight / 65536 <= 2 * sqrt(median / norm) < (weight + 1) / 65536, unless nothing is clipped
    if norm <= 4 * median:
        assert weight == 65_536
    else:
        assert weight**2 * norm <= (65_536 * 2) ** 2 * median < (weight + 1) ** 2 * norm


def test_a_weight_looks_like_the_quotient_it_stands_for() -> None:
    assert clip_weight(100, 1) == floor(65_536 * 2 * 1 / 10)
    assert clip_weight(3, 0) == 0
    assert clip_weight(0, 0) == 65_536
    assert clip_weight(401, 100) == floor(65_536 * 2 * 10 / sqrt(401))


@given(st.lists(norms, min_size=1, max_size=9))
def test_weights_follow_their_contributions_in_any_order(squares: list[int]) -> None:
    weights = dict(zip(squares, clip_weights(squares), strict=True))
    turned = squares[::-1]
    assert clip_weights(turned) == [weights[square] for square in turned]


def test_the_median_of_an_even_number_is_the_lower_one() -> None:
    assert [median_low([4]), median_low([9, 4]), median_low([9, 4, 1]), median_low([16, 9, 4, 1])] == [4, 4, 4, 4]


def test_nobody_is_no_weights() -> None:
    assert clip_weights([]) == []


def test_one_liar_cannot_move_the_mean_by_more_than_twice_the_median_over_the_number() -> None:
    honest = [np.full(64, 2.0**-12, np.float32)] * 4
    vectors = [encode(one, payload_grid(SPEC)) for one in [*honest, honest[0] * np.float32(-800)]]
    weights = clip_weights([norm_squared(one) for one in vectors])
    assert weights[:4] == [65_536] * 4
    factors, divisor = shares([1] * 5, weights)
    sums = zero_sums(64)
    accumulate(sums, vectors, factors)
    average = to_floats(mean(sums, divisor, SPEC))
    # Four honest ones and minus twice the median, over five.
    assert np.allclose(average, 2.0**-12 * 2 / 5, rtol=1e-3)


@given(st.lists(st.tuples(st.integers(1, 255), st.integers(0, 65_536)), min_size=1, max_size=9))
def test_shares_are_in_proportion_and_in_lowest_terms(pairs: list[tuple[int, int]]) -> None:
    units, weights = [unit for unit, _ in pairs], [weight for _, weight in pairs]
    factors, divisor = shares(units, weights)
    whole = sum(units) * 65_536
    for factor, unit, weight in zip(factors, units, weights, strict=True):
        assert Fraction(factor, divisor) == Fraction(unit * weight, whole)
    assert gcd(divisor, *factors) == 1


def test_shares_without_clipping_are_the_units() -> None:
    assert shares([1, 2, 4], [65_536] * 3) == ([1, 2, 4], 7)
