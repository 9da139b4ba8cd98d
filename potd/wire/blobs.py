"""Blobs as files named by content, in one folder. Knows nothing of what is in them, nor of who fetches them."""

from __future__ import annotations

import os
import tempfile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from potd.wire.ids import BlobRef
from potd.wire.merkle import CHUNK_BYTES, blob_leaves, blob_root

UNFINISHED_PREFIX = ".unfinished-"  # a file with such a name is an interrupted write, and may be deleted


def blob_ref(data: bytes | memoryview) -> BlobRef:
    """The name of these bytes."""
    view = memoryview(data).cast("B")
    leaves = blob_leaves(view[i : i + CHUNK_BYTES] for i in range(0, len(view), CHUNK_BYTES))
    return BlobRef(blob_root(len(view), leaves), len(view))


def blob_path(folder: Path, ref: BlobRef) -> Path:
    return folder / ref.root.hex()


def read_blob(folder: Path, ref: BlobRef) -> bytes:
    """The bytes of a blob that was verified when it came in: only its size is looked at again.

    Raises OSError: FileNotFoundError if it is not here, otherwise with a sentence if its size is wrong."""
    with _opened(folder, ref) as file:
        data = file.read(ref.size)
    if len(data) != ref.size:
        raise OSError(f"blob {ref.root.hex()} ended after {len(data)} of {ref.size} bytes")
    return data


def map_blob(folder: Path, ref: BlobRef) -> memoryview:
    """The bytes of a blob of at least one, left in its file until they are looked at. Raises OSError as `read_blob`."""
    with _opened(folder, ref) as file:
        return memoryview(mmap(file.fileno(), ref.size, access=ACCESS_READ))


def _opened(folder: Path, ref: BlobRef) -> BinaryIO:
    file = blob_path(folder, ref).open("rb")
    size = os.fstat(file.fileno()).st_size
    if size != ref.size:
        file.close()
        raise OSError(f"blob {ref.root.hex()} is a file of {size} bytes, not {ref.size}")
    return file


def write_blob(folder: Path, data: bytes | memoryview) -> BlobRef:
    """Keep these bytes under their name. A reader sees all of them or no file. Raises OSError (disk full, ...)."""
    ref = blob_ref(data)
    handle, unfinished = tempfile.mkstemp(prefix=UNFINISHED_PREFIX, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(unfinished, blob_path(folder, ref))
    except BaseException:
        os.unlink(unfinished)
        raise
    return ref
