"""Looking at seats, and asking for what changes them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from potd.config.home import Home, public_key, read_key, write_key
from tests.cli.conftest import Command
from tests.cli.daemon_double import daemon

ONE, TWO, THREE = "aa" * 32, "ab" * 32, "cc" * 32


def seat(account: str, **changes: Any) -> dict[str, Any]:
    return {
        "account": account,
        "key": account[::-1],
        "bond_micro": 100_000_000_000,
        "since_height": 0,
        "resigning": False,
        "guilty": False,
        "key_next": None,
        "opposers": [],
        "mine": False,
        **changes,
    }


SEATS: dict[str, Any] = {
    "ok": True,
    "height": 40,
    "quorum": 2,
    "seat_bond_micro": 100_000_000_000,
    "validators": [
        seat(ONE, mine=True, key_next="dd" * 32),
        seat(TWO, opposers=[ONE], since_height=12),
    ],
    "candidates": [
        {
            "account": THREE,
            "key": "ee" * 32,
            "bond_micro": 5,
            "since_height": 30,
            "backers": [ONE],
            "mine": False,
        }
    ],
    "change": {
        "height": 56,
        "validators": [{"account": ONE, "key": "dd" * 32}, {"account": THREE, "key": "ee" * 32}],
    },
    "unbonding": {"amount_micro": 2_500_000, "due_height": 900},
}


def test_seats_candidates_and_the_change_to_come_are_listed(potd: Command, home: Path) -> None:
    with daemon(home, {"validators": [SEATS]}):
        result = potd("validators", "--home", home)
        assert json.loads(potd("validators", "--home", home, "--json").output) == {
            name: value for name, value in SEATS.items() if name != "ok"
        }
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "validator  key          bond  since  remarks",
        "aaaaaaaa   aaaaaaaa  100,000      0  this node, asks for key dddddddd",
        "abababab   babababa  100,000     12  opposed by 1 of 2",
        "",
        "candidate  key           bond  since  backed by",
        "cccccccc   eeeeeeee  0.000005     30     1 of 2",
        "",
        "height          40",
        "bond of a seat  100,000",
        "change          after height 56: without abababab, with cccccccc, aaaaaaaa with key dddddddd",
        "locked          2.5, back at height 900",
    ]


def test_voices_name_an_account_by_its_beginning(potd: Command, home: Path) -> None:
    yes: list[dict[str, object]] = [{"ok": True, "height": 7}]
    with daemon(home, {"validators": [SEATS], "back": yes, "stand": yes, "resign": yes}) as asked:
        assert (
            potd("validators", "back", "cccc", "--home", home).output
            == "cccccccc should have a seat: said at height 7\n"
        )
        assert potd("validators", "oppose", ONE, "--home", home).exit_code == 0
        assert potd("validators", "stand", "--home", home).output == "standing for a seat at height 7\n"
        assert potd("validators", "resign", "--home", home).output == "resigned at height 7\n"
        assert potd("validators", "back", "ffff", "--home", home).exit_code == 4
        assert potd("validators", "back", "aa", "--home", home).exit_code == 4
    assert [one for one in asked if one["command"] != "validators"] == [
        {"command": "back", "patience_s": 59.0, "subject": THREE, "seated": True},
        {"command": "back", "patience_s": 59.0, "subject": ONE, "seated": False},
        {"command": "stand", "patience_s": 59.0},
        {"command": "resign", "patience_s": 59.0},
    ]


def test_a_beginning_that_fits_several_is_refused(potd: Command, home: Path) -> None:
    alike = SEATS | {"candidates": [SEATS["candidates"][0] | {"account": "aaaa" + "0" * 60}]}
    with daemon(home, {"validators": [alike]}) as asked:
        result = potd("validators", "back", "aaaa", "--home", home)
    assert result.exit_code == 2
    assert "give more digits" in result.stderr
    assert len(asked) == 1


def test_a_rotation_makes_the_next_key_once_and_never_over_another(potd: Command, home: Path) -> None:
    place = Home(home)
    write_key(place.key, bytes(32))
    with daemon(home, {"rotate": [{"ok": True, "key": "ee" * 32, "height": 7}]}) as asked:
        result = potd("validators", "rotate", "--home", home)
        first = read_key(place.key_next)
        assert potd("validators", "rotate", "--home", home).exit_code == 0
    assert result.exit_code == 0, result.output
    assert str(place.key_next) in result.output
    assert "goes on with it by itself" in result.output
    assert read_key(place.key_next) == first
    assert public_key(first) != public_key(bytes(32))
    assert stat.S_IMODE(place.key_next.stat().st_mode) == 0o600
    assert read_key(place.key) == bytes(32)
    assert [one["command"] for one in asked] == ["rotate", "rotate"]


def test_a_rotation_needs_a_home(potd: Command, home: Path) -> None:
    result = potd("validators", "rotate", "--home", home)
    assert result.exit_code == 1
    assert list(home.iterdir()) == []
