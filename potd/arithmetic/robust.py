"""The rules by which contributions become one vector. Integers only, so that everybody finds the same bits.

What each of them takes and is for stands in `wire.rules`. None depends on the order of the contributions: where two are
equally good, the one whose `place` comes first is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd, isqrt
from typing import TypeVar

from potd.arithmetic.aggregate import accumulate, mean, zero_sums
from potd.arithmetic.distances import norm_squared, product, squared_distances
from potd.arithmetic.order import trimmed_sums
from potd.arithmetic.quantise import Blocks
from potd.wire.ids import Digest
from potd.wire.rules import CENTRE_ONE, FINE_BITS, WEIGHT_ONE
from potd.wire.tasks import EncodingSpec, RuleSpec

T = TypeVar("T")

MILLION, THOUSAND = 1_000_000, 1_000


@dataclass(frozen=True, eq=False)
class Contribution:
    """A vector, how many units it stands for, and where it stands among others, which nobody can choose."""

    vector: Blocks
    units: int
    place: Digest

    @cached_property
    def norm_squared(self) -> int:
        """Of the vector, in squared quanta."""
        return norm_squared(self.vector)


def aggregate(
    contributions: Sequence[Contribution], rule: RuleSpec, encoding: EncodingSpec
) -> tuple[Blocks, list[int]]:
    """What one or more contributions come to, on the aggregate's grid, and the weight that each had, in sixteen-bit
    fixed point. Whoever calls it has checked the task by `bounds`."""
    if rule.bucket == 1:
        return _by_rule(contributions, rule, encoding)
    ordered = sorted(range(len(contributions)), key=lambda at: contributions[at].place)
    cut = [ordered[start : start + rule.bucket] for start in range(0, len(ordered), rule.bucket)]
    vector, weights = _by_rule([_bucket([contributions[at] for at in one], encoding) for one in cut], rule, encoding)
    weight_of = {at: weight for one, weight in zip(cut, weights, strict=True) for at in one}
    return vector, [weight_of[at] for at in range(len(contributions))]


def _by_rule(contributions: Sequence[Contribution], rule: RuleSpec, encoding: EncodingSpec) -> tuple[Blocks, list[int]]:
    units = [one.units for one in contributions]
    whole = [WEIGHT_ONE] * len(contributions)
    match rule.kind:
        case "mean":
            return _weighed(contributions, whole, encoding), whole
        case "clip":
            weights = clip_weights([one.norm_squared for one in contributions], units, rule.radius_milli)
            return _weighed(contributions, weights, encoding), weights
        case "trimmed":
            return _trimmed(contributions, sum(units) * rule.faults_ppm // MILLION, encoding), whole
        case "median":
            return _trimmed(contributions, (sum(units) - 1) // 2, encoding), whole
        case "centred":
            return _centred(contributions, rule, encoding)
        case "krum" | "multi-krum":
            taken = _nearest(contributions, rule)
            average = _mean(contributions, taken, sum(taken), encoding)
            return average, [WEIGHT_ONE * one // of for one, of in zip(taken, units, strict=True)]
        case _:
            raise AssertionError(f"rule {rule.kind} was not checked")


def _bucket(members: Sequence[Contribution], encoding: EncodingSpec) -> Contribution:
    """The mean of some contributions, rounded to the aggregate's grid, in their place."""
    units = [one.units for one in members]
    return Contribution(_mean(members, units, sum(units), encoding), sum(units), members[0].place)


def _mean(
    contributions: Sequence[Contribution], factors: Sequence[int], divisor: int, encoding: EncodingSpec
) -> Blocks:
    sums = zero_sums(len(contributions[0].vector.codes))
    taken = [(one.vector, factor) for one, factor in zip(contributions, factors, strict=True) if factor]
    accumulate(sums, [vector for vector, _ in taken], [factor for _, factor in taken])
    return mean(sums, divisor << _finer(contributions[0].vector, encoding), encoding)


def _finer(vector: Blocks, encoding: EncodingSpec) -> int:
    """By how many bits a vector's quanta are finer than those of a payload."""
    return encoding.exponent_min - vector.grid.exponent_min


# Weights


def _weighed(contributions: Sequence[Contribution], weights: Sequence[int], encoding: EncodingSpec) -> Blocks:
    """The mean of weighed vectors, over all units: what is shortened keeps its share in the divisor."""
    factors, divisor = shares([one.units for one in contributions], weights)
    return _mean(contributions, factors, divisor, encoding)


