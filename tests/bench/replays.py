"""Honest replays on other rigs, and cheats, as distances from what they are compared with: what a tolerance can be.

python -m tests.bench.replays MINUTES [SEED]    prints the report of so many minutes, passes from this seed on
python -m tests.bench.replays --rig N           another rig, of N threads: batches in, gradients out

A pass trains each model on the digits from initial weights of its own, and takes batches at models of the start and of
the end. What a miner would reveal is encoded; each other rig's gradient of the same batch is its replay. A cheat's
payload is compared with the honest gradient. Distances are in billionths of the lower median norm of the first round.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from math import isqrt
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from potd.arithmetic.distances import norm_squared
from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import Blocks, Floats, encode, payload_grid
from potd.arithmetic.robust import Contribution, aggregate
from potd.trainer import models
from potd.trainer import step as gradients
from potd.trainer.data import Samples, decode_shard, gather
from potd.trainer.device import make_exact
from potd.trainer.layout import model_spec
from potd.trainer.replay import distance, nearest, neighbours
from potd.trainer.step import gradient
from potd.trainer.task import read_task
from potd.trainer.weights import initial_weights
from potd.wire.ids import digest
from potd.wire.tasks import ModelSpec, TaskSpec

Rows = npt.NDArray[np.int64]

TASKS = Path(__file__).resolve().parents[2] / "docs" / "tasks"
MODELS = {"mlp": TASKS / "digits.toml", "cnn": TASKS / "digits-cnn.toml"}
BATCHES = (1, 4, 16, 64, 256)
DRAWS = {1: 8, 4: 8}  # batches a pass of each model compared at; 40 of the others
CHEATED = 4  # one batch of so many is cheated with
MINERS = 4
TIMES = ("start", "end")
# Inside the band whatever the tolerance is: what they leave out may be next to nothing.
SELECTIVE = "1/16 of lowest loss as nothing"
UNSELECTIVE = "any 1/16 as nothing"
BAND = (SELECTIVE, UNSELECTIVE)
CPU = torch.device("cpu")

# The least kernels that each library has: those of PyTorch itself, of oneDNN for convolutions, of MKL for products.
SSE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
CHILDREN: dict[str, tuple[int, dict[str, str]]] = {
    "another process": (1, {}),
    "two threads": (2, {}),
    "SSE kernels": (1, SSE),
}


@dataclass
class Cell:
    """What was found for one model, batch size and time of training: distances, by rig and by cheat."""

    honest: dict[str, list[int]] = field(default_factory=dict)
    same_bits: dict[str, int] = field(default_factory=dict)  # honest replays in which nothing differs at all
    lengths: list[int] = field(default_factory=list)  # of the gradients, in the unit of distances
    cheats: dict[str, list[int]] = field(default_factory=dict)
    caught: dict[str, int] = field(default_factory=dict)
    false_alarms: int = 0
    jumps: int = 0  # honest replays beyond the tolerance at the very weights, for which neighbours were asked
    jump_nano: int = 0  # the farthest of them
    exponents_changed: int = 0  # honest blocks whose exponent differs, excused or not
    slack_nano: int = 0  # the farthest that such a block's greatest value lay from where the other exponent begins


@dataclass(frozen=True)
class Run:
    """One training run: the model before each round, and the samples."""

    spec: TaskSpec
    training: Samples
    thetas: tuple[Floats, ...]


def batch_of(training: Samples, rows: Rows) -> Samples:
    return Samples(training.features[rows], training.labels[rows])


# Rigs


class Rig:
    """A child process with other kernels or threads."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    def gradients(self, spec: ModelSpec, theta: Floats, training: Samples, batches: Rows) -> Floats:
        """[batches, parameters], of the samples named in each row."""
        assert self._child.stdin and self._child.stdout
        head = json.dumps([spec.architecture, list(spec.sizes)]).encode()
        self._child.stdin.write(head + b"\n")
        for one in (theta, training.features, training.labels, batches):
            _write(self._child.stdin, one)
        self._child.stdin.flush()
        found: Floats = _read(self._child.stdout)
        return found


