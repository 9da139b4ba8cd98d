"""Claims about which tasks can be computed exactly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.arithmetic.bounds import check_bounds, sum_max, units_max
from potd.wire.codec import Malformed
from potd.wire.rules import CLIP, MEAN
from potd.wire.tasks import EncodingSpec, OptimiserSpec, RuleSpec, TaskSpec


@given(st.integers(-60, 30), st.integers(0, 90), st.integers(1, 2**40))
def test_the_bound_is_the_greatest_code_at_the_greatest_exponent_for_every_unit(
    low: int, span: int, total: int
) -> None:
    encoding = EncodingSpec("int8", 16, low, low + span)
    assert sum_max(encoding, total) == 127 * 2**span * total


@pytest.mark.parametrize(
    ("rule", "weight"),
    [
        (MEAN, 1),
        (CLIP, 65_536),
        (RuleSpec("trimmed", 100_000, 0, 0, 1), 1),
        (RuleSpec("median", 0, 0, 0, 2), 256),
        (RuleSpec("centred", 0, 1_000, 3, 2), 65_536),
        (RuleSpec("krum", 100_000, 0, 0, 1), 1),
        (RuleSpec("multi-krum", 100_000, 0, 0, 3), 256),
    ],
)
@pytest.mark.parametrize("span", [0, 10, 20, 30])
def test_the_most_units_fit_and_one_more_does_not(spec: TaskSpec, rule: RuleSpec, weight: int, span: int) -> None:
    task = replace(spec, rule=rule, encoding=EncodingSpec("int8", 64, -40, -40 + span))
    most = units_max(task)
    assert sum_max(task.encoding, most * weight) < 2**63 <= sum_max(task.encoding, (most + 1) * weight)
    check_bounds(task, most)
    with pytest.raises(Malformed, match=f"sums could overflow: {span + 1} exponents leave room for {most} units"):
        check_bounds(task, most + 1)


def test_twenty_one_exponents_leave_room_for_every_rule_and_every_miner_there_can_be(spec: TaskSpec) -> None:
    check_bounds(replace(spec, rule=CLIP, encoding=EncodingSpec("int8", 64, -28, -8)), 4096 * 255)


def test_every_reason_is_given_at_once(spec: TaskSpec) -> None:
    task = replace(
        spec,
        rule=RuleSpec("bulyan", 0, 0, 0, 1),
        encoding=EncodingSpec("int9", 64, -4, -5),
        optimiser=OptimiserSpec("adam", 0, (1,)),
    )
    with pytest.raises(Malformed) as refusal:
        check_bounds(task, 1)
    assert str(refusal.value) == (
        "unknown encoding 'int9', known: int8; unknown optimiser 'adam', known: sgd, nesterov; "
        "unknown rule, known: mean, clip, trimmed, median, centred, krum, multi-krum; exponents from -4 down to -5"
    )


def test_the_daemon_can_ask_without_loading_numpy() -> None:
    program = "import sys, potd.arithmetic.bounds, potd.arithmetic.selftest; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
