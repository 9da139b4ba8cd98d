"""The laboratory: honest runs are what they would be without it, and cheats are seen for what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.wire.genesis import Parameters
from tests.attacks.attacks import ATTACKS, HONEST, Attack
from tests.attacks.command import summary, table, within
from tests.attacks.laboratory import AUDIT_PPM, Trial, run_trial
from tests.attacks.tasks import prepared

ROUNDS = 3
MINERS = 5  # two of whom attack
LONG = 16  # until both are found, where
OFTEN_PPM = 600_000  # so many are replayed
BOND_ROUNDS = Parameters().bond_rounds


def run(attack: Attack, rounds: int = ROUNDS, audit_ppm: int = AUDIT_PPM) -> Trial:
    return run_trial(prepared("digits", rounds, 1, MINERS), attack, MINERS, 1, audit_ppm)


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
    if attack.name in ("within the band", "skipped unseen"):
        assert found.outside == 0
    elif attack.vector is not HONEST.vector:
        assert found.outside == len(found.cheats_nano) > 0
    assert found.alarms == 0
    assert found.honest_slashed == 0


@pytest.mark.slow
def test_who_cheats_loses_its_bond_and_who_works_earns_each_round() -> None:
    found = run(ATTACKS["zero"], LONG, OFTEN_PPM)
    assert len(found.until_caught) == len(found.gains) == 2
    assert all(gain < -BOND_ROUNDS for gain in found.gains)  # and fees
    assert all(LONG - 2 < gain < LONG for gain in found.honest_gains)
    assert found.honest_slashed == 0


@pytest.mark.slow
def test_who_calls_the_honest_bad_pays_them_and_nobody_is_slashed() -> None:
    found = run(ATTACKS["lying auditor"], LONG, OFTEN_PPM)
    assert found.honest_slashed == 0
    assert found.drawn > 0
    assert found.auditor_gain < -BOND_ROUNDS
    assert max(found.honest_gains) > LONG


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lazy auditor", "shielded"])
def test_one_validator_alone_protects_nobody(name: str) -> None:
    found = run(ATTACKS[name], LONG, OFTEN_PPM)
    assert len(found.until_caught) == len(found.gains) == 2


CHEAP = Trial(0.9, 0.1, 4, honest_nano=(1, 3), honest_gains=(4.0,))
LOUD = Trial(0.8, 0.1, 4, (500, 9_000), 2, until_caught=(3, 1), gains=(-20.0, -21.0), honest_gains=(4.0,))


def test_a_table_has_a_line_for_each_attack() -> None:
    rows = [summary(HONEST, [CHEAP], [CHEAP]), summary(ATTACKS["zero"], [LOUD, LOUD], [CHEAP])]
    assert rows[1]["caught"] and not rows[0]["caught"]
    assert rows[1]["contributions_until_caught"] == 3
    assert table(rows)[2:] == [
        "| nobody | – | – | – | – | – | 0 | 0.900 | +0.000 |",
        "| zero | 4 of 4 | 500 to 9,000 | 4 of 4 | 1 to 3, mean 2.0 | -20.5 | 0 | 0.800 | -0.100 |",
    ]


def test_one_of_two_who_was_not_found_is_not_forgotten() -> None:
    half = replace(LOUD, until_caught=(50,))
    row = summary(ATTACKS["zero"], [half], [CHEAP])
    assert not row["caught"]
    assert within([row]) == {"cheating": 2, "caught": 1, "within_44": 0}
