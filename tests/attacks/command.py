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
CONTRIBUTIONS = 44  # within which one in ten replayed finds whoever cheats in each, with 99 %


def main() -> int:
    asked = _asked()
    began = time.monotonic()
    names = list(dict.fromkeys([NOBODY, *(asked.attack or ATTACKS)]))
    seeds = range(1, asked.seeds + 1)
    found: dict[str, list[Trial]] = {}
    with ProcessPoolExecutor(asked.workers) as pool:
        runs = {
            (name, seed): pool.submit(trial, name, asked.task, asked.rounds, asked.miners, seed)
            for name in names
            for seed in seeds
        }
        rows: list[dict[str, Any]] = []
        for name in names:
            found[name] = [runs[name, seed].result() for seed in seeds]
            rows.append(summary(_attack(name), found[name], found[NOBODY]))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            _write(asked, rows)
    soon = within(rows)
    print("\n".join(table(rows)))
    print(f"\nOf {soon['cheating']} miners that cheated beyond the tolerance {soon['caught']} were slashed,", end=" ")
    print(f"{soon[f'within_{CONTRIBUTIONS}']} for one of their first {CONTRIBUTIONS} contributions.")
    return 0


def _write(asked: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Whole, or not at all: a run may be stopped at any moment."""
    if asked.json is None:
        return
    told = {"task": asked.task, "rounds": asked.rounds, "miners": asked.miners, "seeds": asked.seeds}
    new = asked.json.with_name(asked.json.name + ".new")
    new.write_text(json.dumps({**told, "found": within(rows), "attacks": rows[1:], "nobody": rows[0]}, indent=1) + "\n")
    new.replace(asked.json)


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
    """What all runs of one attack have shown, beside those without attackers. `gain` is the mean of those who cheated,
    in what one contribution earns."""
    cheats = [far for one in trials for far in one.cheats_nano]
    honest = [far for one in trials for far in one.honest_nano]
    until = sorted(number for one in trials for number in one.until_caught)
    gains = [gain for one in trials for gain in one.gains]
    return {
        "name": attack.name,
        "what": attack.what,
        "saves_work": attack.saves_work,
        "caught": bool(gains) and len(until) == len(gains),
        "contributions_until_caught": until[-1] if until else None,
        "contributions_until_caught_mean": round(fmean(until), 1) if until else None,
        "gain": round(fmean(gains), 2) if gains else None,
        "honest_slashed": sum(one.honest_slashed for one in trials),
        "accuracy": round(fmean(one.accuracy for one in trials), 4),
        "accuracy_without": round(fmean(one.accuracy for one in without), 4),
        "distance_nano_min": min(cheats, default=None),
        "distance_nano_max": max(cheats, default=None),
        "cheating": len(gains),
        "slashed": len(until),
        "until_caught": until,
        "until_slashed": sorted(number for one in trials for number in one.until_slashed),
        "cheats": len(cheats),
        "cheats_outside": sum(one.outside for one in trials),
        "inside_moved_max": max(one.moved for one in trials),
        "skipped": round(fmean(one.skipped for one in trials), 4),
        "drawn": sum(one.drawn for one in trials),
        "honest_gain": round(fmean(gain for one in trials for gain in one.honest_gains), 2),
        "honest_distance_nano_max": max(honest, default=None),
        "honest_alarms": sum(one.alarms for one in trials),
        "auditor_gain": round(fmean(one.auditor_gain for one in trials), 2),
        "fooled": round(fmean(one.fooled for one in trials), 4),
    }


def within(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How soon whoever cheats beyond the tolerance is found, in all attacks together: lots know nothing of attacks."""
    whole = [row for row in rows if row["cheats"] and row["cheats"] == row["cheats_outside"]]
    until = [number for row in whole for number in row["until_caught"]]
    soon = sum(number <= CONTRIBUTIONS for number in until)
    return {"cheating": sum(row["cheating"] for row in whole), "caught": len(until), f"within_{CONTRIBUTIONS}": soon}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """For people, in Markdown."""
    lines = [
        "| attack | beyond the tolerance | distance, billionths | slashed | after contributions | gain "
        "| honest slashed | accuracy | against nobody |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        against = row["accuracy"] - row["accuracy_without"]
        cells = [row["name"], *["–"] * 5] if not row["cheats"] else _cells(row)
        ends = [str(row["honest_slashed"]), f"{row['accuracy']:.3f}", f"{against:+.3f}"]
        lines.append(f"| {' | '.join(cells + ends)} |")
    return lines


def _cells(row: dict[str, Any]) -> list[str]:
    until = row["until_caught"]
    return [
        row["name"],
        f"{row['cheats_outside']} of {row['cheats']}",
        f"{row['distance_nano_min']:,} to {row['distance_nano_max']:,}",
        f"{row['slashed']} of {row['cheating']}",
        f"{until[0]} to {until[-1]}, mean {row['contributions_until_caught_mean']}" if until else "–",
        f"{row['gain']:+.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
