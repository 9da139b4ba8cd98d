"""One value, one encoding; every limit; and nothing else decodes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated, Any, get_origin

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.wire import codec
from potd.wire.codec import I64, MESSAGE_BYTES_MAX, Malformed, Range, Size, decode, encode, message, tag_of
from potd.wire.genesis import Allotment, Hello
from potd.wire.ids import BlobRef
from potd.wire.operations import Transfer
from tests.wire.values import SOME, Declared, all_messages, any_message, declared, element, fixed

ALL = all_messages()
LIMITS = [(cls, field) for cls in ALL for field in declared(cls) if field.limit is not None]


def _names(value: Any) -> str:
    return value.name if isinstance(value, Declared) else value.__name__


def _is_refused_or_canonical(data: bytes) -> None:
    try:
        value = decode(data, *ALL)
    except Malformed:
        return
    assert encode(value) == data


@given(any_message())
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    assert decode(encode(value), type(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_the_only_encoding_of_their_value(data: bytes) -> None:
    _is_refused_or_canonical(data)


@given(any_message(), st.data())
def test_damaged_messages_are_refused_or_the_only_encoding_of_another_value(value: Any, data: st.DataObject) -> None:
    good = encode(value)
    at = data.draw(st.integers(0, len(good) - 1))
    piece = data.draw(st.binary(max_size=3))
    gone = data.draw(st.integers(0, 3))
    _is_refused_or_canonical(good[:at] + piece + good[at + gone :])


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


@given(st.sampled_from(ALL), st.lists(_anything, max_size=14))
def test_arrays_of_anything_are_refused_or_the_only_encoding_of_their_value(cls: type[Any], fields: list[Any]) -> None:
    _is_refused_or_canonical(msgpack.packb([tag_of(cls), *fields], use_bin_type=True))


@pytest.mark.parametrize(("cls", "field"), LIMITS, ids=_names)
def test_a_limit_is_kept_by_those_who_write_and_those_who_read(cls: type[Any], field: Declared) -> None:
    good = fixed(cls, SOME)
    raw = msgpack.unpackb(encode(good), use_list=True, raw=False)
    place = 1 + [one.name for one in dataclasses.fields(cls)].index(field.name)
    beyond = _beyond(field, getattr(good, field.name), raw[place])
    assert beyond
    for value, unpacked in beyond:
        with pytest.raises(Malformed, match=rf"{cls.__name__}\.{field.name}"):
            encode(replace(good, **{field.name: value}))
        if unpacked == -(2**63) - 1:
            continue  # msgpack has no such integer
        with pytest.raises(Malformed):
            decode(msgpack.packb([*raw[:place], unpacked, *raw[place + 1 :]], use_bin_type=True), cls)


def _beyond(field: Declared, value: Any, raw: Any) -> list[tuple[Any, Any]]:
    """Values one short of the least and one past the greatest that fit, plain and as msgpack has them."""
    limit = field.limit
    if isinstance(limit, Range):
        return [(one, one) for one in (limit.low - 1, limit.high + 1)]
    assert isinstance(limit, Size)
    lengths = [one for one in (limit.low - 1, limit.high + 1) if one >= 0]
    if get_origin(field.kind) is tuple:
        # What is repeated does not matter: the count is looked at first.
        return [((value[:1] or (None,)) * one, [0] * one) for one in lengths]
    one_of = b"\x00" if field.kind is bytes else "x"
    return [(one_of * one, one_of * one) for one in lengths]


@pytest.mark.parametrize("cls", ALL, ids=_names)
def test_every_kind_of_field_refuses_every_other_kind(cls: type[Any]) -> None:
    good = fixed(cls, SOME)
    raw = msgpack.unpackb(encode(good), use_list=True, raw=False)
    for place, field in enumerate(declared(cls), 1):
        kept = {bool: bool, int: int, bytes: bytes, str: str}.get(field.kind, list)
        for other in (None, True, 1, 1.5, b"x", "x", [], [1], {}, {"a": 1}):
            if type(other) is kept and kept is not list:
                continue
            if type(other) is list and get_origin(field.kind) is tuple and _fits(other, field):
                continue
            with pytest.raises(Malformed):
                decode(msgpack.packb([*raw[:place], other, *raw[place + 1 :]], use_bin_type=True), cls)


def _fits(integers: list[int], field: Declared) -> bool:
    """Whether a tuple field may hold just these."""
    assert isinstance(field.limit, Size)
    inside = element(field)
    return field.limit.low <= len(integers) and (not integers or inside.kind is int)


@pytest.mark.parametrize("cls", ALL, ids=_names)
def test_a_message_has_all_its_fields_and_no_more(cls: type[Any]) -> None:
    raw = msgpack.unpackb(encode(fixed(cls, SOME)), use_list=True, raw=False)
    for wrong in (raw[:-1], [*raw, 0], [*raw, None], raw[:1], []):
        if len(wrong) != len(raw):
            with pytest.raises(Malformed):
                decode(msgpack.packb(wrong, use_bin_type=True), cls)


def test_a_message_is_only_what_is_expected() -> None:
    data = encode(fixed(Transfer, SOME))
    with pytest.raises(Malformed, match="tag 30 where Hello or BlobRef is expected"):
        decode(data, Hello, BlobRef)
    with pytest.raises(Malformed, match="tag 29 where"):
        decode(msgpack.packb([29]), *ALL)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x93\x02", id="cut short"),
        pytest.param(b"\xc1", id="the byte that msgpack never uses"),
        pytest.param(b"\x91" * 100_000, id="nested deeply"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="four thousand million elements announced"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="four gigabytes announced"),
        pytest.param(b"\x81\x01\x02", id="a map"),
        pytest.param(b"\xd4\x01\x02", id="an extension"),
        pytest.param(b"\x92\x02\xa1\xff", id="text that is not UTF-8"),
        pytest.param(b"\x02", id="no array"),
        pytest.param(b"\x91\xc3", id="a tag that is true"),
        pytest.param(b"\x91\x91\x02", id="a tag that is an array"),
    ],
)
def test_what_is_not_a_message_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data, *ALL)


def test_another_encoding_of_the_same_value_is_refused() -> None:
    ref = BlobRef(bytes(32), 5)
    data = encode(ref)
    assert data == b"\x93\x02\xc4\x20" + bytes(32) + b"\x05"
    for other in (
        b"\x93\x02\xc4\x20" + bytes(32) + b"\xcc\x05",  # the size in two bytes
        b"\x93\x02\xc5\x00\x20" + bytes(32) + b"\x05",  # the length in two bytes
        b"\xdc\x00\x03\x02\xc4\x20" + bytes(32) + b"\x05",  # the count in two bytes
        b"\x93\x02\xd9\x20" + bytes(32) + b"\x05",  # text for bytes
        data + b"\x00",
        data + data,
    ):
        with pytest.raises(Malformed):
            decode(other, BlobRef)


def test_text_is_limited_in_bytes_and_is_text() -> None:
    hello = fixed(Hello, SOME)
    assert encode(replace(hello, release="é" * 16))
    with pytest.raises(Malformed, match="34, not in 1..32"):
        encode(replace(hello, release="é" * 17))
    with pytest.raises(Malformed, match="not UTF-8"):
        encode(replace(hello, release="\ud800"))


def test_nothing_passes_for_an_integer_but_an_integer() -> None:
    class One(IntEnum):
        ONE = 1

    for amount in (True, 1.0, One.ONE, "1", None):
        with pytest.raises(Malformed, match=r"Allotment\.amount_micro is"):
            encode(Allotment(bytes(32), amount))  # type: ignore[arg-type]  # the wrong types are the point


def test_no_message_is_longer_than_the_limit_of_all() -> None:
    with pytest.raises(Malformed, match=f"{MESSAGE_BYTES_MAX + 1} bytes, at most"):
        decode(bytes(MESSAGE_BYTES_MAX + 1), BlobRef)
    long = _Long((bytes(MESSAGE_BYTES_MAX // 2),) * 2)
    with pytest.raises(Malformed, match="_Long of .* bytes, at most"):
        encode(long)
    assert decode(encode(_Long(long.parts[:1])), _Long) == _Long(long.parts[:1])


def test_what_is_no_message_is_not_encoded() -> None:
    for value in (None, 1, b"", (), object()):
        with pytest.raises(Malformed, match="is not a message"):
            encode(value)


def test_a_tag_is_given_once_and_to_a_dataclass() -> None:
    with pytest.raises(AssertionError, match="tag 2 is taken by BlobRef"):
        message(2)(dataclass(frozen=True)(type("Other", (), {})))
    with pytest.raises(AssertionError, match="is not a dataclass"):
        message(9_999)(type("Plain", (), {}))


def test_a_field_without_a_limit_is_our_mistake() -> None:
    for kind in (int, bytes, str, tuple[I64, ...]):
        with pytest.raises(AssertionError, match="declares no"):
            codec._codec(kind, "Some.field")
    with pytest.raises(AssertionError, match="several limits"):
        codec._codec(Annotated[I64, Range(0, 1)], "Some.field")
    with pytest.raises(AssertionError, match=r"is not tuple\[X, \.\.\.\]"):
        codec._codec(Annotated[tuple[I64, I64], Size(2, 2)], "Some.field")
    with pytest.raises(AssertionError, match="is not a message"):
        codec._codec(dict, "Some.field")


@dataclass(frozen=True)
class _Long:
    parts: Annotated[tuple[Annotated[bytes, Size(0, MESSAGE_BYTES_MAX)], ...], Size(0, 4)]


message(9_998)(_Long)
