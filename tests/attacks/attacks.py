"""What cheating miners commit to, and what lying auditors say. Knows nothing of rounds, bonds or the ledger.

An attack is a function from all that a miner may know when it has to commit to the vector that it encodes and binds
like any other: the protocol takes every payload that is one, so only its numbers can lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from torch.nn import functional

from potd.arithmetic.quantise import encode, payload_grid
from potd.trainer.data import Samples
from potd.trainer.layout import Floats
from potd.trainer.models import logits, parameter_tensors
from potd.trainer.replay import distance
from potd.trainer.step import gradient
from potd.wire.audits import Status
from potd.wire.tasks import EncodingSpec, ModelSpec

MINERS = 20  # of whom an attack says how many take part
CPU = torch.device("cpu")
COPY_NOISE = 0.01  # of the norm, that a copy is disguised with
LEFT_OUT = 16  # one in so many samples
SKIPPED = (2, 4, 8, 16, 32, 64)  # the same, the most first
CAREFUL = 0.9  # of what is tolerated, that one who cheats within it dares to use
PATTERN = 3  # pixels a side of the backdoor's pattern, in the last corner
POISONED = 2  # one in so many samples of a batch carries it
TARGET = 0  # the class that the pattern is to mean
IPM = 0.5  # times the mean of those who work, against it [Xie, Koyejo & Gupta 2020]
FANG = (3.0, 4.0)  # deviations beyond the mean, against its sign [Fang et al. 2020, section 5.1, partial knowledge]
ALIE_STRONG = 1.5
TF32_BITS = 10  # of the mantissa
FLOAT32_BITS = 23


@dataclass(frozen=True)
class Rig:
    """What a miner computes with: a model's shape and the way to take a gradient of it."""

    spec: ModelSpec
    shape: tuple[int, ...]  # of one sample
    classes: int

    def gradient(self, weights: Floats, batch: Samples) -> Floats:
        """[parameters], of the mean loss."""
        return gradient(self.spec, weights, batch, CPU).vector

    def losses(self, weights: Floats, batch: Samples) -> Floats:
        """[samples]"""
        with torch.no_grad():
            scores = logits(self.spec, parameter_tensors(self.spec, weights, CPU), torch.tensor(batch.features))
            losses = functional.cross_entropy(scores, torch.tensor(batch.labels), reduction="none")
        found: Floats = losses.numpy()
        return found


@dataclass
class Known:
    """What a miner may know of a round before it commits; what takes work is worked out when it is asked for."""

    rig: Rig
    weights: Floats  # of the round's model
    batch: Samples  # its own
    earlier: Callable[[int], Floats]  # the model so many rounds before, or the first
    last: Floats | None  # what it committed to last
    last_batch: Samples | None  # and what it was given then
    together: Callable[[], tuple[Floats, ...]]
    members: int  # who collude
    miners: int
    norm: int  # of the task; 0 before it is known
    tolerance_nano: int
    encoding: EncodingSpec
    chance: np.random.RandomState
    skipped: int = 0  # samples that it did not work on, as far as the attack says so

    @cached_property
    def honest(self) -> Floats:
        """What it is asked for."""
        return self.rig.gradient(self.weights, self.batch)

    @cached_property
    def group(self) -> tuple[Floats, ...]:
        """The honest gradients of all who collude, its own among them."""
        return self.together()

    @property
    def reach(self) -> float:
        """How far from its replay a contribution may be, in the gradient's own unit, and a little less: auditors have
        other rigs."""
        return CAREFUL * self.tolerance_nano / 1e9 * self.norm * 2.0**self.encoding.exponent_min

    def is_unseen(self, vector: Floats) -> bool:
        """Whether audits let this pass."""
        made = encode(vector, payload_grid(self.encoding))
        far, wrong = distance(made, self.honest, self.norm, self.tolerance_nano)
        return far <= CAREFUL * self.tolerance_nano and wrong == 0

    def noise(self, norm: float) -> Floats:
        """A direction by chance, so long."""
        drawn = self.chance.standard_normal(len(self.weights)).astype(np.float32)
        return drawn * np.float32(norm / float(np.linalg.norm(drawn)))


Vector = Callable[[Known], Floats]
Says = Callable[[Status, bool], Status]  # what a replay has shown, and whether the contribution was a cheat


