"""What a rule of aggregation takes, and how large its sums get. Knows no vector.

A contribution of u units counts in every rule like u contributions of one unit each.

`mean`        everything as it is.
`clip`        what is longer than `radius` times the median norm is shortened to that.
`trimmed`     of each coordinate, `faults` of the units at either end are left out.
`median`      of each coordinate the middle unit, or the mean of the two in the middle.
`centred`     from the median on, `iterations` times: the mean of all, each pulled to within `radius` times the median
              distance of where the iteration stands. [Karimireddy, He & Jaggi 2021]
`krum`        the one contribution that is nearest to its neighbours, `faults` of the units left out of account.
`multi-krum`  the mean of the nearest, without `faults` of the units. [Blanchard et al. 2017]

Before any of the last five, contributions may be averaged in buckets. [Karimireddy, He & Jaggi 2022]
"""

from __future__ import annotations

from dataclasses import dataclass

from potd.wire.tasks import RuleSpec

WEIGHT_ONE = 65_536  # sixteen-bit fixed point: a contribution that is not clipped
CENTRE_ONE = 256  # eight-bit fixed point: a contribution that is not pulled, in a sum eight bits finer
FINE_BITS = 8  # by how many bits an aggregate's grid, a bucket's too, is finer than a payload's


@dataclass(frozen=True)
class Takes:
    """Which parameters a kind has, and the weight of a unit in its sums."""

    faults: bool = False
    radius: bool = False
    iterations: bool = False
    bucket: bool = True
    weight: int = 1


KINDS = {
    "mean": Takes(bucket=False),
    "clip": Takes(radius=True, bucket=False, weight=WEIGHT_ONE),
    "trimmed": Takes(faults=True),
    "median": Takes(),
    "centred": Takes(radius=True, iterations=True, weight=CENTRE_ONE << FINE_BITS),
    "krum": Takes(faults=True),
    "multi-krum": Takes(faults=True),
}
RULES = tuple(KINDS)

MEAN = RuleSpec("mean", 0, 0, 0, 1)
CLIP = RuleSpec("clip", 0, 2_000, 0, 1)  # twice the median norm: it moves accuracy least while nobody attacks


def rule_problems(rule: RuleSpec) -> tuple[str, ...]:
    """Everything that is wrong with a rule, so that each rule is written in one way only."""
    takes = KINDS.get(rule.kind)
    if takes is None:
        return (f"unknown rule, known: {', '.join(RULES)}",)
    problems = []
    for what, used, value in (
        ("faults", takes.faults, rule.faults_ppm),
        ("radius", takes.radius, rule.radius_milli),
        ("iterations", takes.iterations, rule.iterations),
    ):
        if used and not value:
            problems.append(f"rule {rule.kind} without {what}")
        if value and not used:
            problems.append(f"rule {rule.kind} takes no {what}")
    if rule.bucket > 1 and not takes.bucket:
        problems.append(f"rule {rule.kind} takes no bucket")
    return tuple(problems)


def weight_max(rule: RuleSpec) -> int:
    """The greatest weight of one unit in a sum by this rule, in quanta of the payloads' grid."""
    takes = KINDS[rule.kind]
    if takes.weight == 1 and rule.bucket > 1:
        return 1 << FINE_BITS  # buckets lie on the finer grid
    return takes.weight


def rule_text(rule: RuleSpec) -> str:
    """The rule in words, for people."""
    takes = KINDS[rule.kind]
    text = [rule.kind]
    if takes.faults:
        text.append(f"faults {rule.faults_ppm / 10_000:g} %")
    if takes.radius:
        text.append(f"radius {rule.radius_milli / 1_000:g}")
    if takes.iterations:
        text.append(f"{rule.iterations} iterations")
    if rule.bucket > 1:
        text.append(f"buckets of {rule.bucket}")
    return " ".join(text)
