"""The rules as their papers write them, in Python's fractions, on copies: slow, and with nothing of ours in between."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

from potd.arithmetic.quantise import aggregate_grid, to_floats
from potd.arithmetic.robust import Contribution
from potd.wire.tasks import EncodingSpec, RuleSpec

Vector = tuple[Fraction, ...]
Copies = list[tuple[Vector, bytes]]  # one for each unit, with its place


def by_reference(contributions: list[Contribution], rule: RuleSpec, encoding: EncodingSpec) -> Vector:
    """What the rule comes to, on the aggregate's grid."""
    parts = [
        (tuple(Fraction(value) for value in to_floats(one.vector).tolist()), one.units, one.place)
        for one in sorted(contributions, key=lambda one: one.place)
    ]
    if rule.bucket > 1:
        cut = [parts[start : start + rule.bucket] for start in range(0, len(parts), rule.bucket)]
        parts = [
            (
                rounded(mean([vector for vector, units, _ in one for _ in range(units)]), encoding),
                sum(units for _, units, _ in one),
                one[0][2],
            )
            for one in cut
        ]
    copies: Copies = [(vector, place) for vector, units, place in parts for _ in range(units)]
    vectors = [vector for vector, _ in copies]
    faults = len(copies) * rule.faults_ppm // 1_000_000
    match rule.kind:
        case "mean":
            return rounded(mean(vectors), encoding)
        case "clip":
            return rounded(clipped(vectors, rule.radius_milli), encoding)
        case "trimmed":
            return rounded(trimmed(vectors, faults), encoding)
        case "median":
            return rounded(trimmed(vectors, (len(vectors) - 1) // 2), encoding)
        case "centred":
            return centred(vectors, rule, encoding)
        case "krum":
            return rounded(nearest(copies, faults)[0], encoding)
        case _:
            return rounded(mean(nearest(copies, faults)[: len(copies) - faults]), encoding)


def mean(vectors: list[Vector]) -> Vector:
    return tuple(sum(column, Fraction(0)) / len(vectors) for column in zip(*vectors, strict=True))


def trimmed(vectors: list[Vector], cut: int) -> Vector:
    columns = [sorted(column)[cut : len(vectors) - cut] for column in zip(*vectors, strict=True)]
    return tuple(sum(column, Fraction(0)) / len(column) for column in columns)


def scaled(vector: Vector, factor: Fraction) -> Vector:
    return tuple(value * factor for value in vector)


def squared(vector: Vector) -> Fraction:
    return sum((value * value for value in vector), Fraction(0))


def difference(one: Vector, other: Vector) -> Vector:
    return tuple(a - b for a, b in zip(one, other, strict=True))


def weights(lengths: list[Fraction], radius_milli: int, one: int) -> list[Fraction]:
    """min(1, radius * median / length), rounded down to a fraction of `one`."""
    median = sorted(lengths)[(len(lengths) - 1) // 2]
    found = []
    for length in lengths:
        if not length or (ratio := Fraction(radius_milli, 1000) ** 2 * median / length) >= 1:
            found.append(Fraction(1))
        else:
            found.append(Fraction(isqrt(int(ratio * one**2)), one))
    return found


def clipped(vectors: list[Vector], radius_milli: int) -> Vector:
    left = weights([squared(vector) for vector in vectors], radius_milli, 65_536)
    return mean([scaled(vector, weight) for vector, weight in zip(vectors, left, strict=True)])


def centred(vectors: list[Vector], rule: RuleSpec, encoding: EncodingSpec) -> Vector:
    centre = rounded(trimmed(vectors, (len(vectors) - 1) // 2), encoding)
    for _ in range(rule.iterations):
        away = [difference(vector, centre) for vector in vectors]
        left = weights([squared(one) for one in away], rule.radius_milli, 256)
        step = mean([scaled(one, weight) for one, weight in zip(away, left, strict=True)])
        centre = rounded(tuple(a + b for a, b in zip(centre, step, strict=True)), encoding)
    return centre


def nearest(copies: Copies, faults: int) -> list[Vector]:
    """All copies, the one with the least score first. [Blanchard et al. 2017, section 4]"""
    scores = []
    for at, (vector, place) in enumerate(copies):
        apart = sorted(squared(difference(vector, other)) for n, (other, _) in enumerate(copies) if n != at)
        near = max(1, len(copies) - faults - 2)
        scores.append((sum(apart[:near], Fraction(0)), place, at))
    return [copies[at][0] for _, _, at in sorted(scores)]


def rounded(values: Vector, encoding: EncodingSpec) -> Vector:
    """The nearest vector on the aggregate's grid, ties to even, each block at the least exponent that holds it."""
    grid = aggregate_grid(encoding)
    found: list[Fraction] = []
    for start in range(0, len(values), encoding.block):
        block = values[start : start + encoding.block]
        exponent = grid.exponent_min
        while max(abs(round(value / Fraction(2) ** exponent)) for value in block) > grid.code_max:
            exponent += 1
        found += [round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent for value in block]
    return tuple(found)
