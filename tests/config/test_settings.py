"""config.toml."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from potd.config.addresses import peer_id
from potd.config.home import Home, public_key
from potd.config.mistakes import ConfigError
from potd.config.settings import RELOADABLE, SETTINGS, Config, config_text, load_config, reloaded, reread

PEERS = [f"/ip4/192.0.2.{n}/tcp/4001/p2p/{peer_id(public_key(bytes([n]) * 32))}" for n in range(1, 4)]


def written(home: Path, text: str) -> Path:
    (home / "config.toml").write_text(text)
    return home


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "")) == Config(Home(tmp_path))


def test_the_file_that_init_writes_means_the_defaults_and_names_every_setting(tmp_path: Path) -> None:
    text = config_text({})
    assert load_config(written(tmp_path, text)) == Config(Home(tmp_path))
    uncommented = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines())
    assert load_config(written(tmp_path, uncommented)) == Config(Home(tmp_path))
    assert all(f"\n#{name} = " in text for name in SETTINGS)


def test_what_was_chosen_is_read_back(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {
        "roles": ("validator",),
        "units": 9,
        "device": "cuda:3",
        "bootstrap": tuple(PEERS),
        "log_json": True,
    }
    config = load_config(written(tmp_path, config_text(chosen)))
    assert config == dataclasses.replace(Config(Home(tmp_path)), **chosen)
    assert (config.validates, config.mines) == (True, False)


def test_every_setting_has_a_reason_and_a_default_that_passes_its_own_check() -> None:
    for name, setting in SETTINGS.items():
        assert len(setting.metadata["reason"]) > 10, name
        assert setting.metadata["check"](setting.default) == setting.default, name


def test_every_mistake_is_listed_in_the_file_and_on_the_command_line(tmp_path: Path) -> None:
    text = """
        listn = ["/ip4/0.0.0.0/tcp/4001"]
        colour = 1
        roles = ["minor"]
        units = 256
        device = "gpu"
        tasks = ["abc"]
        log_level = "loud"
        log_json = 1
        storage_bytes_max = 1.5
        connections_max = true
        bootstrap = ["/ip4/192.0.2.1/tcp/4001", "none.txt"]
    """
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text), {"listen": ["4001"], "units": "many"})
    file = f"{tmp_path}/config.toml"
    assert caught.value.problems == (
        f"{file}: unknown key 'colour'",
        f"{file}: unknown key 'listn'; did you mean 'listen'?",
        f"{file}: roles: 'minor': 'minor' is none of validator, miner",
        "--listen: '4001': not of the form /ip4/ADDRESS/tcp/PORT or /dns4/NAME/tcp/PORT/p2p/PEER-ID",
        f"{file}: bootstrap: '/ip4/192.0.2.1/tcp/4001': whose address is it? It must end in /p2p/PEER-ID",
        f"{file}: bootstrap: {tmp_path}/none.txt: no such file or directory",
        f"{file}: device: 'gpu' is none of auto, cpu, cuda:0, cuda:1, ...",
        "--units: 'many' is not a whole number",
        f"{file}: tasks: 'abc' is not a task id: 64 hexadecimal digits, as `potd tasks --json` prints them",
        f"{file}: storage_bytes_max: 1.5 is not a whole number",
        f"{file}: connections_max: True is not a whole number",
        f"{file}: log_level: 'loud' is none of debug, info, warning, error",
        f"{file}: log_json: 1 is neither true nor false",
    )


def test_options_stand_in_for_the_file(tmp_path: Path) -> None:
    written(tmp_path, 'units = 3\nroles = ["miner"]\n')
    config = load_config(tmp_path, {"roles": ("validator", "miner")})
    assert (config.units, config.roles) == (3, ("validator", "miner"))


def test_bootstrap_takes_addresses_and_files_of_them(tmp_path: Path) -> None:
    (tmp_path / "peers.txt").write_text(f"{PEERS[1]}\n{PEERS[2]}\n")
    written(tmp_path, f'bootstrap = ["{PEERS[0]}", "peers.txt", "{PEERS[1]}"]')
    assert load_config(tmp_path).bootstrap == tuple(PEERS)


def test_a_miner_mines_the_tasks_it_chose() -> None:
    home, one, other = Home(Path("h")), bytes(32), bytes([1]) * 32
    assert Config(home).mines_task(one)
    assert [Config(home, tasks=(one,)).mines_task(task) for task in (one, other)] == [True, False]
    assert not Config(home, roles=("validator",)).mines_task(one)


def test_a_reload_takes_over_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    running = load_config(written(tmp_path, ""))
    found = load_config(
        written(
            tmp_path, f'log_level = "debug"\nunits = 4\nbootstrap = ["{PEERS[0]}"]\ndevice = "cpu"\nlog_json = true\n'
        )
    )
    config, waiting = reloaded(running, found)
    assert config == dataclasses.replace(running, log_level="debug", units=4, bootstrap=(PEERS[0],))
    assert waiting == ("device", "log_json")
    assert set(RELOADABLE) == {"bootstrap", "units", "tasks", "storage_bytes_max", "log_level"}


def test_options_of_the_command_line_outlast_a_reload(tmp_path: Path) -> None:
    running = load_config(written(tmp_path, ""), {"units": 9})
    written(tmp_path, 'units = 2\nlog_level = "debug"\n')
    assert reread(running) == (dataclasses.replace(running, log_level="debug"), ())


def test_a_home_without_a_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: no such file; `potd init` makes one"):
        load_config(tmp_path)
