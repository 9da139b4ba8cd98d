"""`python -m tests.simulation.hunt`, which `scripts/sim --mutants` runs: how many seeds each known mistake takes."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from potd.simulation.plots import SHARP
from potd.simulation.profiles import NAMES
from potd.simulation.run import run_seed
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, mistaken

SEEDS = 200  # at most, for each mistake
ORDERS = ("0", "1")  # of sets: hash seeds of two processes


@dataclass(frozen=True)
class Found:
    """`seeds` is how many it took; None if so many as were allowed have shown nothing."""

    name: str
    seeds: int | None
    how: str
    seconds: float


def hunt(mutant: Mutant, profile: str, first: int, seeds: int) -> Found:
    """Runs seeds with the mistake in force until one shows something, that shows nothing without it."""
    began = time.monotonic()
    found, how = None, f"nothing in {seeds} seeds"
    for seed in range(first, first + seeds):
        with mistaken(mutant):
            shown = _apart(mutant, profile, seed) if mutant.seen_by == "traces" else _wrong(profile, seed)
        if shown:
            anyhow = _wrong(profile, seed)
            found, how = (None, f"{seed} without it: {anyhow}") if anyhow else (seed - first + 1, f"{seed}: {shown}")
            break
    return Found(mutant.name, found, how, round(time.monotonic() - began, 1))


def _wrong(profile: str, seed: int) -> str:
    """What a run has shown that none may, a stall, or how the machine came to grief."""
    try:
        outcome = run_seed(seed, profile)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return outcome.violation or outcome.stall


def _apart(mutant: Mutant, profile: str, seed: int) -> str:
    traces = {_traced(mutant.name, profile, seed, order) for order in ORDERS}
    return "two orders of sets, two traces" if len(traces) > 1 else ""


def _traced(name: str, profile: str, seed: int, order: str) -> str:
    """The trace of this seed in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.simulation.hunt",
        "--trace",
        name,
        "--from",
        str(seed),
        "--profile",
        profile,
    ]
    environment = os.environ | {"PYTHONHASHSEED": order}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def _trace(name: str, profile: str, seed: int) -> int:
    with mistaken(_called(name)):
        outcome = run_seed(seed, profile)
    print(outcome.trace)
    return 0


def _called(name: str) -> Mutant:
    return next(one for one in MUTANTS if one.name == name)


def main() -> int:
    asked = _asked()
    if asked.trace is not None:
        return _trace(asked.trace, asked.profile, asked.first)
    began = time.monotonic()
    names = asked.names or [one.name for one in MUTANTS]
    found: dict[str, Found] = {}
    # A process each, begun afresh: no mistake meets what another has left.
    with ProcessPoolExecutor(asked.workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        hunts = [pool.submit(hunt, _called(name), asked.profile, asked.first, asked.seeds) for name in names]
        for one in as_completed(hunts):
            result = one.result()
            found[result.name] = result
            print(f"{result.name}: {result.seeds} ({result.seconds} s) {result.how}", flush=True)
    wall_seconds = round(time.monotonic() - began, 1)
    cpu_seconds = round(sum(os.times()[:4]), 1)  # of all processes, which have ended by now
    mutants = {name: found[name].seeds for name in names}
    if asked.json is not None:
        how = {name: found[name].how for name in names}
        told = {"profile": asked.profile, "seeds": asked.seeds, "mutants": mutants, "how": how}
        seconds = {"wall_seconds": wall_seconds, "cpu_seconds": cpu_seconds}
        asked.json.write_text(json.dumps(told | seconds, indent=1) + "\n")
    missed = [name for name, seeds in mutants.items() if seeds is None]
    print(f"{len(mutants) - len(missed)} of {len(mutants)} mistakes found in {wall_seconds} s; missed: {missed}")
    print(f"{cpu_seconds} s of a processor")
    return 1 if missed else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/sim --mutants",
        description="Make known mistakes, one at a time: how many seeds does each take? Exit 1 if one is not found.",
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="K", help=f"at most, for each mistake ({SEEDS})")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="the first seed (0)")
    parser.add_argument("--profile", choices=NAMES, default=SHARP, help=f"what kind of trouble ({SHARP})")
    parser.add_argument("--workers", type=int, metavar="K", default=os.cpu_count() or 1, help="processes (all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    parser.add_argument("--trace", metavar="NAME", help="of this mistake, the trace of the first seed, and no more")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mistakes (all)")
    return parser.parse_args()


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    sys.exit(main())
