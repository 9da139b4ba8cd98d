"""`python -m tests.attacks.command`, which `scripts/attacks` runs: each attack beside the run without attackers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from tests.attacks.attacks import ATTACKS, HONEST, MINERS, Attack
from tests.attacks.laboratory import Trial, run_trial
from tests.attacks.tasks import TASKS, prepared

NOBODY = HONEST.name


def main() -> int:
    asked = _asked()
    began = time.monotonic()
    names = list(dict.fromkeys([NOBODY, *(asked.attack or ATTACKS)]))
    seeds = range(1, asked.seeds + 1)
    found: dict[str, list[Trial]] = {name: [] for name in names}
    with ProcessPoolExecutor(asked.workers) as pool:
        runs = {
            (name, seed): pool.submit(trial, name, asked.task, asked.rounds, asked.miners, seed)
            for name in names
            for seed in seeds
        }
        for (name, seed), run in runs.items():
            found[name].append(run.result())
            said = f"{name}, seed {seed}: accuracy {found[name][-1].accuracy:.4f}"
            print(f"{said}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    rows = [summary(_attack(name), found[name], found[NOBODY]) for name in names]
    if asked.json is not None:
        told = {"task": asked.task, "rounds": asked.rounds, "miners": asked.miners, "seeds": asked.seeds}
        asked.json.write_text(json.dumps({**told, "attacks": rows[1:], "nobody": rows[0]}, indent=1) + "\n")
    print("\n".join(table(rows)))
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/attacks", description="Train with miners and validators that cheat, on virtual time."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there too")
    parser.add_argument("--attack", nargs="+", choices=list(ATTACKS), metavar="NAME", help="only these (all)")
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help=f"what is trained ({TASKS[0]})")
    parser.add_argument("--rounds", type=int, metavar="N", default=120, help="of training (120)")
    parser.add_argument("--miners", type=int, metavar="N", default=MINERS, help=f"of whom some attack ({MINERS})")
    parser.add_argument("--seeds", type=int, metavar="K", default=5, help="runs of each, with other batches (5)")
    parser.add_argument("--workers", type=int, metavar="K", default=1, help="processes (1)")
    return parser.parse_args()


def trial(name: str, task: str, rounds: int, miners: int, seed: int) -> Trial:
    return run_trial(prepared(task, rounds, seed, miners), _attack(name), miners, seed)


def _attack(name: str) -> Attack:
    return HONEST if name == NOBODY else ATTACKS[name]


def summary(attack: Attack, trials: list[Trial], without: list[Trial]) -> dict[str, Any]:
    """What all runs of one attack have shown, beside those without attackers."""
    cheats = [far for one in trials for far in one.cheats_nano]
    honest = [far for one in trials for far in one.honest_nano]
    outside = sum(one.outside for one in trials)
    return {
        "name": attack.name,
        "what": attack.what,
        "saves_work": attack.saves_work,
        "caught": bool(cheats) and outside == len(cheats),
        "cheats": len(cheats),
        "cheats_outside": outside,
        "honest_alarms": sum(one.alarms for one in trials),
        "accuracy": round(fmean(one.accuracy for one in trials), 4),
        "accuracy_without": round(fmean(one.accuracy for one in without), 4),
        "fooled": round(fmean(one.fooled for one in trials), 4),
        "distance_nano_min": min(cheats, default=None),
        "distance_nano_max": max(cheats, default=None),
        "honest_distance_nano_max": max(honest, default=None),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """For people, in Markdown."""
    lines = [
        "| attack | beyond the tolerance | distance, billionths | accuracy | against nobody |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        beyond = f"{row['cheats_outside']} of {row['cheats']}" if row["cheats"] else "–"
        span = f"{row['distance_nano_min']:,} to {row['distance_nano_max']:,}" if row["cheats"] else "–"
        against = row["accuracy"] - row["accuracy_without"]
        lines.append(f"| {row['name']} | {beyond} | {span} | {row['accuracy']:.3f} | {against:+.3f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
