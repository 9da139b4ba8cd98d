"""Merkle trees over lists, names of blobs, and mountain ranges."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.wire import merkle
from potd.wire.merkle import CHUNK_BYTES

LEAVES = [merkle.leaf_hash(bytes([i])) for i in range(40)]

leaves = st.lists(st.binary(max_size=4), max_size=70).map(lambda parts: [merkle.leaf_hash(one) for one in parts])


def _recursive(parts: list[bytes]) -> bytes:
    """The definition. [RFC 6962 2.1]"""
    if not parts:
        return hashlib.sha256(b"").digest()
    if len(parts) == 1:
        return parts[0]
    split = 1 << (len(parts) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _recursive(parts[:split]) + _recursive(parts[split:])).digest()


@given(leaves)
def test_the_root_is_that_of_the_definition(parts: list[bytes]) -> None:
    assert merkle.root(parts) == _recursive(parts)


def test_the_roots_are_those_that_others_publish() -> None:
    # The reference vectors of Certificate Transparency.
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    hashed = [merkle.leaf_hash(bytes.fromhex(one)) for one in data]
    assert [merkle.root(hashed[:count]).hex() for count in range(9)] == roots


def test_every_leaf_of_every_small_tree_has_a_proof_that_holds_nowhere_else() -> None:
    for count in range(1, 34):
        top = merkle.root(LEAVES[:count])
        for index in range(count):
            siblings = merkle.proof(LEAVES[:count], index)
            for at in range(-1, count + 2):
                assert merkle.proves(LEAVES[index], at, count, siblings, top) == (at == index)
            assert not merkle.proves(LEAVES[39], index, count, siblings, top)
            assert not merkle.proves(LEAVES[index], index, count, siblings, LEAVES[39])
            assert not merkle.proves(LEAVES[index], index, count, (*siblings, LEAVES[0]), top)
            if siblings:
                assert not merkle.proves(LEAVES[index], index, count, siblings[:-1], top)
                assert not merkle.proves(LEAVES[index], index, count, siblings[1:], top)


@given(leaves.filter(bool), st.data())
def test_a_proof_with_another_sibling_proves_nothing(parts: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(parts) - 1))
    siblings = list(merkle.proof(parts, index))
    assert merkle.proves(parts[index], index, len(parts), siblings, merkle.root(parts))
    for at in range(len(siblings)):
        wrong = [*siblings[:at], merkle.leaf_hash(b"wrong"), *siblings[at + 1 :]]
        assert not merkle.proves(parts[index], index, len(parts), wrong, merkle.root(parts))


def test_no_proof_is_asked_of_a_leaf_that_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(AssertionError):
            merkle.proof(LEAVES[:3], index)


def test_a_leaf_cannot_be_read_as_an_inner_node() -> None:
    left, right = LEAVES[:2]
    inside = merkle.inner_hash(left, right)
    for forged in (left + right, b"\x01" + left + right, b"\x00" + left + right):
        assert merkle.leaf_hash(forged) != inside
    assert merkle.root([inside]) != merkle.leaf_hash(left + right)


def test_a_blob_cannot_be_read_as_a_tree_nor_as_one_of_another_size() -> None:
    for count in range(4):
        names = {merkle.blob_root(size, LEAVES[:count]) for size in range(5)}
        assert len(names) == 5
        assert merkle.root(LEAVES[:count]) not in names
    # Two leaves, and one leaf that is their inner hash: the size tells which, and so how many chunks there are.
    inside = merkle.inner_hash(*LEAVES[:2])
    assert merkle.blob_root(CHUNK_BYTES + 1, LEAVES[:2]) != merkle.blob_root(CHUNK_BYTES, [inside])


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 0), (1, 1), (CHUNK_BYTES - 1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (5 * CHUNK_BYTES, 5)],
)
def test_a_blob_is_named_by_the_chunks_it_is_cut_into(size: int, count: int) -> None:
    data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
    data = data[:size]
    chunks = [data[i * CHUNK_BYTES : (i + 1) * CHUNK_BYTES] for i in range(count)]
    assert merkle.chunk_count(size) == count
    assert merkle.root_of_bytes(data) == merkle.blob_root(size, merkle.blob_leaves(chunks))
    assert b"".join(chunks) == data


@given(leaves)
def test_a_mountain_range_has_the_root_of_the_list_at_every_length(parts: list[bytes]) -> None:
    here = merkle.Range()
    for count, leaf in enumerate(parts):
        assert (here.count, here.root()) == (count, merkle.root(parts[:count]))
        assert len(here.peaks) == count.bit_count()
        here = here.appended(leaf)
    assert here.root() == merkle.root(parts)


@given(leaves, leaves)
def test_a_mountain_range_goes_on_from_its_peaks(before: list[bytes], after: list[bytes]) -> None:
    first = merkle.Range()
    for leaf in before:
        first = first.appended(leaf)
    second = merkle.Range(first.count, first.peaks)
    for leaf in after:
        second = second.appended(leaf)
    assert second.root() == merkle.root(before + after)
    assert first.root() == merkle.root(before)


def test_peaks_that_do_not_fit_the_count_are_our_mistake() -> None:
    with pytest.raises(AssertionError):
        merkle.Range(3, (LEAVES[0],))
