"""Canonical bytes of messages: one value, one encoding. Knows nothing of what a message means.

A message is a frozen dataclass marked `@message(tag)`. Its bytes are one msgpack array: the tag, then the
fields in order. No maps, no floats, no nil. Every variable field declares its limit in its annotation:

    blob: Annotated[bytes, Size(0, 1024)]         names: Annotated[tuple[Name, ...], Size(0, 16)]

`decode` packs again what it unpacked and compares, so that bytes which decode at all are the only bytes
that decode to that value.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

MESSAGE_BYTES_MAX = 8 * 1024 * 1024  # no message is longer, whatever its fields allow


class Malformed(ValueError):
    """These bytes, or these values, are not a message of ours; the text says why."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The least and the greatest integer that a field may hold."""

    low: int
    high: int


@dataclasses.dataclass(frozen=True)
class Size:
    """The least and the greatest length of bytes, of UTF-8 text in bytes, or of a tuple in elements."""

    low: int
    high: int


U8 = Annotated[int, Range(0, 2**8 - 1)]
U16 = Annotated[int, Range(0, 2**16 - 1)]
U32 = Annotated[int, Range(0, 2**32 - 1)]
U63 = Annotated[int, Range(0, 2**63 - 1)]
I8 = Annotated[int, Range(-(2**7), 2**7 - 1)]
I64 = Annotated[int, Range(-(2**63), 2**63 - 1)]

M = TypeVar("M")
_Pack = Callable[[Any], Any]
_Unpack = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How a class is packed and unpacked: worked out once, when it is first met."""

    tag: int
    packs: tuple[tuple[str, _Pack], ...]  # by the field's name
    unpacks: tuple[_Unpack, ...]


_CLASS_OF: dict[int, type[Any]] = {}
_TAG_OF: dict[type[Any], int] = {}
_PLAN_OF: dict[type[Any], _Plan] = {}


def message(tag: int) -> Callable[[type[M]], type[M]]:
    """Give a frozen dataclass its tag on the wire. A tag is for ever: it is bound into signatures."""

    def register(cls: type[M]) -> type[M]:
        assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
        assert tag not in _CLASS_OF, f"tag {tag} is taken by {_CLASS_OF[tag].__name__}"
        _CLASS_OF[tag] = cls
        _TAG_OF[cls] = tag
        return cls

    return register


def tag_of(cls: type[Any]) -> int:
    return _TAG_OF[cls]


def messages() -> tuple[type[Any], ...]:
    """Every message class there is, by tag."""
    return tuple(cls for _, cls in sorted(_CLASS_OF.items()))


def encode(value: Any) -> bytes:
    """The bytes of a message. Raises Malformed if a field breaks its declared limit."""
    data: bytes = msgpack.packb(_pack_message(value), use_bin_type=True)
    if len(data) > MESSAGE_BYTES_MAX:
        raise Malformed(f"{type(value).__name__} of {len(data)} bytes, at most {MESSAGE_BYTES_MAX}")
    return data


def decode(data: bytes, *expected: type[M]) -> M:
    """The message in `data`, one of the `expected` classes. Raises Malformed for anything else."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise Malformed(f"{len(data)} bytes, at most {MESSAGE_BYTES_MAX}")
    try:
        raw = msgpack.unpackb(data, use_list=True, raw=False, strict_map_key=True, max_map_len=0, max_ext_len=0)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not msgpack: {type(error).__name__}") from None
    value = _unpack_message(raw, expected)
    # Unpacking checks fields and turns lists into tuples and messages; it changes no value. So `raw` is what `encode`
    # would pack, and msgpack's shortest form of it is the one encoding.
    if msgpack.packb(raw, use_bin_type=True) != data:
        raise Malformed(f"not the canonical bytes of {type(value).__name__}")
    return value  # type: ignore[no-any-return]  # _unpack_message returns an instance of one of `expected`


def _pack_message(value: Any) -> list[Any]:
    plan = _plan(type(value))
    return [plan.tag, *[pack(getattr(value, name)) for name, pack in plan.packs]]


