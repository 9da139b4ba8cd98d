"""One gradient and one evaluation, in float32. Knows nothing of rounds or files. Needs torch.

The gradient of the mean cross-entropy over a batch is the sum, in order, of the gradients of its micro-batches, each
of the sum of its losses over the size of the whole batch. Where micro-batches end follows from the model's spec alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from potd.trainer.data import Samples
from potd.trainer.layout import Floats, micro_batch
from potd.trainer.models import logits, parameter_tensors
from potd.wire.tasks import ModelSpec

LOSS_MICRO_MAX = 10**15  # what a loss that is not finite, or is greater, is said to be


@dataclass(frozen=True)
class Gradient:
    """`vector` [parameters] float32 in the model's layout; `loss_micro` the mean loss in millionths of a nat."""

    vector: Floats
    finite: bool
    loss_micro: int


@dataclass(frozen=True)
class Score:
    correct: int
    samples: int
    loss_micro: int  # mean, millionths of a nat


def gradient(
    spec: ModelSpec, weights: Floats, batch: Samples, device: torch.device, dtype: torch.dtype = torch.float32
) -> Gradient:
    """The gradient of the mean loss over `batch` at `weights` [parameters]. Computed in float64, and rounded to float32
    at the end, it is the referee's, beside which the rigs' are measured."""
    parameters = parameter_tensors(spec, weights, device, dtype)
    features = torch.tensor(batch.features, device=device, dtype=dtype)
    labels = torch.tensor(batch.labels, device=device)
    size, loss_sum = micro_batch(spec), 0.0
    for start in range(0, len(batch), size):
        scores = logits(spec, parameters, features[start : start + size])
        losses = functional.cross_entropy(scores, labels[start : start + size], reduction="none")
        (losses.sum() / len(batch)).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        loss_sum += float(losses.detach().sum(dtype=torch.float64))
    vector = np.empty(spec.parameters, dtype=np.float32)
    offset = 0
    for one in parameters:
        assert one.grad is not None
        vector[offset : offset + one.numel()] = one.grad.cpu().numpy().ravel()
        offset += one.numel()
    finite = bool(np.isfinite(vector).all()) and math.isfinite(loss_sum)
    return Gradient(vector, finite, loss_micro(loss_sum, len(batch)))


def evaluate(spec: ModelSpec, weights: Floats, shards: Iterable[Samples], device: torch.device) -> Score:
    """How many samples of the shards the model names rightly, and its mean loss over them."""
    correct, samples, loss_sum = 0, 0, 0.0
    size = micro_batch(spec)
    with torch.no_grad():
        parameters = parameter_tensors(spec, weights, device)
        for shard in shards:
            for start in range(0, len(shard), size):
                features = torch.tensor(shard.features[start : start + size], device=device)
                labels = torch.tensor(shard.labels[start : start + size], device=device)
                scores = logits(spec, parameters, features)
                losses = functional.cross_entropy(scores, labels, reduction="none")
                correct += int((scores.argmax(dim=1) == labels).sum())
                loss_sum += float(losses.sum(dtype=torch.float64))
            samples += len(shard)
    return Score(correct, samples, loss_micro(loss_sum, samples))


def loss_micro(loss_sum: float, samples: int) -> int:
    """A sum of losses in nats as their mean in millionths of a nat."""
    if not math.isfinite(loss_sum):
        return LOSS_MICRO_MAX
    return min(round(loss_sum * 1_000_000 / samples), LOSS_MICRO_MAX)
