"""The attacks themselves: that each is what its name says."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from potd.arithmetic.quantise import encode, payload_grid
from potd.trainer.data import Samples
from potd.trainer.layout import Floats, model_spec
from potd.trainer.replay import distance
from potd.trainer.weights import initial_weights
from potd.wire.tasks import EncodingSpec
from tests.attacks.attacks import ATTACKS, Attack, Known, Rig, alie_strength, with_pattern
from tests.attacks.tasks import fashion

SPEC = model_spec("mlp", (16, 8, 4))
RIG = Rig(SPEC, (4, 4), 4)
TOLERANCE_NANO = 1_000_000
ENCODING = EncodingSpec("int8", 64, -24, -4)


def batch(seed: int, samples: int = 32) -> Samples:
    chance = np.random.RandomState(seed)
    return Samples(chance.rand(samples, 16).astype(np.float32), chance.randint(0, 4, samples))


def known() -> Known:
    """The fourth of four who collude, after a round in which they worked."""
    weights = [initial_weights(SPEC, seed) for seed in range(7)]
    last = RIG.gradient(weights[1], batch(90))

    def group() -> tuple[Floats, ...]:
        return tuple(RIG.gradient(weights[0], batch(seed)) for seed in (1, 2, 3, 0))

    chance = np.random.RandomState(5)
    return Known(
        RIG,
        weights[0],
        batch(0),
        weights.__getitem__,
        last,
        batch(90),
        group,
        4,
        20,
        1 << 24,
        TOLERANCE_NANO,
        ENCODING,
        chance,
    )


def made(name: str) -> Floats:
    return ATTACKS[name].vector(known())


def norm(vector: Floats) -> float:
    return float(np.linalg.norm(vector))


@pytest.mark.parametrize(
    "attack",
    [one for one in ATTACKS.values() if one.auditor is None and one.name != "skipped unseen"],
    ids=lambda one: one.name,
)
def test_every_attack_commits_to_something_else_than_it_was_asked_for(attack: Attack) -> None:
    asked = known()
    vector = attack.vector(asked)
    assert vector.dtype == np.float32
    assert vector.shape == asked.honest.shape
    assert np.isfinite(vector).all()
    assert not np.array_equal(vector, asked.honest)


@pytest.mark.parametrize("name", ["idle noise", "constant"])
def test_who_does_not_work_commits_to_something_as_long_as_work_would_be(name: str) -> None:
    assert norm(made(name)) == pytest.approx(norm(known().honest), rel=1e-4)


def test_a_copy_is_its_leaders_gradient_and_noise_is_a_hundredth_of_it() -> None:
    copy = made("copied")
    assert np.array_equal(copy, known().group[0])
    assert norm(made("copied with noise") - copy) == pytest.approx(norm(copy) / 100, rel=1e-3)


def test_what_skipping_the_lowest_losses_leaves_out_is_their_gradient_alone() -> None:
    asked = known()
    lowest = np.argsort(RIG.losses(asked.weights, asked.batch))[:2]
    theirs = RIG.gradient(asked.weights, Samples(asked.batch.features[lowest], asked.batch.labels[lowest]))
    assert np.allclose(asked.honest - made("lowest losses skipped"), theirs * np.float32(2 / 32), atol=1e-6)


@pytest.mark.parametrize(("tolerance_nano", "skipped"), [(0, 0), (10**9, 16)])
def test_who_skips_unseen_skips_as_much_as_is_tolerated(tolerance_nano: int, skipped: int) -> None:
    asked = replace(known(), tolerance_nano=tolerance_nano)
    vector = ATTACKS["skipped unseen"].vector(asked)
    assert asked.skipped == skipped
    assert np.array_equal(vector, asked.honest) == (not skipped)


def test_the_least_precision_is_the_farthest_away() -> None:
    off = [norm(made(name) - known().honest) / norm(known().honest) for name in ("bf16", "TF32")]
    assert 1e-1 > off[0] > 4 * off[1] > 4e-6


def test_a_little_is_enough_is_as_much_as_its_paper_says() -> None:
    """Twenty workers, four of them corrupted: s = 7 supporters are needed, and 9 of 16 lie nearer to the mean."""
    assert alie_strength(20, 4) == pytest.approx(0.1573, abs=1e-4)
    seen = np.stack(known().group)
    assert np.allclose(made("ALIE z=1.5"), seen.mean(axis=0) - 1.5 * seen.std(axis=0), atol=1e-7)


def test_fang_goes_beyond_what_the_group_found_against_its_mean() -> None:
    seen = np.stack(known().group)
    mean, deviation = seen.mean(axis=0), seen.std(axis=0)
    off = (made("Fang") - mean) * -np.sign(mean)
    moved = deviation > 1e-6
    assert (off[moved] > 2.99 * deviation[moved]).all() and (off[moved] < 4.01 * deviation[moved]).all()


def test_who_stays_within_the_band_uses_what_is_tolerated_and_goes_against_its_gradient() -> None:
    asked = known()
    payload = encode(made("within the band"), payload_grid(ENCODING))
    far, wrong = distance(payload, asked.honest, asked.norm, 0)
    assert wrong == 0
    assert 0.45 * TOLERANCE_NANO < far <= 0.9 * TOLERANCE_NANO
    assert float(np.dot(made("within the band") - asked.honest, asked.honest)) < 0


def test_the_pattern_stands_in_the_last_corner_of_every_sample() -> None:
    images = with_pattern(batch(1), (4, 4)).features.reshape(-1, 4, 4)
    assert (images[:, 1:, 1:] == 1).all()
    assert np.array_equal(images[:, 0], batch(1).features.reshape(-1, 4, 4)[:, 0])


def test_fashion_is_read_from_the_files_that_debian_installs(tmp_path: Path) -> None:
    for kind, count in (("train", 6), ("t10k", 2)):
        images, labels = bytes(range(count * 4)), bytes(range(count))
        with gzip.open(tmp_path / f"{kind}-images-idx3-ubyte.gz", "wb") as file:
            file.write(b"".join(one.to_bytes(4, "big") for one in (0x803, count, 2, 2)) + images)
        with gzip.open(tmp_path / f"{kind}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(b"".join(one.to_bytes(4, "big") for one in (0x801, count)) + labels)
    manifest = fashion(tmp_path).manifest
    assert manifest.shape == (2, 2)
    assert [shard.samples for shard in (*manifest.training, *manifest.held_out)] == [6, 2]
