"""Names: of accounts, keys, tasks, networks and blobs. Every name is 32 bytes, most of them a digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U63, Size, message

Digest = Annotated[bytes, Size(32, 32)]
Key = Annotated[bytes, Size(32, 32)]  # Ed25519 public key
AccountId = Annotated[bytes, Size(32, 32)]
TaskId = Annotated[bytes, Size(32, 32)]

NOTHING = bytes(32)  # where a name is due and there is none: no payload, no previous header, no feedback


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 under a domain, so that equal bytes of two kinds never share a name. Parts are length-prefixed."""
    state = hashlib.sha256()
    for part in (b"potd/" + domain.encode(), *parts):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def account_id(owner_key: bytes) -> bytes:
    """An account keeps the id made from its first owner key, however often its keys are replaced."""
    return digest("account", owner_key)


def task_id(submission: bytes) -> bytes:
    """The name of the task that these signed Submit bytes open."""
    return digest("task", submission)


@message(2)
@dataclass(frozen=True, order=True)
class BlobRef:
    """A file by content: the root over its chunks (`merkle.blob_root`) and its length in bytes."""

    root: Digest
    size: U63


NO_BLOB = BlobRef(NOTHING, 0)


def short(name: bytes) -> str:
    """The first eight hex digits of a name, for people."""
    return name.hex()[:8]
