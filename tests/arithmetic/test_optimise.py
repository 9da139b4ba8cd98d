"""Claims about the optimiser's step: each operation rounds once, as IEEE 754 says."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import Blocks, Floats, aggregate_grid, encode, to_floats
from potd.wire.tasks import EncodingSpec, OptimiserSpec, TaskSpec

GRID = aggregate_grid(EncodingSpec("int8", 16, -30, 0))

floats32 = st.floats(-(2.0**40), 2.0**40, width=32)


def nearest(exact: Fraction) -> Fraction:
    """The float32 nearest to an exact value, half to even, denormals included. By integers."""
    if exact == 0:
        return exact
    magnitude, exponent = abs(exact), -149
    while magnitude >= Fraction(2) ** (exponent + 24):
        exponent += 1
    return round(exact / Fraction(2) ** exponent) * Fraction(2) ** exponent


def stepped(theta: float, momentum: float, g: float, optimiser: OptimiserSpec, rate: np.float32) -> tuple[float, float]:
    """One weight's step, with exact operations that are each rounded once."""
    mu, eta, gradient = Fraction(float(from_micro(optimiser.momentum_micro))), Fraction(float(rate)), Fraction(g)
    v = nearest(nearest(mu * Fraction(momentum)) + gradient)
    d = v if optimiser.kind == "sgd" else nearest(gradient + nearest(mu * v))
    return float(nearest(Fraction(theta) - nearest(eta * d))), float(v)


@given(
    st.lists(st.tuples(floats32, floats32, floats32), min_size=1, max_size=40),
    st.sampled_from(("sgd", "nesterov")),
    st.integers(0, 999_999),
    st.integers(0, 2**32 - 1),
)
def test_a_step_is_the_sequence_of_single_roundings_that_the_rule_names(
    rows: list[tuple[float, float, float]], kind: str, momentum_micro: int, rate: int
) -> None:
    theta, momentum, values = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    gradient = encode(values, GRID)
    optimiser = OptimiserSpec(kind, momentum_micro, (1,))
    expected = [
        stepped(*one, optimiser, from_micro(rate))
        for one in zip(theta.tolist(), momentum.tolist(), to_floats(gradient).tolist(), strict=True)
    ]
    step(theta, momentum, gradient, optimiser, from_micro(rate))
    assert list(zip(theta.tolist(), momentum.tolist(), strict=True)) == expected


def test_denormal_momenta_survive_a_step() -> None:
    theta, momentum = np.zeros(4, np.float32), np.ldexp(np.array([1, 3, 1000, -7], np.float32), -149)
    step(theta, momentum, encode(np.zeros(4, np.float32), GRID), OptimiserSpec("sgd", 500_000, (1,)), np.float32(1))
    assert np.ldexp(momentum, 149).tolist() == [0.0, 2.0, 500.0, -4.0]
    assert theta.tolist() == (-momentum).tolist()


def test_a_vector_longer_than_a_slice_steps_as_its_parts_do() -> None:
    chance = np.random.default_rng(5)
    theta, momentum, values = (chance.standard_normal(200_003, np.float32) for _ in range(3))
    optimiser, rate = OptimiserSpec("nesterov", 900_000, (1,)), from_micro(123_456)
    cut = 16 * 5000
    parts: list[tuple[Floats, Floats]] = []
    for part in (slice(0, cut), slice(cut, None)):
        parts.append((theta[part].copy(), momentum[part].copy()))
        step(*parts[-1], encode(values[part], GRID), optimiser, rate)
    step(theta, momentum, encode(values, GRID), optimiser, rate)
    assert theta.tobytes() == b"".join(one.tobytes() for one, _ in parts)
    assert momentum.tobytes() == b"".join(one.tobytes() for _, one in parts)


def test_plain_sgd_without_momentum_is_the_documents_rule() -> None:
    theta, momentum = np.ones(3, np.float32), np.zeros(3, np.float32)
    gradient: Blocks = encode(np.array([0.5, -0.25, 0.0], np.float32), GRID)
    step(theta, momentum, gradient, OptimiserSpec("sgd", 0, (1,)), np.float32(0.5))
    assert theta.tolist() == [0.75, 1.125, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    theta, momentum = np.array([1.0, bad], np.float32), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="range of float32"):
        step(theta, momentum, encode(np.zeros(2, np.float32), GRID), OptimiserSpec("sgd", 0, (1,)), np.float32(1))


@given(st.integers(0, 2**32 - 1))
def test_a_rate_is_one_conversion_and_one_division(amount: int) -> None:
    assert Fraction(float(from_micro(amount))) == nearest(nearest(Fraction(amount)) / 1_000_000)


def test_the_rate_table_is_stretched_over_the_rounds(spec: TaskSpec) -> None:
    task = replace(spec, rounds=10, optimiser=OptimiserSpec("sgd", 0, (5, 6, 7)))
    assert [rate_micro(task, round_) for round_ in range(12)] == [5, 5, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7]
    assert [rate_micro(replace(task, rounds=2), round_) for round_ in range(3)] == [5, 6, 7]
