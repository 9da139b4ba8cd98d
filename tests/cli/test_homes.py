"""Making homes, keys and networks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from potd.cli import main
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_key, write_key
from potd.config.settings import load_config
from potd.wire.genesis import Allotment, genesis_digest
from potd.wire.ids import account_id
from tests.cli.conftest import Command

KEYS = [public_key(bytes([number]) * 32).hex() for number in range(4)]


def network(potd: Command, folder: Path) -> Path:
    path = folder / "genesis.toml"
    (folder / "keys.txt").write_text("".join(f"{key}  # rig\n" for key in KEYS[1:]))
    words = ["--name", "rigs", "--validator", KEYS[0], "--validator", folder / "keys.txt"]
    result = potd("genesis", *words, "--balance", f"{KEYS[3]}=2.5", "--parameter", "patience_ticks=40", "-o", path)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == genesis_digest(read_genesis(path)).hex()
    return path


def test_a_network_is_made_from_public_keys(potd: Command, tmp_path: Path) -> None:
    made = read_genesis(network(potd, tmp_path))
    assert [key.hex() for key in made.validators] == sorted(KEYS)
    assert made.balances == (Allotment(bytes.fromhex(KEYS[3]), 2_500_000),)
    assert (made.name, made.parameters.patience_ticks) == ("rigs", 40)


def test_a_genesis_is_never_written_over(potd: Command, tmp_path: Path) -> None:
    path = network(potd, tmp_path)
    before = path.read_bytes()
    assert potd("genesis", "--name", "x", "--validator", KEYS[0], "-o", path).exit_code == 1
    assert path.read_bytes() == before
    assert potd("genesis", "--check", path).output.strip() == genesis_digest(read_genesis(path)).hex()


def test_every_mistake_in_a_network_is_said_and_nothing_written(potd: Command, tmp_path: Path) -> None:
    path = tmp_path / "genesis.toml"
    words = ["--validator", "abc", "--balance", "abc=1", "--balance", f"{KEYS[0]}=1.1234567", "--parameter", "x=1"]
    result = potd("genesis", "--name", "rigs", *words, "--parameter", "lapses_max=many", "-o", path)
    assert result.exit_code == 1
    for reason in (
        "--balance abc=1: 'abc' is not a public key",
        "--balance " + KEYS[0] + "=1.1234567: '1.1234567' is not an amount",
        "--parameter lapses_max=many",
        "validator 1: 'abc' is not a public key",
        "unknown key 'x'",
    ):
        assert reason in result.stderr
    assert not path.exists()


def test_a_file_of_validators_that_is_not_there_is_no_key(potd: Command, tmp_path: Path) -> None:
    result = potd("genesis", "--name", "rigs", "--validator", KEYS[0], "--validator", "nothere.txt")
    assert (result.exit_code, result.stderr) == (1, "Error: --validator nothere.txt: no such file\n")


def test_a_home_has_a_key_of_its_own_and_the_network(potd: Command, tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = network(potd, tmp_path)
    result = potd("init", "--home", home, "--genesis", path, "--role", "validator", "--units", 3)
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(home)) == ["config.toml", "genesis.toml", "node.key"]
    config = load_config(home)
    assert (config.roles, config.units) == (("validator",), 3)
    assert read_genesis(home / "genesis.toml") == read_genesis(path)
    assert potd("key", "--public", "--home", home).output.strip() == public_key(read_key(home / "node.key")).hex()


def test_a_network_can_be_added_later_and_not_exchanged(potd: Command, tmp_path: Path) -> None:
    home, path = tmp_path / "home", network(potd, tmp_path)
    assert potd("init", "--home", home).exit_code == 0
    key = read_key(home / "node.key")
    assert potd("init", "--home", home).exit_code == 1
    assert potd("init", "--home", home, "--units", 2, "--genesis", path).exit_code == 1
    assert potd("init", "--home", home, "--genesis", path).exit_code == 0
    assert read_key(home / "node.key") == key
    path.write_text(path.read_text().replace("rigs", "rags"))
    result = potd("init", "--home", home, "--genesis", path)
    assert (result.exit_code, "another network" in result.stderr) == (1, True)
    assert read_genesis(home / "genesis.toml").name == "rigs"


@pytest.mark.parametrize(
    "words", [["--units", "300"], ["--device", "gpu"], ["--listen", "x"], ["--bootstrap", "none.txt"]]
)
def test_a_home_that_would_not_start_is_not_made(potd: Command, tmp_path: Path, words: list[str]) -> None:
    result = potd("init", "--home", tmp_path / "home", *words)
    assert result.exit_code == 1
    assert not list((tmp_path / "home").glob("*"))


def test_a_home_without_a_config_does_not_start(potd: Command, tmp_path: Path) -> None:
    result = potd("start", "--home", tmp_path)
    assert result.exit_code == 1
    assert "`potd init` makes one" in result.stderr


def test_every_command_has_an_example_and_one_line_of_help(potd: Command) -> None:
    listed = potd("--help").output
    for name in main.list_commands(main.make_context("potd", [], resilient_parsing=True)):
        shown = potd(name, "--help")
        assert shown.exit_code == 0
        assert "Example" in shown.output, name
        assert f"\n  {name} " in listed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_every_shell(potd: Command, shell: str) -> None:
    result = potd("completion", shell)
    assert result.exit_code == 0
    assert "_POTD_COMPLETE" in result.output


def test_what_makes_no_sense_exits_with_2(potd: Command, tmp_path: Path) -> None:
    for words in (["nonsense"], ["genesis"], ["start", "--role", "king"], ["transfer", "abc", "1"]):
        assert potd(*words).exit_code == 2, words


def test_an_account_keeps_its_name_when_its_key_is_replaced(potd: Command, home: Path) -> None:
    place = Home(home)
    write_key(place.key, bytes(32))
    assert (
        json.loads(potd("key", "--home", home, "--json").output)["account"] == account_id(public_key(bytes(32))).hex()
    )
    place.account.write_text("ab" * 32 + "\n")
    told = json.loads(potd("key", "--home", home, "--json").output)
    assert (told["account"], told["public_key"]) == ("ab" * 32, public_key(bytes(32)).hex())
    assert "ab" * 32 in potd("key", "--home", home).output
    place.account.write_text("ab\n")
    assert potd("key", "--home", home).exit_code == 1
