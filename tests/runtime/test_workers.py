"""Workers: jobs answered in order and always; death, silence and nonsense cost a restart and nothing more."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import get_args

import pytest
import uvloop

from potd.arithmetic.selftest import GOLDEN
from potd.node.events import JobDone, WorkerLost, WorkerReady
from potd.runtime.workers import ANSWERS, JOBS_WAITING_MAX, Worker, WorkerCommand, WorkerUnfit, patience_of
from potd.wire.frames import framed
from potd.wire.ids import NO_BLOB, NOTHING, BlobRef
from potd.wire.jobs import Answer, Apply, Evaluated, Failed, Job, Ready, Train
from potd.wire.rules import MEAN
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, TaskSpec

SPEC = TaskSpec(
    name="toy",
    model=ModelSpec("mlp", (2, 2), 6),
    weights=BlobRef(NOTHING, 24),
    manifest=BlobRef(NOTHING, 1),
    samples=1,
    loss="cross_entropy",
    optimiser=OptimiserSpec("sgd", 0, (1,)),
    encoding=EncodingSpec("int8", 16, -30, 0),
    rule=MEAN,
    rig_class="float32",
    unit_batch=1,
    rounds=1,
    window_rounds=1,
    miners_min=1,
    pay_micro=0,
    validators_ppm=0,
    deadline_ticks_min=2,
    deadline_ticks_max=2400,
    evaluate_every=0,
    tolerance_nano=400,
)

# A worker whose behaviour is told by the round in its job: it answers Evaluated(job, round), unless it must misbehave.
DOUBLE = """
import os, socket, sys, time
from potd.wire.frames import read_frame, write_frame
from potd.wire.jobs import Answer, Apply, Evaluated, Failed, Ready
connection = socket.socket(fileno=int(sys.argv[1]))
connection.setblocking(True)
if os.path.exists(sys.argv[2] + "/unfit"):
    write_frame(connection, Failed(0, "no such device"))
    sys.exit(1)
write_frame(connection, Ready("double", "cpu", "1", bytes(32)))
while (job := read_frame(connection, Apply)) is not None:
    if job.round == 1001:
        print("I am about to die", file=sys.stderr)
        sys.exit(3)
    if job.round == 1002:
        time.sleep(600)
    if job.round == 1003:
        connection.sendall(b"\\xff" * 8)
        time.sleep(600)
    write_frame(connection, Evaluated(job.job + (job.round == 1004), job.round, 0, 0, 0))
"""
DIES, SLEEPS, BABBLES, MISTAKES = 1001, 1002, 1003, 1004
Told = WorkerReady | WorkerLost | JobDone


def job(number: int, round_: int = 0) -> Apply:
    return Apply(number, SPEC, round_, NO_BLOB, NO_BLOB, NO_BLOB)


class Bench:
    def __init__(self, folder: Path, group: asyncio.TaskGroup, module: str, patience_s: float) -> None:
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.wrote: list[BlobRef] = []
        kind = module.removeprefix("potd.").removeprefix("worker_")
        command = WorkerCommand(kind, module)
        self.worker = Worker(command, folder, self.told.put_nowait, self.wrote.extend, lambda one: patience_s)
        self.task = group.create_task(self.worker.run())

    async def hears(self) -> Told:
        return await asyncio.wait_for(self.told.get(), 20)


class _Done(Exception):
    pass


def on_bench(
    folder: Path, play: Callable[[Bench], Awaitable[None]], module: str = "worker_double", patience_s: float = 20.0
) -> None:
    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                await play(Bench(folder, group, module, patience_s))
                raise _Done
        except* _Done:
            pass

    uvloop.run(main())


@pytest.fixture(autouse=True)
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double can be started as a module: its folder is where workers are started."""
    (tmp_path / "worker_double.py").write_text(DOUBLE)
    monkeypatch.chdir(tmp_path)


READY = WorkerReady("double", "cpu", bytes(32))


def done(number: int, round_: int = 0) -> JobDone:
    return JobDone(Evaluated(number, round_, 0, 0, 0))


def failed(number: int, reason: str) -> JobDone:
    return JobDone(Failed(number, f"the double was lost: {reason}"))


async def hears_all(bench: Bench, expected: Sequence[Told]) -> None:
    assert [await bench.hears() for _ in expected] == list(expected)


