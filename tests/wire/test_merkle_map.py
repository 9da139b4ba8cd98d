"""The map behind the state: a dictionary with a root and proofs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from potd.wire.codec import decode, encode
from potd.wire.merkle_map import MerkleMap, Neighbour, Proof, verify_proof

EMPTY = hashlib.sha256(b"\x12").digest()

keys = st.binary(max_size=3)
values = st.binary(max_size=3)
contents = st.dictionaries(keys, values, max_size=40)


def map_of(content: dict[bytes, bytes]) -> MerkleMap:
    return MerkleMap().updated(content.items())


def position(key: bytes) -> bytes:
    return hashlib.sha256(b"potd map key\x00" + key).digest()


class LikeADictionary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.map = MerkleMap()
        self.model: dict[bytes, bytes] = {}
        self.past: list[tuple[MerkleMap, dict[bytes, bytes]]] = []

    @rule(key=keys, value=values)
    def set_one(self, key: bytes, value: bytes) -> None:
        self.map = self.map.set(key, value)
        self.model[key] = value

    @rule(key=keys)
    def delete_any(self, key: bytes) -> None:
        self.map = self.map.delete(key)
        self.model.pop(key, None)

    @rule(data=st.data())
    def delete_one(self, data: st.DataObject) -> None:
        if self.model:
            key = data.draw(st.sampled_from(sorted(self.model)))
            self.map = self.map.delete(key)
            del self.model[key]

    @rule(changes=st.lists(st.tuples(keys, st.none() | values), max_size=10))
    def update(self, changes: list[tuple[bytes, bytes | None]]) -> None:
        self.map = self.map.updated(changes)
        for key, value in changes:
            if value is None:
                self.model.pop(key, None)
            else:
                self.model[key] = value

    @rule()
    def remember(self) -> None:
        self.past.append((self.map, dict(self.model)))

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.map) == len(self.model)
        assert dict(self.map.items()) == self.model
        assert all(self.map.get(key) == value for key, value in self.model.items())
        assert self.map.get(b"never set") is None

    @invariant()
    def has_the_root_of_its_content_alone(self) -> None:
        assert self.map.root() == map_of(dict(sorted(self.model.items()))).root()

    @invariant()
    def leaves_the_past_alone(self) -> None:
        for map_, model in self.past[-3:]:
            assert dict(map_.items()) == model
            assert map_.root() == map_of(model).root()


LikeADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLikeADictionary = LikeADictionary.TestCase


@given(contents, st.randoms(use_true_random=False), st.lists(keys))
def test_the_root_depends_on_the_content_alone(content: dict[bytes, bytes], chance: object, extra: list[bytes]) -> None:
    shuffled = list(content.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    detour = MerkleMap().updated((key, b"detour") for key in extra)
    detour = detour.updated(shuffled).updated((key, None) for key in extra if key not in content)
    assert detour.root() == map_of(content).root()


@given(contents, contents)
def test_different_contents_have_different_roots(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    assert (map_of(one).root() == map_of(other).root()) == (one == other)


@given(contents)
def test_items_come_by_position(content: dict[bytes, bytes]) -> None:
    found = [position(key) for key, _ in map_of(content).items()]
    assert all(one < other for one, other in pairwise(found))


def test_the_hashes_are_as_written() -> None:
    def leaf(key: bytes, value: bytes) -> bytes:
        return hashlib.sha256(b"\x10" + position(key) + hashlib.sha256(value).digest()).digest()

    assert MerkleMap().root() == EMPTY
    assert MerkleMap().set(b"a", b"1").root() == leaf(b"a", b"1")
    first, second = sorted((b"a", b"b"), key=position)
    differ = int.from_bytes(position(first), "big") ^ int.from_bytes(position(second), "big")
    bit = 256 - differ.bit_length()
    expected = hashlib.sha256(b"\x11" + bytes([bit]) + leaf(first, first) + leaf(second, second)).digest()
    assert MerkleMap().set(b"a", b"a").set(b"b", b"b").root() == expected


def test_setting_what_is_there_and_deleting_what_is_not_change_nothing() -> None:
    here = map_of({b"a": b"1", b"b": b"2"})
    assert here.set(b"a", b"1") is here
    assert here.delete(b"c") is here


@given(contents, keys)
def test_every_key_has_a_proof_of_its_value_or_of_its_absence_and_of_nothing_else(
    content: dict[bytes, bytes], key: bytes
) -> None:
    here = map_of(content)
    for one in (*content, key):
        proof = here.prove(one)
        assert decode(encode(proof), Proof) == proof
        value = content.get(one)
        assert verify_proof(here.root(), one, value, proof)
        assert not verify_proof(here.root(), one, None if value is not None else b"", proof)
        assert not verify_proof(here.root(), one, b"another value", proof)
        assert not verify_proof(EMPTY if content else bytes(32), one, value, proof)
        assert value is None or not verify_proof(here.root(), b"another key", value, proof)


@given(contents.filter(lambda content: len(content) > 1), st.data())
def test_a_changed_proof_proves_nothing(content: dict[bytes, bytes], data: st.DataObject) -> None:
    here = map_of(content)
    key = data.draw(st.sampled_from([*sorted(content), b"absent key"]))
    value, proof = content.get(key), here.prove(key)
    at = data.draw(st.integers(0, len(proof.bits) - 1))
    wrong = hashlib.sha256(b"wrong").digest()
    swapped = (*proof.siblings[:at], wrong, *proof.siblings[at + 1 :])
    shifted = (*proof.bits[:at], (proof.bits[at] + 1) % 256, *proof.bits[at + 1 :])
    changed = [
        replace(proof, siblings=swapped),
        replace(proof, bits=shifted),
        replace(proof, bits=proof.bits[1:], siblings=proof.siblings[1:]),
        replace(proof, bits=proof.bits[1:]),
        replace(proof, siblings=(*proof.siblings, wrong)),
        replace(proof, bits=(*proof.bits, proof.bits[-1]), siblings=(*proof.siblings, wrong)),
        replace(proof, neighbour=() if proof.neighbour else (Neighbour(wrong, wrong),)),
        Proof((), (), ()),
    ]
    for one in changed:
        assert not verify_proof(here.root(), key, value, one)


@given(contents.filter(bool), st.data())
def test_what_is_there_cannot_be_proved_absent_by_its_own_leaf_or_anothers(
    content: dict[bytes, bytes], data: st.DataObject
) -> None:
    here = map_of(content)
    key = data.draw(st.sampled_from(sorted(content)))
    own = here.prove(key)
    for other, value in content.items():
        neighbour = Neighbour(position(other), hashlib.sha256(value).digest())
        for proof in (own, here.prove(other)):
            assert not verify_proof(here.root(), key, None, replace(proof, neighbour=(neighbour,)))


def test_a_large_map_is_shallow() -> None:
    here = MerkleMap().updated((i.to_bytes(4, "big"), b"x") for i in range(10_000))
    deepest = max(len(here.prove(i.to_bytes(4, "big")).bits) for i in range(0, 10_000, 7))
    assert deepest <= 40
    assert len(here) == 10_000
