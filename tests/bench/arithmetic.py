"""What exactness costs beside a plain float32 mean, and a robust rule beside the exact one: processor time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import process_time

import numpy as np

from potd.arithmetic.aggregate import accumulate, mean, zero_sums
from potd.arithmetic.distances import norm_squared
from potd.arithmetic.optimise import step
from potd.arithmetic.quantise import decode_payload, encode_payload, to_floats
from potd.arithmetic.robust import Contribution, aggregate, clip_weights, shares
from potd.wire.ids import digest
from potd.wire.rules import CLIP, MEAN
from potd.wire.tasks import EncodingSpec, OptimiserSpec, RuleSpec

Figures = dict[str, float | int]

RULES = {  # one of each kind
    "mean": MEAN,
    "clip": CLIP,
    "trimmed": RuleSpec("trimmed", 200_000, 0, 0, 1),
    "median": RuleSpec("median", 0, 0, 0, 1),
    "centred": RuleSpec("centred", 0, 2_000, 3, 1),
    "krum": RuleSpec("krum", 200_000, 0, 0, 1),
    "multi-krum": RuleSpec("multi-krum", 200_000, 0, 0, 1),
    "krum-in-buckets": RuleSpec("krum", 200_000, 0, 0, 4),
}


def fastest(work: Callable[[], object], repeats: int) -> float:
    """The least of the processor times taken, in milliseconds: others are at work on the same machine."""
    times = []
    for _ in range(repeats):
        began = process_time()
        work()
        times.append(process_time() - began)
    return min(times) * 1000


def steps(parameters: int, miners: int, repeats: int, seed: int) -> Figures:
    """What exactness costs: each step of an aggregation, beside a plain float32 mean of the same vectors."""
    encoding = EncodingSpec("int8", 256, -28, -8)
    chance = np.random.default_rng(seed)
    vectors = [chance.standard_normal(parameters, np.float32) * np.float32(1e-3) for _ in range(miners)]
    payloads = [encode_payload(vector, encoding) for vector in vectors]
    contributions = [decode_payload(payload, parameters, encoding) for payload in payloads]
    factors, divisor = shares([1] * miners, [65_536] * miners)
    clipped, clipped_divisor = shares([1] * miners, [65_536 - index for index in range(miners)])
    sums = zero_sums(parameters)
    accumulate(sums, contributions, factors)
    average = mean(sums, divisor, encoding)
    theta, momentum, room = (np.zeros(parameters, np.float32) for _ in range(3))
    spread = sums % (1 << 40)
    optimiser = OptimiserSpec("nesterov", 900_000, (1,))

    def plain_mean() -> None:
        total = vectors[0].copy()
        for vector in vectors[1:]:
            total += vector
        total /= np.float32(miners)

    def plain_step() -> None:
        np.multiply(momentum, np.float32(0.9), out=momentum)
        np.add(momentum, vectors[0], out=momentum)
        np.multiply(momentum, np.float32(0.9), out=room)
        np.add(room, vectors[0], out=room)
        np.multiply(room, np.float32(0.1), out=room)
        np.subtract(theta, room, out=theta)

    milliseconds = {
        "plain_mean": fastest(plain_mean, repeats),
        "plain_step": fastest(plain_step, repeats),
        "quantise_all": fastest(lambda: [encode_payload(vector, encoding) for vector in vectors], repeats),
        "decode_all": fastest(lambda: [decode_payload(one, parameters, encoding) for one in payloads], repeats),
        "norms_all": fastest(
            lambda: clip_weights([norm_squared(one) for one in contributions], [1] * miners, 2000), repeats
        ),
        "accumulate_mean": fastest(lambda: accumulate(sums, contributions, factors), repeats),
        "accumulate_clip": fastest(lambda: accumulate(sums, contributions, clipped), repeats),
        "requantise": fastest(lambda: mean(spread, 3 * clipped_divisor, encoding), repeats),
        "dequantise": fastest(lambda: to_floats(average), repeats),
        "step": fastest(lambda: step(theta, momentum, average, optimiser, np.float32(0.1)), repeats),
    }
    report: Figures = {"parameters": parameters, "miners": miners}
    for name, taken in milliseconds.items():
        report[f"{name}_ms"] = round(taken, 3)
    shared = sum(milliseconds[name] for name in ("decode_all", "requantise", "step"))
    plain = milliseconds["plain_mean"] + milliseconds["plain_step"]
    report["mean_ratio"] = round((shared + milliseconds["accumulate_mean"]) / plain, 2)
    report["clip_ratio"] = round((shared + milliseconds["accumulate_clip"] + milliseconds["norms_all"]) / plain, 2)
    report["quantise_ratio"] = round(milliseconds["quantise_all"] / milliseconds["plain_mean"], 2)
    return report


def rules(parameters: int, miners: int, repeats: int, seed: int) -> Figures:
    """What a robust rule costs, beside the exact mean of the same contributions in the same run."""
    encoding = EncodingSpec("int8", 256, -28, -8)
    chance = np.random.default_rng(seed)
    common = chance.standard_normal(parameters, np.float32) * np.float32(1e-3)
    contributions, unequal = [], []
    for miner in range(miners):
        vector = common + chance.standard_normal(parameters, np.float32) * np.float32(1e-3)
        vector *= np.float32(10 if miner % 5 == 4 else 1)  # a fifth has to be clipped
        blocks = decode_payload(encode_payload(vector, encoding), parameters, encoding)
        contributions.append(Contribution(blocks, 1, digest("place", bytes([miner]))))
        unequal.append(Contribution(blocks, 1 + miner % 3, digest("place", bytes([miner]))))
    report: Figures = {"parameters": parameters, "miners": miners}
    milliseconds = {
        name: fastest(partial(aggregate, contributions, rule, encoding), repeats) for name, rule in RULES.items()
    }
    milliseconds["trimmed-unequal-units"] = fastest(lambda: aggregate(unequal, RULES["trimmed"], encoding), repeats)
    for name, taken in milliseconds.items():
        report[f"{name}_ms"] = round(taken, 1)
        report[f"{name}_ratio"] = round(taken / milliseconds["mean"], 2)
    return report