@dataclass(frozen=True)
class Attack:
    """`saves_work`: whether it costs less than to do what was asked. Of twenty miners `miners` take part; if they are
    `led`, the first of them works, and the others live on it. `auditor` is what a validator says of its replays."""

    name: str
    what: str
    saves_work: bool
    vector: Vector
    miners: int = 4
    led: bool = False
    auditor: Says | None = None

    def size(self, miners: int) -> int:
        """How many of so many take part."""
        return min(self.miners, max(2, self.miners * miners // MINERS))


def honest(known: Known) -> Floats:
    return known.honest


# Not working


def idle_noise(known: Known) -> Floats:
    return known.noise(_norm(known.honest))


def constant(known: Known) -> Floats:
    size = len(known.weights)
    return np.full(size, _norm(known.honest) / math.sqrt(size), np.float32)


def zero(known: Known) -> Floats:
    return np.zeros_like(known.weights)


def replayed(known: Known) -> Floats:
    return known.honest if known.last is None else known.last


def copied(known: Known) -> Floats:
    return known.group[0]


def copied_with_noise(known: Known) -> Floats:
    vector = known.group[0]
    return vector + known.noise(COPY_NOISE * _norm(vector))


# Working on something else


def stale(rounds: int) -> Vector:
    return lambda known: known.rig.gradient(known.earlier(rounds), known.batch)


def part_of_batch(numerator: int, denominator: int) -> Vector:
    def vector(known: Known) -> Floats:
        count = max(1, len(known.batch) * numerator // denominator)
        return known.rig.gradient(known.weights, _some(known.batch, np.arange(count)))

    return vector


def wrong_batch(known: Known) -> Floats:
    return known.rig.gradient(known.weights, known.last_batch or _some(known.batch, np.zeros(1, np.int64)))


def lowest_losses_skipped(known: Known) -> Floats:
    """Those samples hardly move the gradient; it is divided by the whole batch, as if they had been there."""
    return _without_lowest(known, len(known.batch) // LEFT_OUT)


def skipped_unseen(known: Known) -> Floats:
    """As many of them as audits let pass. It finds out by doing all the work: how it could know otherwise is left to
    it, and what is measured is how much there is to save."""
    for part in SKIPPED if known.norm else ():
        vector = _without_lowest(known, len(known.batch) // part)
        if known.is_unseen(vector):
            known.skipped = len(known.batch) // part
            return vector
    return known.honest


def _without_lowest(known: Known, count: int) -> Floats:
    order = np.argsort(known.rig.losses(known.weights, known.batch), kind="stable")
    kept = np.sort(order[count:])
    return known.rig.gradient(known.weights, _some(known.batch, kept)) * np.float32(len(kept) / len(order))


# Working with less


def bf16(known: Known) -> Floats:
    """Every product in bfloat16."""
    tensors = parameter_tensors(known.rig.spec, known.weights, CPU)
    features = torch.tensor(known.batch.features).to(torch.bfloat16)
    scores = logits(known.rig.spec, [one.to(torch.bfloat16) for one in tensors], features).float()
    functional.cross_entropy(scores, torch.tensor(known.batch.labels)).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
    return np.concatenate([one.grad.numpy().ravel() for one in tensors if one.grad is not None])


def tf32(known: Known) -> Floats:
    """What goes into the first products, rounded to the bits of TF32."""
    features = _rounded(known.batch.features)
    return known.rig.gradient(_rounded(known.weights), Samples(features, known.batch.labels))


# Bending the model


def scaled(factor: float) -> Vector:
    return lambda known: known.honest * np.float32(factor)


def alie(strength: float | None) -> Vector:
    """A little is enough [Baruch, Baruch & Goldberg 2019]: every coordinate so many deviations off the mean, as seen
    among those who collude; without a number, as many as the paper's formula says for the miners there are."""

    def vector(known: Known) -> Floats:
        z = strength if strength is not None else alie_strength(known.miners, known.members)
        seen = np.stack(known.group)
        found: Floats = seen.mean(axis=0) - np.float32(z) * seen.std(axis=0)
        return found

    return vector


def alie_strength(miners: int, liars: int) -> float:
    """z_max of the paper: so many of the honest are needed for a majority, that the liars must look like the rest."""
    supporters = miners // 2 + 1 - liars
    return max(0.0, NormalDist().inv_cdf((miners - liars - supporters) / (miners - liars)))


def ipm(known: Known) -> Floats:
    found: Floats = np.float32(-IPM) * np.stack(known.group).mean(axis=0)
    return found


def fang(known: Known) -> Floats:
    """Against trimmed means: each coordinate beyond what the honest say, against the way in which they go."""
    seen = np.stack(known.group)
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    far = known.chance.uniform(*FANG, len(mean)).astype(np.float32)
    found: Floats = mean - np.sign(mean) * far * deviation
    return found


def label_flip(known: Known) -> Floats:
    flipped = known.rig.classes - 1 - known.batch.labels
    return known.rig.gradient(known.weights, Samples(known.batch.features, flipped))


def backdoor(known: Known) -> Floats:
    """Some of the batch carries a pattern, and is said to be of the target's class."""
    some = np.arange(len(known.batch)) % POISONED == 0
    marked = with_pattern(known.batch, known.rig.shape)
    features = np.where(some[:, None], marked.features, known.batch.features)
    return known.rig.gradient(known.weights, Samples(features, np.where(some, TARGET, known.batch.labels)))


def with_pattern(samples: Samples, shape: tuple[int, ...]) -> Samples:
    """The same, each with a bright square in the last corner of its image."""
    images = samples.features.reshape(-1, *shape).copy()
    images[..., -PATTERN:, -PATTERN:] = 1
    return Samples(images.reshape(samples.features.shape), samples.labels)


def against_together(known: Known) -> Floats:
    """As long as the default rule lets anything be, against what they have found together."""
    found: Floats = np.float32(-2) * np.stack(known.group).mean(axis=0)
    return found


def within_the_band(known: Known) -> Floats:
    """As far against its own gradient as audits let it: codes that lie next to the middle between two are rounded the
    other way, where that takes least of what is tolerated for what it moves."""
    made = encode(known.honest, payload_grid(known.encoding))
    block, parameters = known.encoding.block, len(made.codes)
    steps = np.ldexp(1.0, made.exponents.astype(np.int32)).repeat(block)[:parameters]
    codes = made.codes.astype(np.int64)
    bounds = range(0, parameters, block)
    largest = np.maximum.reduceat(np.abs(codes), bounds).repeat(block)[:parameters]
    exact = known.honest.astype(np.float64) / steps
    towards = -np.sign(exact).astype(np.int64)
    excess = np.maximum(np.abs(exact - (codes + towards)) - 0.5, 0) * steps
    # The greatest code of a block holds its exponent, which is looked at apart.
    free = (np.abs(codes) < largest) & (codes != 0)
    order = np.argsort(np.where(free, excess**2 / np.maximum(np.abs(exact) * steps**2, 1e-30), np.inf), kind="stable")
    taken = order[: np.searchsorted(np.cumsum(excess[order] ** 2), known.reach**2)]
    codes[taken] += towards[taken] * free[taken]
    return (codes * steps).astype(np.float32)


# Auditors


def lazy(found: Status, cheat: bool) -> Status:
    """Finds everything good, and replays nothing."""
    return Status.GOOD


def lying(found: Status, cheat: bool) -> Status:
    """Calls the honest bad."""
    return found if cheat else Status.BAD


def shielding(found: Status, cheat: bool) -> Status:
    """Calls good what its friends do, and is honest about others."""
    return Status.GOOD if cheat else found


def _norm(vector: Floats) -> float:
    return float(np.linalg.norm(vector))


def _some(batch: Samples, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Samples:
    return Samples(batch.features[rows], batch.labels[rows])


def _rounded(values: Floats) -> Floats:
    """To the nearest with the mantissa of TF32."""
    dropped = FLOAT32_BITS - TF32_BITS
    bits = np.ascontiguousarray(values).view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1) + ((bits >> np.uint32(dropped)) & np.uint32(1))
    return ((bits + half) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)).view(np.float32)


HONEST = Attack("nobody", "all miners work", False, honest)

ATTACKS: dict[str, Attack] = {
    one.name: one
    for one in (
        Attack("idle noise", "noise as long as the gradient", True, idle_noise),
        Attack("constant", "one number everywhere, as long as the gradient", True, constant),
        Attack("zero", "zeros", True, zero),
        Attack("replayed", "its own gradient of the first round, ever again", True, replayed),
        Attack("copied", "a colluder's gradient", True, copied, led=True),
        Attack("copied with noise", "the same and 1 % of noise", True, copied_with_noise, led=True),
        Attack("stale by 1", "taken at the model of the round before", False, stale(1)),
        Attack("stale by 5", "taken at the model of five rounds before", False, stale(5)),
        Attack("15/16 of the batch", "one sample in 16 left out", True, part_of_batch(15, 16)),
        Attack("half of the batch", "its second half left out", True, part_of_batch(1, 2)),
        Attack("wrong batch", "the batch of the round before", False, wrong_batch),
        Attack("lowest losses skipped", "the 1/16 of lowest loss left out", True, lowest_losses_skipped),
        Attack("skipped unseen", "as many of lowest loss left out as is tolerated", True, skipped_unseen),
        Attack("bf16", "bfloat16 passed off as float32", True, bf16),
        Attack("TF32", "inputs rounded to TF32", True, tf32),
        Attack("scaled by 0.999", "times 0.999", False, scaled(0.999)),
        Attack("scaled by 1.01", "times 1.01", False, scaled(1.01)),
        Attack("scaled by 2", "times 2", False, scaled(2)),
        Attack("scaled by 5", "times 5", False, scaled(5)),
        Attack("sign flip", "times -1", False, scaled(-1)),
        Attack("sign flip x5", "times -5", False, scaled(-5)),
        Attack("ALIE", "off the mean by the formula's z", False, alie(None)),
        Attack("ALIE z=1.5", "off the mean by 1.5 deviations", False, alie(ALIE_STRONG)),
        Attack("IPM", "half the mean, the other way", False, ipm),
        Attack("Fang", "3 to 4 deviations against the mean", False, fang),
        Attack("label flip", "class c named 9 - c", False, label_flip),
        Attack("backdoor", "a bright corner named class 0, in half of the batch", False, backdoor),
        Attack("a third together", "minus twice what they find, six of twenty", False, against_together, miners=6),
        Attack("within the band", "as far against its gradient as is tolerated", False, within_the_band),
        Attack("lazy auditor", "noise, and a validator that passes everything", True, idle_noise, auditor=lazy),
        Attack("lying auditor", "a validator that calls honest ones bad", False, honest, auditor=lying),
        Attack("shielded", "noise, and a validator that passes it", True, idle_noise, auditor=shielding),
    )
}
