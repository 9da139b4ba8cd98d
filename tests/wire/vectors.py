"""Golden bytes: what fixed values of every message look like on the wire, in tests/vectors, one file a module.

`python -m tests.wire.vectors` writes them afresh. A changed byte of a message that is in use is another protocol.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from potd.wire.codec import encode, tag_of
from tests.wire.values import LEAST, SOME, all_messages, fixed

FOLDER = Path(__file__).parent.parent / "vectors"


def vectors() -> dict[str, str]:
    """The text of every file, by name."""
    by_module: dict[str, dict[str, Any]] = {}
    for cls in all_messages():
        values = {which: fixed(cls, which) for which in (LEAST, SOME)}
        entry = {
            "tag": tag_of(cls),
            **{which: {"value": _readable(one), "bytes": encode(one).hex()} for which, one in values.items()},
        }
        by_module.setdefault(cls.__module__.removeprefix("potd."), {})[cls.__name__] = entry
    return {
        f"{module}.json": json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
        for module, entries in sorted(by_module.items())
    }


def _readable(value: Any) -> Any:
    """Bytes as hex digits, messages as objects with their name."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_readable(one) for one in value]
    if dataclasses.is_dataclass(value):
        fields = {field.name: _readable(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"message": type(value).__name__, **fields}
    return value


def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in vectors().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    write()
