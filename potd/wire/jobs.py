"""Messages between the daemon and its workers, over a socketpair. Large data travels as blobs in a shared folder.

A frame is a length (four bytes, big-endian) and one message. A worker greets with Ready, then answers each
job with its result or with Failed, in the order asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import I64, U8, U32, U63, Size, message
from potd.wire.ids import BlobRef, Digest
from potd.wire.rounds import MINERS_MAX
from potd.wire.tasks import BATCH_SAMPLES_MAX, TaskSpec

FRAME_BYTES_MAX = 8 * 1024 * 1024


@message(80)
@dataclass(frozen=True)
class Ready:
    """A worker has started. `self_test` is the digest of its self-test's results."""

    kind: Annotated[str, Size(1, 16)]  # trainer, arithmetic
    device: Annotated[str, Size(1, 64)]
    release: Annotated[str, Size(0, 64)]  # of torch or numpy
    self_test: Digest


@message(81)
@dataclass(frozen=True)
class Train:
    """Take the gradient of the mean loss over the named samples at `model`, and encode it."""

    job: U63
    spec: TaskSpec
    round: U63
    model: BlobRef
    shards: Annotated[tuple[BlobRef, ...], Size(1, 65_536)]
    samples: Annotated[tuple[U32, ...], Size(1, BATCH_SAMPLES_MAX)]  # indices into the shards laid end to end
    binding: Digest  # what the payload has to begin with


@message(82)
@dataclass(frozen=True)
class Trained:
    job: U63
    payload: BlobRef  # NO_BLOB if the gradient was not finite
    samples: U32
    finite: bool
    loss_micro: I64
    milliseconds: U32


@message(83)
@dataclass(frozen=True)
class Evaluate:
    """Score `model` on whole shards."""

    job: U63
    spec: TaskSpec
    model: BlobRef
    shards: Annotated[tuple[BlobRef, ...], Size(1, 65_536)]


@message(84)
@dataclass(frozen=True)
class Evaluated:
    job: U63
    correct: U63
    samples: U63
    loss_micro: I64
    milliseconds: U32


@message(85)
@dataclass(frozen=True)
class Payload:
    """A revealed contribution, the units it stands for, and what it has to begin with."""

    blob: BlobRef
    units: U8
    binding: Digest


@message(86)
@dataclass(frozen=True)
class Aggregate:
    """Add up the payloads by the task's rule and take the optimiser's step."""

    job: U63
    spec: TaskSpec
    round: U63
    model: BlobRef
    momentum: BlobRef  # NO_BLOB before the first step
    payloads: Annotated[tuple[Payload, ...], Size(1, MINERS_MAX)]


@message(87)
@dataclass(frozen=True)
class Judgement:
    """What the rule made of one payload, in the order of the job's."""

    outcome: U8  # rounds.Outcome: COUNTED or MALFORMED
    weight: U32  # sixteen-bit fixed point
    norm: U63 = 0  # rounds.Contribution


@message(88)
@dataclass(frozen=True)
class Aggregated:
    """`aggregate`, `model` and `momentum` are NO_BLOB if no payload counted."""

    job: U63
    judgements: Annotated[tuple[Judgement, ...], Size(1, MINERS_MAX)]
    aggregate: BlobRef
    model: BlobRef
    momentum: BlobRef
    milliseconds: U32


@message(89)
@dataclass(frozen=True)
class Apply:
    """Take the optimiser's step with an aggregate that was agreed on."""

    job: U63
    spec: TaskSpec
    round: U63
    model: BlobRef
    momentum: BlobRef
    aggregate: BlobRef


@message(90)
@dataclass(frozen=True)
class Applied:
    job: U63
    model: BlobRef
    momentum: BlobRef
    milliseconds: U32


@message(91)
@dataclass(frozen=True)
class Failed:
    """The job could not be done; the worker lives on."""

    job: U63
    reason: Annotated[str, Size(1, 1024)]


@message(92)
@dataclass(frozen=True)
class Replay:
    """Take a miner's gradient again, and compare it with what it has revealed."""

    job: U63
    spec: TaskSpec
    round: U63
    model: BlobRef
    shards: Annotated[tuple[BlobRef, ...], Size(1, 65_536)]
    samples: Annotated[tuple[U32, ...], Size(1, BATCH_SAMPLES_MAX)]  # indices into the shards laid end to end
    payload: BlobRef
    binding: Digest  # what the payload has to begin with
    norm: U63  # rounds.Contribution's, of the task: the unit of distances


@message(93)
@dataclass(frozen=True)
class Replayed:
    """How far a payload is from its replay: the L2 norm of what is beyond half a step of its grid, in billionths of
    the job's norm; and how many blocks have an exponent that the replay can't explain."""

    job: U63
    distance_nano: U63
    exponents: U32
    milliseconds: U32


Job = Train | Evaluate | Aggregate | Apply | Replay
Answer = Trained | Evaluated | Aggregated | Applied | Replayed | Failed
