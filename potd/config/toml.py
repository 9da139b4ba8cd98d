"""TOML, read so that every mistake in it is found at once. Knows nothing of what the keys mean."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from potd.config.mistakes import ConfigError, why

FILE_BYTES_MAX = 16 * 1024 * 1024  # a genesis of 65,536 balances is half of it


def read_toml(path: Path, hint: str) -> dict[str, Any]:
    """The file's table. Raises ConfigError if there is none; `hint` says how one comes about."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; {hint}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {why(error)}"]) from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError([f"{path}: longer than {FILE_BYTES_MAX} bytes"])
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8 text"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from None


def unknown_keys(found: Iterable[str], known: Iterable[str]) -> list[str]:
    """A sentence for every key found that is not known, with the nearest one that is."""
    names = sorted(known)
    problems = []
    for key in sorted(set(found) - set(names)):
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        problems.append(f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return problems


def quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in escaped) + '"'
