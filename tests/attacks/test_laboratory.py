"""The laboratory: honest runs are what they would be without it, and cheats are seen for what they are."""

from __future__ import annotations

import pytest

from tests.attacks.attacks import ATTACKS, HONEST, Attack
from tests.attacks.command import summary, table
from tests.attacks.laboratory import Trial, run_trial
from tests.attacks.tasks import prepared

ROUNDS = 4
MINERS = 5  # two of whom attack


def run(attack: Attack, rounds: int = ROUNDS) -> Trial:
    return run_trial(prepared("digits", rounds, 1, MINERS), attack, MINERS, 1)


def test_who_works_is_never_beyond_the_tolerance_of_a_referee() -> None:
    found = run(HONEST)
    assert found.counted_rounds == ROUNDS
    assert len(found.honest_nano) >= 2 * (ROUNDS - 1)
    assert found.alarms == 0
    assert found.cheats_nano == ()


def test_one_seed_is_one_run() -> None:
    assert run(ATTACKS["idle noise"], 2) == run(ATTACKS["idle noise"], 2)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda one: one.name)
def test_every_contribution_of_an_attack_is_seen_for_what_it_is(attack: Attack) -> None:
    found = run(attack)
    if attack.vector is not HONEST.vector:
        assert found.outside == len(found.cheats_nano) > 0
    assert found.alarms == 0


def test_a_table_has_a_line_for_each_attack() -> None:
    quiet = Trial(0.9, 0.1, 4, (), 0, (1, 3), 0)
    loud = Trial(0.8, 0.1, 4, (500, 9_000), 2, (), 0)
    rows = [summary(HONEST, [quiet], [quiet]), summary(ATTACKS["zero"], [loud, loud], [quiet])]
    assert rows[1]["caught"] and not rows[0]["caught"]
    assert table(rows)[2:] == [
        "| nobody | – | – | 0.900 | +0.000 |",
        "| zero | 4 of 4 | 500 to 9,000 | 0.800 | -0.100 |",
    ]
