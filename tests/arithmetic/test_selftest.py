"""Claims about the self-test that gates a validator's vote."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from potd.arithmetic import exercise, optimise, order, quantise, robust
from potd.arithmetic.quantise import Floats
from potd.arithmetic.selftest import GOLDEN


def test_this_machine_computes_the_golden_digest() -> None:
    assert exercise.exercise() == GOLDEN


def test_kernels_for_an_older_processor_compute_the_same_digest() -> None:
    # What numpy would choose between on this machine, newest first; without all of them it falls back to its baseline.
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    program = "from potd.arithmetic.exercise import exercise; print(exercise().hex())"
    environment = {"PYTHONPATH": ":".join(sys.path), "NPY_DISABLE_CPU_FEATURES": " ".join(extensions)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == GOLDEN.hex()


def test_the_vectors_are_the_same_everywhere() -> None:
    assert exercise.vector(0, 0)[:4].tobytes().hex() == "88441dbe80219a3c84eb973e58e56fbe"


def test_a_momentum_that_is_fused_or_flushed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(theta: Floats, momentum: Floats, gradient: quantise.Blocks, *rest: object) -> None:
        g = quantise.to_floats(gradient).astype(np.float64)
        momentum[:] = momentum.astype(np.float64) * np.float64(optimise.from_micro(900_001)) + g
        theta -= momentum

    def flushed(*arguments: object) -> None:
        optimise.step(*arguments)  # type: ignore[arg-type]  # passes on what it was given
        for one in arguments[:2]:
            assert isinstance(one, np.ndarray)
            one[np.abs(one) < 2.0**-126] = 0

    for wrong in (fused, flushed):
        monkeypatch.setattr(exercise, "step", wrong)
        assert exercise.exercise() != GOLDEN


def test_a_weight_that_is_one_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(*arguments: object) -> list[int]:
        weights = clip_weights(*arguments)  # type: ignore[arg-type]  # passes on what it was given
        return [weights[0] - 1, *weights[1:]]

    clip_weights = robust.clip_weights
    monkeypatch.setattr(robust, "clip_weights", off)
    assert exercise.exercise() != GOLDEN


def test_an_exchange_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    network = order._network
    monkeypatch.setattr(order, "_network", lambda count: network(count)[:-1])
    assert exercise.exercise() != GOLDEN