def _unpack_message(raw: Any, expected: tuple[type[Any], ...]) -> Any:
    if type(raw) is not list or not raw or type(raw[0]) is not int:
        raise Malformed("not an array that starts with a tag")
    cls = _CLASS_OF.get(raw[0])
    if cls is None or cls not in expected:
        names = " or ".join(one.__name__ for one in expected)
        raise Malformed(f"tag {raw[0]} where {names} is expected")
    plan = _plan(cls)
    if len(raw) != len(plan.unpacks) + 1:
        raise Malformed(f"{cls.__name__} of {len(raw) - 1} fields, not {len(plan.unpacks)}")
    return cls(*[unpack(item) for unpack, item in zip(plan.unpacks, raw[1:], strict=True)])


def _plan(cls: type[Any]) -> _Plan:
    """Raises Malformed for a class that is no message."""
    known = _PLAN_OF.get(cls)
    if known is None:
        if cls not in _TAG_OF:
            raise Malformed(f"{cls.__name__} is not a message")
        hints = get_type_hints(cls, include_extras=True)
        names = [one.name for one in dataclasses.fields(cls)]
        codecs = [_codec(hints[name], f"{cls.__name__}.{name}") for name in names]
        packs = tuple((name, pack) for name, (pack, _) in zip(names, codecs, strict=True))
        known = _Plan(_TAG_OF[cls], packs, tuple(unpack for _, unpack in codecs))
        _PLAN_OF[cls] = known
    return known


def _codec(hint: Any, where: str) -> tuple[_Pack, _Unpack]:
    """How one field is packed and unpacked; both check its limits."""
    limit: Range | Size | None = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        limits = [extra for extra in extras if isinstance(extra, Range | Size)]
        assert len(limits) <= 1, f"{where} declares several limits"
        limit = limits[0] if limits else None
    if hint is bool:
        return _checked(bool, None, where)
    if hint is int:
        assert isinstance(limit, Range), f"{where} declares no range"
        return _checked(int, limit, where)
    if hint in (bytes, str):
        assert isinstance(limit, Size), f"{where} declares no size"
        return _checked(hint, limit, where)
    if get_origin(hint) is tuple:
        assert isinstance(limit, Size), f"{where} declares no size"
        element, ellipsis = get_args(hint)
        assert ellipsis is Ellipsis, f"{where} is not tuple[X, ...]"
        return _tuple_codec(*_codec(element, where), limit, where)
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return _message_codec(choices, where)


def _checked(kind: type[Any], limit: Range | Size | None, where: str) -> tuple[_Pack, _Unpack]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise Malformed(f"{where} is {type(value).__name__}, not {kind.__name__}")
        if limit is not None:
            try:
                amount = len(value.encode()) if kind is str else len(value) if kind is bytes else value
            except UnicodeEncodeError:
                raise Malformed(f"{where} is not UTF-8 text") from None
            if not limit.low <= amount <= limit.high:
                raise Malformed(f"{where} is {amount}, not in {limit.low}..{limit.high}")
        return value

    if limit is None or kind is str:
        return check, check
    low, high = limit.low, limit.high

    # Most fields are of these kinds, and most values are within their limits: `check` says what is wrong with others.
    def check_int(value: Any) -> Any:
        return value if type(value) is int and low <= value <= high else check(value)

    def check_bytes(value: Any) -> Any:
        return value if type(value) is bytes and low <= len(value) <= high else check(value)

    quick = check_int if kind is int else check_bytes
    return quick, quick


def _tuple_codec(pack: _Pack, unpack: _Unpack, limit: Size, where: str) -> tuple[_Pack, _Unpack]:
    def check(kind: type[Any], value: Any) -> None:
        if type(value) is not kind:
            raise Malformed(f"{where} is {type(value).__name__}, not an array")
        if not limit.low <= len(value) <= limit.high:
            raise Malformed(f"{where} has {len(value)} elements, not {limit.low}..{limit.high}")

    def pack_tuple(value: Any) -> Any:
        check(tuple, value)
        return [pack(one) for one in value]

    def unpack_tuple(value: Any) -> Any:
        check(list, value)
        return tuple([unpack(one) for one in value])

    return pack_tuple, unpack_tuple


def _message_codec(choices: tuple[type[Any], ...], where: str) -> tuple[_Pack, _Unpack]:
    for choice in choices:
        assert choice in _TAG_OF, f"{where}: {choice} is not a message"

    def pack(value: Any) -> Any:
        if type(value) not in choices:
            raise Malformed(f"{where} is {type(value).__name__}")
        return _pack_message(value)

    def unpack(value: Any) -> Any:
        return _unpack_message(value, choices)

    return pack, unpack
