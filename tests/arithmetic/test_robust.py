"""Claims about the robust rules, against slow references in Python's integers and fractions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from math import floor, gcd, isqrt, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potd.arithmetic.quantise import encode, payload_grid, to_bytes, to_floats
from potd.arithmetic.robust import Contribution, aggregate, clip_weights, median_low, shares, within
from potd.wire.ids import digest
from potd.wire.rules import CLIP, MEAN, RULES, rule_problems
from potd.wire.tasks import EncodingSpec, RuleSpec
from tests.arithmetic.reference import by_reference

SPEC = EncodingSpec("int8", 16, -30, -10)
EVERY = (
    MEAN,
    CLIP,
    RuleSpec("clip", 0, 700, 0, 1),
    RuleSpec("trimmed", 200_000, 0, 0, 1),
    RuleSpec("trimmed", 340_000, 0, 0, 2),
    RuleSpec("median", 0, 0, 0, 1),
    RuleSpec("median", 0, 0, 0, 3),
    RuleSpec("centred", 0, 1_000, 3, 1),
    RuleSpec("centred", 0, 500, 2, 2),
    RuleSpec("krum", 200_000, 0, 0, 1),
    RuleSpec("krum", 300_000, 0, 0, 2),
    RuleSpec("multi-krum", 200_000, 0, 0, 1),
    RuleSpec("multi-krum", 300_000, 0, 0, 2),
)

norms = st.one_of(st.integers(0, 1000), st.integers(0, 2**200))


def contribution(values: np.ndarray[tuple[int], np.dtype[np.float32]], units: int, at: int) -> Contribution:
    return Contribution(encode(values, payload_grid(SPEC)), units, digest("place of the tests", bytes([at])))


@st.composite
def contributions(draw: st.DrawFn) -> list[Contribution]:
    parameters, count = draw(st.integers(1, 40)), draw(st.integers(1, 7))
    units = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count) | st.just([3] * count))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    common = chance.standard_normal(parameters).astype(np.float32)
    made = []
    for at in range(count):
        own = common + chance.standard_normal(parameters).astype(np.float32) * np.float32(draw(st.sampled_from([0, 1])))
        made.append(contribution(np.ldexp(own, np.int32(draw(st.integers(-34, -6)))), units[at], at))
    return made


@pytest.mark.parametrize("rule", EVERY, ids=str)
@settings(max_examples=40)
@given(made=contributions())
def test_a_rule_comes_to_what_its_paper_says(rule: RuleSpec, made: list[Contribution]) -> None:
    vector, weights = aggregate(made, rule, SPEC)
    assert tuple(Fraction(value) for value in to_floats(vector).tolist()) == by_reference(made, rule, SPEC)
    assert len(weights) == len(made)
    assert all(0 <= weight <= 65_536 for weight in weights)


@pytest.mark.parametrize("rule", EVERY, ids=str)
@settings(max_examples=10)
@given(made=contributions())
def test_the_order_of_contributions_changes_no_bit(rule: RuleSpec, made: list[Contribution]) -> None:
    made = made[:5]
    vector, weights = aggregate(made, rule, SPEC)
    for order in list(permutations(range(len(made))))[:: max(1, len(made) - 1)]:
        turned, moved = aggregate([made[at] for at in order], rule, SPEC)
        assert to_bytes(turned) == to_bytes(vector)
        assert moved == [weights[at] for at in order]


@pytest.mark.parametrize("rule", [one for one in EVERY if one.bucket == 1], ids=str)
@settings(max_examples=10)
@given(made=contributions())
def test_units_are_as_many_contributions_of_one_unit(rule: RuleSpec, made: list[Contribution]) -> None:
    single = [
        Contribution(one.vector, 1, digest(one.place.hex(), bytes([n]))) for one in made for n in range(one.units)
    ]
    if "krum" in rule.kind:  # whose ties go by place: there, equal vectors stand together
        single = [replace(one, place=made[at].place) for at, one in zip(owners(made), single, strict=True)]
    assert to_bytes(aggregate(single, rule, SPEC)[0]) == to_bytes(aggregate(made, rule, SPEC)[0])


def owners(made: list[Contribution]) -> list[int]:
    return [at for at, one in enumerate(made) for _ in range(one.units)]


@pytest.mark.parametrize("rule", EVERY, ids=str)
def test_a_rule_is_the_same_at_any_size_of_block_and_vector(rule: RuleSpec) -> None:
    """Many slices, a short last block, exponents that differ by block: what the fast paths are for."""
    spec = EncodingSpec("int8", 64, -40, -20)
    chance = np.random.default_rng(7)
    parameters = 64 * 3 + 5
    made = []
    for at in range(9):
        scales = np.repeat(chance.integers(-42, -20, 4), 64)[:parameters].astype(np.int32)
        values = np.ldexp(chance.standard_normal(parameters).astype(np.float32), scales)
        made.append(Contribution(encode(values, payload_grid(spec)), 1 + at % 3, digest("place", bytes([at]))))
    vector, _ = aggregate(made, rule, spec)
    assert tuple(Fraction(value) for value in to_floats(vector).tolist()) == by_reference(made, rule, spec)


def test_a_third_of_liars_moves_no_coordinate_of_a_trimmed_mean_out_of_the_honest_range() -> None:
    chance = np.random.default_rng(3)
    honest = [chance.standard_normal(64).astype(np.float32) * np.float32(2.0**-12) for _ in range(8)]
    liars = [np.full(64, 2.0**-4, np.float32) * np.float32((-1) ** n) for n in range(4)]
    made = [contribution(values, 1, at) for at, values in enumerate([*honest, *liars])]
    seen = np.stack([to_floats(one.vector) for one in made[:8]])
    for rule in (RuleSpec("trimmed", 334_000, 0, 0, 1), RuleSpec("median", 0, 0, 0, 1)):
        average = to_floats(aggregate(made, rule, SPEC)[0])
        assert (average <= seen.max(axis=0)).all()
        assert (average >= seen.min(axis=0)).all()
    taken = aggregate(made, RuleSpec("krum", 334_000, 0, 0, 1), SPEC)[1]
    assert taken[8:] == [0] * 4
    assert sum(taken) == 65_536


def test_one_liar_cannot_move_the_clipped_mean_by_more_than_twice_the_median_over_the_number() -> None:
    honest = [np.full(64, 2.0**-12, np.float32)] * 4
    made = [contribution(values, 1, at) for at, values in enumerate([*honest, honest[0] * np.float32(-800)])]
    vector, weights = aggregate(made, CLIP, SPEC)
    assert weights[:4] == [65_536] * 4
    # Four honest ones and minus twice the median, over five.
    assert np.allclose(to_floats(vector), 2.0**-12 * 2 / 5, rtol=1e-3)


@given(norms, norms, st.integers(1, 5000), st.sampled_from([256, 65_536]))
def test_a_weight_is_the_floor_of_the_radius_over_the_length(length: int, median: int, radius: int, one: int) -> None:
    weight = within(length, median, radius, one)
    reach = radius**2 * median
    if 10**6 * length <= reach:
        assert weight == one
    else:
        assert weight**2 * length * 10**6 <= one**2 * reach < (weight + 1) ** 2 * length * 10**6


def test_a_weight_looks_like_the_quotient_it_stands_for() -> None:
    assert within(100, 1, 2000, 65_536) == floor(65_536 * 2 * 1 / 10)
    assert within(3, 0, 2000, 65_536) == 0
    assert within(0, 0, 2000, 65_536) == 65_536
    assert within(401, 100, 2000, 65_536) == floor(65_536 * 2 * 10 / sqrt(401))
    assert within(400, 100, 1500, 256) == isqrt(256**2 * 9 // 16)


@given(st.lists(st.tuples(norms, st.integers(1, 255)), min_size=1, max_size=9))
def test_weights_follow_their_contributions_in_any_order(pairs: list[tuple[int, int]]) -> None:
    squares, units = [square for square, _ in pairs], [unit for _, unit in pairs]
    weights = dict(zip(squares, clip_weights(squares, units, 2000), strict=True))
    assert clip_weights(squares[::-1], units[::-1], 2000) == [weights[square] for square in squares[::-1]]


def test_the_median_is_the_middle_units_and_the_lower_one_of_two() -> None:
    ones = [median_low([9, 4, 1, 16][:count], [1] * count) for count in (1, 2, 3, 4)]
    assert ones == [9, 4, 4, 4]
    assert median_low([1, 9], [1, 2]) == 9
    assert median_low([1, 9], [2, 2]) == 1


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


def test_every_rule_is_tried_and_sound() -> None:
    assert {rule.kind for rule in EVERY} == set(RULES)
    assert [rule_problems(rule) for rule in EVERY] == [()] * len(EVERY)