def test_jobs_are_answered_in_order_also_those_given_before_it_was_ready(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for number in range(5):
            bench.worker.give(job(number, number))
        await hears_all(bench, [READY, *(done(number, number) for number in range(5))])
        bench.worker.give(job(5))
        await hears_all(bench, [done(5)])
        assert bench.worker.jobs_done == 6

    on_bench(tmp_path, play)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (DIES, "its process ended (exit status 3)"),
        (SLEEPS, "no answer to a Apply within 1 s"),
        (BABBLES, "a frame of 4294967295 bytes, not 1..8388608"),
        (MISTAKES, "it answered job 2 when asked 1"),
    ],
)
def test_a_worker_that_fails_gives_its_jobs_back_and_is_started_again(tmp_path: Path, fault: int, reason: str) -> None:
    async def play(bench: Bench) -> None:
        await hears_all(bench, [READY])
        bench.worker.give(job(1, fault))
        bench.worker.give(job(2))
        await hears_all(bench, [WorkerLost("double", reason), failed(1, reason), failed(2, reason), READY])
        bench.worker.give(job(3))
        await hears_all(bench, [done(3)])
        assert bench.worker.starts == 2

    on_bench(tmp_path, play, patience_s=1.0)


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_worker_is_missed_at_once(tmp_path: Path, busy: bool) -> None:
    async def play(bench: Bench) -> None:
        await hears_all(bench, [READY])
        reason = "its process ended (signal 9)"
        expected: list[Told] = [WorkerLost("double", reason)]
        if busy:
            bench.worker.give(job(1, SLEEPS))
            await asyncio.sleep(0.1)
            expected.append(failed(1, reason))
        assert bench.worker.pid is not None
        os.kill(bench.worker.pid, signal.SIGKILL)
        await hears_all(bench, [*expected, READY])

    on_bench(tmp_path, play)


def test_what_it_writes_to_standard_error_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play(bench: Bench) -> None:
        bench.worker.give(job(1, DIES))
        while not isinstance(await bench.hears(), JobDone):
            pass
        assert "double: I am about to die" in caplog.messages

    on_bench(tmp_path, play)


def test_a_worker_that_cannot_work_here_at_all_says_so(tmp_path: Path) -> None:
    (tmp_path / "unfit").touch()

    async def play(bench: Bench) -> None:
        with pytest.raises(WorkerUnfit, match="the double cannot work here: no such device"):
            await asyncio.shield(bench.task)

    with pytest.raises(ExceptionGroup) as group:
        on_bench(tmp_path, play)
    assert group.group_contains(WorkerUnfit)


def test_jobs_beyond_the_queue_are_given_back(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for number in range(JOBS_WAITING_MAX + 1):
            bench.worker.give(job(number))
        assert bench.told.get_nowait() == JobDone(
            Failed(JOBS_WAITING_MAX, f"{JOBS_WAITING_MAX} jobs are waiting for the double already")
        )

    on_bench(tmp_path, play)


def test_stopping_kills_a_busy_worker_at_once(tmp_path: Path) -> None:
    pids: list[int] = []

    async def play(bench: Bench) -> None:
        await hears_all(bench, [READY])
        bench.worker.give(job(1, SLEEPS))
        await asyncio.sleep(0.1)
        assert bench.worker.pid is not None
        pids.append(bench.worker.pid)

    on_bench(tmp_path, play)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.parametrize("turns", range(6))
def test_stopping_in_the_very_moment_of_the_greeting_stops(tmp_path: Path, turns: int) -> None:
    """Python 3.11's asyncio.wait_for forgets that it was cancelled if what it waits for is done by then."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            _, writer = await asyncio.open_unix_connection(sock=ours)
            reader = asyncio.StreamReader()
            worker = Worker(WorkerCommand("double", ""), tmp_path, lambda told: None, lambda refs: None)
            serving = asyncio.create_task(worker._serve(reader, writer))
            for _ in range(5):
                await asyncio.sleep(0)
            reader.feed_data(framed(Ready("double", "cpu", "1", bytes(32))))
            for _ in range(turns):
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.wait([serving], timeout=1)
            stopped = serving.cancelled()
            serving.cancel()
            writer.close()
        assert stopped

    uvloop.run(main())


def test_the_arithmetic_greets_with_the_golden_digest_and_gives_a_reason_when_it_fails(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        ready = await bench.hears()
        assert ready == WorkerReady("arithmetic", "cpu", GOLDEN)
        bench.worker.give(Apply(7, SPEC, 0, BlobRef(bytes(32), 24), NO_BLOB, BlobRef(bytes(32), 9)))
        answer = await bench.hears()
        assert isinstance(answer, JobDone)
        assert isinstance(answer.answer, Failed)
        assert answer.answer.job == 7
        cpu_s = bench.worker.cpu_s()
        assert cpu_s is None or cpu_s > 0

    on_bench(tmp_path, play, "potd.arithmetic")


def test_a_gradient_may_take_as_long_as_its_round_and_half_a_minute_at_least() -> None:
    train: Job = Train(1, SPEC, 0, NO_BLOB, (NO_BLOB,), (0,), bytes(32))
    assert patience_of(train) == 120.0


def test_every_answer_that_there_is_is_taken_from_a_worker() -> None:
    assert set(ANSWERS) == set(get_args(Answer))
