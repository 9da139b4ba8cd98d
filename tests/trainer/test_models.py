from __future__ import annotations

import numpy as np
import pytest
import torch

from potd.trainer.layout import model_spec
from potd.trainer.models import halve, halve_by_choice, logits, parameter_tensors
from potd.trainer.twin import module
from potd.trainer.weights import initial_weights
from potd.wire.tasks import ModelSpec

CPU = torch.device("cpu")
MODELS = [
    model_spec("mlp", (12, 3)),
    model_spec("mlp", (12, 7, 5, 3)),
    model_spec("cnn", (2, 6, 7, 4, 3)),
    model_spec("cnn", (1, 9, 8, 4, 5, 3)),
]


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: f"{spec.architecture}{spec.sizes}")
def test_scores_are_those_of_torchs_own_layers(spec: ModelSpec) -> None:
    weights = initial_weights(spec, 1)
    size = int(np.prod(spec.sizes[:3])) if spec.architecture == "cnn" else spec.sizes[0]
    features = torch.tensor(np.random.default_rng(0).random((5, size), np.float32))
    ours = logits(spec, parameter_tensors(spec, weights, CPU), features)
    assert torch.equal(ours, module(spec, weights)(features))
    assert ours.shape == (5, 3)


def test_pooling_by_choice_has_the_bits_and_the_gradient_of_pooling() -> None:
    chance = np.random.default_rng(1)
    # Few different values, so that many pixels of a square are equal.
    pixels = chance.integers(-2, 3, (3, 4, 8, 6)).astype(np.float32)
    passed = torch.tensor(chance.random((3, 4, 4, 3), np.float32))
    results = []
    for pool in (halve, halve_by_choice):
        images = torch.tensor(pixels, requires_grad=True)
        pooled = pool(images)
        (gradient,) = torch.autograd.grad(pooled, images, passed)
        results.append((pooled.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
