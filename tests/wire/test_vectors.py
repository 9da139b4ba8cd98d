"""Golden bytes of every message."""

from __future__ import annotations

import json

import pytest

from potd.wire.codec import decode, encode, tag_of
from tests.wire.values import LEAST, SOME, all_messages, fixed
from tests.wire.vectors import FOLDER, vectors


def test_the_golden_bytes_are_those_of_today() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert sorted(written) == sorted(vectors()), "python -m tests.wire.vectors writes them"
    for name, text in vectors().items():
        assert json.loads(written[name]) == json.loads(text), f"{name}: python -m tests.wire.vectors writes it"


@pytest.mark.parametrize("cls", all_messages(), ids=lambda cls: cls.__name__)
def test_golden_bytes_decode_to_the_value_they_were_made_from(cls: type[object]) -> None:
    entries = json.loads((FOLDER / f"{cls.__module__.removeprefix('potd.')}.json").read_text())
    for which in (LEAST, SOME):
        golden = bytes.fromhex(entries[cls.__name__][which]["bytes"])
        value = fixed(cls, which)
        assert encode(value) == golden
        assert decode(golden, cls) == value


def test_no_two_messages_share_a_tag_or_a_name() -> None:
    assert len({tag_of(cls) for cls in all_messages()}) == len(all_messages())
    assert len({cls.__name__ for cls in all_messages()}) == len(all_messages())
