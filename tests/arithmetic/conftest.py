"""What the tests of arithmetic share: a small task."""

from __future__ import annotations

import pytest

from potd.wire.ids import NO_BLOB
from potd.wire.rules import MEAN
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, TaskSpec


@pytest.fixture
def spec() -> TaskSpec:
    """A task of 1000 parameters with everything valid; tests replace what they are about."""
    return TaskSpec(
        name="small",
        model=ModelSpec("mlp", (9, 90, 1), 1000),
        weights=NO_BLOB,
        manifest=NO_BLOB,
        samples=100,
        loss="cross_entropy",
        optimiser=OptimiserSpec("nesterov", 900_000, (500_000,)),
        encoding=EncodingSpec("int8", 64, -28, -10),
        rule=MEAN,
        rig_class="float32",
        unit_batch=4,
        rounds=10,
        window_rounds=4,
        miners_min=1,
        pay_micro=1,
        validators_ppm=0,
        deadline_ticks_min=2,
        deadline_ticks_max=20,
        evaluate_every=0,
        tolerance_nano=400,
    )