@contextmanager
def rigs(children: dict[str, tuple[int, dict[str, str]]]) -> Iterator[dict[str, Rig]]:
    with ExitStack() as stack:
        started = {}
        for name, (threads, changes) in children.items():
            environment = {**os.environ, **changes, "OMP_WAIT_POLICY": "PASSIVE"}
            for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
                environment[variable] = str(threads)
            command = [sys.executable, "-m", "tests.bench.replays", "--rig", str(threads)]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            started[name] = Rig(stack.enter_context(child))
        yield started  # the children end when their input does


def serve(threads: int) -> None:
    make_exact(CPU)
    torch.set_num_threads(threads)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while head := source.readline():
        architecture, sizes = json.loads(head)
        spec = model_spec(architecture, tuple(sizes))
        theta, features, labels, batches = (_read(source) for _ in range(4))
        whole = Samples(features, labels)
        _write(sink, np.stack([gradient(spec, theta, batch_of(whole, rows), CPU).vector for rows in batches]))
        sink.flush()


def _write(sink: IO[bytes], array: npt.NDArray[Any]) -> None:
    written = BytesIO()  # numpy asks a file for its position, which a pipe has not
    np.save(written, array)
    sink.write(len(written.getvalue()).to_bytes(8, "big") + written.getvalue())


def _read(source: IO[bytes]) -> Any:
    return np.load(BytesIO(source.read(int.from_bytes(source.read(8), "big"))))


