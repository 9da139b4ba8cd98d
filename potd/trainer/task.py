"""From TASK.toml to a TaskSpec and the blobs that go with it, all checked before anything is spent. Needs no torch.

A file, with what each key may be (docs/tasks has whole ones):

    name        = "digits"
    [model]       architecture (mlp, cnn), sizes; seed (0 or more) or weights (a safetensors file)
    [data]        set ("digits", the one carried) or folder (of a manifest and its shards)
    [optimiser]   kind (sgd, nesterov), momentum, rate, schedule (constant, linear, cosine, step), warmup_rounds;
                  rate_end for linear and cosine; step_rounds and step_factor for step
    [training]    unit_batch, rounds, window_rounds, miners_min, deadline_seconds_min, deadline_seconds_max,
                  evaluate_every, tolerance_nano, loss, rig_class
    [rule]        kind (mean, clip, trimmed, median, centred, krum, multi-krum); faults, radius, iterations and bucket
                  for those that take them
    [encoding]    kind (int8), block, exponent_min, exponent_max
    [pay]         per_sample, validators_share: decimal numbers or decimal texts

Paths are relative to the file. Decimals are read as decimals, to the millionth, and never pass through binary floats.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from potd.arithmetic.bounds import ENCODINGS, OPTIMISERS, check_bounds
from potd.trainer import digits
from potd.trainer.data import data_set_problems, read_manifest, training_samples
from potd.trainer.layout import (
    ARCHITECTURES,
    classes,
    features,
    from_safetensors,
    model_problems,
    model_spec,
    weights_from_bytes,
    weights_to_bytes,
)
from potd.trainer.weights import SEED_MAX, initial_weights
from potd.wire.blobs import blob_path, blob_ref, write_blob
from potd.wire.codec import Malformed, encode
from potd.wire.genesis import SUPPLY_MAX, TICK_MS
from potd.wire.ids import NO_BLOB, BlobRef
from potd.wire.rounds import MINERS_MAX
from potd.wire.rules import CLIP, KINDS, RULES
from potd.wire.tasks import BATCH_SAMPLES_MAX, EncodingSpec, Manifest, ModelSpec, OptimiserSpec, RuleSpec, TaskSpec

MICRO, MILLI = 1_000_000, 1_000
UNITS_MAX = 255  # of one miner
UNITS_TOTAL_MAX = MINERS_MAX * UNITS_MAX  # sums must fit however many enrol
RATES_MAX = 4096  # entries of a rate table
SCHEDULES = ("constant", "linear", "cosine", "step")
LOSSES = ("cross_entropy",)
RIG_CLASSES = ("float32",)

_NO_MODEL = ModelSpec("mlp", (1, 2), 4)
_REQUIRED = object()


class TaskError(ValueError):
    """A task file is wrong; `problems` has every reason, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Prepared:
    """A task that can be submitted, and what the network must be able to fetch for it."""

    spec: TaskSpec
    manifest: Manifest
    blobs: tuple[bytes, ...]  # manifest, initial weights, and the shards that lie in no folder
    folder: Path | None  # where the other shards lie under their roots

    def refs(self) -> tuple[BlobRef, ...]:
        """Every blob of the task: manifest, weights, training shards, held-out shards."""
        shards = self.manifest.training + self.manifest.held_out
        return (self.spec.manifest, self.spec.weights, *(shard.blob for shard in shards))


