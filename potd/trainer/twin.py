"""The centralised twin: what one process would have learned from the same samples. Needs torch.

Plain torch, with nothing of ours between the data and the result, so that it can tell us that we are wrong.
Each round it takes torch's gradient of every counted contribution's batch, the mean of them weighted by units, and a
step of torch.optim.SGD at the task's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from potd.trainer.data import Samples
from potd.trainer.layout import Floats, tensors, weights_to_bytes
from potd.wire.rules import MEAN
from potd.wire.tasks import ModelSpec, TaskSpec


@dataclass(frozen=True)
class TwinContribution:
    """What counted of one miner: its units, and its samples as indices into the whole training set."""

    units: int
    samples: tuple[int, ...]


@dataclass(frozen=True)
class TwinRound:
    """A committed round and what counted in it. Rounds that lapsed are left out."""

    number: int
    contributions: tuple[TwinContribution, ...]


@dataclass(frozen=True)
class TwinResult:
    losses: tuple[float, ...]  # mean over each round's samples, before its step, in nats
    correct: int
    samples: int
    weights: bytes  # float32 little-endian, in the model's layout

    @property
    def accuracy(self) -> float:
        return self.correct / self.samples


def module(spec: ModelSpec, weights: Floats) -> nn.Sequential:
    """The architecture from torch's own layers, with these weights [parameters]."""
    layers: list[nn.Module] = []
    if spec.architecture == "cnn":
        channels, height, width, *filters, outputs = spec.sizes
        layers.append(nn.Unflatten(1, (channels, height, width)))
        for count in filters:
            layers += [nn.Conv2d(channels, count, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = count, height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(channels * height * width, outputs)]
    else:
        for inputs, outputs in pairwise(spec.sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        layers.pop()
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter, view in zip(model.parameters(), tensors(spec, weights).values(), strict=True):
            parameter.copy_(torch.tensor(view))
    return model


def train_twin(
    spec: TaskSpec, weights: Floats, training: Samples, held_out: Samples, rounds: Sequence[TwinRound]
) -> TwinResult:
    """Train from `weights` [parameters] by the rounds given, and score the result on the held-out samples."""
    assert spec.rule == MEAN
    model = module(spec.model, weights)
    momentum = spec.optimiser.momentum_micro / 1_000_000
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=momentum, nesterov=spec.optimiser.kind == "nesterov" and momentum > 0
    )
    features, labels = torch.tensor(training.features), torch.tensor(training.labels)
    cross_entropy = nn.CrossEntropyLoss()
    losses: list[float] = []
    for one in rounds:
        optimiser.zero_grad()
        units = sum(part.units for part in one.contributions)
        total = torch.zeros(())
        for part in one.contributions:
            chosen = torch.tensor(part.samples)
            loss: Tensor = cross_entropy(model(features[chosen]), labels[chosen]) * (part.units / units)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            total = total + loss.detach()
        rates = spec.optimiser.rates_micro
        entry = min(one.number * len(rates) // spec.rounds, len(rates) - 1)
        for group in optimiser.param_groups:
            group["lr"] = rates[entry] / 1_000_000
        optimiser.step()
        losses.append(float(total))
    with torch.no_grad():
        named = model(torch.tensor(held_out.features)).argmax(dim=1)
        flat = torch.cat([parameter.reshape(-1) for parameter in model.parameters()])
    correct = int((named == torch.tensor(held_out.labels)).sum())
    return TwinResult(tuple(losses), correct, len(held_out), weights_to_bytes(flat.numpy()))
