"""The command: which measurement, of what size, and its report as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import arithmetic, consensus, rounds

TASKS = Path(__file__).resolve().parents[2] / "docs" / "tasks"


def main(argv: Sequence[str] | None = None) -> int:
    asked = _asked(argv)
    print(json.dumps(asked.run(asked), indent=2))
    return 0


def _asked(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measurements, as ratios where a machine's speed would otherwise decide."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("arithmetic", help="exact aggregation beside a plain float32 mean")
    one.add_argument("--parameters", type=int, default=1_000_000)
    one.add_argument("--miners", type=int, default=16)
    one.add_argument("--repeats", type=int, default=5)
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=lambda asked: arithmetic.steps(asked.parameters, asked.miners, asked.repeats, asked.seed))

    one = commands.add_parser("rules", help="each robust rule beside the exact mean")
    one.add_argument("--parameters", type=int, default=1_000_000)
    one.add_argument("--miners", type=int, default=64)
    one.add_argument("--repeats", type=int, default=3)
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=lambda asked: arithmetic.rules(asked.parameters, asked.miners, asked.repeats, asked.seed))

    one = commands.add_parser("digits", help="the demo's task without a network, beside its centralised twin")
    one.add_argument("--task", type=Path, default=TASKS / "digits.toml", help="a task on the digits")
    one.add_argument("--miners", type=int, default=4)
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--rule", choices=tuple(arithmetic.RULES), default="mean")
    one.set_defaults(run=_digits)

    one = commands.add_parser("rounds", help="the bytes and the milliseconds of a round with many miners")
    one.add_argument("--validators", type=int, default=31)
    one.add_argument("--miners", type=int, default=1000)
    one.set_defaults(run=lambda asked: rounds.measure(asked.validators, asked.miners))

    one = commands.add_parser("replays", help="honest replays and cheats, as distances; tables to standard error")
    one.add_argument("--minutes", type=float, default=20.0, help="passes begin until so many are over")
    one.add_argument("--seed", type=int, default=0, help="of the first pass; each that follows has the next")
    one.set_defaults(run=_replays)

    one = commands.add_parser("consensus", help="throughput, latency and cost of agreement; tables to standard error")
    one.add_argument("--validators", type=int, nargs="*", default=[4, 7, 16, 31], help="networks in one process")
    one.add_argument("--daemons", type=int, nargs="*", default=[4, 7], help="networks of daemons on loopback")
    one.add_argument("--seconds", type=float, default=3.0, help="for each measurement, at least")
    one.add_argument("--journal", action="store_true", help="in one process, too, write before sending")
    one.add_argument("--folder", type=Path, default=Path.cwd(), help="where homes and journals lie for the time")
    one.set_defaults(run=_consensus)
    return parser.parse_args(argv)


def _digits(asked: argparse.Namespace) -> Mapping[str, object]:
    from tests.bench import digits  # torch takes its time to load

    return digits.measure(asked.task, asked.miners, asked.seeds, arithmetic.RULES[asked.rule])


def _replays(asked: argparse.Namespace) -> Mapping[str, object]:
    from tests.bench import replays  # torch takes its time to load

    report = replays.measure(asked.minutes, _say, asked.seed)
    print(replays.tables(report), file=sys.stderr)
    return report


def _consensus(asked: argparse.Namespace) -> Mapping[str, object]:
    report = consensus.measure(asked.validators, asked.daemons, asked.seconds, asked.journal, asked.folder, _say)
    print(consensus.tables(report), file=sys.stderr)
    return report


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
