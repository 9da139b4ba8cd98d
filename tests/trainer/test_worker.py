"""The trainer as its daemon sees it: a child at the other end of a socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from potd.arithmetic.distances import norm_squared
from potd.arithmetic.quantise import decode_payload, encode_payload
from potd.trainer.data import Samples, gather
from potd.trainer.layout import model_spec, weights_to_bytes
from potd.trainer.replay import FAR_NANO
from potd.trainer.step import gradient
from potd.trainer.weights import GOLDEN, initial_weights
from potd.wire.blobs import read_blob, write_blob
from potd.wire.frames import read_frame, write_frame
from potd.wire.ids import NO_BLOB, BlobRef
from potd.wire.jobs import Evaluate, Evaluated, Failed, Ready, Replay, Replayed, Train, Trained
from potd.wire.tasks import Manifest, ModelSpec, TaskSpec

ANSWERS: tuple[type[Trained] | type[Evaluated] | type[Replayed] | type[Failed], ...] = (
    Trained,
    Evaluated,
    Replayed,
    Failed,
)

BINDING = bytes(range(32))


class Worker:
    def __init__(self, process: subprocess.Popen[str], connection: socket.socket) -> None:
        self.process = process
        self.connection = connection

    def ask(self, job: Train | Evaluate | Replay) -> Trained | Evaluated | Replayed | Failed | None:
        write_frame(self.connection, job)
        return read_frame(self.connection, *ANSWERS)


@contextmanager
def started(blobs: Path, device: str = "cpu") -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "potd.trainer", str(theirs.fileno()), str(blobs), "--device", device],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        ours.settimeout(60)
        with process:
            try:
                yield Worker(process, ours)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def worker(blobs: Path) -> Iterator[Worker]:
    """One trainer for every test that leaves it alive."""
    with started(blobs) as worker:
        assert read_frame(worker.connection, Ready) == Ready("trainer", "cpu", torch.__version__, GOLDEN)
        yield worker


def train(spec: TaskSpec, manifest: Manifest, job: int = 1) -> Train:
    shards = tuple(shard.blob for shard in manifest.training[3:6])
    return Train(job, spec, 0, spec.weights, shards, tuple(range(250, 186, -1)), BINDING)


def failed(answer: object) -> str:
    assert isinstance(answer, Failed)
    return answer.reason


def test_a_job_is_answered_by_the_encoded_gradient(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest, training: Samples
) -> None:
    answer = worker.ask(train(spec, manifest))
    weights = initial_weights(spec.model, 1)
    batch = gather([training], [3 * 96 + one for one in range(250, 186, -1)])
    expected = gradient(spec.model, weights, batch, torch.device("cpu"))
    assert isinstance(answer, Trained)
    assert replace(answer, payload=NO_BLOB, milliseconds=0) == Trained(1, NO_BLOB, 64, True, expected.loss_micro, 0)
    assert read_blob(blobs, answer.payload) == BINDING + encode_payload(expected.vector, spec.encoding)


def test_an_evaluation_is_answered_by_counts(worker: Worker, spec: TaskSpec, manifest: Manifest) -> None:
    answer = worker.ask(Evaluate(2, spec, spec.weights, tuple(shard.blob for shard in manifest.held_out)))
    assert isinstance(answer, Evaluated)
    assert (answer.job, answer.samples) == (2, 360)
    assert 0 < answer.correct < 120
    assert 2_000_000 < answer.loss_micro < 4_000_000


def replay(worker: Worker, blobs: Path, job: Train) -> Replay:
    """Asks for the same again that the trainer is asked for, with what it finds."""
    answer = worker.ask(job)
    assert isinstance(answer, Trained)
    vector = decode_payload(read_blob(blobs, answer.payload)[32:], job.spec.model.parameters, job.spec.encoding)
    norm = isqrt(norm_squared(vector))
    return Replay(9, job.spec, 0, job.model, job.shards, job.samples, answer.payload, BINDING, norm)


def test_a_trainer_finds_its_own_gradient_again(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    answer = worker.ask(replay(worker, blobs, train(spec, manifest)))
    assert isinstance(answer, Replayed)
    assert replace(answer, milliseconds=0) == Replayed(9, 0, 0, 0)


def test_a_gradient_over_fewer_samples_or_at_another_model_is_far_from_its_replay(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    job = replay(worker, blobs, train(spec, manifest))
    other = write_blob(blobs, weights_to_bytes(initial_weights(spec.model, 2)))
    for changed in (replace(job, samples=job.samples[:60]), replace(job, model=other)):
        answer = worker.ask(changed)
        assert isinstance(answer, Replayed)
        assert answer.distance_nano > 100 * spec.tolerance_nano
    shorter = worker.ask(replace(job, samples=job.samples[:60]))
    halved = worker.ask(replace(job, samples=job.samples[:60], norm=job.norm * 2))
    assert isinstance(shorter, Replayed) and isinstance(halved, Replayed)
    assert abs(shorter.distance_nano - 2 * halved.distance_nano) <= 2


def test_a_replay_that_is_not_finite_is_as_far_as_can_be(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    weights = initial_weights(spec.model, 1)
    weights[:] = np.float32(3e38)
    broken = write_blob(blobs, weights_to_bytes(weights))
    answer = worker.ask(replace(replay(worker, blobs, train(spec, manifest)), model=broken))
    assert isinstance(answer, Replayed)
    assert (answer.distance_nano, answer.exponents) == (FAR_NANO, 76)


def test_what_cannot_be_compared_is_said_and_no_verdict(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    good = replay(worker, blobs, train(spec, manifest))
    cases = [
        (replace(good, payload=BlobRef(bytes(range(32)), 100)), "is not here"),
        (replace(good, samples=(3 * 96,)), "of 288"),
        (replace(good, spec=replace(spec, rig_class="bf16")), "the task wants rigs of class 'bf16'"),
    ]
    for job, reason in cases:
        assert reason in failed(worker.ask(job))


def test_a_payload_that_is_no_encoding_or_another_miners_is_as_far_as_can_be(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    """Nobody decodes what a miner on probation reveals but who audits it: a bond must not be made up with garbage."""
    good = replay(worker, blobs, train(spec, manifest))
    data = read_blob(blobs, good.payload)
    for job in (
        replace(good, binding=bytes(32)),
        replace(good, payload=write_blob(blobs, data[:-1])),
        replace(good, payload=write_blob(blobs, data[:-1] + b"\x80")),
    ):
        answer = worker.ask(job)
        assert isinstance(answer, Replayed)
        assert (answer.distance_nano, answer.exponents) == (FAR_NANO, 76)


def test_a_gradient_that_is_not_finite_has_no_payload(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    weights = initial_weights(spec.model, 1)
    weights[:] = np.float32(3e38)
    broken = write_blob(blobs, weights_to_bytes(weights))
    answer = worker.ask(replace(train(spec, manifest), model=broken))
    assert isinstance(answer, Trained)
    assert (answer.payload, answer.finite) == (NO_BLOB, False)


def shard_of(blobs: Path, feature: float = 0.5, label: int = 0, shape: tuple[int, ...] = (1, 64)) -> BlobRef:
    features = np.full(shape, feature, np.float32)
    return write_blob(blobs, save({"features": features, "labels": np.full(shape[0], label, np.int64)}))


def test_an_honest_miner_on_the_other_side_of_a_jump_is_found_good(worker: Worker, blobs: Path, spec: TaskSpec) -> None:
    model = model_spec("mlp", (2, 1, 2))
    weights = np.array([1, -1, 0, 1, -1, 0, 0], np.float32)  # a ReLU of the difference of two features that are alike
    miners = weights * np.array([1 + 1e-7, 1, 1, 1, 1, 1, 1], np.float32)
    given, nudged = (write_blob(blobs, weights_to_bytes(one)) for one in (weights, miners))
    task, shard = replace(spec, model=model), shard_of(blobs, shape=(1, 2))
    job = replay(worker, blobs, Train(1, task, 0, nudged, (shard,), (0,), BINDING))
    answer = worker.ask(replace(job, model=given))
    assert isinstance(answer, Replayed)
    assert (answer.distance_nano <= spec.tolerance_nano, answer.exponents) == (True, 0)


def test_every_bad_job_fails_with_a_sentence_and_the_trainer_lives(
    worker: Worker, blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    good = train(spec, manifest)
    absent = BlobRef(bytes(range(32)), 100)
    short = write_blob(blobs, b"short")
    wrong = replace(spec.model, parameters=7)
    wide = model_spec("mlp", (65, 10))

    def with_shard(shard: BlobRef) -> Train:
        return replace(good, shards=(shard,), samples=(0,))

    def with_model(model: ModelSpec) -> Train:
        weights = write_blob(blobs, bytes(4 * model.parameters))
        return replace(good, spec=replace(spec, model=model), model=weights)

    cases: list[tuple[Train, str]] = [
        (replace(good, model=absent), f"blob {absent.root.hex()} is not here"),
        (replace(good, model=replace(spec.weights, size=5)), f"is a file of {spec.weights.size} bytes, not 5"),
        (replace(good, model=short), "weights of 5 bytes, not 76840"),
        (with_shard(absent), f"blob {absent.root.hex()} is not here"),
        (with_shard(short), "not a safetensors file"),
        (with_shard(shard_of(blobs, feature=float("nan"))), "sample 0 holds a feature that is not a finite number"),
        (with_shard(shard_of(blobs, label=10)), "sample 0 has the label 10, not in 0..9"),
        (with_shard(shard_of(blobs, shape=(2, 65))), "a sample has the shape [65], not [64]"),
        (replace(good, samples=(3 * 96,)), "of 288"),
        (with_model(wide), "a sample has the shape [8, 8], not [65]"),
        (replace(good, spec=replace(spec, model=wrong)), "has 19210 parameters, not 7"),
        (replace(good, spec=replace(spec, model=replace(wrong, architecture="gpt"))), "unknown architecture 'gpt'"),
        (replace(good, spec=replace(spec, loss="hinge")), "unknown loss 'hinge'"),
        (replace(good, spec=replace(spec, rig_class="bf16")), "the task wants rigs of class 'bf16'"),
    ]
    for index, (job, reason) in enumerate(cases):
        answer = worker.ask(replace(job, job=index))
        assert reason in failed(answer)
        assert isinstance(answer, Failed)
        assert answer.job == index
    assert isinstance(worker.ask(good), Trained)


def test_a_killed_trainer_is_started_again_and_finds_the_same_payload(
    blobs: Path, spec: TaskSpec, manifest: Manifest
) -> None:
    payloads = []
    for _ in range(2):
        with started(blobs) as worker:
            assert read_frame(worker.connection, Ready)
            answer = worker.ask(train(spec, manifest))
            assert isinstance(answer, Trained)
            payloads.append(answer.payload)
            write_frame(worker.connection, train(spec, manifest))
            worker.process.send_signal(signal.SIGKILL)
            assert worker.process.wait() == -signal.SIGKILL
    assert payloads[0] == payloads[1]


def test_the_daemons_end_ends_the_trainer(blobs: Path) -> None:
    with started(blobs) as worker:
        assert read_frame(worker.connection, Ready)
        os.kill(worker.process.pid, signal.SIGINT)  # Ctrl-C is for the daemon to answer
        worker.connection.shutdown(socket.SHUT_WR)
        assert worker.process.wait(30) == 0


def test_a_device_that_is_not_there_is_said_and_ends_the_trainer(blobs: Path) -> None:
    with started(blobs, "cuda:99") as worker:
        assert "no CUDA device 99: " in failed(read_frame(worker.connection, Ready, Failed))
        assert worker.process.wait(30) == 1
        assert worker.process.stderr is not None
        assert "no CUDA device 99: " in worker.process.stderr.read()


def test_bytes_that_are_no_job_end_the_trainer_with_a_sentence(blobs: Path) -> None:
    with started(blobs) as worker:
        assert read_frame(worker.connection, Ready)
        worker.connection.sendall(b"\xff\xff\xff\xff")
        assert "not a job: a frame of 4294967295 bytes" in failed(read_frame(worker.connection, Failed))
        assert worker.process.wait(30) == 1
