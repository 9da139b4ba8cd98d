"""Workers as child processes: started, given jobs, watched, killed when late, started again. Knows nothing of the jobs.

A worker dies with the daemon because its end of the socket closes, and never takes the daemon along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar, assert_never

import potd
from potd.node.events import JobDone, WorkerLost, WorkerReady
from potd.wire.codec import Malformed, decode
from potd.wire.frames import LENGTH_BYTES, frame_length, framed
from potd.wire.genesis import TICK_MS
from potd.wire.ids import NO_BLOB, BlobRef
from potd.wire.jobs import Aggregated, Answer, Applied, Evaluated, Failed, Job, Ready, Replay, Replayed, Train, Trained

log = logging.getLogger(__name__)

M = TypeVar("M")

START_PATIENCE_S = 120.0  # torch and a CUDA context from a cold disk
JOB_PATIENCE_S = 900.0
TRAIN_PATIENCE_MIN_S = 30.0
RESTART_FIRST_S = 0.2
RESTART_LAST_S = 10.0
JOBS_WAITING_MAX = 256
NICE = 5  # training must not delay votes


class WorkerUnfit(Exception):
    """A worker says at its very first start that it cannot work here (no such device, ...)."""


class _Lost(Exception):
    """This life of a worker is over; the text says why."""


@dataclass(frozen=True)
class WorkerCommand:
    """What to start: `python -m MODULE FD BLOBS ARGUMENTS...`."""

    kind: str
    module: str
    arguments: Sequence[str] = ()
    nice: int = 0


class Worker:
    """One worker for the daemon's whole life, through as many processes as that takes. One job at a time, in order."""

    def __init__(
        self,
        command: WorkerCommand,
        blobs: Path,
        heard: Callable[[WorkerReady | WorkerLost | JobDone], None],
        wrote: Callable[[Sequence[BlobRef]], None],
        patience_s: Callable[[Job], float] | None = None,
    ) -> None:
        self.command = command
        self.pid: int | None = None
        self.starts = 0
        self.jobs_done = 0
        self._blobs = blobs
        self._heard = heard
        self._wrote = wrote
        self._patience_s = patience_s or patience_of
        self._waiting: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._was_ready = False
        self._pause_s = RESTART_FIRST_S
        self._cpu_ended_s = 0.0

    @property
    def kind(self) -> str:
        return self.command.kind

    @property
    def job(self) -> Job | None:
        """What it works on."""
        return self._waiting[0] if self._waiting and self._was_ready else None

    def give(self, job: Job) -> None:
        """Queue a job. It is answered, always."""
        if len(self._waiting) >= JOBS_WAITING_MAX:
            self._heard(JobDone(Failed(job.job, f"{JOBS_WAITING_MAX} jobs are waiting for the {self.kind} already")))
            return
        self._waiting.append(job)
        self._wake.set()

    def cpu_s(self) -> float | None:
        """CPU seconds of all its processes so far; None where the system does not tell."""
        if self.pid is None:
            return self._cpu_ended_s
        now = process_cpu_s(self.pid)
        return None if now is None else self._cpu_ended_s + now

    async def run(self) -> None:
        """Keep it alive until cancelled. Raises WorkerUnfit if it cannot work here at all."""
        while True:
            reason = ""
            try:
                await self._live()
            except _Lost as loss:
                reason = str(loss)
            self._heard(WorkerLost(self.kind, reason))
            while self._waiting:
                self._heard(JobDone(Failed(self._waiting.popleft().job, f"the {self.kind} was lost: {reason}")))
            log.warning("the %s was lost: %s; starting it again in %.1f s", self.kind, reason, self._pause_s)
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, RESTART_LAST_S)

    async def _live(self) -> None:
        """One process from its start to its end. Raises _Lost."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            arguments = ["-m", self.command.module, str(theirs.fileno()), str(self._blobs), *self.command.arguments]
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # The same potd as ours, from wherever ours was loaded.
                env={**os.environ, "PYTHONPATH": str(Path(potd.__file__).parent.parent)},
                # Ctrl-C in a terminal goes to the daemon, which ends its workers itself.
                start_new_session=True,
            )
            theirs.close()
            self.pid, self.starts = process.pid, self.starts + 1
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, self.command.nice)
            complaints = asyncio.create_task(self._complain(process), name=f"{self.kind} stderr")
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            try:
                await self._serve(reader, writer)
            except (Malformed, TimeoutError) as error:
                raise _Lost(str(error)) from None
            except (OSError, asyncio.IncompleteReadError):
                status = await _status_of(process)
                raise _Lost(f"its process ended ({status})") from None
            finally:
                writer.close()
                await self._end(process, complaints)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> NoReturn:
        """Take its greeting, then give it job after job."""
        try:
            # Not wait_for: before Python 3.12 it can swallow the cancellation that stops the daemon.
            async with asyncio.timeout(START_PATIENCE_S):
                greeting: Ready | Failed = await _read(reader, Ready, Failed)
        except TimeoutError:
            raise TimeoutError(f"no greeting within {START_PATIENCE_S:.0f} s") from None
        if isinstance(greeting, Failed):
            if not self._was_ready:
                raise WorkerUnfit(f"the {self.kind} cannot work here: {greeting.reason}")
            raise _Lost(greeting.reason)
        if greeting.kind != self.kind:
            raise Malformed(f"it greeted as a {greeting.kind}")
        self._was_ready = True
        log.info("the %s is ready: %s, release %s", self.kind, greeting.device, greeting.release)
        self._heard(WorkerReady(self.kind, greeting.device, greeting.self_test))
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wait(reader)
                continue
            job = self._waiting[0]
            patience_s = self._patience_s(job)
            writer.write(framed(job))
            try:
                async with asyncio.timeout(patience_s):
                    await writer.drain()
                    answer: Answer = await _read(reader, *ANSWERS)
            except TimeoutError:
                raise TimeoutError(f"no answer to a {type(job).__name__} within {patience_s:.0f} s") from None
            if answer.job != job.job:
                raise Malformed(f"it answered job {answer.job} when asked {job.job}")
            self._waiting.popleft()
            self._pause_s, self.jobs_done = RESTART_FIRST_S, self.jobs_done + 1
            self._wrote(blobs_in(answer))
            self._heard(JobDone(answer))

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        """Until there is a job. Raises Malformed or OSError if the worker speaks or ends before that."""
        woken = asyncio.create_task(self._wake.wait())
        spoke = asyncio.create_task(reader.readexactly(1))
        try:
            await asyncio.wait((woken, spoke), return_when=asyncio.FIRST_COMPLETED)
            if spoke.done():
                spoke.result()
                raise Malformed("it spoke without being asked")
        finally:
            woken.cancel()
            spoke.cancel()
            await asyncio.gather(woken, spoke, return_exceptions=True)

    async def _complain(self, process: asyncio.subprocess.Process) -> None:
        """What the worker writes to standard error goes to the log, line by line."""
        assert process.stderr is not None
        rest = b""
        while piece := await process.stderr.read(4096):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > 4096:
                lines, rest = [*lines, rest], b""
            for line in lines:
                log.warning("%s: %s", self.kind, line.decode("utf-8", "replace"))
        if rest:
            log.warning("%s: %s", self.kind, rest.decode("utf-8", "replace"))

    async def _end(self, process: asyncio.subprocess.Process, complaints: asyncio.Task[None]) -> None:
        """Kill it if it lives, reap it, and keep its account. Not interrupted by being cancelled a second time."""
        now = process_cpu_s(process.pid)
        before = _ended_cpu_s()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        self.pid = None
        await asyncio.shield(process.wait())
        self._cpu_ended_s += now if now is not None else _ended_cpu_s() - before
        await asyncio.shield(complaints)


ANSWERS: tuple[
    type[Trained] | type[Evaluated] | type[Aggregated] | type[Applied] | type[Replayed] | type[Failed], ...
] = (
    Trained,
    Evaluated,
    Aggregated,
    Applied,
    Replayed,
    Failed,
)


def patience_of(job: Job) -> float:
    """How long a job may take, in seconds. A gradient that is later than its round's deadline is worth nothing, and a
    replay takes as long as a gradient."""
    if isinstance(job, Train | Replay):
        return max(job.spec.deadline_ticks_max * TICK_MS / 1000, TRAIN_PATIENCE_MIN_S)
    return JOB_PATIENCE_S


def blobs_in(answer: Answer) -> tuple[BlobRef, ...]:
    """The blobs that a worker has written for this answer."""
    match answer:
        case Trained():
            refs: tuple[BlobRef, ...] = (answer.payload,)
        case Aggregated():
            refs = (answer.aggregate, answer.model, answer.momentum)
        case Applied():
            refs = (answer.model, answer.momentum)
        case Evaluated() | Replayed() | Failed():
            refs = ()
        case _:
            assert_never(answer)
    return tuple(ref for ref in refs if ref != NO_BLOB)


def process_cpu_s(pid: int) -> float | None:
    """CPU seconds of a living process, of user and system, where /proc tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ended_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def _status_of(process: asyncio.subprocess.Process) -> str:
    """How it ended, in words."""
    try:
        async with asyncio.timeout(1.0):
            code = await process.wait()
    except TimeoutError:
        return "it hung up and went on"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


async def _read(reader: asyncio.StreamReader, *expected: type[M]) -> M:
    length = frame_length(await reader.readexactly(LENGTH_BYTES))
    return decode(await reader.readexactly(length), *expected)
