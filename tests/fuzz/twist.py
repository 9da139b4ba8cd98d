"""Messages and bytes that are nearly right."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from random import Random
from typing import Any

U63_MAX = 2**63 - 1


def twisted(value: Any, chance: Random) -> Any:
    """The same message with one part of it changed; not every such value can be encoded."""
    named = fields(value)
    if not named:
        return value
    name = chance.choice(named).name
    return replace(value, **{name: _other(getattr(value, name), chance)})


def broken(data: bytes, chance: Random) -> bytes:
    """The same bytes with some of them changed, lost, or doubled."""
    if not data:
        return chance.randbytes(3)
    at = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            return data[:at]
        case 1:
            return data + data[at:]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]
        case _:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _other(value: Any, chance: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, max(0, value - 1), value + chance.randrange(2, 9), 0, U63_MAX])
    if isinstance(value, bytes):
        at = chance.randrange(len(value) or 1)
        return chance.choice([bytes(len(value)), value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]])
    if isinstance(value, str):
        return value[:-1] + chance.choice(["x", "", "θ"])
    if isinstance(value, tuple):
        return _other_tuple(value, chance)
    return twisted(value, chance) if is_dataclass(value) else value


def _other_tuple(value: tuple[Any, ...], chance: Random) -> tuple[Any, ...]:
    if not value:
        return value
    at = chance.randrange(len(value))
    match chance.randrange(8):
        case 0:
            return ()
        case 1:
            return value[:at] + value[at + 1 :]
        case 2:
            return (*value, value[at])
        case 3:
            return value[::-1]
        case _:
            return (*value[:at], _other(value[at], chance), *value[at + 1 :])
