from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from potd.trainer import weights
from potd.trainer.layout import model_spec, tensors, weights_to_bytes
from potd.trainer.weights import GOLDEN, initial_weights, self_test
from potd.wire.tasks import ModelSpec

MLP = model_spec("mlp", (64, 256, 10))
CNN = model_spec("cnn", (1, 28, 28, 32, 64, 10))


@pytest.mark.parametrize(
    ("spec", "seed", "expected"),
    [
        (MLP, 0, "7a3dc104b3e6bc3fc14b37936b1a530978ccb586fe9a745407d4e2b88e043784"),
        (MLP, 1, "8497bad6071b4dbf4c102ef6ba551e507e54713e8f85768464924170317fb98d"),
        (CNN, 2**63 - 1, "6ae187eca9332a21c16c2f135384fb328c5df0289b96d4fa47b0ad8781fdec5d"),
    ],
)
def test_initial_weights_are_these_bits_on_every_machine(spec: ModelSpec, seed: int, expected: str) -> None:
    assert hashlib.sha256(weights_to_bytes(initial_weights(spec, seed))).hexdigest() == expected


def test_the_self_test_comes_to_its_golden_digest() -> None:
    assert self_test() == GOLDEN


def test_another_process_makes_the_same_weights() -> None:
    code = (
        "import sys; from potd.trainer.layout import *; from potd.trainer.weights import *;"
        "sys.stdout.buffer.write(weights_to_bytes(initial_weights(model_spec('mlp', (64, 256, 10)), 7)))"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout
    assert other == weights_to_bytes(initial_weights(MLP, 7))


def test_weights_fill_their_bound_evenly_and_biases_are_zero() -> None:
    for spec in (MLP, CNN):
        for name, view in tensors(spec, initial_weights(spec, 3)).items():
            if name.endswith(".bias"):
                assert not view.any()
                continue
            bound = np.sqrt(6 / np.prod(view.shape[1:]))
            assert np.abs(view).max() <= bound
            assert np.abs(view).max() > 0.95 * bound
            assert abs(view.mean()) < 4 * bound / np.sqrt(3 * view.size)
            assert abs(view.std() / bound * np.sqrt(3) - 1) < 4 / np.sqrt(view.size)


def test_neighbouring_seeds_have_nothing_in_common() -> None:
    first, second = initial_weights(MLP, 1), initial_weights(MLP, 2)
    used = first != 0
    assert (first[used] != second[used]).mean() > 0.999
    assert abs(np.corrcoef(first[used], second[used])[0, 1]) < 0.03


def test_drawing_in_smaller_slices_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = initial_weights(MLP, 5)
    monkeypatch.setattr(weights, "_SLICE", 1000)
    assert np.array_equal(initial_weights(MLP, 5), whole)
