"""config.toml: what one operator may choose. Nobody else has to agree on any of it: what all must share is genesis."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potd.config.addresses import check_announce, check_dial, check_listen, is_address, read_list
from potd.config.home import Home
from potd.config.mistakes import ConfigError
from potd.config.toml import quoted, read_toml, unknown_keys

ROLES = ("validator", "miner")
LOG_LEVELS = ("debug", "info", "warning", "error")
ADDRESSES_MAX = 1024

GIB = 1024**3
MIB = 1024**2


def _setting(
    default: Any, check: Callable[[Any], Any], reason: str, *, unit: str = "", reloadable: bool = False
) -> Any:
    """A field with its unit, its default and the reason for it. `check` returns the value or raises ValueError."""
    return dataclasses.field(
        default=default, metadata={"check": check, "reason": reason, "unit": unit, "reloadable": reloadable}
    )


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int:
            raise ValueError(f"{value!r} is not a whole number")
        if not low <= value <= high:
            raise ValueError(f"{value} is not from {low} to {high}")
        return value

    return check


def _yes(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return check


def _listed(check: Callable[[str], str], *, least: int = 0) -> Callable[[Any], tuple[str, ...]]:
    """A list of different texts, each checked."""

    def check_all(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"{value!r} is not a list of texts")
        if len(value) > ADDRESSES_MAX:
            raise ValueError(f"{len(value)} entries, at most {ADDRESSES_MAX}")
        wrong = []
        for one in value:
            try:
                check(one)
            except ValueError as error:
                wrong.append(f"{one!r}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        if len(value) < least:
            raise ValueError("an empty list")
        return tuple(dict.fromkeys(value))

    return check_all


def _device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda:(0|[1-9][0-9]?)", value):
        raise ValueError(f"{value!r} is none of auto, cpu, cuda:0, cuda:1, ...")
    return value


def _tasks(value: Any) -> Literal["all"] | tuple[bytes, ...]:
    if value == "all":
        return "all"
    if not isinstance(value, list | tuple):
        raise ValueError(f'{value!r} is neither "all" nor a list of task ids')
    found = []
    for one in value:
        if not isinstance(one, str) or not re.fullmatch("[0-9a-fA-F]{64}", one):
            raise ValueError(f"{one!r} is not a task id: 64 hexadecimal digits, as `potd tasks --json` prints them")
        found.append(bytes.fromhex(one))
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Config:
    """One node's choices, checked. Every field stands in config.toml under its own name, but for the first two."""

    home: Home
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)  # those of the command line
    roles: tuple[str, ...] = _setting(
        ("miner",),
        _listed(_one_of(*ROLES)),
        "validator, miner, both or none. A validator's key stands in genesis; without a role the node is a client",
    )
    listen: tuple[str, ...] = _setting(
        ("/ip4/0.0.0.0/tcp/4001",),
        _listed(check_listen, least=1),
        "addresses to listen on. All interfaces, since peers are strangers from elsewhere; 4001 is libp2p's usual port",
    )
    announce: tuple[str, ...] = _setting(
        (),
        _listed(check_announce, least=0),
        "addresses to tell others instead of those listened on; needed behind a forwarded port",
    )
    bootstrap: tuple[str, ...] = _setting(
        (),
        _listed(str),
        "peers to begin with: addresses ending in /p2p/ID, or files with one a line. None for the first node of all",
        reloadable=True,
    )
    device: str = _setting(
        "auto", _device, "what trains: auto (the first CUDA device, or else the CPU), cpu, cuda:0, cuda:1, ..."
    )
    units: int = _setting(
        1,
        _whole(1, 255),
        "how much of every round this rig takes on; pay is in proportion. Raise it while rounds don't wait for you",
        unit="batches a round",
        reloadable=True,
    )
    tasks: Literal["all"] | tuple[bytes, ...] = _setting(
        "all", _tasks, 'tasks to mine: "all" or a list of task ids', reloadable=True
    )
    storage_bytes_max: int = _setting(
        20 * GIB,
        _whole(64 * MIB, 2**62),
        "kept for models, shards and payloads; what no open round needs goes first",
        unit="bytes",
        reloadable=True,
    )
    connections_max: int = _setting(
        128, _whole(4, 65_535), "connections at once; each takes about 170 KB", unit="connections"
    )
    frames_per_s_max: int = _setting(
        400, _whole(1, 10**6), "votes one peer may send, on average; a round of agreement takes a handful", unit="1/s"
    )
    gossip_per_s_max: int = _setting(
        200, _whole(1, 10**6), "announcements one peer may forward, on average; more are dropped", unit="1/s"
    )
    questions_per_s_max: int = _setting(
        400, _whole(1, 10**6), "questions one peer may ask, on average; more wait", unit="1/s"
    )
    answer_bytes_per_s_max: int = _setting(
        256 * MIB,
        _whole(64 * 1024, 2**40),
        "answered to one peer, on average: above what one connection carries. Lower it to spare your line",
        unit="bytes/s",
    )
    log_level: str = _setting("info", _one_of(*LOG_LEVELS), "debug, info, warning or error", reloadable=True)
    log_json: bool = _setting(False, _yes, "one JSON object a line, for machines that read logs")
    log_file_bytes_max: int = _setting(
        10 * MIB,
        _whole(0, 2**40),
        "size at which potd.log is set aside and a new one begun; 0 writes to standard error instead",
        unit="bytes",
    )
    log_files_kept: int = _setting(5, _whole(0, 1000), "older logs to keep", unit="files")

    @property
    def validates(self) -> bool:
        return "validator" in self.roles

    @property
    def mines(self) -> bool:
        return "miner" in self.roles

    def mines_task(self, task: bytes) -> bool:
        return self.mines and (self.tasks == "all" or task in self.tasks)


