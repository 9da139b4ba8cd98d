"""The optimiser's step on the agreed aggregate. Each line is one IEEE operation on float32, so that it has one result.

    v = mu * v + g        d = v (sgd) or g + mu * v (nesterov)        theta = theta - rate * d

No reduction, no fused multiply-add, no transcendental function: those change with the machine.
"""

from __future__ import annotations

import numpy as np

from potd.arithmetic.quantise import Blocks, Floats, floats_of_slice
from potd.wire.tasks import OptimiserSpec, TaskSpec


def rate_micro(spec: TaskSpec, round_: int) -> int:
    """The learning rate of a round, in millionths: the table's entries, stretched evenly over the task's rounds."""
    entries = spec.optimiser.rates_micro
    return entries[min(round_ * len(entries) // spec.rounds, len(entries) - 1)]


def from_micro(amount: int) -> np.float32:
    """An integer of millionths as float32: one conversion and one division, both correctly rounded."""
    return np.float32(amount) / np.float32(1_000_000)


def step(theta: Floats, momentum: Floats, gradient: Blocks, optimiser: OptimiserSpec, rate: np.float32) -> None:
    """Move `theta` and `momentum` [parameters] in place by one aggregate. Raises ValueError if theta leaves float32."""
    assert optimiser.kind in ("sgd", "nesterov")
    assert len(theta) == len(momentum) == len(gradient.codes)
    mu = from_micro(optimiser.momentum_micro)
    for part in gradient.grid.slices(len(theta)):
        weights, velocity = theta[part.elements], momentum[part.elements]
        g = np.empty(len(weights), np.float32)
        floats_of_slice(gradient, part, g)
        # Tiny momenta lose bits gradually, as IEEE 754 says; that is a result like any other.
        with np.errstate(under="ignore", over="ignore", invalid="ignore"):
            velocity *= mu
            velocity += g
            if optimiser.kind == "nesterov":
                direction = velocity * mu
                direction += g
            else:
                direction = velocity.copy()
            direction *= rate
            weights -= direction
        if not np.isfinite(weights).all():
            raise ValueError("the step leaves the range of float32")
