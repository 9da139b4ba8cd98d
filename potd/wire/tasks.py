"""A task as data: what is trained, on what, by which rule, for what pay. Knows nothing of how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U32, U63, Range, Size, message
from potd.wire.ids import BlobRef

BATCH_SAMPLES_MAX = 2**20  # samples that one contribution may stand for


@message(20)
@dataclass(frozen=True)
class ModelSpec:
    """A built-in architecture and its sizes: `mlp` (features, hidden..., classes), `cnn` (channels, height, width,
    filters..., classes)."""

    architecture: Annotated[str, Size(1, 16)]
    sizes: Annotated[tuple[U32, ...], Size(2, 32)]
    parameters: Annotated[int, Range(1, 2**40)]


@message(21)
@dataclass(frozen=True)
class OptimiserSpec:
    """SGD on the aggregate. The learning rate is an integer table, in millionths, stretched over the task's rounds."""

    kind: Annotated[str, Size(1, 16)]  # sgd, nesterov
    momentum_micro: Annotated[int, Range(0, 999_999)]
    rates_micro: Annotated[tuple[U32, ...], Size(1, 4096)]


@message(22)
@dataclass(frozen=True)
class EncodingSpec:
    """Blocks of integer codes with power-of-two scales; exponents outside the bounds are saturated or refused."""

    kind: Annotated[str, Size(1, 16)]  # int8
    block: Annotated[int, Range(16, 65_536)]
    exponent_min: Annotated[int, Range(-60, 30)]
    exponent_max: Annotated[int, Range(-60, 30)]


@message(26)
@dataclass(frozen=True)
class RuleSpec:
    """How contributions become one vector; `rules` says what each kind makes of its parameters.

    What a kind has no use for is 0, and a bucket of 1 contribution is none."""

    kind: Annotated[str, Size(1, 16)]  # mean, clip, trimmed, median, centred, krum, multi-krum
    faults_ppm: Annotated[int, Range(0, 499_999)]  # of the units: so many may be an attacker's
    radius_milli: U32  # how far a contribution counts in full, in thousandths of the median distance
    iterations: Annotated[int, Range(0, 16)]
    bucket: Annotated[int, Range(1, 255)]  # contributions whose mean is one contribution to the rule


@message(23)
@dataclass(frozen=True)
class TaskSpec:
    """Everything that decides a training run. Durations in ticks, amounts in micro-units."""

    name: Annotated[str, Size(1, 64)]
    model: ModelSpec
    weights: BlobRef  # initial weights, float32 little-endian, in the order of the model's layout
    manifest: BlobRef  # the data set, a Manifest
    samples: Annotated[int, Range(1, 2**40)]  # training samples in the manifest
    loss: Annotated[str, Size(1, 32)]  # cross_entropy
    optimiser: OptimiserSpec
    encoding: EncodingSpec
    rule: RuleSpec
    rig_class: Annotated[str, Size(1, 32)]  # float32
    unit_batch: Annotated[int, Range(1, 65_536)]  # samples a unit
    rounds: Annotated[int, Range(1, 2**32)]
    window_rounds: Annotated[int, Range(1, 4096)]  # rounds for which a miner keeps its shards
    miners_min: Annotated[int, Range(1, 65_536)]
    pay_micro: U63  # per accepted sample, the validators' share included
    validators_ppm: Annotated[int, Range(0, 1_000_000)]
    deadline_ticks_min: Annotated[int, Range(2, 2**31)]
    deadline_ticks_max: Annotated[int, Range(2, 2**31)]
    evaluate_every: U32  # rounds between evaluations on the held-out shards; 0 for never
    tolerance_nano: U32  # the greatest distance of a good replay, in billionths of the norm; 0: nobody audits


@message(24)
@dataclass(frozen=True)
class Shard:
    """One safetensors file: `features` [samples, *shape] and `labels` [samples]."""

    blob: BlobRef
    samples: Annotated[int, Range(1, 2**32)]


@message(25)
@dataclass(frozen=True)
class Manifest:
    """A data set by content. Which sample is held out is fixed here, by which shard holds it."""

    name: Annotated[str, Size(1, 64)]
    source: Annotated[str, Size(0, 512)]
    licence: Annotated[str, Size(0, 64)]
    shape: Annotated[tuple[U32, ...], Size(1, 8)]  # of one sample
    classes: Annotated[int, Range(2, 2**20)]
    training: Annotated[tuple[Shard, ...], Size(1, 65_536)]
    held_out: Annotated[tuple[Shard, ...], Size(0, 65_536)]


BINDING_BYTES = 32  # what a payload begins with: `rounds.payload_binding`


def payload_bytes(spec: TaskSpec) -> int:
    """The size of every payload of a task: its binding, an exponent for each block, a code for each parameter."""
    parameters = spec.model.parameters
    return BINDING_BYTES + (parameters + spec.encoding.block - 1) // spec.encoding.block + parameters
