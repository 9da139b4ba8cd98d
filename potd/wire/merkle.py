"""Merkle trees over a list of leaves (RFC 6962, 2.1), and the chunks of blobs. Knows nothing of what leaves mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

CHUNK_BYTES = 256 * 1024

# Domain separation: a leaf can never be read as an inner node, nor a tree as a blob. [RFC 6962 2.1]
_LEAF, _INNER, _BLOB = b"\x00", b"\x01", b"\x02"


def leaf_hash(data: bytes | memoryview) -> bytes:
    state = hashlib.sha256(_LEAF)
    state.update(data)
    return state.digest()


def inner_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_INNER + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; of none, the hash of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    # Pairing level by level and carrying an odd last one up gives RFC 6962's tree.
    level = list(leaves)
    while len(level) > 1:
        level = [
            inner_hash(level[i], level[i + 1]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)
        ]
    return level[0]


def proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings from leaf `index` up to the root."""
    assert 0 <= index < len(leaves)
    siblings: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        level = [
            inner_hash(level[i], level[i + 1]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)
        ]
        index //= 2
    return tuple(siblings)


def proves(leaf: bytes, index: int, count: int, siblings: Sequence[bytes], expected: bytes) -> bool:
    """Whether `siblings` lead from `leaf` at `index` of `count` to the root `expected`."""
    if not 0 <= index < count:
        return False
    here, rest = leaf, list(siblings)
    while count > 1:
        if index ^ 1 < count:
            if not rest:
                return False
            other = rest.pop(0)
            here = inner_hash(other, here) if index & 1 else inner_hash(here, other)
        index //= 2
        count = (count + 1) // 2
    return not rest and here == expected


def chunk_count(size: int) -> int:
    return (size + CHUNK_BYTES - 1) // CHUNK_BYTES


def blob_root(size: int, leaves: Sequence[bytes]) -> bytes:
    """The name of a blob of `size` bytes whose chunks (256 KiB, the last one shorter) hash to `leaves`."""
    return hashlib.sha256(_BLOB + size.to_bytes(8, "big") + root(leaves)).digest()


def blob_leaves(chunks: Iterable[bytes | memoryview]) -> list[bytes]:
    return [leaf_hash(chunk) for chunk in chunks]


def root_of_bytes(data: bytes) -> bytes:
    view = memoryview(data)
    return blob_root(len(data), blob_leaves(view[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)))


class Range:
    """A Merkle mountain range: an append-only list kept as its peaks, left to right."""

    def __init__(self, count: int = 0, peaks: tuple[bytes, ...] = ()) -> None:
        assert len(peaks) == count.bit_count()
        self.count = count
        self.peaks = peaks

    def appended(self, leaf: bytes) -> Range:
        peaks, carry, size = list(self.peaks), leaf, self.count
        while size & 1:
            carry = inner_hash(peaks.pop(), carry)
            size >>= 1
        return Range(self.count + 1, (*peaks, carry))

    def root(self) -> bytes:
        """Equal to `root` over the same leaves."""
        if not self.peaks:
            return root(())
        here = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            here = inner_hash(peak, here)
        return here
