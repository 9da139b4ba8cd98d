"""The distance between a contribution and its replay, beside the same in Python's fractions."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import torch

from potd.arithmetic.distances import norm_squared
from potd.arithmetic.quantise import Blocks, Floats, Grid, encode, from_bytes, to_bytes, to_floats
from potd.trainer.data import Samples, gather
from potd.trainer.layout import model_spec
from potd.trainer.replay import FAR_NANO, NEIGHBOURS, _exponents, distance, nearest, neighbours, unit_of
from potd.trainer.step import gradient
from potd.trainer.weights import initial_weights

GRID = Grid(127, -24, -4, 16)
TOLERANCE = 400
NORM = 1_000_000


def by_fractions(payload: Blocks, replay: Floats, norm: int) -> int:
    """The distance as it is specified, one value at a time."""
    grid, squared = payload.grid, Fraction(0)
    for at, (code, value) in enumerate(zip(payload.codes.tolist(), replay.tolist(), strict=True)):
        exponent = int(payload.exponents[at // grid.block])
        fine = round(Fraction(value) / Fraction(2) ** (exponent - 16))  # half to even
        off = fine - code * 2**16
        if abs(code) == grid.code_max and exponent == grid.exponent_max and off * code > 0:
            continue
        excess = max(abs(off) - 2**15, 0)
        squared += (excess * Fraction(2) ** (exponent - 16 - grid.exponent_min)) ** 2
    return isqrt(squared * 10**18 // norm**2)


def drawn(seed: int, size: int, scale: float = 1e-3) -> Floats:
    """Values of many magnitudes, so that blocks have many exponents."""
    chance = np.random.default_rng(seed)
    values: Floats = chance.standard_normal(size, np.float32) * np.float32(scale)
    values *= np.exp2(chance.integers(-12, 9, size // 16 + 1)).astype(np.float32).repeat(16)[:size]
    return values


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("drift", [1e-6, 1e-2, 1.0, 10.0])
def test_the_distance_is_that_of_exact_fractions(seed: int, drift: float) -> None:
    values = drawn(seed, 1003)
    drifted = values + drawn(seed + 100, 1003, drift * 1e-3)
    payload = encode(values, GRID)
    found, _ = distance(payload, drifted, NORM, TOLERANCE)
    assert found == by_fractions(payload, drifted, NORM)
    assert found > 0


def test_a_vector_of_several_slices_counts_every_value_once() -> None:
    grid = Grid(127, -24, -4, 256)
    values = drawn(1, 70_000)
    drifted = values * np.float32(1.01)
    payload = encode(values, grid)
    assert distance(payload, drifted, NORM, TOLERANCE)[0] == by_fractions(payload, drifted, NORM)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_replayed_to_the_bit_has_no_distance(seed: int) -> None:
    values = drawn(seed, 1003)
    assert distance(encode(values, GRID), values, NORM, TOLERANCE) == (0, 0)
    assert distance(encode(values, GRID), values, NORM, 0) == (0, 0)


def test_a_value_half_way_between_two_codes_may_be_either() -> None:
    values = np.full(16, 64.5 * 2.0**-10, np.float32)
    values[0] = 100 * 2.0**-10
    for code in (64, 65):
        codes = np.array([100, *[code] * 15], np.int8)
        payload = Blocks(GRID, np.array([-10], np.int8), codes)
        assert distance(payload, values, NORM, TOLERANCE) == (0, 0)


def test_one_step_off_counts_as_half_a_step() -> None:
    values = np.full(16, 100 * 2.0**-10, np.float32)
    payload = Blocks(GRID, np.array([-10], np.int8), np.array([101, *[100] * 15], np.int8))
    # Half a step of 2^-10 is 2^13 steps of 2^-24.
    assert distance(payload, values, 10**6, TOLERANCE) == (2**13 * 1000, 0)


def test_codes_at_the_end_of_the_grid_stand_for_all_beyond_it_and_for_nothing_inside() -> None:
    beyond = np.full(32, 127 * 2.0**-4, np.float32)
    beyond[3], beyond[20] = 1e3, -1e3
    payload = encode(beyond, GRID)
    assert (payload.codes[3], payload.codes[20]) == (127, -127)
    assert distance(payload, beyond, NORM, TOLERANCE) == (0, 0)
    inside = beyond.copy()
    inside[3], inside[20] = 100 * 2.0**-4, -100 * 2.0**-4
    found = distance(payload, inside, NORM, TOLERANCE)[0]
    assert found == by_fractions(payload, inside, NORM)
    assert found > 0
    assert distance(payload, -beyond, NORM, TOLERANCE)[0] > found


def test_codes_at_the_end_of_a_lesser_exponent_stand_for_themselves() -> None:
    values = np.full(16, 127 * 2.0**-10, np.float32)
    payload = encode(values, GRID)
    assert payload.exponents.tolist() == [-10]
    far, exponents = distance(payload, values * np.float32(8), NORM, TOLERANCE)
    assert far == by_fractions(payload, values * np.float32(8), NORM)
    assert (far > 10**6, exponents) == (True, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_replay_that_is_not_finite_is_as_far_as_can_be(value: float) -> None:
    values = drawn(1, 100)
    payload = encode(values, GRID)
    values[77] = value
    assert distance(payload, values, NORM, TOLERANCE) == (FAR_NANO, 7)


def test_the_farthest_is_said_and_nothing_overflows() -> None:
    payload = encode(drawn(1, 1000), GRID)
    assert distance(payload, np.full(1000, 3e38, np.float32), 1, TOLERANCE)[0] == FAR_NANO
    grid = Grid(127, -60, 30, 65_536)
    lows = Blocks(grid, np.array([-60], np.int8), np.zeros(65_536, np.int8))
    far, _ = distance(lows, np.full(65_536, 3e38, np.float32), 2**40, TOLERANCE)
    assert far == (2**45 - 2**15) * 256 * 10**9 // 2**56  # the most that one value counts


@pytest.mark.parametrize("seed", range(4))
def test_exponents_are_those_of_the_encoding(seed: int) -> None:
    values = np.abs(drawn(seed, 16_000))
    largest = values.reshape(-1, 16).max(axis=1)
    exact = np.ldexp(np.float32(127.5), np.arange(-30, 4)).astype(np.float32)
    for one in (largest, exact, np.nextafter(exact, np.float32(0)), np.nextafter(exact, np.float32(9)), exact * 0):
        blocks = np.zeros((len(one), 16), np.float32)
        blocks[:, 7] = one
        expected = encode(blocks.reshape(-1), GRID).exponents
        assert _exponents(one.astype(np.float64), GRID).tolist() == expected.tolist()


def coarser(values: Floats, by: int) -> Blocks:
    """The same values with every exponent greater than it has to be, as far as the grid goes."""
    exponents = np.minimum(encode(values, GRID).exponents.astype(np.int64) + by, GRID.exponent_max)
    codes = np.rint(np.ldexp(values.reshape(-1, 16).astype(np.float64), -exponents[:, None])).astype(np.int8)
    return Blocks(GRID, exponents.astype(np.int8), codes.reshape(-1))


def test_a_coarser_grid_than_need_be_is_caught_by_its_exponents() -> None:
    values = drawn(3, 1600)
    payload = coarser(values, 1)
    assert distance(payload, values, NORM, TOLERANCE)[0] == 0
    assert distance(payload, values, NORM, TOLERANCE)[1] == 100


def test_a_block_whose_greatest_value_drifts_over_a_boundary_is_excused_within_the_tolerance() -> None:
    boundary = 127.5 * 2.0**-10
    below = np.full(16, 0.25 * boundary, np.float32)
    above = below.copy()
    below[5], above[5] = np.float32(boundary * (1 - 1e-7)), np.float32(boundary)
    fine, coarse = encode(below, GRID), encode(above, GRID)
    assert (fine.exponents.tolist(), coarse.exponents.tolist()) == ([-10], [-9])
    # The lower one is 1.5e-8 below the boundary; of these norms the tolerance allows 1.4e-8 and 1.7e-8.
    for norm, wrong in ((600_000, 1), (700_000, 0)):
        assert distance(coarse, below, norm, TOLERANCE) == (0, wrong)
    assert distance(fine, above, 600_000, TOLERANCE) == (0, 0)  # at the boundary itself, either
    assert distance(fine, above, 600_000, 0) == (0, 1)


def test_what_lies_below_the_slack_may_have_any_exponent_up_to_it() -> None:
    norm, values = 10**12, np.zeros(16, np.float32)
    slack = TOLERANCE * 1e-9 * norm * 2.0**-24
    least = int(np.ceil(np.log2(slack / 127.5)))
    for exponent, wrong in ((-24, 0), (least, 0), (least + 1, 1)):
        codes = np.zeros(16, np.int8)
        assert distance(Blocks(GRID, np.array([exponent], np.int8), codes), values, norm, TOLERANCE)[1] == wrong


@pytest.mark.parametrize("sizes", [(64, 256, 10), (1, 8, 8, 32, 10)], ids=["mlp", "cnn"])
def test_the_referee_finds_an_honest_gradient_good_and_a_thousandth_too_little_bad(
    sizes: tuple[int, ...], training: Samples
) -> None:
    spec = model_spec("mlp" if len(sizes) == 3 else "cnn", sizes)
    weights, grid, cpu = initial_weights(spec, 1), Grid(127, -24, -4, 256), torch.device("cpu")
    batch = gather([training], range(64))
    ours = gradient(spec, weights, batch, cpu).vector
    referee = gradient(spec, weights, batch, cpu, torch.float64).vector
    assert ours.tobytes() != referee.tobytes()
    honest = encode(ours, grid)
    norm = isqrt(norm_squared(honest))
    found, exponents = distance(from_bytes(to_bytes(honest), spec.parameters, grid), referee, norm, TOLERANCE)
    assert (found <= TOLERANCE, exponents) == (True, 0)
    assert distance(encode(ours * np.float32(0.999), grid), referee, norm, TOLERANCE)[0] > TOLERANCE
    assert np.allclose(to_floats(honest), referee, atol=float(np.abs(referee).max()) / 127)


def test_the_first_replay_within_the_tolerance_ends_the_search_and_otherwise_the_least_counts() -> None:
    values = drawn(1, 160)
    payload = encode(values, GRID)
    asked = []

    def replays(*factors: float) -> Iterator[Floats]:
        for factor in factors:
            asked.append(factor)
            yield values * np.float32(factor)

    assert nearest(payload, replays(1.5, 1, 2), NORM, TOLERANCE) == (0, 0)
    assert asked == [1.5, 1]
    least = distance(payload, values * np.float32(1.25), NORM, TOLERANCE)
    assert least[0] > TOLERANCE
    assert nearest(payload, replays(1.5, 1.25, 2), NORM, TOLERANCE) == least
    assert nearest(coarser(values, 1), replays(1, 1), NORM, TOLERANCE) == (0, 10)


def test_neighbours_are_the_weights_and_sixteen_next_to_them_always_the_same() -> None:
    weights = initial_weights(model_spec("mlp", (64, 256, 10)), 1)
    found = list(neighbours(weights))
    assert len(found) == NEIGHBOURS + 1
    assert found[0] is weights
    assert [one.tobytes() for one in neighbours(weights)] == [one.tobytes() for one in found]
    some = weights != 0
    for one in found[1:]:
        assert one.dtype == np.float32
        off = np.abs(one[some] / weights[some] - 1)
        assert off.min() > 1e-7
        assert off.max() < 4e-7
        assert np.array_equal(one[~some], weights[~some])


def test_a_rig_on_the_other_side_of_a_jump_is_explained_by_a_neighbour_and_a_cheat_is_not() -> None:
    spec, grid, cpu = model_spec("mlp", (2, 1, 2)), Grid(127, -24, -4, 16), torch.device("cpu")
    weights = np.array([1, -1, 0, 1, -1, 0, 0], np.float32)  # a ReLU of the difference of two features
    batch = Samples(np.array([[0.5, 0.5]], np.float32), np.array([0]))
    below = gradient(spec, weights, batch, cpu).vector
    above = gradient(spec, weights * np.array([1 + 1e-7, 1, 1, 1, 1, 1, 1], np.float32), batch, cpu).vector
    payload, norm = encode(above, grid), isqrt(norm_squared(encode(above, grid)))
    near = [gradient(spec, one, batch, cpu).vector for one in neighbours(weights)]
    assert distance(payload, below, norm, TOLERANCE)[0] > 10**8
    assert nearest(payload, near, norm, TOLERANCE) <= (TOLERANCE, 0)
    assert nearest(encode(above * np.float32(0.99), grid), near, norm, TOLERANCE)[0] > 1000 * TOLERANCE


def test_whoever_makes_the_tasks_norm_great_does_not_hide_behind_it() -> None:
    honest = encode(drawn(1, 1003), GRID)
    own = isqrt(norm_squared(honest))
    assert unit_of(honest, own) == own
    assert unit_of(honest, 10**5 * own) == 10**5 * own, "as of a small batch late in training"
    assert unit_of(honest, 10**9 * own) == own << 20
    cheat = encode(drawn(1, 1003) * np.float32(3 / 4), GRID)
    assert distance(cheat, drawn(1, 1003), unit_of(cheat, 10**9 * own), 100)[0] > 100
    assert distance(cheat, drawn(1, 1003), 10**9 * own, 100)[0] == 0, "with the norm alone it would not be seen"


def test_nothing_sent_is_far_from_something_whatever_the_tasks_norm() -> None:
    nothing = encode(np.zeros(1003, np.float32), GRID)
    for norm in (0, 1, NORM):
        assert unit_of(nothing, norm) == 1
        assert distance(nothing, drawn(1, 1003), 1, TOLERANCE)[0] > 10**9
        assert distance(nothing, np.zeros(1003, np.float32), 1, TOLERANCE) == (0, 0)
