"""Every command of `scripts/bench`, as small as it goes: that it runs, and counts what it says that it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

from potd.wire.rules import RULES as KINDS
from potd.wire.rules import rule_problems
from tests.bench import consensus, daemons, hop
from tests.bench.arithmetic import RULES
from tests.bench.command import main
from tests.bench.load import enough

TOP = Path(__file__).resolve().parents[2]
OFFERED = [(outstanding, size) for outstanding in consensus.OUTSTANDING for size in consensus.PAYLOADS]


def report(capsys: pytest.CaptureFixture[str], *asked: str) -> dict[str, Any]:
    """What a command prints, and nothing else."""
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_the_script_names_the_commands_that_there_are() -> None:
    shown = subprocess.run([sys.executable, "-m", "tests.bench", "--help"], cwd=TOP, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    (commands,) = {line.strip(" {}") for line in shown.stdout.splitlines() if line.startswith("  {")}
    script = (TOP / "scripts" / "bench").read_text()
    named = [line.split()[2] for line in script.splitlines() if line.startswith("#     scripts/bench ")]
    assert named == [*commands.split(","), "NAME"]
    assert "exec python -m tests.bench" in script


def test_arithmetic_compares_the_sum_of_its_steps_with_a_plain_mean_and_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = report(capsys, "arithmetic", "--parameters", "5000", "--miners", "8", "--repeats", "1")
    assert (found["parameters"], found["miners"]) == (5000, 8)
    steps = ("decode_all", "accumulate_mean", "requantise", "step")
    ours = sum(found[f"{name}_ms"] for name in steps)
    assert found["mean_ratio"] == pytest.approx(ours / (found["plain_mean_ms"] + found["plain_step_ms"]), rel=0.2)


def test_rules_are_one_of_each_kind_at_least_and_each_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert {rule.kind for rule in RULES.values()} == set(KINDS)
    assert [problem for rule in RULES.values() for problem in rule_problems(rule)] == []
    found = report(capsys, "rules", "--parameters", "5000", "--miners", "10", "--repeats", "1")
    measured = (*RULES, "trimmed-unequal-units")
    whole = {"parameters", "miners", *(f"{name}_{what}" for name in measured for what in ("ms", "ratio"))}
    assert found.keys() == whole
    assert found["mean_ratio"] == 1


def test_digits_trains_to_the_accuracy_of_its_twin(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "digits", "--seeds", "1")
    assert (found["rounds"], found["miners"], len(found["accuracy"])) == (130, 4, 1)
    assert found["accuracy_worst"] > 0.95
    assert found["twin_difference_max"] < 0.02


def test_rounds_plays_one_of_the_size_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "rounds", "--validators", "4", "--miners", "8")
    assert (found["validators"], found["miners"]) == (4, 8)


def test_consensus_measures_each_load_in_one_process_and_says_which_goals_it_can_tell_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = report(capsys, "consensus", "--validators", "4", "--daemons", "--seconds", "0")
    rows = found["in_process"]
    assert [(row["outstanding"], row["payload_bytes"]) for row in rows] == OFFERED
    assert all(row["operations"] >= enough(row["outstanding"]) for row in rows)
    assert (list(found["split_ms"]), found["daemons"], found["recovery"]) == (["4"], [], [])
    assert [name for name, goal in found["goals"].items() if goal is not None] == ["cpu_ms_in_process"]


@pytest.mark.slow
def test_consensus_of_daemons_tells_of_every_goal_that_daemons_have(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = report(capsys, "consensus", "--validators", "--daemons", "4", "--seconds", "0", "--folder", str(tmp_path))
    assert [(row["outstanding"], row["payload_bytes"]) for row in found["daemons"]] == OFFERED
    assert [name for name, goal in found["goals"].items() if goal is None] == ["cpu_ms_in_process"]
    assert found["goals"]["accepted_lost"] == {"found": 0, "at_most": 0, "met": True}
    assert list(tmp_path.iterdir()) == []


def test_a_hop_and_a_write_take_some_time(tmp_path: Path) -> None:
    assert uvloop.run(hop.median_ms(20)) > 0
    assert daemons.median_fsync_ms(tmp_path, 5) > 0
    assert list(tmp_path.iterdir()) == []