def shares(units: Sequence[int], weights: Sequence[int]) -> tuple[list[int], int]:
    """The factor of each contribution in the sum, and the sum's divisor, in lowest terms.

    `units` are at least 1, `weights` in sixteen-bit fixed point. Lowest terms change no quotient, and leave small
    integers where nobody is clipped.
    """
    factors = [unit * weight for unit, weight in zip(units, weights, strict=True)]
    divisor = sum(units) * WEIGHT_ONE
    common = gcd(divisor, *factors)
    return [factor // common for factor in factors], divisor // common


def median_low(values: Sequence[int], units: Sequence[int]) -> int:
    """The value of the middle unit, or of the lower of the two in the middle."""
    left = (sum(units) + 1) // 2
    for value, count in sorted(zip(values, units, strict=True)):
        left -= count
        if left <= 0:
            return value
    raise AssertionError("the median of nothing")


def clip_weights(norms_squared: Sequence[int], units: Sequence[int], radius_milli: int) -> list[int]:
    """What is left of each when none may be longer than `radius` times the median, in sixteen-bit fixed point."""
    median = median_low(norms_squared, units)
    return [within(norm, median, radius_milli, WEIGHT_ONE) for norm in norms_squared]


def within(length_squared: int, median_squared: int, radius_milli: int, one: int) -> int:
    """floor(one * radius * median / length), at most `one`."""
    reach = radius_milli**2 * median_squared
    if THOUSAND**2 * length_squared <= reach:
        return one
    return isqrt(one**2 * reach // (THOUSAND**2 * length_squared))


# The middle


def _trimmed(contributions: Sequence[Contribution], cut: int, encoding: EncodingSpec) -> Blocks:
    vectors = [one.vector for one in contributions]
    sums, left = trimmed_sums(vectors, [one.units for one in contributions], cut)
    return mean(sums, left << _finer(vectors[0], encoding), encoding)


def _centred(contributions: Sequence[Contribution], rule: RuleSpec, encoding: EncodingSpec) -> tuple[Blocks, list[int]]:
    """Centred clipping [Karimireddy, He & Jaggi 2021, algorithm 2], from the coordinate-wise median instead of the
    round before: so a round says by itself what it comes to. Every step is rounded to the aggregate's grid."""
    vectors, units = [one.vector for one in contributions], [one.units for one in contributions]
    total, finer = sum(units), FINE_BITS - _finer(vectors[0], encoding)
    lengths = [norm_squared(one) << (2 * finer) for one in vectors]  # all in squared quanta of the aggregate's grid
    centre = _trimmed(contributions, (total - 1) // 2, encoding)
    weights: list[int] = []
    for _ in range(rule.iterations):
        own = norm_squared(centre)
        distances = [
            length + own - 2 * (product(one, centre) << finer) for length, one in zip(lengths, vectors, strict=True)
        ]
        median = median_low(distances, units)
        weights = [within(distance, median, rule.radius_milli, CENTRE_ONE) for distance in distances]
        pulled = [unit * weight for unit, weight in zip(units, weights, strict=True)]
        # centre + sum of units * weight * (vector - centre) over all units
        sums = zero_sums(len(centre.codes))
        accumulate(sums, vectors, pulled)
        sums <<= finer
        accumulate(sums, [centre], [CENTRE_ONE * total - sum(pulled)])
        centre = mean(sums, (CENTRE_ONE * total) << FINE_BITS, encoding)
    return centre, [weight * (WEIGHT_ONE // CENTRE_ONE) for weight in weights]


# The nearest


def _nearest(contributions: Sequence[Contribution], rule: RuleSpec) -> list[int]:
    """How many units of each are taken: one by `krum`, all but the faults by `multi-krum`, the nearest first.

    A unit's score is the sum of squared distances to its n - f - 2 nearest neighbours [Blanchard et al. 2017, section
    4], at least one; the other units of its own contribution are the first of them.
    """
    units = [one.units for one in contributions]
    total = sum(units)
    faults = total * rule.faults_ppm // MILLION
    distances = squared_distances([one.vector for one in contributions])
    scores = []
    for at, own in enumerate(units):
        others = sorted(range(len(units)), key=lambda other: (distances[at][other], contributions[other].place))
        others.remove(at)
        near = _take(others, units, max(0, max(1, total - faults - 2) - (own - 1)))
        scores.append(sum(count * distances[at][other] for other, count in enumerate(near)))
    order = sorted(range(len(units)), key=lambda at: (scores[at], contributions[at].place))
    if rule.kind == "krum":
        return [int(at == order[0]) for at in range(len(units))]
    return _take(order, units, total - faults)


def _take(order: Sequence[int], units: Sequence[int], count: int) -> list[int]:
    """So many units, in this order, as far as there are as many: how many of each."""
    taken = [0] * len(units)
    for at in order:
        taken[at] = min(units[at], count)
        count -= taken[at]
    return taken
