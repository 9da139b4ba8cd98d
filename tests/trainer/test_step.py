from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from potd.trainer import step
from potd.trainer.data import Samples
from potd.trainer.layout import Floats, model_spec
from potd.trainer.step import LOSS_MICRO_MAX, Gradient, Score, evaluate, gradient
from potd.trainer.twin import module
from potd.trainer.weights import initial_weights
from potd.wire.tasks import ModelSpec

CPU = torch.device("cpu")
MLP = model_spec("mlp", (64, 32, 10))
CNN = model_spec("cnn", (1, 8, 8, 6, 12, 10))


def batch(samples: int, seed: int = 0) -> Samples:
    chance = np.random.default_rng(seed)
    return Samples(chance.random((samples, 64), np.float32), chance.integers(0, 10, samples))


def by_module(spec: ModelSpec, weights: Floats, samples: Samples, double: bool) -> tuple[Floats, float]:
    """Gradient and loss by torch's own layers and its own mean."""
    model = module(spec, weights)
    features = torch.tensor(samples.features)
    if double:
        model, features = model.double(), features.double()
    loss = nn.CrossEntropyLoss()(model(features), torch.tensor(samples.labels))
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([one.reshape(-1) for one in found]).numpy().astype(np.float32), float(loss.detach())


def distance(ours: Floats, theirs: Floats) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_the_gradient_is_that_of_torchs_own_layers(spec: ModelSpec, double: bool) -> None:
    weights, samples = initial_weights(spec, 2), batch(64)
    ours = gradient(spec, weights, samples, CPU)
    theirs, loss = by_module(spec, weights, samples, double)
    assert ours.finite
    assert ours.vector.dtype == np.float32
    assert distance(ours.vector, theirs) < 4e-6
    assert abs(ours.loss_micro - loss * 1e6) < 5


@pytest.mark.parametrize("spec", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_same_batch_gives_the_same_bits(spec: ModelSpec) -> None:
    weights = initial_weights(spec, 2)
    first, second = (gradient(spec, weights, batch(64), CPU) for _ in range(2))
    assert first.vector.tobytes() == second.vector.tobytes()
    assert first.loss_micro == second.loss_micro


def test_micro_batches_add_up_to_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, samples = initial_weights(CNN, 2), batch(50)
    whole = gradient(CNN, weights, samples, CPU)
    monkeypatch.setattr(step, "micro_batch", lambda spec: 7)
    parts = gradient(CNN, weights, samples, CPU)
    assert distance(parts.vector, whole.vector) < 2e-6
    assert abs(parts.loss_micro - whole.loss_micro) <= 2
    assert evaluate(CNN, weights, [samples], CPU).samples == 50


def test_another_process_computes_the_same_bits() -> None:
    code = (
        "import hashlib, numpy as np, torch\n"
        "from potd.trainer.data import Samples\n"
        "from potd.trainer.device import make_exact\n"
        "from potd.trainer.layout import model_spec\n"
        "from potd.trainer.step import gradient\n"
        "from potd.trainer.weights import initial_weights\n"
        "make_exact(torch.device('cpu'))\n"
        "chance = np.random.default_rng(0)\n"
        "samples = Samples(chance.random((64, 64), np.float32), chance.integers(0, 10, 64))\n"
        "for sizes in ((1, 8, 8, 6, 12, 10), (1, 8, 8, 16, 10)):\n"
        "    spec = model_spec('cnn', sizes)\n"
        "    vector = gradient(spec, initial_weights(spec, 2), samples, torch.device('cpu')).vector\n"
        "    print(hashlib.sha256(vector.tobytes()).hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 2 * (hashlib.sha256().digest_size * 2 + 1)


def test_a_gradient_that_is_not_finite_says_so() -> None:
    weights = initial_weights(MLP, 2)
    weights[0] = np.inf
    found = gradient(MLP, weights, batch(8), CPU)
    assert not found.finite
    assert found.loss_micro == LOSS_MICRO_MAX
    assert evaluate(MLP, weights, [batch(8)], CPU).loss_micro == LOSS_MICRO_MAX


def test_a_gradient_of_zero_is_finite() -> None:
    # One feature, always zero, and labels in equal shares: nothing to learn.
    spec = model_spec("mlp", (1, 2))
    samples = Samples(np.zeros((2, 1), np.float32), np.array([0, 1]))
    found = gradient(spec, np.zeros(4, np.float32), samples, CPU)
    assert isinstance(found, Gradient)
    assert (found.finite, found.vector.tolist(), found.loss_micro) == (True, [0, 0, 0, 0], 693147)


def test_evaluation_counts_what_is_named_rightly_over_all_shards() -> None:
    # Scores are the features themselves: the model names the greater one.
    spec = model_spec("mlp", (2, 2))
    weights = np.array([1, 0, 0, 1, 0, 0], np.float32)
    first = Samples(np.array([[3, 1], [0, 2]], np.float32), np.array([0, 0]))
    second = Samples(np.array([[0, 2]], np.float32), np.array([1]))
    losses = [np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0)), np.log1p(np.exp(-2.0))]
    assert evaluate(spec, weights, [first, second], CPU) == Score(2, 3, round(float(np.mean(losses)) * 1e6))
