"""Workers without processes: a cheap trainer in torch's place, the real arithmetic, and a task for them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from potd.arithmetic.quantise import Floats, encode_payload
from potd.arithmetic.work import answer as add_up
from potd.wire.blobs import read_blob, write_blob
from potd.wire.codec import encode
from potd.wire.ids import BlobRef, digest
from potd.wire.jobs import (
    Aggregate,
    Aggregated,
    Answer,
    Applied,
    Apply,
    Evaluate,
    Evaluated,
    Job,
    Replay,
    Replayed,
    Train,
    Trained,
)
from potd.wire.rules import CLIP
from potd.wire.tasks import EncodingSpec, Manifest, ModelSpec, OptimiserSpec, Shard, TaskSpec

MODEL = ModelSpec("mlp", (8, 4), 36)
SUMS_MAX = 32
FAR_NANO = 10**9
MILLISECONDS = 1  # that every job says it has taken: what a clock says is no part of a world


class Workers:
    """Does jobs. Blobs lie in one folder for all nodes; who holds which is the world's to know."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sums: dict[Aggregate | Apply, Aggregated | Applied] = {}  # the newest, worked out by whoever comes first

    def do(self, job: Job) -> Answer:
        match job:
            case Aggregate() | Apply():
                return self._add_up(job)
            case Train():
                return self._train(job)
            case Evaluate():
                return Evaluated(job.job, 7, 10, 1_000, MILLISECONDS)
            case Replay():
                return self._replay(job)

    def _add_up(self, job: Aggregate | Apply) -> Answer:
        known = replace(job, job=0)
        if known not in self._sums:
            done = add_up(known, self._folder)
            assert isinstance(done, Aggregated | Applied), done
            self._sums[known] = replace(done, milliseconds=MILLISECONDS)
            if len(self._sums) > SUMS_MAX:
                del self._sums[next(iter(self._sums))]
        return replace(self._sums[known], job=job.job)

    def _replay(self, job: Replay) -> Replayed:
        """Rigs of one kind find the same bits: what is not the same is as far off as can be."""
        theta = np.nan_to_num(np.frombuffer(read_blob(self._folder, job.model), "<f4"))
        expected = job.binding + encode_payload(self._gradient(theta, job.samples), job.spec.encoding)
        distance = 0 if read_blob(self._folder, job.payload) == expected else FAR_NANO
        return Replayed(job.job, distance, 0, MILLISECONDS)

    def _gradient(self, theta: Floats, samples: tuple[int, ...]) -> Floats:
        """That of half the squared distance to a fixed point, with noise that follows from the batch."""
        noise = np.random.RandomState(sum(samples) % 2**32).randint(-256, 257, len(theta)).astype(np.float32)
        gradient: Floats = theta - np.float32(1) + noise / np.float32(1024)
        return gradient

    def _train(self, job: Train) -> Trained:
        theta = np.nan_to_num(np.frombuffer(read_blob(self._folder, job.model), "<f4"))  # it commits to whatever comes
        gradient = self._gradient(theta, job.samples)
        payload = write_blob(self._folder, job.binding + encode_payload(gradient, job.spec.encoding))
        off = (theta.astype("<f8") - 1).tolist()
        loss_micro = int(1e6 * math.fsum(one * one for one in off) / len(off))
        return Trained(job.job, payload, len(job.samples), True, loss_micro, MILLISECONDS)


def blobs_of(answer: Answer) -> list[BlobRef]:
    """What a worker has written."""
    refs = [getattr(answer, name, None) for name in ("payload", "aggregate", "model", "momentum")]
    return [ref for ref in refs if isinstance(ref, BlobRef) and ref.size]


def toy_task(folder: Path, rounds: int, **changes: object) -> tuple[TaskSpec, tuple[BlobRef, ...]]:
    """A task that these workers can train, and the blobs that whoever submits it has to hold."""
    weights = write_blob(folder, np.zeros(MODEL.parameters, "<f4").tobytes())
    shards = tuple(Shard(write_blob(folder, digest("shard", bytes([index]))), 16) for index in range(9))
    manifest = write_blob(folder, encode(Manifest("toy", "", "", (8,), 4, shards[:8], shards[8:])))
    values: dict[str, object] = {
        "name": "toy",
        "model": MODEL,
        "weights": weights,
        "manifest": manifest,
        "samples": 128,
        "loss": "cross_entropy",
        "optimiser": OptimiserSpec("nesterov", 500_000, (200_000,)),
        "encoding": EncodingSpec("int8", 16, -20, 0),
        "rule": CLIP,
        "rig_class": "float32",
        "unit_batch": 8,
        "rounds": rounds,
        "window_rounds": 4,
        "miners_min": 2,
        "pay_micro": 1_000,
        "validators_ppm": 100_000,
        "deadline_ticks_min": 20,
        "deadline_ticks_max": 100,
        "evaluate_every": 5,
        "tolerance_nano": 400,
    }
    spec = TaskSpec(**(values | changes))  # type: ignore[arg-type]  # the values above, some of them replaced
    return spec, (weights, manifest, *(shard.blob for shard in shards))
