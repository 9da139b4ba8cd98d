"""The calibration's own sums: that rigs, cheats and cells are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from potd.trainer.device import make_exact
from potd.trainer.step import gradient
from tests.bench.replays import BAND, CPU, MODELS, Run, batch_of, cheats, measure, rigs, trained


@pytest.fixture(scope="module")
def run() -> Run:
    make_exact(CPU)
    return trained(MODELS["cnn"], 1)


def test_another_process_computes_the_same_bits_and_sse_kernels_do_not(run: Run) -> None:
    make_exact(CPU)
    rows = np.arange(128).reshape(2, 64)
    ours = np.stack([gradient(run.spec.model, run.thetas[9], batch_of(run.training, one), CPU).vector for one in rows])
    sse = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    with rigs({"same": (1, {}), "sse": (1, sse)}) as started:
        found = {
            name: rig.gradients(run.spec.model, run.thetas[9], run.training, rows) for name, rig in started.items()
        }
    assert found["same"].tobytes() == ours.tobytes()
    assert found["sse"].tobytes() != ours.tobytes()
    assert np.allclose(found["sse"], ours, atol=1e-6)


def test_every_cheat_differs_from_the_honest_gradient_and_the_lowest_losses_least(run: Run) -> None:
    rows, theta = np.arange(64), run.thetas[60]
    honest = gradient(run.spec.model, theta, batch_of(run.training, rows), CPU).vector
    found = cheats(run, 60, rows, honest, np.random.default_rng(1))
    off = {name: float(np.linalg.norm(one - honest) / np.linalg.norm(honest)) for name, one in found.items()}
    assert all(one > 0 for one in off.values())
    assert off["zero"] == pytest.approx(1)
    assert off["times -1"] == pytest.approx(2)
    assert off["times 0.999"] == pytest.approx(0.001, rel=1e-3)
    assert off["15/16 of the batch"] > off[BAND[1]] > off[BAND[0]]
    assert 1e-4 < off["TF32"] < off["bf16"] < 0.1


@pytest.mark.slow
def test_no_honest_replay_is_refused_and_what_is_far_is_caught() -> None:
    found = measure(0, lambda _: None, 3, ["mlp"], [64], 4)
    assert (found["comparisons"], found["false_alarms"]) == (96, 0)
    cells = found["cells"]
    assert isinstance(cells, list)
    start = next(one for one in cells if one["time"] == "start")
    assert start["margin_decades"] > 2
    for name, cheat in start["cheats"].items():
        assert cheat["caught"] == cheat["contributions"] or name in BAND
