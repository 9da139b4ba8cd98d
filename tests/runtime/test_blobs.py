"""The blob store: what is needed stays, what a crash spoiled goes, half a blob is never a blob."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from potd.runtime.blobs import BlobStore, Part
from potd.wire.blobs import blob_ref, read_blob, write_blob
from potd.wire.ids import BlobRef
from potd.wire.merkle import CHUNK_BYTES, blob_leaves

LARGE = os.urandom(3 * CHUNK_BYTES + 5)


def opened(folder: Path, bytes_max: int = 10**9) -> BlobStore:
    store = BlobStore(folder, bytes_max)
    store.open()
    return store


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


def held(store: BlobStore, refs: Iterable[BlobRef]) -> list[bool]:
    return [store.has(ref) for ref in refs]


def test_what_was_written_is_held_after_a_restart(tmp_path: Path) -> None:
    ref = opened(tmp_path).write(b"gradient")
    again = BlobStore(tmp_path, 10**9)
    assert again.open() == (ref,)
    assert read_blob(tmp_path, ref) == b"gradient"


def test_a_blob_that_a_worker_wrote_is_held_without_being_told(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ref = write_blob(tmp_path, b"by a child process")
    assert store.has(ref)
    assert store.bytes_held == ref.size


def test_an_interrupted_write_and_a_spoiled_blob_are_gone_after_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    good, spoiled = store.write(b"good"), store.write(b"spoiled")
    store.path(spoiled).write_bytes(bytes(spoiled.size))  # what a power cut leaves of an unsynced file
    (tmp_path / ".unfinished-abc").write_bytes(b"half")
    assert BlobStore(tmp_path, 10**9).open() == (good,)
    assert sorted(os.listdir(tmp_path)) == [good.root.hex()]


def test_a_file_of_another_size_is_not_the_blob(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ref = blob_ref(b"whole")
    store.path(ref).write_bytes(b"who")
    assert not store.has(ref)


def test_the_least_recently_used_goes_first_and_the_needed_never(tmp_path: Path) -> None:
    store = opened(tmp_path, bytes_max=300)
    refs = [store.write(bytes([number]) * 100) for number in range(5)]
    assert held(store, refs) == [True] * 5, "nothing goes before the node has said what it needs"
    store.is_served(refs[1])
    store.retain(needed=[refs[0]], surplus=[])
    assert held(store, refs) == [True, True, False, False, True]
    assert store.bytes_held == 300


def test_surplus_goes_at_once_unless_it_is_needed_hidden_or_pinned(tmp_path: Path) -> None:
    store = opened(tmp_path)
    refs = [store.write(bytes([number])) for number in range(4)]
    store.hide(refs[1])
    store.pin([refs[2]])
    store.retain(needed=[refs[0]], surplus=refs)
    assert held(store, refs) == [True, True, True, False]
    store.unpin([refs[2]])
    store.retain(needed=[], surplus=refs[:3])
    assert held(store, refs) == [False, True, False, False]


def test_a_hidden_blob_is_served_to_nobody_until_it_is_revealed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ref = store.write(b"not yet")
    store.hide(ref)
    assert store.has(ref)
    assert not store.is_served(ref)
    store.reveal(ref)
    assert store.is_served(ref)


def test_leaves_of_a_spoiled_file_are_not_given(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ref = store.write(LARGE)
    assert store.hash_leaves(ref) == blob_leaves(chunks(LARGE))
    with store.path(ref).open("r+b") as file:
        file.seek(CHUNK_BYTES + 1)
        file.write(b"?")
    assert store.hash_leaves(ref) is None


def test_a_file_is_taken_over_by_moving_it(tmp_path: Path) -> None:
    folder, path = tmp_path / "blobs", tmp_path / "brought"
    store = opened(folder)
    path.write_bytes(LARGE)
    ref = store.take_over(path)
    assert ref == blob_ref(LARGE)
    assert store.has(ref)
    assert not path.exists()


def begun(store: BlobStore, data: bytes) -> Part:
    part = store.open_part(blob_ref(data))
    assert part.begin(blob_leaves(chunks(data)))
    return part


def test_a_blob_gathers_chunk_by_chunk_in_any_order(tmp_path: Path) -> None:
    store = opened(tmp_path)
    ref = blob_ref(LARGE)
    part = begun(store, LARGE)
    for index in (3, 0, 2, 1):
        assert not store.has(ref)
        assert part.put(index, chunks(LARGE)[index])
    store.finish_part(part)
    assert read_blob(tmp_path, ref) == LARGE
    assert os.listdir(tmp_path) == [ref.root.hex()]


def test_wrong_leaves_and_wrong_chunks_are_told_from_right_ones(tmp_path: Path) -> None:
    store = opened(tmp_path)
    part = store.open_part(blob_ref(LARGE))
    assert not part.begin(blob_leaves(chunks(LARGE))[:-1])
    assert not part.begin([bytes(32)] * 4)
    part = begun(store, LARGE)
    assert not part.put(0, chunks(LARGE)[1])
    assert part.missing == {0, 1, 2, 3}
    part.close()


def test_what_had_come_before_a_crash_counts_unless_it_was_spoiled(tmp_path: Path) -> None:
    part = begun(opened(tmp_path), LARGE)
    for index in (0, 1, 3):
        part.put(index, chunks(LARGE)[index])
    part.close()
    path = tmp_path / f"{blob_ref(LARGE).root.hex()}.part"
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes(100))
    again = opened(tmp_path).open_part(blob_ref(LARGE))
    list(again.resume())
    assert again.missing == {1, 2}
    for index in (1, 2):
        assert again.put(index, chunks(LARGE)[index])
    assert not again.missing
    again.close()


def test_a_part_that_is_nonsense_is_begun_afresh(tmp_path: Path) -> None:
    ref = blob_ref(LARGE)
    (tmp_path / f"{ref.root.hex()}.part").write_bytes(os.urandom(len(LARGE) + 4 * 33))
    part = opened(tmp_path).open_part(ref)
    list(part.resume())
    assert part.leaves is None
    assert part.begin(blob_leaves(chunks(LARGE)))
    assert part.missing == {0, 1, 2, 3}
    part.close()


def test_parts_count_towards_the_budget_and_go_first(tmp_path: Path) -> None:
    store = opened(tmp_path, bytes_max=2 * CHUNK_BYTES)
    small = store.write(b"small")
    begun(store, LARGE).close()
    store.retain(needed=[], surplus=[])
    assert os.listdir(tmp_path) == [small.root.hex()]


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    store, ref = opened(tmp_path), blob_ref(LARGE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    part = store.open_part(ref)
    assert part.begin(blob_leaves(chunks(LARGE)))
    attempts: list[Callable[[], object]] = [lambda: store.write(LARGE), lambda: part.put(1, chunks(LARGE)[1])]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for attempt in attempts:
            with pytest.raises(OSError, match="File too large") as failure:
                attempt()
            assert failure.value.filename == str(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    part.close()
    assert 1 in part.missing
    assert os.listdir(tmp_path) == [f"{ref.root.hex()}.part"]
