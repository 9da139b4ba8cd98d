"""Claims about sums and their mean, against slow references in Python's integers and fractions."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.aggregate import accumulate, mean, zero_sums
from potd.arithmetic.quantise import Blocks, aggregate_grid, encode, from_bytes, payload_grid, to_bytes, to_floats
from potd.arithmetic.robust import shares
from potd.wire.ids import digest
from potd.wire.tasks import EncodingSpec

WIDE = EncodingSpec("int8", 16, -30, -10)
GRID = payload_grid(WIDE)


@st.composite
def contributions(draw: st.DrawFn) -> tuple[EncodingSpec, list[Blocks], list[int], list[int]]:
    """A spec, vectors on its grid, units and weights; all within the bounds."""
    low = draw(st.integers(-60, 10))
    spec = EncodingSpec("int8", draw(st.integers(16, 24)), low, low + draw(st.integers(0, 20)))
    parameters, count = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    vectors = []
    for _ in range(count):
        scales = chance.integers(spec.exponent_min - 3, spec.exponent_max + 8, parameters)
        values = np.ldexp(chance.standard_normal(parameters).astype(np.float32), scales.astype(np.int32))
        vectors.append(encode(values, payload_grid(spec)))
    units = draw(st.lists(st.integers(1, 255), min_size=count, max_size=count))
    weights = draw(st.lists(st.integers(0, 65_536), min_size=count, max_size=count))
    return spec, vectors, units, weights


def exact_sum(vectors: list[Blocks], factors: list[int]) -> list[Fraction]:
    values = [to_floats(vector).tolist() for vector in vectors]
    return [
        sum((factor * Fraction(value) for factor, value in zip(factors, column, strict=True)), Fraction(0))
        for column in zip(*values, strict=True)
    ]


@given(contributions())
def test_a_sum_is_the_exact_sum(given_: tuple[EncodingSpec, list[Blocks], list[int], list[int]]) -> None:
    spec, vectors, units, weights = given_
    factors = [unit * weight for unit, weight in zip(units, weights, strict=True)]
    sums = zero_sums(len(vectors[0].codes))
    accumulate(sums, vectors, factors)
    quantum = Fraction(2) ** spec.exponent_min
    assert [int(one) * quantum for one in sums] == exact_sum(vectors, factors)


@given(contributions())
def test_a_mean_is_the_exact_quotient_rounded_half_to_even(
    given_: tuple[EncodingSpec, list[Blocks], list[int], list[int]],
) -> None:
    spec, vectors, units, weights = given_
    factors, divisor = shares(units, weights)
    sums = zero_sums(len(vectors[0].codes))
    accumulate(sums, vectors, factors)
    average = mean(sums, divisor, spec)

    grid = aggregate_grid(spec)
    exact = [value / divisor for value in exact_sum(vectors, factors)]
    codes, exponents = [], []
    for start in range(0, len(exact), spec.block):
        block = exact[start : start + spec.block]
        exponent = grid.exponent_min
        rounded = [round(value / Fraction(2) ** exponent) for value in block]
        while max(map(abs, rounded)) > grid.code_max:
            exponent += 1
            rounded = [round(value / Fraction(2) ** exponent) for value in block]
        assert exponent <= grid.exponent_max, "no mean of contributions saturates"
        exponents.append(exponent)
        codes += rounded
    assert (average.exponents.tolist(), average.codes.tolist()) == (exponents, codes)
    assert to_bytes(from_bytes(to_bytes(average), len(exact), grid)) == to_bytes(average)


@given(contributions())
def test_shares_in_lowest_terms_give_the_same_mean(
    given_: tuple[EncodingSpec, list[Blocks], list[int], list[int]],
) -> None:
    spec, vectors, units, weights = given_
    factors, divisor = shares(units, weights)
    reduced, plain = zero_sums(len(vectors[0].codes)), zero_sums(len(vectors[0].codes))
    accumulate(reduced, vectors, factors)
    accumulate(plain, vectors, [unit * weight for unit, weight in zip(units, weights, strict=True)])
    assert to_bytes(mean(reduced, divisor, spec)) == to_bytes(mean(plain, sum(units) * 65_536, spec))


@given(contributions(), st.randoms(use_true_random=False), st.integers(0, 6))
def test_neither_order_nor_grouping_changes_a_bit(
    given_: tuple[EncodingSpec, list[Blocks], list[int], list[int]], chance: Random, cut: int
) -> None:
    _, vectors, units, _ = given_
    sums = zero_sums(len(vectors[0].codes))
    accumulate(sums, vectors, units)
    order = list(range(len(vectors)))
    chance.shuffle(order)
    other = zero_sums(len(sums))
    for part in (order[:cut], order[cut:]):
        accumulate(other, [vectors[index] for index in part], [units[index] for index in part])
    assert other.tobytes() == sums.tobytes()


def _many(parameters: int = 200_003) -> tuple[list[Blocks], list[int]]:
    chance = np.random.default_rng(7)
    vectors = []
    for index in range(12):
        values = np.ldexp(chance.standard_normal(parameters).astype(np.float32), index - 22)
        vectors.append(encode(values, payload_grid(EncodingSpec("int8", 256, -30, -10))))
    return vectors, [int(weight) for weight in chance.integers(1, 65_536, 12)]


def _digest_of_mean() -> str:
    vectors, weights = _many()
    sums = zero_sums(len(vectors[0].codes))
    accumulate(sums, vectors, weights)
    return digest("test", to_bytes(mean(sums, sum(weights), EncodingSpec("int8", 256, -30, -10)))).hex()


def test_two_threads_add_up_to_the_same_bytes_as_one() -> None:
    vectors, weights = _many()
    one = zero_sums(len(vectors[0].codes))
    accumulate(one, vectors, weights)
    halves = [zero_sums(len(one)), zero_sums(len(one))]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(accumulate, halves, (vectors[::2], vectors[1::2]), (weights[::2], weights[1::2])))
    assert (halves[0] + halves[1]).tobytes() == one.tobytes()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_process_finds_the_same_bytes_with_any_number_of_threads(threads: str) -> None:
    program = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('claims', {__file__!r});"
        "claims = importlib.util.module_from_spec(spec); spec.loader.exec_module(claims);"
        "print(claims._digest_of_mean())"
    )
    environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": ":".join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == _digest_of_mean()


def test_sums_of_any_size_within_the_bounds_agree_between_narrow_and_wide_integers() -> None:
    """Weights around the edge at which 32 bits no longer do."""
    vector = encode(np.full(16, -1.0, np.float32), GRID)
    code = int(vector.codes[0])
    for weight in (2**31 // 127 - 1, 2**31 // 127, 2**31 // 127 + 1, 2**24, 2**35):
        sums = zero_sums(16)
        accumulate(sums, [vector], [weight])
        assert sums.tolist() == [weight * code * 2 ** (int(vector.exponents[0]) + 30)] * 16


def test_the_greatest_sums_within_the_bounds_are_exact() -> None:
    vector = encode(np.full(16, 1e9, np.float32), GRID)
    weight = (2**63 - 1) // (127 << 20)
    sums = zero_sums(16)
    accumulate(sums, [vector], [weight])
    assert sums.tolist() == [127 * weight << 20] * 16
    average = mean(sums, weight, WIDE)
    assert to_floats(average).tolist() == [127 * 2.0**-10] * 16


def test_a_sum_that_could_overflow_is_never_begun() -> None:
    vector = encode(np.full(16, 1.0, np.float32), payload_grid(EncodingSpec("int8", 16, -60, -4)))
    with pytest.raises(AssertionError, match="could overflow"):
        accumulate(zero_sums(16), [vector], [2])


def test_opposite_contributions_cancel_to_nothing() -> None:
    values = np.random.default_rng(3).standard_normal(100, np.float32) * np.float32(1e-3)
    sums = zero_sums(100)
    accumulate(sums, [encode(values, GRID), encode(-values, GRID)], [5, 5])
    average = mean(sums, 10, WIDE)
    assert set(average.exponents.tolist()) == {WIDE.exponent_min - 8}
    assert not average.codes.any()