SETTINGS = {one.name: one for one in dataclasses.fields(Config) if "check" in one.metadata}
RELOADABLE = tuple(name for name, one in SETTINGS.items() if one.metadata["reloadable"])


def load_config(home: Path, options: Mapping[str, Any] | None = None) -> Config:
    """What stands in HOME/config.toml, with `options` of the command line in place of what the file says.

    Raises ConfigError with every mistake in both.
    """
    place = Home(home)
    table = read_toml(place.config, "`potd init` makes one")
    problems = [f"{place.config}: {problem}" for problem in unknown_keys(table, SETTINGS)]
    problems += place.problems()
    options = options or {}
    values: dict[str, Any] = {}
    for name in SETTINGS:
        if name in options:
            values |= _checked(name, options[name], f"--{name}", Path(), problems)
        elif name in table:
            values |= _checked(name, table[name], f"{place.config}: {name}", home, problems)
    if problems:
        raise ConfigError(problems)
    return Config(place, options, **values)


def reread(running: Config) -> tuple[Config, tuple[str, ...]]:
    """What stands in the file now, under the same options, as far as it can be taken over; and what needs a restart.

    Raises ConfigError with every mistake in the file.
    """
    return reloaded(running, load_config(running.home.path, running.options))


def reloaded(running: Config, found: Config) -> tuple[Config, tuple[str, ...]]:
    """The running choices with what can change without a restart; and the names of changes that need one."""
    changed = [name for name in SETTINGS if getattr(running, name) != getattr(found, name)]
    now = {name: getattr(found, name) for name in changed if name in RELOADABLE}
    return dataclasses.replace(running, **now), tuple(name for name in changed if name not in RELOADABLE)


def config_text(chosen: Mapping[str, Any]) -> str:
    """A config.toml with `chosen` in force, and every other setting there as a comment with its default."""
    assert set(chosen) <= set(SETTINGS)
    lines = ["# What this node's operator chose. A line that begins with # shows a default.", ""]
    for name, one in SETTINGS.items():
        notes = [one.metadata["unit"]] if one.metadata["unit"] else []
        notes += ["can be changed while running (SIGHUP)"] if one.metadata["reloadable"] else []
        lines.append(f"# {one.metadata['reason']}" + (f" [{'; '.join(notes)}]" if notes else ""))
        mark = "" if name in chosen else "#"
        lines += [f"{mark}{name} = {_toml(chosen.get(name, one.default))}", ""]
    return "\n".join(lines)


def _checked(name: str, value: Any, where: str, folder: Path, problems: list[str]) -> dict[str, Any]:
    """The setting under its name, or nothing and a problem more."""
    try:
        value = SETTINGS[name].metadata["check"](value)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return {}
    if name == "bootstrap":
        value, wrong = _addresses(value, folder)
        problems += [f"{where}: {one}" for one in wrong]
    return {name: value}


def _addresses(entries: tuple[str, ...], folder: Path) -> tuple[tuple[str, ...], list[str]]:
    """The bootstrap addresses with files of them read, relative to `folder`."""
    found: list[str] = []
    problems: list[str] = []
    for entry in entries:
        if is_address(entry):
            try:
                found.append(check_dial(entry))
            except ValueError as error:
                problems.append(f"{entry!r}: {error}")
        else:
            listed, wrong = read_list(folder / entry)
            found += listed
            problems += wrong
    return tuple(dict.fromkeys(found)), problems


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, str):
        return quoted(value)
    return "[" + ", ".join(_toml(one) for one in value) + "]"
