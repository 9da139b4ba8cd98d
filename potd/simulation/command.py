"""The command: seeds on all cores, what they have shown, and one seed told as a story."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from pathlib import Path
from typing import Any

from potd.simulation.profiles import NAMES, draw
from potd.simulation.run import Outcome, run, run_seed
from potd.simulation.shrink import shrunk, told
from potd.simulation.thousand import Shape, good, run_thousand, table

THOUSAND = "thousand"  # the profile of one large network
FRESH_MAX = 2**31  # seeds drawn for --for begin below this


def main() -> int:
    asked = _asked()
    if asked.profile == THOUSAND:
        return _thousand(asked)
    if asked.seed is not None:
        return _one(asked)
    began = time.monotonic()
    first = asked.first if asked.first is not None else (secrets.randbelow(FRESH_MAX) if asked.seconds else 0)
    seeds: Iterator[int] = iter(range(first, first + asked.seeds)) if not asked.seconds else count(first)
    until = began + asked.seconds if asked.seconds else None
    outcomes = []
    for outcome in _pool(seeds, asked.profile, asked.workers, until):
        outcomes.append(outcome)
        if not outcome.good:
            print(f"{_rerun(outcome)}  # {_plain(outcome)}", flush=True)
    wall_seconds = round(time.monotonic() - began, 1)
    found = _summary(outcomes, asked.profile, wall_seconds)
    _write(asked.json, found)
    failed = len(found["violating"]) + len(found["stalled"])
    if failed and asked.shrink:
        _shrink(next(one for one in outcomes if not one.good))
    print(
        f"{asked.profile}: {found['seeds']} seeds from {first}, {found['violations']} violations, {found['stalls']} "
        f"stalls, {found['steps']} steps in {wall_seconds} s"
    )
    return 1 if failed else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/sim",
        description="Run whole networks on virtual time, one for each seed. Exit 1 if one showed what none may.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, metavar="N", help="one seed, and all that it has shown")
    which.add_argument("--seeds", type=int, metavar="K", default=20, help="so many seeds, from --from on (20)")
    which.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="fresh seeds for so long")
    parser.add_argument("--from", dest="first", type=int, metavar="N", help="the first seed (0; by chance with --for)")
    parser.add_argument(
        "--profile", choices=sorted((*NAMES, THOUSAND)), default="hostile", help="what kind of trouble (hostile)"
    )
    parser.add_argument("--workers", type=int, metavar="K", default=os.cpu_count() or 1, help="processes (all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    parser.add_argument("--shrink", action="store_true", help="cut the first seed that fails to what it takes to fail")
    parser.add_argument("--transcript", action="store_true", help="with --seed: who said what to whom")
    day = Shape()
    large = parser.add_argument_group("the profile thousand", "one run of a large network, of --seed; in one process")
    large.add_argument("--hours", type=float, default=day.hours, help=f"of network time ({day.hours:g})")
    large.add_argument("--validators", type=int, metavar="N", default=day.validators, help=f"({day.validators})")
    large.add_argument("--miners", type=int, metavar="N", default=day.miners, help=f"({day.miners})")
    large.add_argument(
        "--probe-seconds", type=int, metavar="S", default=day.probe_seconds, help=f"between two ({day.probe_seconds})"
    )
    return parser.parse_args()


def _thousand(asked: argparse.Namespace) -> int:
    """One network of many miners, and what it has shown."""
    shape = Shape(asked.seed or 0, asked.hours, asked.validators, asked.miners, asked.probe_seconds)
    found = run_thousand(
        shape, lambda text: print(text, file=sys.stderr, flush=True), lambda so_far: _write(asked.json, so_far)
    )
    _write(asked.json, found)
    print("\n".join(table(found)))
    return 0 if good(found) else 1


def _write(file: Path | None, found: dict[str, Any]) -> None:
    """Whole, or not at all: a run may be stopped at any moment."""
    if file is not None:
        new = file.with_name(file.name + ".new")
        new.write_text(json.dumps(found, indent=1) + "\n")
        new.replace(file)


def _one(asked: argparse.Namespace) -> int:
    """One seed, in this process."""
    began = time.monotonic()
    schedule = draw(asked.seed, asked.profile)
    outcome = run(schedule)
    wall_seconds = round(time.monotonic() - began, 1)
    _write(asked.json, _summary([outcome], asked.profile, wall_seconds))
    if asked.transcript and not asked.shrink:
        print("\n".join(told(schedule)))
    else:
        print("\n".join(schedule.lines()))
    counted = ", ".join(f"{value} {name}" for name, value in outcome.counters.items())
    print(f"{outcome.virtual_ms} virtual ms, {outcome.steps} steps, {counted}; {wall_seconds} s, trace {outcome.trace}")
    print(_plain(outcome))
    if asked.shrink and not outcome.good:
        _shrink(outcome)
    return 0 if outcome.good else 1


def _shrink(outcome: Outcome) -> None:
    least, _ = shrunk(draw(outcome.seed, outcome.profile), outcome)
    print("\n".join(told(least)))


def _pool(seeds: Iterator[int], profile: str, workers: int, until: float | None) -> Iterator[Outcome]:
    """Outcomes as they come, two seeds for each process under way. None is begun after `until`."""
    with ProcessPoolExecutor(workers) as pool:
        under_way: set[Future[Outcome]] = set()
        while True:
            while len(under_way) < 2 * workers and (until is None or time.monotonic() < until):
                seed = next(seeds, None)
                if seed is None:
                    break
                under_way.add(pool.submit(run_seed, seed, profile))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for one in done:
                yield one.result()


def _plain(outcome: Outcome) -> str:
    if outcome.violation:
        return f"VIOLATION {outcome.violation}"
    return f"STALL {outcome.stall}" if outcome.stall else f"all went well, {outcome.healed_ms} ms after healing"


def _rerun(outcome: Outcome) -> str:
    return f"scripts/sim --seed {outcome.seed} --profile {outcome.profile}"


def _summary(outcomes: list[Outcome], profile: str, wall_seconds: float) -> dict[str, Any]:
    violating = [{"seed": one.seed, "reason": one.violation} for one in outcomes if one.violation]
    stalled = [{"seed": one.seed, "reason": one.stall} for one in outcomes if one.stall]
    return {
        "profile": profile,
        "seeds": len(outcomes),
        "violations": len(violating),
        "stalls": len(stalled),
        "steps": sum(one.steps for one in outcomes),
        "wall_seconds": wall_seconds,
        "violating": violating,
        "stalled": stalled,
    }
