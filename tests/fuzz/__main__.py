"""Fuzz the core: `python -m tests.fuzz --inputs 1000000 --json FILE`.

Each seed is one run of a few thousand inputs, of replicas or of whole nodes. Ends with 1 if any run shows what none may
show; each is named by the line that reruns it.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from time import perf_counter

from tests.fuzz import nodes, replicas
from tests.fuzz.tally import Tally, Violation

Play = Callable[[int, int, Tally], None]
CORES: dict[str, tuple[Play, int]] = {"replicas": (replicas.play, 3_000), "nodes": (nodes.play, 3_000)}  # inputs a run
SHARE = 8  # one run in so many is of nodes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many at least, over all runs")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first seed")
    parser.add_argument("--core", choices=[*CORES, "both"], default="both")
    parser.add_argument("--seed", type=int, help="this seed only, with the trace of what it raises")
    parser.add_argument("--json", metavar="FILE", help="where the report goes")
    arguments = parser.parse_args()
    tally, failures, began = Tally(), [], perf_counter()
    seed = arguments.first if arguments.seed is None else arguments.seed
    while tally.total < arguments.inputs:
        core = arguments.core
        if core == "both":
            core = "nodes" if seed % SHARE == SHARE - 1 else "replicas"
        play, inputs = CORES[core]
        try:
            play(seed, inputs, tally)
        except Violation as violation:
            rerun = f"python -m tests.fuzz --core {core} --seed {seed}"
            failures.append({"rerun": rerun, "violation": str(violation)})
            print(f"{rerun}  # {str(violation).splitlines()[0]}", flush=True)
            if arguments.seed is not None:
                traceback.print_exception(violation.__cause__)
        if arguments.seed is not None:
            break
        seed += 1
    seconds = perf_counter() - began
    print(f"{tally.total} inputs, {tally.hostile} of them hostile, in {seconds:.0f} s: {len(failures)} violations")
    if arguments.json:
        report = {"inputs": tally.total, "hostile": tally.hostile, "wall_seconds": round(seconds, 1)}
        counts = {"by_kind": tally.inputs, "effects": tally.effects, "votes": tally.votes, "reasons": tally.reasons}
        counted = {name: dict(count.most_common()) for name, count in counts.items()}
        with open(arguments.json, "w") as file:
            json.dump({**report, "violations": failures, **counted}, file, indent=2)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
