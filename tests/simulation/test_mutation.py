"""A mutant is a mistake at one named place, and is gone when the block ends."""

from __future__ import annotations

import pytest

from potd.consensus.quorum import Group
from tests.consensus.cluster import group
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
