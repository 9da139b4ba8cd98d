"""Values of every message, built from its declared fields: fixed ones for golden bytes, any for properties."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pkgutil
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

import potd.ledger
import potd.wire
from potd.wire.codec import Range, Size, messages

LEAST, SOME = "least", "some"
_ELEMENTS_MAX = 3  # in a tuple, so that values stay readable


def all_messages() -> tuple[type[Any], ...]:
    """Every message there is, by tag, once every module that declares any has been imported."""
    for package in (potd.wire, potd.ledger):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return tuple(cls for cls in messages() if cls.__module__.startswith("potd."))  # tests declare some, too


@dataclasses.dataclass(frozen=True)
class Declared:
    """A field: what it holds, and within which limits."""

    name: str
    kind: Any
    limit: Range | Size | None


def declared(cls: type[Any]) -> Iterator[Declared]:
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        yield _declared(field.name, hints[field.name])


def _declared(name: str, hint: Any) -> Declared:
    if get_origin(hint) is Annotated:
        kind, *extras = get_args(hint)
        return Declared(name, kind, next(one for one in extras if isinstance(one, Range | Size)))
    return Declared(name, hint, None)


def choices(kind: Any) -> tuple[type[Any], ...]:
    """The messages that a field may hold."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def element(field: Declared) -> Declared:
    """What a tuple holds."""
    return _declared(field.name, get_args(field.kind)[0])


# Fixed values


def fixed(cls: type[Any], which: str, where: str = "") -> Any:
    """The same value of a message for ever: every limit at its least, or something drawn from the fields' names."""
    where = f"{where}/{cls.__name__}"
    return cls(*[_fixed(field, which, f"{where}.{field.name}") for field in declared(cls)])


def _fixed(field: Declared, which: str, where: str) -> Any:
    limit, chance = field.limit, int.from_bytes(hashlib.sha256(where.encode()).digest(), "big")
    if field.kind is bool:
        return which == SOME and chance % 2 == 1
    if field.kind is int:
        assert isinstance(limit, Range)
        return limit.low if which == LEAST else limit.low + chance % (limit.high - limit.low + 1)
    if field.kind is bytes:
        return _noise(where, _length(limit, which, 40 + chance % 100))
    if field.kind is str:
        return (f"{field.name} é " * 64).encode()[: _length(limit, which, 12)].decode(errors="ignore") or "x"[
            : _low(limit)
        ]
    if get_origin(field.kind) is tuple:
        inside = element(field)
        return tuple(_fixed(inside, which, f"{where}[{i}]") for i in range(_length(limit, which, 2)))
    possible = choices(field.kind)
    return fixed(possible[0 if which == LEAST else chance % len(possible)], which, where)


def _low(limit: Any) -> int:
    assert isinstance(limit, Size)
    return limit.low


def _length(limit: Any, which: str, wanted: int) -> int:
    assert isinstance(limit, Size)
    return limit.low if which == LEAST else max(limit.low, min(wanted, limit.high))


def _noise(where: str, count: int) -> bytes:
    return hashlib.shake_256(where.encode()).digest(count)


# Any values


def any_message() -> st.SearchStrategy[Any]:
    return st.sampled_from(all_messages()).flatmap(any_of)


def any_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(cls, *[_any(field) for field in declared(cls)])


def _any(field: Declared) -> st.SearchStrategy[Any]:
    limit = field.limit
    if field.kind is bool:
        return st.booleans()
    if field.kind is int:
        assert isinstance(limit, Range)
        return st.integers(limit.low, limit.high) | st.sampled_from((limit.low, limit.high))
    if field.kind is bytes:
        assert isinstance(limit, Size)
        return st.binary(min_size=limit.low, max_size=min(limit.high, max(limit.low, 80)))
    if field.kind is str:
        assert isinstance(limit, Size)
        low, high = limit.low, limit.high
        text = st.text(st.characters(codec="utf-8"), min_size=low, max_size=min(high, 40))
        return text.filter(lambda value: low <= len(value.encode()) <= high)
    if get_origin(field.kind) is tuple:
        assert isinstance(limit, Size)
        most = min(limit.high, max(limit.low, _ELEMENTS_MAX))
        return st.lists(_any(element(field)), min_size=limit.low, max_size=most).map(tuple)
    return st.one_of([any_of(one) for one in choices(field.kind)])
