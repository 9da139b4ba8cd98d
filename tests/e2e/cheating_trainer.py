"""A trainer that saves half of its work: `python -m tests.e2e.cheating_trainer FD BLOBS_DIR`, as potd.trainer.

It takes the gradient of the first half of every batch and says that it is the whole batch's."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from potd.trainer import __main__ as trainer
from potd.trainer.data import Samples
from potd.trainer.layout import Floats
from potd.trainer.step import Gradient, gradient
from potd.wire.tasks import ModelSpec


def of_half(spec: ModelSpec, weights: Floats, batch: Samples, device: torch.device) -> Gradient:
    half = len(batch) // 2
    return gradient(spec, weights, replace(batch, features=batch.features[:half], labels=batch.labels[:half]), device)


if __name__ == "__main__":
    vars(trainer)["gradient"] = of_half
    sys.exit(trainer.main())
