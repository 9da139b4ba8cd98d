"""The map behind the state: a dictionary with a root and proofs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from potd.wire.codec import decode, encode
from potd.wire.merkle_map import EVERYTHING, MerkleMap, Neighbour, Prefix, Proof, verify_part, verify_proof

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


LikeADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
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


# Parts


def bits_of(data: bytes, length: int) -> str:
    return "".join(f"{byte:08b}" for byte in data)[:length]


def prefix_of(bits: str) -> Prefix:
    return Prefix(int(bits.ljust(256, "0"), 2).to_bytes(32, "big"), len(bits))


def part_of(here: MerkleMap, prefix: Prefix) -> tuple[tuple[tuple[bytes, bytes], ...], Proof]:
    part = here.part(prefix, 10**9, 10**9)
    assert part is not None
    return part


def within(content: dict[bytes, bytes], prefix: Prefix) -> list[tuple[bytes, bytes]]:
    """What begins so, by position: worked out without the trie."""
    wanted = bits_of(prefix.bits, prefix.length)
    found = [entry for entry in content.items() if bits_of(position(entry[0]), prefix.length) == wanted]
    return sorted(found, key=lambda entry: position(entry[0]))


def prefixes(content: dict[bytes, bytes]) -> st.SearchStrategy[Prefix]:
    """Any, or one that something in the map begins with, or nearly."""
    some = st.text("01", max_size=12)
    if content:
        key = st.sampled_from(sorted(content))
        there = st.builds(lambda key, length: bits_of(position(key), length), key, st.integers(0, 256))
        some |= there | there.map(lambda bits: bits[:-1] + "10"[int(bits[-1])] if bits else bits)
    return some.map(prefix_of)


@given(contents)
def test_a_map_made_at_once_is_the_one_made_step_by_step(content: dict[bytes, bytes]) -> None:
    here = MerkleMap.of(content.items())
    assert (here.root(), len(here)) == (map_of(content).root(), len(content))
    assert list(here.items()) == list(map_of(content).items())
    assert here.set(b"more", b"1").delete(b"more").root() == here.root()


@given(contents, st.data())
def test_a_part_is_all_that_begins_with_its_prefix_and_is_proved(
    content: dict[bytes, bytes], data: st.DataObject
) -> None:
    here = map_of(content)
    prefix = data.draw(prefixes(content))
    entries, proof = part_of(here, prefix)
    assert list(entries) == within(content, prefix)
    assert decode(encode(proof), Proof) == proof
    assert verify_part(here.root(), prefix, entries, proof)


@given(contents, st.data())
def test_nothing_but_what_is_there_can_be_proved_of_a_part(content: dict[bytes, bytes], data: st.DataObject) -> None:
    """Whatever is added, left out, changed, moved or put in another order, under whatever proof the map can give."""
    here = map_of(content)
    prefix = data.draw(prefixes(content))
    entries, proof = part_of(here, prefix)
    extra = data.draw(st.tuples(keys, values))
    false: list[tuple[tuple[bytes, bytes], ...]] = [(), (*entries, extra), (extra, *entries), (extra,), entries[::-1]]
    false += [tuple(here.items()), (*entries, *entries)]
    for at, (key, value) in enumerate(entries):
        rest = entries[:at], entries[at + 1 :]
        false += [(*rest[0], *rest[1]), (*rest[0], (key, value + b"!"), *rest[1]), (*rest[0], (key, b""), *rest[1])]
        false += [(*rest[0], (key + b"!", value), *rest[1]), (entries[at],)]
    others = [data.draw(prefixes(content)) for _ in range(4)]
    proofs = [proof, Proof((), (), ()), *(part_of(here, other)[1] for other in others)]
    proofs += [here.prove(key) for key in list(content)[:4]]
    proofs += [replace(proof, neighbour=one.neighbour) for one in proofs]
    for claimed in [entries, *false, *(part_of(here, other)[0] for other in others)]:
        for one in proofs:
            if verify_part(here.root(), prefix, claimed, one):
                assert claimed == entries


@given(contents.filter(bool), st.data())
def test_a_part_proves_nothing_of_another_prefix(content: dict[bytes, bytes], data: st.DataObject) -> None:
    """Unless it is the same part: a longer prefix that all of it begins with, or a shorter that nothing else does."""
    here = map_of(content)
    prefix, other = data.draw(prefixes(content)), data.draw(prefixes(content))
    entries, proof = part_of(here, prefix)
    assert not verify_part(here.root(), other, entries, proof) or list(entries) == within(content, other)


@given(contents.filter(lambda content: len(content) > 1), st.data())
def test_a_changed_proof_of_a_part_proves_nothing(content: dict[bytes, bytes], data: st.DataObject) -> None:
    here = map_of(content)
    prefix = data.draw(prefixes(content))
    entries, proof = part_of(here, prefix)
    wrong = hashlib.sha256(b"wrong").digest()
    changed = [
        replace(proof, bits=(*proof.bits, min(prefix.length, 255)), siblings=(*proof.siblings, wrong)),
        replace(proof, bits=(*proof.bits, 255)),
        replace(proof, siblings=(*proof.siblings, wrong)),
        replace(proof, neighbour=() if proof.neighbour else (Neighbour(wrong, wrong),)),
    ]
    for at in range(len(proof.bits)):
        swapped = (*proof.siblings[:at], wrong, *proof.siblings[at + 1 :])
        shifted = (*proof.bits[:at], (proof.bits[at] + 1) % 256, *proof.bits[at + 1 :])
        changed += [replace(proof, siblings=swapped), replace(proof, bits=shifted)]
    for one in changed:
        assert not verify_part(here.root(), prefix, entries, one)


def test_a_part_hidden_behind_a_branch_deeper_than_its_prefix_is_not_whole() -> None:
    """One side of a branch that stands behind the prefix is a real subtree, and not all that begins with the prefix."""
    content = {bytes([one]): b"" for one in range(40)}
    here = map_of(content)
    prefix = prefix_of("0")
    entries, _ = part_of(here, prefix)
    left, right = (part_of(here, half) for half in prefix.halves())
    assert left[0] + right[0] == entries and left[0] and right[0]
    for half, claimed in zip(prefix.halves(), (left, right), strict=True):
        assert verify_part(here.root(), half, *claimed)
        assert not verify_part(here.root(), prefix, *claimed)


def test_what_is_there_cannot_be_said_to_be_absent_by_a_leaf_that_is_not_beside_it() -> None:
    """A leaf from the other side of a branch, with that branch left out of its way or not."""
    content = {bytes([one]): b"" for one in range(40)}
    here = map_of(content)
    for key, value in content.items():
        proof = replace(here.prove(key), neighbour=(Neighbour(position(key), hashlib.sha256(value).digest()),))
        for bits in ("0", "1", "01", "1110"):
            prefix = prefix_of(bits)
            assert within(content, prefix)
            assert not verify_part(here.root(), prefix, (), proof)
            for at in range(len(proof.bits)):
                short = replace(proof, bits=proof.bits[:at], siblings=proof.siblings[:at])
                assert not verify_part(here.root(), prefix, (), short)


def test_a_part_that_is_too_large_is_to_be_asked_for_by_halves() -> None:
    content = {bytes([one]): bytes(9) for one in range(40)}  # ten bytes each
    here = map_of(content)
    assert here.part(EVERYTHING, 400, 40) is not None
    assert here.part(EVERYTHING, 399, 40) is None
    assert here.part(EVERYTHING, 400, 39) is None
    alone = prefix_of(bits_of(position(b"\x07"), 256))
    assert here.part(alone, 1, 1) is not None  # one entry is never too large


def test_halves_are_the_prefix_and_one_bit_more() -> None:
    assert EVERYTHING.halves() == (prefix_of("0"), prefix_of("1"))
    assert prefix_of("0101").halves() == (prefix_of("01010"), prefix_of("01011"))
    assert prefix_of("1" * 255).halves() == (prefix_of("1" * 255 + "0"), prefix_of("1" * 256))
    assert all(prefix_of(bits).is_whole() for bits in ("", "0", "1", "0101", "1" * 256))
    assert not Prefix(prefix_of("0101").bits, 3).is_whole()


@given(contents, contents)
def test_the_parts_that_two_maps_do_not_share_hold_all_in_which_they_differ(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    first = map_of(one)
    second = first.updated([*other.items(), *((key, None) for key in sorted(one.keys() - other.keys()))])
    mine, theirs = first.apart(second)
    assert set(one.items()) - set(other.items()) <= set(mine) <= set(one.items())
    assert set(other.items()) - set(one.items()) <= set(theirs) <= set(other.items())
    assert first.apart(first) == ([], [])


def test_a_map_that_was_made_from_another_shares_most_with_it() -> None:
    first = MerkleMap().updated((bytes([n]), b"old") for n in range(200))
    mine, theirs = first.apart(first.set(bytes([7]), b"new"))
    assert (mine, theirs) == ([(bytes([7]), b"old")], [(bytes([7]), b"new")])