def in_process(run: Run, rows: Rows) -> dict[str, Callable[[Floats], Floats]]:
    """The same gradient by other orders of summing, in float64, and on a GPU if there is one, at any weights."""
    spec, batch, turned = run.spec.model, batch_of(run.training, rows), batch_of(run.training, rows[::-1])

    def in_parts(theta: Floats) -> Floats:
        with patch.object(gradients, "micro_batch", lambda _: -(-len(rows) // 4)):
            return gradient(spec, theta, batch, CPU).vector

    found: dict[str, Callable[[Floats], Floats]] = {
        "permuted batch": lambda theta: gradient(spec, theta, turned, CPU).vector,
        "float64": lambda theta: gradient(spec, theta, batch, CPU, torch.float64).vector,
        "four parts": in_parts,
    }
    if torch.cuda.is_available():
        found["CUDA"] = lambda theta: gradient(spec, theta, batch, torch.device("cuda:0")).vector
    return found


# Cheats


def cheats(run: Run, number: int, rows: Rows, honest: Floats, chance: np.random.Generator) -> dict[str, Floats]:
    """What miners would encode that save work or bend the model, in round `number`."""
    spec, theta, count = run.spec.model, run.thetas[number], len(rows)

    def at(weights: Floats, chosen: Rows) -> Floats:
        return gradient(spec, weights, batch_of(run.training, chosen), CPU).vector

    size = np.float32(np.linalg.norm(honest) / math.sqrt(len(honest)))
    others = np.setdiff1d(np.arange(len(run.training)), rows)
    found = {
        "noise": chance.standard_normal(len(honest), np.float32) * size,
        "constant": np.full_like(honest, size),
        "zero": np.zeros_like(honest),
        "wrong batch": at(theta, chance.choice(others, count, replace=False)),
        "TF32": _in_tf32(spec, theta, batch_of(run.training, rows)),
        "bf16": _in_bf16(spec, theta, batch_of(run.training, rows)),
    }
    found |= {f"times {by:g}": honest * np.float32(by) for by in (0.999, 1.01, 2, 5, -1)}
    found |= {f"stale by {by}": at(run.thetas[number - by], rows) for by in (1, 5) if by <= number}
    if count > 1:
        few = max(1, count // 16)
        kept = np.float32((count - few) / count)
        found["15/16 of the batch"] = at(theta, rows[few:])
        found[UNSELECTIVE] = found["15/16 of the batch"] * kept
        found["half of the batch"] = at(theta, rows[: count // 2])
        found[SELECTIVE] = at(theta, rows[np.argsort(_losses(run, theta, rows))[few:]]) * kept
    return found


def _losses(run: Run, theta: Floats, rows: Rows) -> npt.NDArray[np.float32]:
    batch = batch_of(run.training, rows)
    with torch.no_grad():
        scores = models.logits(
            run.spec.model, models.parameter_tensors(run.spec.model, theta, CPU), torch.tensor(batch.features)
        )
        losses = functional.cross_entropy(scores, torch.tensor(batch.labels), reduction="none")
    return np.asarray(losses.numpy())


def _in_bf16(spec: ModelSpec, theta: Floats, batch: Samples) -> Floats:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return gradient(spec, theta, batch, CPU).vector


def _in_tf32(spec: ModelSpec, theta: Floats, batch: Samples) -> Floats:
    """As tensor cores do it: the factors of each product, on the way back too, have mantissas of ten bits."""

    def shortened(values: Tensor) -> Tensor:
        return ((values.detach().contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    def factor(values: Tensor) -> Tensor:
        return values + (shortened(values) - values).detach()  # exactly the short one, and its gradient is passed on

    def short(product: Callable[[Tensor, Tensor], Tensor], values: Tensor, weight: Tensor) -> Tensor:
        result = product(factor(values), factor(weight))
        result.register_hook(shortened)  # type: ignore[no-untyped-call]  # torch leaves it without types
        return result

    def linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return short(functional.linear, values, weight) + bias

    def conv2d(values: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        def product(one: Tensor, other: Tensor) -> Tensor:
            return functional.conv2d(one, other, padding=padding)

        return short(product, values, weight) + bias[:, None, None]

    short_ones = SimpleNamespace(linear=linear, conv2d=conv2d, max_pool2d=functional.max_pool2d)
    with patch.object(models, "functional", short_ones):
        return gradient(spec, theta, batch, CPU).vector


# Passes


def trained(path: Path, seed: int) -> Run:
    """A run of the task with initial weights of this seed: four miners, each round any samples, and the real sum."""
    task = read_task(path)
    spec, chance = task.spec, np.random.default_rng(seed)
    count = len(task.manifest.training)
    shards = [decode_shard(data, None, 64, 10) for data in task.blobs[2 : 2 + count]]
    training = gather(shards, range(spec.samples))
    theta = initial_weights(spec.model, seed)
    momentum, thetas = np.zeros_like(theta), [theta.copy()]
    for number in range(spec.rounds):
        contributions = []
        for miner in range(MINERS):
            rows = chance.choice(spec.samples, spec.unit_batch, replace=False)
            vector = gradient(spec.model, theta, batch_of(training, rows), CPU).vector
            place = digest("place", bytes([miner]))
            contributions.append(Contribution(encode(vector, payload_grid(spec.encoding)), 1, place))
        average, _ = aggregate(contributions, spec.rule, spec.encoding)
        step(theta, momentum, average, spec.optimiser, from_micro(rate_micro(spec, number)))
        thetas.append(theta.copy())
    return Run(spec, training, tuple(thetas))


def first_norm(run: Run, batch: int, chance: np.random.Generator) -> int:
    """The unit of distances of a task with contributions of this size."""
    grid, norms = payload_grid(run.spec.encoding), []
    for _ in range(21):
        rows = chance.choice(len(run.training), batch, replace=False)
        vector = gradient(run.spec.model, run.thetas[0], batch_of(run.training, rows), CPU).vector
        norms.append(isqrt(norm_squared(encode(vector, grid))))
    return sorted(norms)[10]


def rounds_of(when: str, run: Run) -> tuple[int, int]:
    last = len(run.thetas) - 1
    return (0, 5) if when == "start" else (last - 5, last)


def compare(cell: Cell, run: Run, number: int, norm: int, batches: Rows, children: dict[str, Rig], seed: int) -> None:
    """Add to a cell what one model's gradients over these batches come to."""
    spec, theta, grid = run.spec, run.thetas[number], payload_grid(run.spec.encoding)
    chance = np.random.default_rng(seed)
    far = {name: rig.gradients(spec.model, theta, run.training, batches) for name, rig in children.items()}
    for index, rows in enumerate(batches):
        batch = batch_of(run.training, rows)
        honest = gradient(spec.model, theta, batch, CPU).vector
        payload = encode(honest, grid)
        cell.lengths.append(isqrt(norm_squared(payload)) * 10**9 // norm)
        others = {name: _gradient_on(rig, run, rows) for name, rig in children.items()} | in_process(run, rows)
        for name, other in others.items():
            replayed = far[name][index] if name in far else other(theta)
            found, exponents = distance(payload, replayed, norm, spec.tolerance_nano)
            if found > spec.tolerance_nano or exponents:
                cell.jumps += 1
                cell.jump_nano = max(cell.jump_nano, found)
                near = (other(weights) for weights in neighbours(theta))
                found, exponents = nearest(payload, near, norm, spec.tolerance_nano)
            cell.honest.setdefault(name, []).append(found)
            cell.same_bits[name] = cell.same_bits.get(name, 0) + int(replayed.tobytes() == honest.tobytes())
            cell.false_alarms += int(found > spec.tolerance_nano or exponents > 0)
            changed, slack = _slack_nano(payload, replayed, norm)
            cell.exponents_changed += changed
            cell.slack_nano = max(cell.slack_nano, slack)
        if index % CHEATED:
            continue
        for name, cheat in cheats(run, number, rows, honest, chance).items():
            found, exponents = distance(encode(cheat, grid), honest, norm, spec.tolerance_nano)
            if spec.tolerance_nano < found < 10 * spec.tolerance_nano:  # who is farther gains nothing from a nudge
                near = (gradient(spec.model, weights, batch, CPU).vector for weights in neighbours(theta))
                found, exponents = nearest(encode(cheat, grid), near, norm, spec.tolerance_nano)
            cell.cheats.setdefault(name, []).append(found)
            cell.caught[name] = cell.caught.get(name, 0) + int(found > spec.tolerance_nano or exponents > 0)


def _gradient_on(rig: Rig, run: Run, rows: Rows) -> Callable[[Floats], Floats]:
    def at(theta: Floats) -> Floats:
        found: Floats = rig.gradients(run.spec.model, theta, run.training, rows[None])[0]
        return found

    return at


def _slack_nano(payload: Blocks, replayed: Floats, norm: int) -> tuple[int, int]:
    """How many blocks have another exponent than the replay's, and how far the replay is from the payload's, at most,
    in billionths of the norm."""
    grid = payload.grid
    changed = np.flatnonzero(encode(replayed, grid).exponents != payload.exponents).tolist()
    worst = 0.0
    for block in changed:
        largest = float(np.abs(replayed[block * grid.block : (block + 1) * grid.block]).max())
        exponent = int(payload.exponents[block])
        lowest, highest = 127.5 * 2.0 ** (exponent - 1), 127.5 * 2.0**exponent
        worst = max(worst, lowest - largest if largest < lowest else largest - highest)
    return len(changed), math.ceil(worst / (norm * 2.0**grid.exponent_min) * 1e9)


def measure(
    minutes: float,
    say: Callable[[str], None],
    first: int = 0,
    names: Sequence[str] = tuple(MODELS),
    batches: Sequence[int] = BATCHES,
    draws: int = 40,
    children: dict[str, tuple[int, dict[str, str]]] = CHILDREN,
) -> dict[str, object]:
    """Passes until the time is up, one at least; the first has the seed `first`. A cell for each model, batch, time."""
    make_exact(CPU)
    cells: dict[tuple[str, int, str], Cell] = {}
    began, passes = time.monotonic(), first
    with rigs(children) as started:
        while passes == first or time.monotonic() - began < 60 * minutes:
            for name in names:
                run = trained(MODELS[name], passes)
                for batch in batches:
                    chance = np.random.default_rng([passes, batch])
                    norm = first_norm(run, batch, chance)
                    for when in TIMES:
                        cell = cells.setdefault((name, batch, when), Cell())
                        for number in rounds_of(when, run):
                            drawn = [
                                chance.choice(len(run.training), batch, replace=False)
                                for _ in range(DRAWS.get(batch, draws))
                            ]
                            compare(cell, run, number, norm, np.stack(drawn), started, passes)
            passes += 1
            total = sum(len(found) for cell in cells.values() for found in cell.honest.values())
            alarms = sum(cell.false_alarms for cell in cells.values())
            say(f"pass {passes - first}: {total} comparisons, {alarms} false alarms, {time.monotonic() - began:.0f} s")
    return report(cells, first, passes - first)


# Reports


def report(cells: dict[tuple[str, int, str], Cell], first: int, passes: int) -> dict[str, object]:
    rows = []
    for (name, batch, when), cell in cells.items():
        honest = {rig: max(found) for rig, found in cell.honest.items()}
        outside = {cheat: min(found) for cheat, found in cell.cheats.items() if cheat not in BAND}
        weakest = min(outside, key=lambda cheat: outside[cheat])
        rows.append(
            {
                "model": name,
                "batch": batch,
                "time": when,
                "comparisons": sum(len(found) for found in cell.honest.values()),
                "false_alarms": cell.false_alarms,
                "jumps": cell.jumps,
                "jump_worst_nano": cell.jump_nano,
                "exponents_changed": cell.exponents_changed,
                "exponents_slack_nano": cell.slack_nano,
                "honest_worst_nano": max(honest.values()),
                "honest_nano": honest,
                "honest_same_bits": cell.same_bits,
                "length_median_nano": sorted(cell.lengths)[len(cell.lengths) // 2],
                "length_least_nano": min(cell.lengths),
                "weakest_cheat": weakest,
                "weakest_cheat_nano": outside[weakest],
                "margin_decades": round(math.log10(max(outside[weakest], 1) / max(*honest.values(), 1)), 1),
                "cheats": {
                    cheat: {
                        "contributions": len(found),
                        "caught": cell.caught[cheat],
                        "least_nano": min(found),
                        "percent_1_nano": sorted(found)[len(found) // 100],
                        "median_nano": sorted(found)[len(found) // 2],
                    }
                    for cheat, found in cell.cheats.items()
                },
            }
        )
    return {
        "seeds": [first, first + passes - 1],
        "torch": torch.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "comparisons": sum(len(found) for cell in cells.values() for found in cell.honest.values()),
        "false_alarms": sum(cell.false_alarms for cell in cells.values()),
        "cheats": sum(len(found) for cell in cells.values() for found in cell.cheats.values()),
        "cells": rows,
    }


def tables(found: dict[str, Any]) -> str:
    """The report as tables for people: cells, then cheats."""
    lines = ["| model, batch, time | comparisons | jumps | false alarms | worst honest | weakest cheat | decades |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in found["cells"]:
        lines.append(
            f"| {row['model']}, {row['batch']}, {row['time']} | {row['comparisons']} | {row['jumps']} "
            f"| {row['false_alarms']} | {row['honest_worst_nano']} "
            f"| {row['weakest_cheat_nano']} {row['weakest_cheat']} | {row['margin_decades']} |"
        )
    lines += ["", "| cheat | contributions | caught | least | median |", "|---|---|---|---|---|"]
    names = {name: None for row in found["cells"] for name in row["cheats"]}
    for name in names:
        kinds = [row["cheats"][name] for row in found["cells"] if name in row["cheats"]]
        counted, caught = (sum(one[key] for one in kinds) for key in ("contributions", "caught"))
        least = min(one["least_nano"] for one in kinds)
        median = sorted(one["median_nano"] for one in kinds)[len(kinds) // 2]
        lines.append(f"| {name} | {counted} | {caught} | {least} | {median} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case ["--rig", threads]:
            serve(int(threads))
        case [minutes, *seed]:
            first = int(seed[0]) if seed else 0
            found = measure(float(minutes), lambda line: print(line, file=sys.stderr, flush=True), first)
            print(tables(found), file=sys.stderr)
            print(json.dumps(found, indent=2))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
