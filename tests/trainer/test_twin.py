from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from potd.arithmetic.aggregate import accumulate, mean, zero_sums
from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import decode_payload, encode_payload
from potd.arithmetic.robust import shares
from potd.trainer.data import Samples, gather
from potd.trainer.layout import Floats, model_spec, weights_from_bytes
from potd.trainer.step import evaluate, gradient
from potd.trainer.twin import TwinContribution, TwinRound, train_twin
from potd.trainer.weights import initial_weights
from potd.wire.tasks import OptimiserSpec, TaskSpec

CPU = torch.device("cpu")
UNITS = (1, 2, 1)


def drawn(rounds: int, unit_batch: int) -> list[TwinRound]:
    chance = np.random.RandomState(11)
    found: list[TwinRound] = []
    for number in range(rounds):
        order = chance.permutation(1437).tolist()
        ends = np.cumsum([0, *UNITS]) * unit_batch
        parts = [
            TwinContribution(units, tuple(order[ends[i] : ends[i + 1]]))
            for i, units in enumerate(UNITS)
            if (number + i) % 5  # now and then one of them doesn't count
        ]
        found.append(TwinRound(number, tuple(parts)))
    return found


def by_integers(spec: TaskSpec, weights: Floats, training: Samples, rounds: list[TwinRound]) -> Floats:
    """The same training as the network does it: codes, exact sums, single operations."""
    theta, momentum = weights.copy(), np.zeros_like(weights)
    for one in rounds:
        vectors = [gradient(spec.model, theta, gather([training], part.samples), CPU) for part in one.contributions]
        payloads = [encode_payload(vector.vector, spec.encoding) for vector in vectors]
        blocks = [decode_payload(payload, spec.model.parameters, spec.encoding) for payload in payloads]
        factors, divisor = shares([part.units for part in one.contributions], [65_536] * len(blocks))
        sums = zero_sums(spec.model.parameters)
        accumulate(sums, blocks, factors)
        rate = from_micro(rate_micro(spec, one.number))
        step(theta, momentum, mean(sums, divisor, spec.encoding), spec.optimiser, rate)
    return theta


@pytest.mark.parametrize("kind", ["sgd", "nesterov"])
def test_the_first_steps_of_the_twin_are_the_networks(spec: TaskSpec, training: Samples, kind: str) -> None:
    spec = replace(spec, optimiser=OptimiserSpec(kind, 900_000, (500_000, 100_000, 50_000)), rounds=6)
    weights, rounds = initial_weights(spec.model, 3), drawn(6, 64)
    twin = train_twin(spec, weights, training, training, rounds)
    ours = by_integers(spec, weights, training, rounds)
    theirs = weights_from_bytes(spec.model, twin.weights)
    moved = np.linalg.norm(theirs - weights)
    assert np.linalg.norm(ours - theirs) < 0.02 * moved  # what eight bits leave out


def test_the_twin_learns_as_well_as_the_network(spec: TaskSpec, training: Samples, held_out: Samples) -> None:
    weights, rounds = initial_weights(spec.model, 1), drawn(spec.rounds, spec.unit_batch)
    twin = train_twin(spec, weights, training, held_out, rounds)
    ours = evaluate(spec.model, by_integers(spec, weights, training, rounds), [held_out], CPU)
    assert len(twin.losses) == spec.rounds
    assert twin.losses[0] > 2
    assert twin.losses[-1] < 0.05
    assert twin.accuracy > 0.96
    assert abs(ours.correct / ours.samples - twin.accuracy) <= 0.01


def test_the_twin_trains_a_convolutional_network_too(spec: TaskSpec, training: Samples, held_out: Samples) -> None:
    model = model_spec("cnn", (1, 8, 8, 8, 10))
    spec = replace(spec, model=model, optimiser=OptimiserSpec("nesterov", 900_000, (100_000,)))
    twin = train_twin(spec, initial_weights(model, 1), training, held_out, drawn(20, 64))
    assert twin.losses[-1] < twin.losses[0] / 2