def read_task(path: Path) -> Prepared:
    """The task in a file. Raises TaskError with everything that is wrong with it, its weights and its data."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise TaskError([f"can't read {path}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TaskError([f"{path} is not TOML: {error}"]) from None
    return _prepare(tree, path.parent)


def publish(prepared: Prepared, folder: Path) -> tuple[Path, ...]:
    """Write into `folder` what lies nowhere yet; the paths of all blobs, in the order of `refs`. Raises OSError."""
    written = {write_blob(folder, data) for data in prepared.blobs}
    paths: list[Path] = []
    for ref in prepared.refs():
        home = folder if ref in written else prepared.folder
        assert home is not None
        paths.append(blob_path(home, ref))
    return tuple(paths)


def rate_table(
    schedule: str,
    rounds: int,
    rate_micro: int,
    *,
    warmup_rounds: int = 0,
    rate_end_micro: int = 0,
    step_rounds: Sequence[int] = (),
    step_factor: Decimal = Decimal("0.1"),
) -> tuple[int, ...]:
    """A schedule as integers, in millionths, stretched over the rounds; whoever submits the task rounds them, once."""
    if schedule == "constant" and warmup_rounds == 0:
        return (rate_micro,)
    entries = min(rounds, RATES_MAX)
    table: list[int] = []
    for entry in range(entries):
        round_ = -(-entry * rounds // entries)  # the first round that uses this entry
        if round_ < warmup_rounds:
            table.append(rate_micro * (round_ + 1) // (warmup_rounds + 1))
            continue
        done = Decimal(round_ - warmup_rounds) / Decimal(max(rounds - warmup_rounds, 1))
        left = Decimal(1)
        if schedule == "linear":
            left = 1 - done
        elif schedule == "cosine":
            left = Decimal((1 + math.cos(math.pi * float(done))) / 2)
        rate = rate_end_micro + (rate_micro - rate_end_micro) * left if schedule in ("linear", "cosine") else rate_micro
        if schedule == "step":
            rate = rate_micro * step_factor ** sum(round_ >= step for step in step_rounds)
        table.append(int(Decimal(rate).to_integral_value()))
    return tuple(table)


class _Table:
    """One table of the file. Reads a key at a time, notes what is wrong with it, and goes on with a stand-in."""

    def __init__(self, tree: dict[str, Any], name: str, problems: list[str]) -> None:
        found = tree.get(name, {}) if name else tree
        self._values: dict[str, Any] = found if isinstance(found, dict) else {}
        self._prefix = f"{name}." if name else ""
        self._problems = problems
        self._known: set[str] = set()
        self.refused: set[str] = set()  # keys whose values are stand-ins
        if not isinstance(found, dict):
            problems.append(f"{name} is not a table")

    def has(self, key: str) -> bool:
        return key in self._values

    def wrong(self, key: str, why: str) -> None:
        self.refused.add(key)
        self._problems.append(f"{self._prefix}{key} {why}")

    def text(self, key: str, default: Any = _REQUIRED, choices: Sequence[str] = ()) -> str:
        value = self._value(key, default)
        stand_in = choices[0] if choices else "-"
        if value is _REQUIRED:
            return stand_in
        if not isinstance(value, str) or not value:
            self.wrong(key, f"is {_shown(value)}, not a text")
            return stand_in
        if choices and value not in choices:
            self.wrong(key, f"is {_shown(value)}, not one of {', '.join(choices)}")
            return stand_in
        return value

    def integer(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> int:
        value = self._value(key, default)
        if value is _REQUIRED:
            return low
        if type(value) is not int or not low <= value <= high:
            self.wrong(key, f"is {_shown(value)}, not an integer in {low}..{high}")
            return low
        return value

    def integers(self, key: str, low: int, high: int, default: Any = _REQUIRED) -> tuple[int, ...] | None:
        value = self._value(key, default)
        if value is _REQUIRED:
            return None
        if not isinstance(value, list | tuple) or not all(type(one) is int and low <= one <= high for one in value):
            self.wrong(key, f"is {_shown(value)}, not a list of integers in {low}..{high}")
            return None
        return tuple(value)

    def decimal(self, key: str, low: str, high: str, default: Any = _REQUIRED) -> Decimal:
        value = self._value(key, default)
        if value is _REQUIRED:
            return Decimal(low)
        try:
            number = Decimal(value) if isinstance(value, str | int | Decimal) and type(value) is not bool else None
        except InvalidOperation:
            number = None
        if number is None or not number.is_finite() or not Decimal(low) <= number <= Decimal(high):
            self.wrong(key, f"is {_shown(value)}, not a number in {low}..{high}")
            return Decimal(low)
        return number

    def micro(self, key: str, low: str, high: str, default: Any = _REQUIRED) -> int:
        """A decimal in millionths."""
        return self._scaled(key, low, high, default, MICRO, "millionth")

    def milli(self, key: str, low: str, high: str, default: Any = _REQUIRED) -> int:
        """A decimal in thousandths."""
        return self._scaled(key, low, high, default, MILLI, "thousandth")

    def _scaled(self, key: str, low: str, high: str, default: Any, scale: int, unit: str) -> int:
        scaled = self.decimal(key, low, high, default) * scale
        if scaled != int(scaled):
            self.wrong(key, f"is {scaled / scale}, finer than a {unit}")
        return int(scaled)

    def only_if(self, key: str, allowed: bool, why: str) -> None:
        """Note a key that doesn't go with another one's value."""
        if self.has(key) and not allowed:
            self._known.add(key)
            self.wrong(key, why)

    def finish(self, also: Sequence[str] = ()) -> None:
        """Note every key that nobody asked for, other than those named."""
        known = self._known.union(also)
        for key in self._values:
            if key not in known:
                near = difflib.get_close_matches(key, sorted(known), 1)
                self.wrong(key, "is not known here" + (f"; did you mean {near[0]}?" if near else ""))

    def _value(self, key: str, default: Any) -> Any:
        self._known.add(key)
        if key not in self._values and default is _REQUIRED:
            self.wrong(key, "is missing")
        return self._values.get(key, default)


def _prepare(tree: dict[str, Any], home: Path) -> Prepared:
    problems: list[str] = []
    tables = {name: _Table(tree, name, problems) for name in _READS}
    top = _Table(tree, "", problems)
    name = top.text("name")
    if len(name.encode()) > 64:
        top.wrong("name", f"is of {len(name.encode())} bytes, at most 64")
    top.finish(also=_READS)

    model, weights = _model(tables["model"], home)
    data = _data(tables["data"], home, problems)
    if model and data:
        problems += _fit_problems(model, data.manifest)
    training = tables["training"]
    rounds = training.integer("rounds", 1, 2**32)
    encoding = tables["encoding"]
    pay = tables["pay"]
    spec = TaskSpec(
        name=name,
        model=model or _NO_MODEL,
        weights=blob_ref(weights) if weights else NO_BLOB,
        manifest=blob_ref(encode(data.manifest)) if data else NO_BLOB,
        samples=training_samples(data.manifest) if data else 1,
        loss=training.text("loss", LOSSES[0], LOSSES),
        optimiser=_optimiser(tables["optimiser"], rounds),
        encoding=EncodingSpec(
            kind=encoding.text("kind", ENCODINGS[0], ENCODINGS),
            block=encoding.integer("block", 16, 65_536, 256),
            # 21 exponents are the most for which any number of miners fits, by either rule.
            exponent_min=encoding.integer("exponent_min", -60, 30, -24),
            exponent_max=encoding.integer("exponent_max", -60, 30, -4),
        ),
        rule=_rule(tables["rule"]),
        rig_class=training.text("rig_class", RIG_CLASSES[0], RIG_CLASSES),
        # So that a miner's batch is within the limit whatever its units.
        unit_batch=training.integer("unit_batch", 1, BATCH_SAMPLES_MAX // UNITS_MAX),
        rounds=rounds,
        window_rounds=training.integer("window_rounds", 1, 4096, 16),
        miners_min=training.integer("miners_min", 1, MINERS_MAX, 1),
        pay_micro=pay.micro("per_sample", "0", str(SUPPLY_MAX // MICRO)),
        validators_ppm=pay.micro("validators_share", "0", "1", "0.1"),
        deadline_ticks_min=_ticks(training, "deadline_seconds_min", 1),
        deadline_ticks_max=_ticks(training, "deadline_seconds_max", 60),
        evaluate_every=training.integer("evaluate_every", 0, 2**32 - 1, 10),
        tolerance_nano=training.integer("tolerance_nano", 0, 2**32 - 1, 100),
    )
    if spec.deadline_ticks_min > spec.deadline_ticks_max:
        training.wrong("deadline_seconds_min", "is above deadline_seconds_max")
    if data and spec.unit_batch > spec.samples:
        training.wrong("unit_batch", f"is {spec.unit_batch}, and the data have {spec.samples} training samples")
    if data and spec.evaluate_every and not data.manifest.held_out:
        training.wrong("evaluate_every", "is not 0, and the data hold nothing out")
    for table in tables.values():
        table.finish()
    try:
        encode(spec)
        check_bounds(spec, UNITS_TOTAL_MAX)
    except Malformed as error:
        problems.append(str(error))
    if problems:
        raise TaskError(problems)
    assert data is not None
    return Prepared(spec, data.manifest, (encode(data.manifest), weights, *data.shards), data.folder)


def _rule(table: _Table) -> RuleSpec:
    """How contributions become one vector."""
    kind = table.text("kind", CLIP.kind, RULES)
    takes = KINDS[kind]
    for key, taken in (
        ("faults", takes.faults), ("radius", takes.radius), ("iterations", takes.iterations), ("bucket", takes.bucket)
    ):  # fmt: skip
        table.only_if(key, taken, f"is nothing that rule {kind} takes")
    return RuleSpec(
        kind=kind,
        faults_ppm=table.micro("faults", "0.000001", "0.499999", "0.2") if takes.faults else 0,
        radius_milli=table.milli("radius", "0.001", "1000", "2") if takes.radius else 0,
        iterations=table.integer("iterations", 1, 16, 3) if takes.iterations else 0,
        bucket=table.integer("bucket", 1, 255, 1) if takes.bucket else 1,
    )


@dataclass(frozen=True)
class _Data:
    manifest: Manifest
    shards: tuple[bytes, ...]
    folder: Path | None


def _model(table: _Table, home: Path) -> tuple[ModelSpec | None, bytes]:
    """The model and its initial weights as a blob; empty where there are none."""
    architecture = table.text("architecture", choices=ARCHITECTURES)
    sizes = table.integers("sizes", 1, 2**32 - 1)
    seed = table.integer("seed", 0, SEED_MAX, 0)
    file = table.text("weights", "") if table.has("weights") else ""
    if table.has("seed") and file:
        table.wrong("weights", "and model.seed exclude each other")
    if sizes is None or "architecture" in table.refused:
        return None, b""
    found = [*model_problems(architecture, sizes)]
    if len(sizes) > 32:
        found.append(f"{len(sizes)} sizes, at most 32")
    for problem in found:
        table.wrong("sizes", f"can't be: {problem}")
    if found:
        return None, b""
    spec = model_spec(architecture, sizes)
    if not file:
        return spec, weights_to_bytes(initial_weights(spec, seed))
    try:
        raw = from_safetensors(spec, (home / file).read_bytes())
    except OSError as error:
        table.wrong("weights", f"can't be read: {error.strerror}: {home / file}")
        return spec, b""
    except Malformed as error:
        table.wrong("weights", f"don't fit the model: {error}")
        return spec, b""
    if not np.isfinite(weights_from_bytes(spec, raw)).all():
        table.wrong("weights", "hold a value that is not a finite number")
    return spec, raw


def _data(table: _Table, home: Path, problems: list[str]) -> _Data | None:
    chosen = table.text("set", "", ("digits",)) if table.has("set") else ""
    folder = table.text("folder", "") if table.has("folder") else ""
    if bool(chosen) == bool(folder):
        table.wrong("set", "or data.folder: give one of them")
        return None
    if chosen:
        carried = digits.data_set()
        return _Data(carried.manifest, carried.shards, None)
    path = home / folder
    try:
        manifest = read_manifest(path)
    except OSError as error:
        table.wrong("folder", f"has no manifest: {error.strerror}: {error.filename}")
        return None
    except Malformed as error:
        table.wrong("folder", f"has a manifest that is none: {error}")
        return None
    problems += [f"data.folder: {problem}" for problem in data_set_problems(manifest, path)]
    return _Data(manifest, (), path)


def _fit_problems(model: ModelSpec, manifest: Manifest) -> list[str]:
    """Why the model can't be trained on the data."""
    problems: list[str] = []
    shape = " x ".join(map(str, manifest.shape))
    if math.prod(manifest.shape) != features(model):
        problems.append(f"model.sizes: the model takes {features(model)} values a sample, and the data have {shape}")
    elif model.architecture == "cnn":
        wanted = model.sizes[:3]
        if manifest.shape != wanted and (1, *manifest.shape) != wanted:
            problems.append(f"model.sizes: the model takes {' x '.join(map(str, wanted))}, and the data have {shape}")
    if manifest.classes != classes(model):
        problems.append(f"model.sizes: the model has {classes(model)} classes, and the data have {manifest.classes}")
    return problems


