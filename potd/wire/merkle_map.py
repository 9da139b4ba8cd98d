"""An ordered map with a Merkle root, as a persistent trie. Knows nothing of what its keys and values mean.

A key's *position* is its SHA-256 under a domain, read as 256 bits, first bit first. The map is the binary Patricia
trie over the positions: a branch stands at the first bit in which the positions below it differ, so the shape, and
with it the root, follows from the content alone, whatever the order of the updates.

    leaf    SHA-256(0x10, position, SHA-256(value))
    branch  SHA-256(0x11, bit, left, right)          left: that bit is 0
    empty   SHA-256(0x12)

Order is the order of positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U8, Size, message
from potd.wire.ids import Digest

POSITION_BITS = 256

# Domain separation, also from the trees of `merkle`: no leaf can be read as a branch, and no map as a list.
_LEAF, _BRANCH, _EMPTY, _KEY = b"\x10", b"\x11", hashlib.sha256(b"\x12").digest(), b"potd map key\x00"


@message(100)
@dataclass(frozen=True)
class Neighbour:
    """The leaf that stands where an absent key would stand."""

    position: Digest
    value: Digest  # SHA-256 of its value


@message(101)
@dataclass(frozen=True)
class Proof:
    """The way from the root to a key, or to the neighbour that shows its absence; an empty map has neither."""

    bits: Annotated[tuple[U8, ...], Size(0, POSITION_BITS)]  # of the branches, from the root
    siblings: Annotated[tuple[Digest, ...], Size(0, POSITION_BITS)]  # the hash on the other side of each
    neighbour: Annotated[tuple[Neighbour, ...], Size(0, 1)]


class _Leaf:
    __slots__ = ("hash", "key", "position", "value")

    def __init__(self, position: int, key: bytes, value: bytes) -> None:
        self.position = position
        self.key = key
        self.value = value
        self.hash: bytes | None = None


class _Branch:
    __slots__ = ("bit", "hash", "left", "right")

    def __init__(self, bit: int, left: _Node, right: _Node) -> None:
        self.bit = bit
        self.left = left
        self.right = right
        self.hash: bytes | None = None


_Node = _Leaf | _Branch


class MerkleMap:
    """From bytes to bytes. Never changes: `set` and `delete` return another map, which shares what they left alone.

    Hashes are computed when a root is first asked for, so that many updates pay for a branch once.
    """

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: _Node | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> bytes | None:
        position = _position(key)
        leaf = _nearest(self._root, position)
        return leaf.value if leaf is not None and leaf.position == position else None

    def set(self, key: bytes, value: bytes) -> MerkleMap:
        """This map with `value` at `key`."""
        position = _position(key)
        leaf = _Leaf(position, key, value)
        path, found = _walk(self._root, position)
        if found is None:
            return _map(leaf, 1)
        if found.position == position:
            return self if found.value == value else _map(_rebuilt(path, position, leaf), self._count)
        bit = POSITION_BITS - (position ^ found.position).bit_length()
        below: _Node = found
        while path and path[-1].bit > bit:
            below = path.pop()
        branch = _Branch(bit, below, leaf) if _side(position, bit) else _Branch(bit, leaf, below)
        return _map(_rebuilt(path, position, branch), self._count + 1)

    def delete(self, key: bytes) -> MerkleMap:
        """This map without `key`; the same map where it was not in it."""
        position = _position(key)
        path, found = _walk(self._root, position)
        if found is None or found.position != position:
            return self
        if not path:
            return MerkleMap()
        parent = path.pop()
        other = parent.left if _side(position, parent.bit) else parent.right
        return _map(_rebuilt(path, position, other), self._count - 1)

    def updated(self, changes: Iterable[tuple[bytes, bytes | None]]) -> MerkleMap:
        """This map after each change in turn; None deletes."""
        here = self
        for key, value in changes:
            here = here.delete(key) if value is None else here.set(key, value)
        return here

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values, by position."""
        waiting: list[_Node] = [] if self._root is None else [self._root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, _Leaf):
                yield node.key, node.value
            else:
                waiting += (node.right, node.left)

    def root(self) -> Digest:
        return _EMPTY if self._root is None else _hash(self._root)

    def prove(self, key: bytes) -> Proof:
        """That `key` has its value, or that it is not here. Checked by `verify_proof`."""
        position = _position(key)
        path, found = _walk(self._root, position)
        if found is None:
            return Proof((), (), ())
        bits = tuple(branch.bit for branch in path)
        siblings = tuple(_hash(one.left if _side(position, one.bit) else one.right) for one in path)
        if found.position == position:
            return Proof(bits, siblings, ())
        return Proof(bits, siblings, (Neighbour(_bytes(found.position), hashlib.sha256(found.value).digest()),))


def verify_proof(root: Digest, key: bytes, value: bytes | None, proof: Proof) -> bool:
    """Whether the map with this root has `value` at `key`, or, for None, nothing there."""
    position = _position(key)
    if len(proof.bits) != len(proof.siblings):
        return False
    if any(upper >= lower for upper, lower in zip(proof.bits, proof.bits[1:], strict=False)):
        return False
    if value is not None:
        if proof.neighbour:
            return False
        here = _leaf_hash(position, hashlib.sha256(value).digest())
    elif not proof.neighbour:
        return not proof.bits and root == _EMPTY
    else:
        (neighbour,) = proof.neighbour
        other = int.from_bytes(neighbour.position, "big")
        if other == position:
            return False
        here = _leaf_hash(other, neighbour.value)
    for bit, sibling in zip(reversed(proof.bits), reversed(proof.siblings), strict=True):
        here = _branch_hash(bit, sibling, here) if _side(position, bit) else _branch_hash(bit, here, sibling)
    return here == root


def _map(root: _Node, count: int) -> MerkleMap:
    made = MerkleMap()
    made._root = root
    made._count = count
    return made


def _position(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(_KEY + key).digest(), "big")


def _bytes(position: int) -> bytes:
    return position.to_bytes(POSITION_BITS // 8, "big")


def _side(position: int, bit: int) -> int:
    """0 for left, 1 for right."""
    return (position >> (POSITION_BITS - 1 - bit)) & 1


def _nearest(node: _Node | None, position: int) -> _Leaf | None:
    while isinstance(node, _Branch):
        node = node.right if _side(position, node.bit) else node.left
    return node


def _walk(node: _Node | None, position: int) -> tuple[list[_Branch], _Leaf | None]:
    """The branches that lead towards `position`, from the root, and the leaf that they lead to."""
    path: list[_Branch] = []
    while isinstance(node, _Branch):
        path.append(node)
        node = node.right if _side(position, node.bit) else node.left
    return path, node


def _rebuilt(path: list[_Branch], position: int, node: _Node) -> _Node:
    """The root after `node` has taken its place at the end of `path`."""
    for branch in reversed(path):
        if _side(position, branch.bit):
            node = _Branch(branch.bit, branch.left, node)
        else:
            node = _Branch(branch.bit, node, branch.right)
    return node


def _hash(node: _Node) -> bytes:
    if node.hash is None:
        if isinstance(node, _Leaf):
            node.hash = _leaf_hash(node.position, hashlib.sha256(node.value).digest())
        else:
            node.hash = _branch_hash(node.bit, _hash(node.left), _hash(node.right))
    return node.hash


def _leaf_hash(position: int, value: bytes) -> bytes:
    return hashlib.sha256(_LEAF + _bytes(position) + value).digest()


def _branch_hash(bit: int, left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_BRANCH + bytes((bit,)) + left + right).digest()
