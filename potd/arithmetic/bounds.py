"""Which tasks can be computed exactly: the proof that sums fit 64-bit integers. Knows the spec, and no data.

A contribution's code is at most 127, stands for code * 2^(exponent - exponent_min) quanta of 2^exponent_min, and counts
`units` times a weight of the rule's. So every sum, and every part of one, is at most

    127 * 2^(exponent_max - exponent_min) * units_total * weight_max  <  2^63

in magnitude, where weight_max is 65536 for the rules that weigh, and 1 for those that do not, whose sums are shorter by
as many bits. The same bound keeps the division of a sum by the units it stands for inside 64 bits: see `aggregate`.
"""

from __future__ import annotations

from potd.wire.codec import Malformed
from potd.wire.rules import rule_problems, weight_max
from potd.wire.tasks import EncodingSpec, TaskSpec

PAYLOAD_CODE_MAX = 127
AGGREGATE_CODE_MAX = 32_767

ENCODINGS = ("int8",)
OPTIMISERS = ("sgd", "nesterov")


def sum_max(encoding: EncodingSpec, weights_total: int) -> int:
    """The greatest magnitude that a sum of contributions of this total weight can reach, in quanta."""
    return (PAYLOAD_CODE_MAX * weights_total) << (encoding.exponent_max - encoding.exponent_min)


def units_max(spec: TaskSpec) -> int:
    """The most units, over all miners of a round, whose sums provably fit."""
    return (2**63 - 1) // sum_max(spec.encoding, weight_max(spec.rule))


def check_bounds(spec: TaskSpec, units_total_max: int) -> None:
    """Raises Malformed, with every reason, for a task that this package cannot compute exactly with so many units."""
    problems = []
    if spec.encoding.kind not in ENCODINGS:
        problems.append(f"unknown encoding {spec.encoding.kind!r}, known: {', '.join(ENCODINGS)}")
    if spec.optimiser.kind not in OPTIMISERS:
        problems.append(f"unknown optimiser {spec.optimiser.kind!r}, known: {', '.join(OPTIMISERS)}")
    unsound = rule_problems(spec.rule)
    problems += unsound
    if spec.encoding.exponent_min > spec.encoding.exponent_max:
        problems.append(f"exponents from {spec.encoding.exponent_min} down to {spec.encoding.exponent_max}")
    elif not unsound and (most := units_max(spec)) < units_total_max:
        span = spec.encoding.exponent_max - spec.encoding.exponent_min
        problems.append(
            f"sums could overflow: {span + 1} exponents leave room for {most} units by rule {spec.rule.kind!r}, "
            f"not {units_total_max}"
        )
    if problems:
        raise Malformed("; ".join(problems))
