"""A mutant is a mistake at one named place, and is gone when the block ends."""

from __future__ import annotations

import pytest

from potd.consensus.quorum import Group
from potd.simulation.plots import SHARP
from tests.consensus.cluster import group
from tests.simulation.hunt import hunt
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, mistaken


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_every_mutant_changes_the_code_as_it_is_and_takes_it_back(mutant: Mutant) -> None:
    before = Group.quorum
    with mistaken(mutant):
        pass
    assert Group.quorum is before


def test_a_mistake_is_in_force_inside_the_block_only() -> None:
    [mutant] = [one for one in MUTANTS if one.name == "quorum-of-n-thirds"]
    with mistaken(mutant):
        assert group(5).quorum == 3
    assert group(5).quorum == 4


def test_names_are_one_each() -> None:
    assert len({one.name for one in MUTANTS}) == len(MUTANTS) >= 15


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("forged-proof-believed", 5),
        ("quorum-of-n-thirds", 0),
        ("certificate-on-f-plus-one", 8),
        ("recollection-skipped", 27),
        ("view-timer-without-a-quorum", 1),
    ],
)
def test_a_mistake_is_found_by_a_seed_that_shows_nothing_without_it(name: str, seed: int) -> None:
    """All the others are found by `scripts/sim --mutants`."""
    [mutant] = [one for one in MUTANTS if one.name == name]
    found = hunt(mutant, SHARP, seed, 1)
    assert found.seeds == 1, found.how
