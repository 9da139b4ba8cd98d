"""The trainer as a child process: jobs in, answers out, one at a time. Knows nothing of the network.

    python -m potd.trainer FD BLOBS_DIR [--device D]

FD is one end of a stream socketpair, already open here; blobs are files in BLOBS_DIR under their roots. The first
message out is Ready; then Train is answered by Trained, Evaluate by Evaluated, Replay by Replayed, and what
can't be done by Failed with the reason. The other end closing ends the process with 0; a device that isn't there, or
bytes that are no job, with 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

# Read by the libraries when they load: one thread each, and the cuBLAS workspace that deterministic algorithms need.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import torch

from potd.arithmetic.quantise import Blocks, decode_payload, encode_payload, payload_grid
from potd.trainer.data import Cache, Samples, decode_shard, gather
from potd.trainer.device import RIG_CLASS, description, make_exact, open_device
from potd.trainer.layout import Floats, classes, features, parameters, weights_from_bytes
from potd.trainer.replay import FAR_NANO, nearest, neighbours, unit_of
from potd.trainer.step import evaluate, gradient
from potd.trainer.weights import self_test
from potd.wire.blobs import read_blob, write_blob
from potd.wire.codec import Malformed
from potd.wire.frames import read_frame, write_frame
from potd.wire.ids import NO_BLOB, BlobRef
from potd.wire.jobs import Evaluate, Evaluated, Failed, Ready, Replay, Replayed, Train, Trained
from potd.wire.tasks import BINDING_BYTES, ModelSpec, TaskSpec

JOBS: tuple[type[Train] | type[Evaluate] | type[Replay], ...] = (Train, Evaluate, Replay)
LOSSES = ("cross_entropy",)
REASON_BYTES_MAX = 1024


class Trainer:
    """Does jobs on one device; keeps the shards that it used last."""

    def __init__(self, blobs: Path, device: torch.device) -> None:
        self._blobs = blobs
        self._device = device
        self._shards: Cache[Samples] = Cache()

    def answer(self, job: Train | Evaluate | Replay) -> Trained | Evaluated | Replayed | Failed:
        """The job's result, or why there is none."""
        began = time.monotonic()
        try:
            _check(job.spec)
            match job:
                case Train():
                    return self._train(job, began)
                case Evaluate():
                    return self._evaluate(job, began)
                case Replay():
                    return self._replay(job, began)
        except FileNotFoundError as error:
            return _failed(job.job, f"blob {Path(error.filename).name} is not here")
        # RuntimeError is what torch raises for a device that is out of memory or gone.
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            return _failed(job.job, f"{error}" or type(error).__name__)

    def _train(self, job: Train, began: float) -> Trained:
        spec = job.spec.model
        batch = gather((self._shard(spec, ref) for ref in job.shards), job.samples)
        result = gradient(spec, self._model(spec, job.model), batch, self._device)
        payload = NO_BLOB
        if result.finite:
            payload = write_blob(self._blobs, job.binding + encode_payload(result.vector, job.spec.encoding))
        return Trained(job.job, payload, len(batch), result.finite, result.loss_micro, _since(began))

    def _evaluate(self, job: Evaluate, began: float) -> Evaluated:
        spec = job.spec.model
        shards: Iterable[Samples] = (self._shard(spec, ref) for ref in job.shards)
        score = evaluate(spec, self._model(spec, job.model), shards, self._device)
        return Evaluated(job.job, score.correct, score.samples, score.loss_micro, _since(began))

    def _replay(self, job: Replay, began: float) -> Replayed:
        spec = job.spec.model
        try:
            payload = self._payload(job)
        except Malformed:  # of a miner on probation, whose contribution nobody had to decode
            return Replayed(job.job, FAR_NANO, payload_grid(job.spec.encoding).blocks(spec.parameters), _since(began))
        batch = gather((self._shard(spec, ref) for ref in job.shards), job.samples)
        weights = self._model(spec, job.model)
        replays = (gradient(spec, near, batch, self._device).vector for near in neighbours(weights))
        found, exponents = nearest(payload, replays, unit_of(payload, job.norm), job.spec.tolerance_nano)
        return Replayed(job.job, found, exponents, _since(began))

    def _payload(self, job: Replay) -> Blocks:
        """What the miner has revealed. Raises Malformed where it is none of this miner, round, model and task."""
        data = memoryview(read_blob(self._blobs, job.payload))
        if data[:BINDING_BYTES] != job.binding:
            raise Malformed("a payload of another miner, round or model")
        return decode_payload(data[BINDING_BYTES:], job.spec.model.parameters, job.spec.encoding)

    def _model(self, spec: ModelSpec, ref: BlobRef) -> Floats:
        return weights_from_bytes(spec, read_blob(self._blobs, ref))

    def _shard(self, spec: ModelSpec, ref: BlobRef) -> Samples:
        def load() -> tuple[Samples, int]:
            data = read_blob(self._blobs, ref)
            try:
                samples = decode_shard(data, None, features(spec), classes(spec))
            except Malformed as error:
                raise Malformed(f"shard {ref.root.hex()}: {error}") from None
            return samples, samples.bytes

        return self._shards.get((ref, features(spec), classes(spec)), load)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m potd.trainer", description="Trains for a potd daemon.")
    parser.add_argument("fd", type=int, metavar="FD", help="the open socket to the daemon")
    parser.add_argument("blobs", type=Path, metavar="BLOBS_DIR", help="the folder of blobs")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    options = parser.parse_args(arguments)
    # Ctrl-C in a terminal reaches the whole process group; the daemon decides when its trainer ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=options.fd) as connection:
        connection.setblocking(True)
        try:
            return serve(connection, options.blobs, options.device)
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the daemon is gone


def serve(connection: socket.socket, blobs: Path, asked: str) -> int:
    """Greet, then answer jobs until the other end closes. Returns the exit status."""
    try:
        device = open_device(asked)
    except ValueError as error:
        return _give_up(connection, str(error))
    make_exact(device)
    write_frame(connection, Ready("trainer", description(device), torch.__version__[:64], self_test()))
    trainer = Trainer(blobs, device)
    while True:
        try:
            job = read_frame(connection, *JOBS)
        except Malformed as error:
            return _give_up(connection, f"not a job: {error}")
        if job is None:
            return 0
        write_frame(connection, trainer.answer(job))


def _check(spec: TaskSpec) -> None:
    """Raises Malformed for a task that this release can't train."""
    parameters(spec.model)
    if spec.loss not in LOSSES:
        raise Malformed(f"unknown loss {spec.loss!r}: it is one of {', '.join(LOSSES)}")
    if spec.rig_class != RIG_CLASS:
        raise Malformed(f"the task wants rigs of class {spec.rig_class!r}, this is one of {RIG_CLASS!r}")


def _give_up(connection: socket.socket, reason: str) -> int:
    print(f"trainer: {reason}", file=sys.stderr)
    write_frame(connection, _failed(0, reason))
    return 1


def _failed(job: int, reason: str) -> Failed:
    return Failed(job, reason.encode("utf-8", "replace")[:REASON_BYTES_MAX].decode("utf-8", "ignore"))


def _since(began: float) -> int:
    return min(int((time.monotonic() - began) * 1000), 2**32 - 1)


if __name__ == "__main__":
    sys.exit(main())