def _optimiser(table: _Table, rounds: int) -> OptimiserSpec:
    kind = table.text("kind", "nesterov", OPTIMISERS)
    momentum = table.micro("momentum", "0", "0.999999", "0.9")
    rate = table.micro("rate", "0.000001", "4000")
    schedule = table.text("schedule", "constant", SCHEDULES)
    warmup = table.integer("warmup_rounds", 0, rounds, 0)
    rate_end, steps, factor = 0, None, Decimal("0.1")
    if schedule in ("linear", "cosine"):
        rate_end = table.micro("rate_end", "0", "4000", 0)
    if schedule == "step":
        steps = table.integers("step_rounds", 1, rounds)
        factor = table.decimal("step_factor", "0", "1", "0.1")
    for key, schedules in _BELONGS.items():
        table.only_if(key, schedule in schedules, f"is not for the schedule {schedule}")
    rates = rate_table(
        schedule,
        rounds,
        rate,
        warmup_rounds=warmup,
        rate_end_micro=rate_end,
        step_rounds=steps or (),
        step_factor=factor,
    )
    return OptimiserSpec(kind, momentum, rates)


def _ticks(table: _Table, key: str, default: int) -> int:
    seconds = table.decimal(key, "0.1", "86400", default)
    return math.ceil(seconds * 1000 / TICK_MS)


def _shown(value: Any) -> str:
    """A value from the file as a person may see it, cut short."""
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


_BELONGS = {"rate_end": ("linear", "cosine"), "step_rounds": ("step",), "step_factor": ("step",)}
_READS = ("model", "data", "optimiser", "training", "rule", "encoding", "pay")
