"""The whole measurement of consensus as one report, and the report as a table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import uvloop

from potd.cli.fleet import Fleet
from potd.cli.text import table
from tests.bench import daemons, hop, in_process

OUTSTANDING = (1, 16, 32, 256)
PAYLOADS = (0, 1024)
RECOVERY_OUTSTANDING = 32
SPLIT_OUTSTANDING = 32
GOAL_CPU_MS = 1.7  # BFT-SMaRt: four replicas and 32 clients, on the same kind of machine
GOAL_IDLE_RATIO = 2.0
GOAL_RECOVERY_TIMEOUTS = 2.0

Report = dict[str, Any]
Say = Callable[[str], None]


def measure(
    sizes: Sequence[int], fleets: Sequence[int], seconds: float, journal: bool, folder: Path, say: Say
) -> Report:
    """`sizes` of networks in one process, `fleets` of daemons; so many seconds for each closed loop. Files lie in
    `folder`, whose disk is the one that counts. Every line of a table is said as soon as it is known."""
    report: Report = {"seconds": seconds, "cores": os.cpu_count(), "load_average": [_load()]}
    report |= {"in_process": [], "in_process_journal": journal, "split_ms": {}, "daemons": [], "recovery": []}
    for size in sizes:
        for outstanding in OUTSTANDING:
            for payload_bytes in PAYLOADS:
                with _folder(folder) if journal else nullcontext() as own:
                    row = in_process.measure(size, outstanding, payload_bytes, seconds, own)
                report["in_process"].append(row)
                say(f"in process: {row}")
        report["split_ms"][str(size)] = in_process.split(size, SPLIT_OUTSTANDING, seconds)
    for size in fleets:
        with _folder(folder) as own, Fleet(daemons.write_homes(own / "net", size, max(OUTSTANDING))) as fleet:
            daemons.start(fleet)
            for outstanding in OUTSTANDING:
                for payload_bytes in PAYLOADS:
                    row = daemons.measure(fleet, outstanding, payload_bytes, seconds)
                    if outstanding == 1:  # beside what it is compared with
                        row |= _idle(row["commit_ms_p50"], own)
                    report["daemons"].append(row)
                    say(f"daemons: {row}")
            recovery = {"validators": size, **daemons.recover(fleet, RECOVERY_OUTSTANDING)}
            report["recovery"].append(recovery)
            say(f"recovery: {recovery}")
            report["load_average"].append(_load())
    return {**report, "goals": goals(report)}


def goals(report: Report) -> dict[str, Any]:
    """Each goal with its figure, and whether it is met; None where it was not measured."""
    alike = {"validators": 4, "outstanding": 32, "payload_bytes": 0}
    idle = {"validators": 4, "outstanding": 1, "payload_bytes": 0}
    recovery = _row(report["recovery"], {"validators": 4})
    return {
        "cpu_ms_in_process": _goal(_row(report["in_process"], alike), "cpu_ms", GOAL_CPU_MS),
        "cpu_ms_daemons": _goal(_row(report["daemons"], alike), "cpu_ms", GOAL_CPU_MS),
        "idle_commit_ratio": _goal(_row(report["daemons"], idle), "commit_ratio", GOAL_IDLE_RATIO),
        "recovery_timeouts": _goal(recovery, "recovery_timeouts", GOAL_RECOVERY_TIMEOUTS),
        "accepted_lost": _goal(recovery, "lost", 0),
    }


def tables(report: Report) -> str:
    """The report for people."""
    parts = []
    for title, name in (("In one process", "in_process"), ("Daemons on loopback", "daemons")):
        rows = report[name]
        if rows:
            heads = list(rows[-1])  # without what only a single client is compared with
            parts.append(f"{title}\n" + table(heads, [[str(row[head]) for head in heads] for row in rows]))
    for size, split in report["split_ms"].items():
        parts.append(f"CPU of an operation, {size} validators, {SPLIT_OUTSTANDING} clients, in ms: {_listed(split)}")
    for row in report["recovery"]:
        parts.append(f"Recovery from a dead primary: {_listed(row)}")
    for name, goal in report["goals"].items():
        if goal is not None:
            parts.append(f"{name}: {goal['found']}, at most {goal['at_most']}: {'met' if goal['met'] else 'MISSED'}")
    return "\n\n".join(parts)


def _idle(commit_ms: float, folder: Path) -> Report:
    """What a commit at rest is compared with, measured at once: four hops and three writes."""
    hop_ms, fsync_ms = uvloop.run(hop.median_ms()), daemons.median_fsync_ms(folder)
    return {
        "hop_ms": round(hop_ms, 3),
        "fsync_ms": round(fsync_ms, 3),
        "commit_ratio": round(commit_ms / (4 * hop_ms + 3 * fsync_ms), 2),
    }


def _load() -> float:
    """What others had to do on this machine too, as runnable processes over the last minute."""
    return round(os.getloadavg()[0], 2)


def _row(rows: Sequence[Report], wanted: Report) -> Report | None:
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _goal(row: Report | None, name: str, at_most: float) -> Report | None:
    return None if row is None else {"found": row[name], "at_most": at_most, "met": row[name] <= at_most}


def _listed(values: Report) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """A folder of one measurement, gone after it."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-") as name:
        yield Path(name)
