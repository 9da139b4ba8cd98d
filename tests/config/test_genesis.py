"""genesis.toml."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.config.genesis import genesis_text, parse_genesis, read_genesis, write_genesis
from potd.config.home import public_key
from potd.config.mistakes import ConfigError
from potd.wire.genesis import PROTOCOL, SUPPLY_MAX, Allotment, Genesis, Parameters, genesis_digest

KEYS = tuple(sorted(public_key(bytes([number]) * 32) for number in range(4)))
GENESIS = Genesis("rigs", PROTOCOL, 1_700_000_000, KEYS, tuple(Allotment(key, 10**12) for key in KEYS), Parameters())


@given(st.text(min_size=1, max_size=16), st.lists(st.integers(0, SUPPLY_MAX // 4), max_size=4))
def test_a_genesis_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, sums: list[int]
) -> None:
    balances = tuple(Allotment(key, amount) for key, amount in zip(KEYS, sums, strict=False))
    genesis = Genesis(name, PROTOCOL, 1, KEYS, balances, Parameters(patience_ticks=7))
    path = tmp_path_factory.mktemp("genesis") / "genesis.toml"
    write_genesis(path, genesis)
    assert read_genesis(path) == genesis


def test_the_text_says_its_digest() -> None:
    assert genesis_text(GENESIS).startswith(f"# Network {genesis_digest(GENESIS).hex()}\n")


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "genesis.toml"
    first = KEYS[0].hex()
    path.write_text(
        f"""
        name = "rigs"
        protokol = 1
        protocol = 9
        validators = ["{first}", "{first}", "abc", 7]
        balances = [
            {{ owner_key = "{first}", amount_micro = -1 }},
            {{ owner_key = "{first}", amount = 5, amount_micro = true }},
        ]
        [parameters]
        patience_ticks = 1
        reveal_tick = 5
        """
    )
    with pytest.raises(ConfigError) as caught:
        read_genesis(path)
    said = "\n".join(problem.removeprefix(f"{path}: ") for problem in caught.value.problems)
    for expected in (
        "unknown key 'protokol'; did you mean 'protocol'?",
        "'created_unix' is missing",
        "validator 2: " + first + " stands here twice",
        "validator 3: 'abc' is not a public key",
        "validator 4: 7 is not a public key",
        "balance 1: 'amount_micro' is -1",
        "balance 2: unknown key 'amount'; did you mean 'amount_micro'?",
        "balance 2: 'amount_micro' is True",
        f"balance 2: {first} has one already",
        "parameters: unknown key 'reveal_tick'; did you mean 'reveal_ticks'?",
        "parameters: patience_ticks is 1, not in 2..72000",
        "parameters: 'misses_max' is missing",
        f"'protocol' is 9, and this release speaks {PROTOCOL}",
    ):
        assert expected in said, said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "Genesis.name is 0, not in 1..64"),
        ({"name": 7}, "Genesis.name is int, not str"),
        ({"created_unix": -1}, "Genesis.created_unix is -1"),
        ({"validators": []}, "at least one validator"),
        ({"validators": "abc"}, "not a list"),
        ({"balances": [1]}, "not a list of tables"),
        ({"parameters": 1}, "not a table"),
        ({"balances": [{"owner_key": k.hex(), "amount_micro": SUPPLY_MAX} for k in KEYS]}, "add up to"),
    ],
)
def test_what_no_network_can_be_is_refused(change: dict[str, object], reason: str) -> None:
    import tomllib

    genesis, problems = parse_genesis(tomllib.loads(genesis_text(GENESIS)) | change)
    assert genesis is None
    assert any(reason in problem for problem in problems), problems


@pytest.mark.parametrize("data", [b"\xff", b"a = ", b"a = 1\na = 2", b"x = " + b"[" * 5000])
def test_what_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "genesis.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="not TOML|not UTF-8"):
        read_genesis(path)


def test_a_network_whose_new_view_would_not_fit_a_message_is_refused() -> None:
    keys = tuple(bytes([1, number // 256, number % 256]) + bytes(29) for number in range(100))
    problems = parse_genesis(tomllib.loads(genesis_text(replace(GENESIS, validators=keys))))[1]
    assert problems == [
        "a new view by 100 validators with 'window_heights' 16 would not fit a message: choose a smaller window"
    ]
    small = replace(GENESIS, validators=keys, parameters=replace(GENESIS.parameters, window_heights=4))
    assert parse_genesis(tomllib.loads(genesis_text(small)))[1] == []
