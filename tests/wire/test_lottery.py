"""The arithmetic of detection: how often honest validators look, and how long a cheat lives."""

from __future__ import annotations

from itertools import count

import pytest

from potd.wire.audits import PPM, is_drawn, lot_ppm
from potd.wire.ids import digest


@pytest.mark.parametrize("validators", [1, 2, 4, 7, 31, 100])
@pytest.mark.parametrize("audit_ppm", [1, 100_000, 500_000, 999_999])
def test_the_honest_alone_look_with_the_chance_that_is_asked_for_and_no_less_would_do(
    validators: int, audit_ppm: int
) -> None:
    honest, chance = validators - (validators - 1) // 3, lot_ppm(audit_ppm, validators)

    def missed(ppm: int) -> int:
        return int((PPM - ppm) ** honest)

    assert missed(chance) <= (PPM - audit_ppm) * PPM ** (honest - 1) < missed(chance - 1)


def test_nobody_looks_or_everybody_does_at_the_ends() -> None:
    assert [lot_ppm(0, one) for one in (1, 4, 31)] == [0, 0, 0]
    assert [lot_ppm(PPM, one) for one in (1, 4, 31)] == [PPM] * 3


@pytest.mark.parametrize(("part", "validators"), [(1, 4), (2, 4), (1, 31)])
def test_a_cheat_lives_for_so_many_rounds_as_the_formula_says(part: int, validators: int) -> None:
    """Of 1,500 miners that cheat in one round of `part`, the part that is not drawn in T rounds by any honest validator
    is (1 - p / part)^T, within four deviations."""
    ppm, honest, miners = lot_ppm(100_000, validators), validators - (validators - 1) // 3, 1_500
    lived = []
    for index in range(miners):
        miner = digest("miner", index.to_bytes(4, "big"))
        for number in count():
            seed, cheats = digest("seed", number.to_bytes(4, "big")), (number + index) % part == 0
            links = (digest("link", bytes([who]), number.to_bytes(4, "big")) for who in range(honest))
            if cheats and any(is_drawn(link, seed, miner, ppm) for link in links):
                lived.append(number)
                break
    for rounds in (10, 20, 44):
        escapes = 0.9 ** (rounds / part)
        found = sum(one >= rounds for one in lived) / miners
        assert abs(found - escapes) < 4 * (escapes * (1 - escapes) / miners) ** 0.5 + 0.1 * (part - 1) * escapes
