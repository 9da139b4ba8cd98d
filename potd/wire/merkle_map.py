"""An ordered map with a Merkle root, as a persistent trie. Knows nothing of what its keys and values mean.

A key's *position* is its SHA-256 under a domain, read as 256 bits, first bit first. The map is the binary Patricia
trie over the positions: a branch stands at the first bit in which the positions below it differ, so the shape, and
with it the root, follows from the content alone, whatever the order of the updates.

    leaf    SHA-256(0x10, position, SHA-256(value))
    branch  SHA-256(0x11, bit, left, right)          left: that bit is 0
    empty   SHA-256(0x12)

Order is the order of positions. A *part* of the map is all that stands at positions with a given prefix: one subtree,
or nothing. Since the shape follows from the content, whoever has the root can check a part by rebuilding its subtree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True, order=True)
class Prefix:
    """The first `length` bits of a position, and with them all positions that begin so. The bits behind are 0."""

    bits: Digest
    length: int

    def halves(self) -> tuple[Prefix, Prefix]:
        """The prefixes that are one bit longer."""
        assert self.length < POSITION_BITS
        other = int.from_bytes(self.bits, "big") | 1 << (POSITION_BITS - 1 - self.length)
        return Prefix(self.bits, self.length + 1), Prefix(_bytes(other), self.length + 1)

    def is_whole(self) -> bool:
        """Whether nothing stands behind the bits that count."""
        return not int.from_bytes(self.bits, "big") & ((1 << (POSITION_BITS - self.length)) - 1)


EVERYTHING = Prefix(bytes(POSITION_BITS // 8), 0)


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

    @staticmethod
    def of(entries: Iterable[tuple[bytes, bytes]]) -> MerkleMap:
        """The map that holds just these; of a key that comes twice, its last value. Takes linear time."""
        leaves = sorted((_Leaf(_position(key), key, value) for key, value in dict(entries).items()), key=_place)
        return _map(_grown(leaves), len(leaves)) if leaves else MerkleMap()

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
        return iter(()) if self._root is None else _items(self._root)

    def apart(self, other: MerkleMap) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
        """The entries of this map and of the other in the subtrees that the two do not share as one object.

        Every entry in which they differ is among them; some that are the same in both may be, too."""
        mine: list[tuple[bytes, bytes]] = []
        theirs: list[tuple[bytes, bytes]] = []
        waiting: list[tuple[_Node | None, _Node | None]] = [(self._root, other._root)]
        while waiting:
            here, there = waiting.pop()
            if here is there:
                continue
            if isinstance(here, _Branch) and isinstance(there, _Branch) and here.bit == there.bit:
                waiting += ((here.right, there.right), (here.left, there.left))
                continue
            mine += _items(here) if here is not None else ()
            theirs += _items(there) if there is not None else ()
        return mine, theirs

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

    def part(
        self, prefix: Prefix, bytes_max: int, entries_max: int
    ) -> tuple[tuple[tuple[bytes, bytes], ...], Proof] | None:
        """The entries at positions that begin so, by position, and the proof that these are all: `verify_part`.

        None if they are several and more than `bytes_max`, keys and values, or `entries_max`: ask for the halves."""
        wanted = int.from_bytes(prefix.bits, "big")
        path: list[_Branch] = []
        node = self._root
        while isinstance(node, _Branch) and node.bit < prefix.length:
            path.append(node)
            node = node.right if _side(wanted, node.bit) else node.left
        if node is None:
            return (), Proof((), (), ())
        some = _leftmost(node)
        neighbour: tuple[Neighbour, ...] = ()
        entries: list[tuple[bytes, bytes]] = []
        if _differ(some.position, wanted) < prefix.length:  # and so do all below
            path += _walk(node, some.position)[0]
            neighbour = (Neighbour(_bytes(some.position), hashlib.sha256(some.value).digest()),)
            wanted = some.position
        else:
            size = 0
            for key, value in _items(node):
                size += len(key) + len(value)
                if entries and (size > bytes_max or len(entries) == entries_max):
                    return None
                entries.append((key, value))
        siblings = tuple(_hash(one.left if _side(wanted, one.bit) else one.right) for one in path)
        return tuple(entries), Proof(tuple(one.bit for one in path), siblings, neighbour)


def verify_proof(root: Digest, key: bytes, value: bytes | None, proof: Proof) -> bool:
    """Whether the map with this root has `value` at `key`, or, for None, nothing there."""
    position = _position(key)
    if len(proof.bits) != len(proof.siblings):
        return False
    if any(upper >= lower for upper, lower in pairwise(proof.bits)):
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
    return _folded(here, position, proof) == root


def verify_part(root: Digest, prefix: Prefix, entries: tuple[tuple[bytes, bytes], ...], proof: Proof) -> bool:
    """Whether the map with this root has at positions with this prefix just these entries, in this order.

    Entries: the subtree that they make must be the one to which the prefix leads by branches at bits within it. What
    begins with the prefix takes the same side at each of them, so it is all in that subtree. None: a leaf with another
    beginning, on whose way no branch stands at the first bit in which the two differ. Were anything there that begins
    with the prefix, it and the leaf would differ first at that very bit, and a branch would stand there.
    """
    if len(proof.bits) != len(proof.siblings) or any(upper >= lower for upper, lower in pairwise(proof.bits)):
        return False
    wanted = int.from_bytes(prefix.bits, "big")
    if entries:
        leaves = [_Leaf(_position(key), key, value) for key, value in entries]
        if proof.neighbour or any(one.position >= other.position for one, other in pairwise(leaves)):
            return False
        if any(_differ(leaf.position, wanted) < prefix.length for leaf in leaves):
            return False
        if proof.bits and proof.bits[-1] >= prefix.length:
            return False
        return _folded(_hash(_grown(leaves)), wanted, proof) == root
    if not proof.neighbour:
        return not proof.bits and root == _EMPTY
    (neighbour,) = proof.neighbour
    other = int.from_bytes(neighbour.position, "big")
    fork = _differ(other, wanted)
    if fork >= prefix.length or fork in proof.bits:
        return False
    return _folded(_leaf_hash(other, neighbour.value), other, proof) == root


def _folded(here: bytes, position: int, proof: Proof) -> bytes:
    """The root to which the proof leads from what stands at the end of the way to this position."""
    for bit, sibling in zip(reversed(proof.bits), reversed(proof.siblings), strict=True):
        here = _branch_hash(bit, sibling, here) if _side(position, bit) else _branch_hash(bit, here, sibling)
    return here


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


def _differ(one: int, other: int) -> int:
    """The first bit in which two positions differ; POSITION_BITS if they are the same."""
    return POSITION_BITS - (one ^ other).bit_length()


def _place(leaf: _Leaf) -> int:
    return leaf.position


def _grown(leaves: list[_Leaf]) -> _Node:
    """The subtree of these leaves, of which there are some, by position, each position once."""
    # `open_` are the branches that later leaves may still come under, from the top: each with its left side alone.
    open_: list[tuple[int, _Node]] = []
    here: _Node = leaves[0]
    for before, leaf in pairwise(leaves):
        bit = _differ(before.position, leaf.position)
        while open_ and open_[-1][0] > bit:
            above, left = open_.pop()
            here = _Branch(above, left, here)
        open_.append((bit, here))
        here = leaf
    while open_:
        above, left = open_.pop()
        here = _Branch(above, left, here)
    return here


def _items(node: _Node) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values below a node, by position."""
    waiting: list[_Node] = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, _Leaf):
            yield here.key, here.value
        else:
            waiting += (here.right, here.left)


def _leftmost(node: _Node) -> _Leaf:
    while isinstance(node, _Branch):
        node = node.left
    return node


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
