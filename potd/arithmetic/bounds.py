"""Which tasks can be computed exactly: the proof that sums fit 64-bit integers. Knows the spec, and no data.

A contribution's code is at most 127, stands for code * 2^(exponent - exponent_min) quanta of 2^exponent_min, and counts
`units` times a sixteen-bit weight. So every sum, and every part of one, is at most

    127 * 2^(exponent_max - exponent_min) * units_total * 65536  <  2^63

in magnitude. `mean` has no weights, and its sums are sixteen bits shorter. The same bound keeps the division of a sum
by the units it stands for inside 64 bits: see `aggregate`.
"""

from __future__ import annotations

from potd.wire.codec import Malformed
from potd.wire.tasks import EncodingSpec, TaskSpec

PAYLOAD_CODE_MAX = 127
AGGREGATE_CODE_MAX = 32_767
AGGREGATE_BITS = 8  # by how many bits an aggregate's grid is finer than a payload's
WEIGHT_ONE = 65_536  # sixteen-bit fixed point: a contribution that is not clipped

ENCODINGS = ("int8",)
OPTIMISERS = ("sgd", "nesterov")
RULES = ("mean", "clip")


def weight_max(rule: str) -> int:
    """The greatest weight of one unit in a sum by this rule."""
    return 1 if rule == "mean" else WEIGHT_ONE


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
    if spec.rule not in RULES:
        problems.append(f"unknown rule {spec.rule!r}, known: {', '.join(RULES)}")
    if spec.encoding.exponent_min > spec.encoding.exponent_max:
        problems.append(f"exponents from {spec.encoding.exponent_min} down to {spec.encoding.exponent_max}")
    elif (most := units_max(spec)) < units_total_max:
        span = spec.encoding.exponent_max - spec.encoding.exponent_min
        problems.append(
            f"sums could overflow: {span + 1} exponents leave room for {most} units by rule {spec.rule!r}, "
            f"not {units_total_max}"
        )
    if problems:
        raise Malformed("; ".join(problems))
