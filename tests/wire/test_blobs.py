"""Claims about blobs as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.wire.blobs import UNFINISHED_PREFIX, blob_path, blob_ref, read_blob, write_blob
from potd.wire.ids import BlobRef
from potd.wire.merkle import CHUNK_BYTES, root_of_bytes


@given(st.sampled_from((0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)), st.binary(max_size=9))
def test_a_blob_is_named_by_its_chunks(length: int, more: bytes) -> None:
    data = bytes(length) + more
    assert blob_ref(data) == BlobRef(root_of_bytes(data), len(data))


def test_what_is_written_is_read_back_under_its_name(tmp_path: Path) -> None:
    for data in (b"", b"x", bytes(range(256)) * 3000):
        ref = write_blob(tmp_path, data)
        assert ref == blob_ref(data)
        assert blob_path(tmp_path, ref) == tmp_path / ref.root.hex()
        assert read_blob(tmp_path, ref) == data


def test_a_view_of_numbers_is_written_as_its_bytes(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype=np.float32)
    assert write_blob(tmp_path, numbers.data) == blob_ref(numbers.tobytes())
    assert read_blob(tmp_path, blob_ref(numbers.tobytes())) == numbers.tobytes()


def test_writing_again_mends_what_is_on_the_disk(tmp_path: Path) -> None:
    ref = write_blob(tmp_path, b"whole")
    blob_path(tmp_path, ref).write_bytes(b"\0\0\0\0\0")
    write_blob(tmp_path, b"whole")
    assert read_blob(tmp_path, ref) == b"whole"


def test_a_missing_blob_is_told_by_its_name(tmp_path: Path) -> None:
    ref = blob_ref(b"never written")
    with pytest.raises(FileNotFoundError, match=ref.root.hex()):
        read_blob(tmp_path, ref)


@pytest.mark.parametrize("torn", [b"", b"who", b"whole and more"])
def test_a_file_of_another_size_is_not_the_blob(tmp_path: Path, torn: bytes) -> None:
    ref = write_blob(tmp_path, b"whole")
    blob_path(tmp_path, ref).write_bytes(torn)
    with pytest.raises(OSError, match=f"is a file of {len(torn)} bytes, not 5"):
        read_blob(tmp_path, ref)


def test_an_interrupted_write_leaves_no_blob_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        assert Path(source).name.startswith(UNFINISHED_PREFIX)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_blob(tmp_path, b"data")
    assert list(tmp_path.iterdir()) == []
