"""Claims about the arithmetic worker, as the daemon meets it: a child process at one end of a socketpair."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path

import numpy as np
import pytest

from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import Blocks, decode_aggregate, decode_payload, encode_payload, to_bytes
from potd.arithmetic.robust import Contribution, aggregate
from potd.arithmetic.selftest import GOLDEN
from potd.wire.blobs import blob_path, blob_ref, read_blob, write_blob
from potd.wire.frames import framed, read_frame, write_frame
from potd.wire.ids import NO_BLOB, BlobRef, digest
from potd.wire.jobs import Aggregate, Aggregated, Applied, Apply, Failed, Judgement, Payload, Ready
from potd.wire.rounds import Outcome
from potd.wire.rules import CLIP, MEAN
from potd.wire.tasks import OptimiserSpec, RuleSpec, TaskSpec


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[bytes]
    connection: socket.socket

    def ask(self, job: Aggregate | Apply) -> Aggregated | Applied | Failed | None:
        write_frame(self.connection, job)
        return self.answer()

    def answer(self) -> Aggregated | Applied | Failed | None:
        answers: tuple[type[Aggregated] | type[Applied] | type[Failed], ...] = (Aggregated, Applied, Failed)
        return read_frame(self.connection, *answers)


@contextmanager
def started(folder: Path) -> Iterator[Worker]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "potd.arithmetic", str(theirs.fileno()), str(folder)],
                pass_fds=[theirs.fileno()],
                env={"PYTHONPATH": ":".join(sys.path)},
                stderr=subprocess.PIPE,
            )
        with process:
            try:
                ours.settimeout(60)
                greeting = read_frame(ours, Ready)
                assert greeting == Ready("arithmetic", "cpu", np.__version__, GOLDEN)
                yield Worker(process, ours)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[Worker]:
    with started(folder) as one:
        yield one


BINDING = digest("payload of the tests")


def floats(seed: int, scale: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal(1000, np.float32) * np.float32(scale)


def model_blob(folder: Path, seed: int = 1) -> BlobRef:
    return write_blob(folder, floats(seed, 1.0).astype("<f4").tobytes())


def payload(folder: Path, spec: TaskSpec, seed: int, units: int = 1, scale: float = 1e-3) -> Payload:
    return Payload(write_blob(folder, BINDING + encode_payload(floats(seed, scale), spec.encoding)), units, BINDING)


def timeless(answer: Aggregated | Applied | Failed | None) -> Aggregated | Applied | Failed | None:
    return answer if answer is None or isinstance(answer, Failed) else replace(answer, milliseconds=0)


def steps(vector: Blocks) -> list[int]:
    """Its values, in steps of 2 to the least exponent."""
    lifts = np.repeat(vector.exponents.astype(int) - vector.grid.exponent_min, vector.grid.block)[: len(vector.codes)]
    return [int(code) << int(lift) for code, lift in zip(vector.codes, lifts, strict=True)]


@pytest.mark.parametrize("rule", [MEAN, CLIP, RuleSpec("median", 0, 0, 0, 2)])
def test_a_round_comes_to_what_the_rule_says(worker: Worker, folder: Path, spec: TaskSpec, rule: RuleSpec) -> None:
    task = replace(spec, rule=rule, optimiser=OptimiserSpec("nesterov", 900_000, (500_000, 100_000)))
    payloads = [payload(folder, task, 10 + units, units, 1e-3 / units**2) for units in (1, 2, 3, 7)]
    model, momentum = model_blob(folder), model_blob(folder, seed=2)
    told = worker.ask(Aggregate(5, task, 6, model, momentum, tuple(payloads)))
    assert isinstance(told, Aggregated)

    order = digest("order of a round", *(one.blob.root for one in payloads))
    contributions = [
        Contribution(
            decode_payload(read_blob(folder, one.blob)[32:], 1000, task.encoding),
            one.units,
            digest("place in a round", order, one.binding),
        )
        for one in payloads
    ]
    average, weights = aggregate(contributions, rule, task.encoding)
    assert (rule == CLIP) == (min(weights) < 65_536)
    assert read_blob(folder, told.aggregate) == to_bytes(average)

    theta, velocity = floats(1, 1.0), floats(2, 1.0)
    assert rate_micro(task, 6) == 100_000
    step(theta, velocity, average, task.optimiser, from_micro(100_000))
    assert read_blob(folder, told.model) == theta.tobytes()
    assert read_blob(folder, told.momentum) == velocity.tobytes()
    norms = [isqrt(sum(value**2 for value in steps(one.vector))) for one in contributions]
    assert told.judgements == tuple(map(Judgement, [Outcome.COUNTED] * 4, weights, norms))
    assert told.job == 5


def test_applying_the_aggregate_gives_the_model_of_those_who_aggregated(
    worker: Worker, folder: Path, spec: TaskSpec
) -> None:
    payloads = (payload(folder, spec, 20), payload(folder, spec, 21))
    for momentum in (NO_BLOB, model_blob(folder, seed=3)):
        told = worker.ask(Aggregate(1, spec, 4, model_blob(folder), momentum, payloads))
        assert isinstance(told, Aggregated)
        applied = worker.ask(Apply(2, spec, 4, model_blob(folder), momentum, told.aggregate))
        assert timeless(applied) == Applied(2, told.model, told.momentum, 0)


def test_the_order_of_payloads_changes_only_the_order_of_judgements(
    worker: Worker, folder: Path, spec: TaskSpec
) -> None:
    task = replace(spec, rule=CLIP)
    payloads = [payload(folder, task, 30 + index, index + 1, 10.0 ** (index - 5)) for index in range(5)]
    one = worker.ask(Aggregate(1, task, 0, model_blob(folder), NO_BLOB, tuple(payloads)))
    other = worker.ask(Aggregate(1, task, 0, model_blob(folder), NO_BLOB, tuple(payloads[::-1])))
    assert isinstance(one, Aggregated)
    assert isinstance(other, Aggregated)
    assert timeless(other) == timeless(replace(one, judgements=one.judgements[::-1]))


def test_malformed_payloads_are_judged_so_and_left_out(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    good = [payload(folder, spec, 40), payload(folder, spec, 41, 3)]
    data = bytearray(BINDING + encode_payload(floats(42, 1e-3), spec.encoding))
    data[-1] = 0x80
    forbidden = Payload(write_blob(folder, bytes(data)), 1, BINDING)
    short = Payload(write_blob(folder, bytes(data[:-1])), 255, BINDING)
    absent = Payload(BlobRef(bytes(31) + b"\x01", 2**62), 1, BINDING)  # its size alone is enough to judge by
    without = worker.ask(Aggregate(1, spec, 0, model_blob(folder), NO_BLOB, tuple(good)))
    job = Aggregate(1, spec, 0, model_blob(folder), NO_BLOB, (forbidden, good[0], short, good[1], absent))
    told = worker.ask(job)
    assert isinstance(told, Aggregated)
    assert isinstance(without, Aggregated)
    out, (first, second) = Judgement(Outcome.MALFORMED, 0), without.judgements
    assert first.outcome == second.outcome == Outcome.COUNTED
    assert told.judgements == (out, first, out, second, out)
    assert timeless(replace(told, judgements=without.judgements)) == timeless(without)


def test_a_payload_of_another_miner_or_round_is_worth_nothing(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    """Whoever copies another's payload by its root copies what that payload begins with."""
    good = payload(folder, spec, 43)
    copied = replace(good, binding=digest("payload of another"))
    told = worker.ask(Aggregate(1, spec, 0, model_blob(folder), NO_BLOB, (good, copied)))
    assert isinstance(told, Aggregated)
    assert [one.outcome for one in told.judgements] == [Outcome.COUNTED, Outcome.MALFORMED]
    assert told.judgements[1] == Judgement(Outcome.MALFORMED, 0)


