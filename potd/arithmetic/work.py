"""The worker's jobs: blobs in, blobs out. Knows files and job messages, and nothing of who asks."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from time import monotonic

import numpy as np

from potd.arithmetic import robust
from potd.arithmetic.bounds import check_bounds
from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import Blocks, Floats, decode_aggregate, decode_payload, to_bytes
from potd.wire.blobs import map_blob, read_blob, write_blob
from potd.wire.codec import Malformed
from potd.wire.ids import NO_BLOB, BlobRef, digest
from potd.wire.jobs import Aggregate, Aggregated, Applied, Apply, Failed, Judgement, Payload
from potd.wire.rounds import Outcome
from potd.wire.tasks import BINDING_BYTES, TaskSpec, payload_bytes

JOBS: tuple[type[Aggregate] | type[Apply], ...] = (Aggregate, Apply)
FLOAT_BYTES = 4
NORM_MAX = 2**63 - 1


def answer(job: Aggregate | Apply, folder: Path) -> Aggregated | Applied | Failed:
    """Do a job on the blobs in `folder`. What is wrong with the job or with the disk becomes Failed."""
    try:
        match job:
            case Aggregate():
                return aggregate(job, folder)
            case Apply():
                return apply(job, folder)
    except FileNotFoundError as error:
        return Failed(job.job, f"no such blob here: {Path(str(error.filename)).name}")
    except (OSError, ValueError) as error:
        return Failed(job.job, _clipped(str(error) or type(error).__name__))
    except MemoryError:
        return Failed(job.job, f"not enough memory for {job.spec.model.parameters} parameters")


def aggregate(job: Aggregate, folder: Path) -> Aggregated:
    """Judge the payloads, add up those that count, and take the optimiser's step with their mean.

    A step that cannot be taken from these blobs, by whoever tries, ends like a round in which nothing counted.
    Raises OSError if a blob is missing, ValueError if the job is not one that can be computed."""
    began = monotonic()
    check_bounds(job.spec, sum(payload.units for payload in job.payloads))
    if not all(payload.units for payload in job.payloads):
        raise ValueError("a payload that stands for no units")

    judged = _judged(job, folder)
    if not judged:
        judgements = (Judgement(int(Outcome.MALFORMED), 0),) * len(job.payloads)
        return Aggregated(job.job, judgements, NO_BLOB, NO_BLOB, NO_BLOB, _since(began))
    average, weights = robust.aggregate(list(judged.values()), job.spec.rule, job.spec.encoding)
    weight_of = dict(zip(judged, weights, strict=True))
    judgements = tuple(
        Judgement(int(Outcome.COUNTED), weight_of[index], norm_of(judged[index]))
        if index in weight_of
        else Judgement(int(Outcome.MALFORMED), 0)
        for index in range(len(job.payloads))
    )
    del judged
    try:
        model, momentum = _step(job, average, folder)
    except ValueError:
        return Aggregated(job.job, judgements, NO_BLOB, NO_BLOB, NO_BLOB, _since(began))
    return Aggregated(job.job, judgements, write_blob(folder, to_bytes(average)), model, momentum, _since(began))


def apply(job: Apply, folder: Path) -> Applied:
    """Take the optimiser's step with an aggregate that was agreed on.

    Raises OSError if a blob is missing, ValueError if one is not what the task says."""
    began = monotonic()
    check_bounds(job.spec, 1)
    data = read_blob(folder, job.aggregate)
    gradient = decode_aggregate(data, job.spec.model.parameters, job.spec.encoding)
    model, momentum = _step(job, gradient, folder)
    return Applied(job.job, model, momentum, _since(began))


def _judged(job: Aggregate, folder: Path) -> dict[int, robust.Contribution]:
    """The payloads that count, by position. Their bytes stay in their files, and come and go from memory as needed."""
    order = digest("order of a round", *(one.blob.root for one in job.payloads))
    found = {}
    for index, payload in enumerate(job.payloads):
        try:
            vector = _payload(job.spec, payload, folder)
        except Malformed:
            continue
        found[index] = robust.Contribution(vector, payload.units, digest("place in a round", order, payload.binding))
    return found


def norm_of(contribution: robust.Contribution) -> int:
    """As `rounds.Contribution` has it; what is longer than can be said is said to be as long as can be."""
    return min(isqrt(contribution.norm_squared), NORM_MAX)


def _step(job: Aggregate | Apply, gradient: Blocks, folder: Path) -> tuple[BlobRef, BlobRef]:
    """The model and momentum that follow. Raises ValueError where float32 cannot hold them, or a blob is too short."""
    theta = _floats(job.spec, job.model, "model", folder)
    if job.momentum == NO_BLOB:
        momentum = np.zeros(len(theta), np.float32)
    else:
        momentum = _floats(job.spec, job.momentum, "momentum", folder)
    step(theta, momentum, gradient, job.spec.optimiser, from_micro(rate_micro(job.spec, job.round)))
    return write_blob(folder, _raw(theta)), write_blob(folder, _raw(momentum))


def _payload(spec: TaskSpec, payload: Payload, folder: Path) -> Blocks:
    """A contribution. Raises Malformed for what its name or its bytes say, the same everywhere; OSError otherwise."""
    expected = payload_bytes(spec)
    if payload.blob.size != expected:
        raise Malformed(f"a payload of {payload.blob.size} bytes, not {expected}")
    data = map_blob(folder, payload.blob)
    if data[:BINDING_BYTES] != payload.binding:
        raise Malformed("a payload of another miner, round or model")
    return decode_payload(data[BINDING_BYTES:], spec.model.parameters, spec.encoding)


def _floats(spec: TaskSpec, blob: BlobRef, what: str, folder: Path) -> Floats:
    expected = spec.model.parameters * FLOAT_BYTES
    if blob.size != expected:
        raise ValueError(f"a {what} of {blob.size} bytes, not {expected}")
    return np.frombuffer(read_blob(folder, blob), "<f4").astype(np.float32)


def _raw(values: Floats) -> memoryview:
    """The little-endian bytes of a vector, without copying them where the machine is little-endian."""
    return values.astype("<f4", copy=False).view(np.uint8).data


def _since(began: float) -> int:
    return int((monotonic() - began) * 1000)


def _clipped(reason: str) -> str:
    return reason.encode()[:1024].decode(errors="ignore")
