"""The demo's task without a network: gradients, integers, aggregate and step, beside the centralised twin."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from potd.arithmetic.optimise import from_micro, rate_micro, step
from potd.arithmetic.quantise import decode_payload, encode_payload
from potd.arithmetic.robust import Contribution, aggregate
from potd.trainer.data import decode_shard, gather
from potd.trainer.device import make_exact
from potd.trainer.step import evaluate, gradient
from potd.trainer.task import read_task
from potd.trainer.twin import TwinContribution, TwinRound, train_twin
from potd.trainer.weights import initial_weights
from potd.wire.ids import digest
from potd.wire.tasks import RuleSpec


def measure(file: Path, miners: int, seeds: int, rule: RuleSpec) -> dict[str, float | int | list[float]]:
    """A task on the digits, trained once for each seed. `round_ms` is by the clock, and that of the fastest seed."""
    device = torch.device("cpu")
    make_exact(device)
    task = read_task(file)
    spec, model = task.spec, task.spec.model
    shards = [decode_shard(data, None, 64, 10) for data in task.blobs[2:]]
    training, held_out = shards[: len(task.manifest.training)], shards[len(task.manifest.training) :]
    starts = np.cumsum([0] + [len(shard) for shard in training])
    whole = gather(training, range(starts[-1]))
    accuracies, twins, milliseconds = [], [], []
    for seed in range(seeds):
        chance = np.random.RandomState(seed)
        first = initial_weights(model, seed)
        theta, momentum = first.copy(), np.zeros_like(first)
        rounds: list[TwinRound] = []
        hands: list[NDArray[np.intp]] = []
        began = perf_counter()
        for number in range(spec.rounds):
            if number % spec.window_rounds == 0:  # every miner keeps a few shards for a window, as in the network
                hands = np.array_split(chance.permutation(len(training)), miners)
            chosen = []
            for hand in hands:
                owned = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in hand])
                chosen.append(tuple(chance.permutation(owned)[: spec.unit_batch].tolist()))
            contributions = []
            for miner, samples in enumerate(chosen):
                vector = gradient(model, theta, gather([whole], samples), device).vector
                payload = encode_payload(vector, spec.encoding)
                blocks = decode_payload(payload, model.parameters, spec.encoding)
                contributions.append(Contribution(blocks, 1, digest("place", payload[:64], bytes([miner]))))
            average, _ = aggregate(contributions, rule, spec.encoding)
            step(theta, momentum, average, spec.optimiser, from_micro(rate_micro(spec, number)))
            rounds.append(TwinRound(number, tuple(TwinContribution(1, samples) for samples in chosen)))
        milliseconds.append((perf_counter() - began) * 1000 / spec.rounds)
        score = evaluate(model, theta, held_out, device)
        accuracies.append(score.correct / score.samples)
        twins.append(train_twin(spec, first, whole, gather(held_out, range(score.samples)), rounds).accuracy)
    return {
        "rounds": spec.rounds,
        "miners": miners,
        "accuracy": [round(one, 4) for one in accuracies],
        "accuracy_mean": round(sum(accuracies) / len(accuracies), 4),
        "accuracy_worst": round(min(accuracies), 4),
        "twin_accuracy": [round(one, 4) for one in twins],
        "twin_difference_max": round(max(abs(a - b) for a, b in zip(accuracies, twins, strict=True)), 4),
        "round_ms": round(min(milliseconds), 2),
    }