def test_nothing_follows_if_no_payload_counts(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    for rule in (MEAN, CLIP):
        bad = Payload(write_blob(folder, b"no gradient"), 1, BINDING)
        told = worker.ask(Aggregate(9, replace(spec, rule=rule), 0, model_blob(folder), NO_BLOB, (bad, bad)))
        judgements = (Judgement(Outcome.MALFORMED, 0),) * 2
        assert timeless(told) == Aggregated(9, judgements, NO_BLOB, NO_BLOB, NO_BLOB, 0)


def test_what_cannot_be_done_is_failed_with_a_reason_and_the_worker_lives_on(
    worker: Worker, folder: Path, spec: TaskSpec
) -> None:
    one, model = payload(folder, spec, 60), model_blob(folder)
    missing = blob_ref(floats(61, 1e-3).tobytes())
    absent = replace(one, blob=BlobRef(missing.root, one.blob.size))
    torn = write_blob(folder, floats(62, 1.0).tobytes())
    blob_path(folder, torn).write_bytes(b"torn")
    aggregate = write_blob(folder, bytes(10))
    good = Aggregate(1, spec, 0, model, NO_BLOB, (one,))
    apply = Apply(2, spec, 0, model, NO_BLOB, aggregate)
    wide = replace(spec, encoding=replace(spec.encoding, exponent_min=-60, exponent_max=-2))
    reasons: dict[Aggregate | Apply, str] = {
        replace(good, payloads=(absent,)): f"no such blob here: {missing.root.hex()}",
        replace(good, model=missing): f"no such blob here: {missing.root.hex()}",
        replace(good, model=torn): f"blob {torn.root.hex()} is a file of 4 bytes, not 4000",
        replace(good, payloads=(Payload(one.blob, 0, BINDING),)): "a payload that stands for no units",
        replace(good, spec=replace(spec, rule=replace(MEAN, bucket=2))): "rule mean takes no bucket",
        replace(good, spec=wide): "sums could overflow: 59 exponents leave room for 0 units by rule 'mean', not 1",
        apply: "10 bytes, not 2016",
        replace(apply, aggregate=missing): f"no such blob here: {missing.root.hex()}",
    }
    for job, reason in reasons.items():
        assert worker.ask(job) == Failed(job.job, reason)
    assert isinstance(worker.ask(good), Aggregated)


def test_a_step_that_nobody_can_take_is_agreed_on_as_nothing(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    """Else no validator would ever have an update to vote for, and the task would stand still."""
    one, model = payload(folder, spec, 60), model_blob(folder)
    infinite = write_blob(folder, np.full(1000, np.inf, np.float32).tobytes())
    good = Aggregate(1, spec, 0, model, NO_BLOB, (one,))
    for job in (replace(good, model=infinite), replace(good, model=one.blob), replace(good, momentum=one.blob)):
        answer = worker.ask(job)
        assert isinstance(answer, Aggregated)
        assert (answer.aggregate, answer.model, answer.momentum) == (NO_BLOB, NO_BLOB, NO_BLOB)


def test_jobs_are_answered_in_the_order_asked(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    one = payload(folder, spec, 70)
    for job in range(20):
        write_frame(worker.connection, Aggregate(job, spec, 0, model_blob(folder), NO_BLOB, (one,)))
    answers = [worker.answer() for _ in range(20)]
    assert [None if answer is None else answer.job for answer in answers] == list(range(20))


def test_a_killed_worker_takes_nothing_along_and_its_successor_finds_the_same(folder: Path, spec: TaskSpec) -> None:
    job = Aggregate(1, spec, 0, model_blob(folder), NO_BLOB, (payload(folder, spec, 80), payload(folder, spec, 81)))
    with started(folder) as first:
        before = first.ask(job)
        write_frame(first.connection, job)
        first.process.kill()
        assert first.process.wait(60) == -9
    with started(folder) as second:
        assert timeless(second.ask(job)) == timeless(before)


def test_a_worker_ends_when_the_daemon_closes_its_end(folder: Path) -> None:
    with started(folder) as one:
        one.connection.shutdown(socket.SHUT_RDWR)
        assert one.process.wait(60) == 0


def test_a_worker_refuses_what_is_not_a_job(folder: Path) -> None:
    with started(folder) as one:
        one.connection.sendall(framed(Failed(1, "not a job")))
        assert one.process.wait(60) == 1
        assert one.process.stderr is not None
        assert b"tag 91 where Aggregate or Apply is expected" in one.process.stderr.read()


def test_a_worker_says_how_it_is_started() -> None:
    command = [sys.executable, "-m", "potd.arithmetic", "x"]
    told = subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (2, "usage: python -m potd.arithmetic FD BLOBS_DIR\n")


def test_aggregates_of_the_worker_decode(worker: Worker, folder: Path, spec: TaskSpec) -> None:
    told = worker.ask(Aggregate(1, spec, 0, model_blob(folder), NO_BLOB, (payload(folder, spec, 90),)))
    assert isinstance(told, Aggregated)
    data = read_blob(folder, told.aggregate)
    assert to_bytes(decode_aggregate(data, 1000, spec.encoding)) == data
