"""Blobs on disk: which are here, which may be served, which may go. Knows nothing of peers.

A whole blob is a file named by its root. One that is still coming in is a file ROOT.part: the data, then the leaf
hashes, then a byte for each chunk that says whether it has come. Nothing in a .part is believed until it is hashed
again, so a crash at any moment costs at most the chunks that were being written.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from potd.wire.blobs import UNFINISHED_PREFIX, blob_path, write_blob
from potd.wire.ids import BlobRef
from potd.wire.merkle import CHUNK_BYTES, blob_leaves, blob_root, chunk_count, leaf_hash
from potd.wire.transfer import LEAF_BYTES

PART_SUFFIX = ".part"
UNSYNCED_S = 60  # a power cut takes what was written in about the last half minute; so much is hashed again at a start
LEAVES_KEPT = 2**18  # leaf hashes in memory, for serving: 8 MiB
_NAME = re.compile("[0-9a-f]{64}")


class BlobStore:
    """The blobs of one home. Used from one thread; any may call `read_chunk`, `hash_leaves`, `take_over`, `copy`."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self.folder = folder
        self.bytes_max = bytes_max
        self.bytes_held = 0
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # least recently used first
        self._parts: dict[bytes, int] = {}
        self._hidden: set[bytes] = set()
        self._needed: frozenset[bytes] | None = None  # None until the node has said: until then nothing goes
        self._pinned: set[bytes] = set()
        self._leaves: OrderedDict[bytes, Sequence[bytes]] = OrderedDict()

    def open(self) -> tuple[BlobRef, ...]:
        """Look at what is here, and drop what a crash left unfinished or damaged. Returns what is held."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        found: list[tuple[float, bytes, int]] = []
        for entry in os.scandir(self.folder):
            stat = entry.stat(follow_symlinks=False)
            if entry.name.startswith(UNFINISHED_PREFIX):
                os.unlink(entry.path)
            elif _NAME.fullmatch(entry.name):
                found.append((stat.st_mtime, bytes.fromhex(entry.name), stat.st_size))
            elif entry.name.endswith(PART_SUFFIX) and _NAME.fullmatch(entry.name[: -len(PART_SUFFIX)]):
                self._parts[bytes.fromhex(entry.name[: -len(PART_SUFFIX)])] = stat.st_blocks * 512
        newest = max((written for written, _, _ in found), default=0.0)
        for written, root, size in sorted(found):
            ref = BlobRef(root, size)
            if written >= newest - UNSYNCED_S and self.hash_leaves(ref) is None:
                os.unlink(blob_path(self.folder, ref))
            else:
                self._add(ref)
        return tuple(BlobRef(root, size) for root, size in self._sizes.items())

    def has(self, ref: BlobRef) -> bool:
        """Whether the whole blob is here. A worker may have written it without telling."""
        if self._sizes.get(ref.root) == ref.size:
            return True
        try:
            size = blob_path(self.folder, ref).stat().st_size
        except FileNotFoundError:
            return False
        if size != ref.size:
            return False
        self._add(ref)
        return True

    def noticed(self, refs: Iterable[BlobRef]) -> None:
        """A worker says that it has written these."""
        for ref in refs:
            if self.has(ref):
                self._touch(ref)
        self.trim()

    def write(self, data: bytes) -> BlobRef:
        """Keep these bytes. Raises OSError."""
        with _named(self.folder):
            ref = write_blob(self.folder, data)
        self._add(ref)
        self.trim()
        return ref

    def take_over(self, path: Path) -> BlobRef:
        """Make a file a blob by moving it here. Reads it whole. Raises OSError."""
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            leaves = blob_leaves(iter(lambda: file.read(CHUNK_BYTES), b""))
        ref = BlobRef(blob_root(size, leaves), size)
        os.replace(path, self.path(ref))
        return ref

    def copy(self, path: Path) -> BlobRef:
        """Make a copy of a file a blob. Reads it whole. Raises OSError."""
        data = path.read_bytes()
        with _named(self.folder):
            return write_blob(self.folder, data)

    def path(self, ref: BlobRef) -> Path:
        return blob_path(self.folder, ref)

    def pin(self, refs: Iterable[BlobRef]) -> None:
        """Do not delete these, whatever the node says: a person needs them."""
        self._pinned.update(ref.root for ref in refs)

    def unpin(self, refs: Iterable[BlobRef]) -> None:
        self._pinned.difference_update(ref.root for ref in refs)

    # What may be served

    def hide(self, ref: BlobRef) -> None:
        self._hidden.add(ref.root)

    def reveal(self, ref: BlobRef) -> None:
        self._hidden.discard(ref.root)

    def is_served(self, ref: BlobRef) -> bool:
        """Whether the blob is here and not hidden."""
        if ref.root in self._hidden or not self.has(ref):
            return False
        self._touch(ref)
        return True

    def read_chunk(self, ref: BlobRef, index: int) -> bytes:
        """One chunk of a blob that is here. Raises OSError."""
        assert 0 <= index < chunk_count(ref.size)
        with self.path(ref).open("rb") as file:
            return os.pread(file.fileno(), CHUNK_BYTES, index * CHUNK_BYTES)

    def leaves(self, ref: BlobRef) -> Sequence[bytes] | None:
        """Leaf hashes, if they are at hand."""
        return self._leaves.get(ref.root)

    def hash_leaves(self, ref: BlobRef) -> Sequence[bytes] | None:
        """Leaf hashes from the file, None if it is not what its name says. Raises OSError."""
        leaves = [leaf_hash(self.read_chunk(ref, index)) for index in range(chunk_count(ref.size))]
        return leaves if blob_root(ref.size, leaves) == ref.root else None

    def remember_leaves(self, ref: BlobRef, leaves: Sequence[bytes]) -> None:
        self._leaves[ref.root] = leaves
        while len(self._leaves) > 1 and sum(map(len, self._leaves.values())) > LEAVES_KEPT:
            self._leaves.popitem(last=False)

    # What may go

    def retain(self, needed: Iterable[BlobRef], surplus: Iterable[BlobRef]) -> None:
        """These are needed; the surplus goes at once, others as the budget asks."""
        self._needed = frozenset(ref.root for ref in needed)
        for ref in surplus:
            if self._may_go(ref.root):
                self._delete(ref.root)
        self.trim()

    def trim(self) -> None:
        """Delete what is not needed, least recently used first, until the budget is kept."""
        if self._needed is None or self.bytes_held + sum(self._parts.values()) <= self.bytes_max:
            return
        for root in sorted(root for root in self._parts if root not in self._needed):
            self.drop_part(root)
        for root in list(self._sizes):
            if self.bytes_held + sum(self._parts.values()) <= self.bytes_max:
                return
            if self._may_go(root):
                self._delete(root)

    def drop_damaged(self, ref: BlobRef) -> None:
        """A blob whose file is not what its name says."""
        self._delete(ref.root)

    # What is coming in

    def open_part(self, ref: BlobRef) -> Part:
        """Where a blob of several chunks gathers. What came in an earlier life counts, after it was hashed again."""
        part = Part(self.folder / f"{ref.root.hex()}{PART_SUFFIX}", ref)
        self._parts[ref.root] = ref.size
        return part

    def finish_part(self, part: Part) -> None:
        """All chunks are in: the blob is whole. Raises OSError."""
        assert part.leaves is not None
        part.finish(self.path(part.ref))
        self._parts.pop(part.ref.root, None)
        self.remember_leaves(part.ref, part.leaves)
        self._add(part.ref)
        self.trim()

    def drop_part(self, root: bytes) -> None:
        if self._parts.pop(root, None) is not None:
            (self.folder / f"{root.hex()}{PART_SUFFIX}").unlink(missing_ok=True)

    def _may_go(self, root: bytes) -> bool:
        return not (root in (self._needed or ()) or root in self._hidden or root in self._pinned)

    def _add(self, ref: BlobRef) -> None:
        self._forget(ref.root)
        self._sizes[ref.root] = ref.size
        self.bytes_held += ref.size

    def _touch(self, ref: BlobRef) -> None:
        self._sizes.move_to_end(ref.root)

    def _delete(self, root: bytes) -> None:
        self._forget(root)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / root.hex())

    def _forget(self, root: bytes) -> None:
        self._leaves.pop(root, None)
        self.bytes_held -= self._sizes.pop(root, 0)


class Part:
    """One blob that is coming in, chunk by chunk."""

    def __init__(self, path: Path, ref: BlobRef) -> None:
        self._path = path
        self.ref = ref
        self.count = chunk_count(ref.size)
        self.leaves: Sequence[bytes] | None = None
        self.missing: set[int] = set(range(self.count))
        self._file: int | None = None

    def resume(self) -> Iterator[int]:
        """Take up what an earlier life left, as far as it is what it should be. Yields after each chunk that it
        hashed, since a large blob takes long. Raises OSError."""
        size, count = self.ref.size, self.count
        try:
            file = os.open(self._path, os.O_RDWR)
        except FileNotFoundError:
            return
        self._file = file
        tail = os.pread(file, count * (LEAF_BYTES + 1), size)
        if len(tail) != count * (LEAF_BYTES + 1):
            return
        leaves = split_leaves(tail[: count * LEAF_BYTES])
        if blob_root(size, leaves) != self.ref.root:
            return
        self.leaves = leaves
        flags = tail[count * LEAF_BYTES :]
        for index in range(count):
            if flags[index] and leaf_hash(os.pread(file, self._length(index), index * CHUNK_BYTES)) == leaves[index]:
                self.missing.discard(index)
            yield index

    def begin(self, leaves: Sequence[bytes]) -> bool:
        """These are said to be the leaves. Returns whether they are. Raises OSError."""
        if len(leaves) != self.count or blob_root(self.ref.size, leaves) != self.ref.root:
            return False
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, 0)
        with _named(self._path.parent):
            _write_all(self._file, b"".join(leaves) + bytes(self.count), self.ref.size)
        self.leaves = leaves
        return True

    def put(self, index: int, data: bytes) -> bool:
        """This is said to be a chunk. Returns whether it is. Raises OSError."""
        assert self.leaves is not None and self._file is not None
        if leaf_hash(data) != self.leaves[index]:
            return False
        if index in self.missing:
            with _named(self._path.parent):
                _write_all(self._file, data, index * CHUNK_BYTES)
                _write_all(self._file, b"\x01", self.ref.size + self.count * LEAF_BYTES + index)
            self.missing.discard(index)
        return True

    def finish(self, whole: Path) -> None:
        assert not self.missing and self._file is not None
        os.ftruncate(self._file, self.ref.size)
        self.close()
        os.replace(self._path, whole)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _length(self, index: int) -> int:
        return min(CHUNK_BYTES, self.ref.size - index * CHUNK_BYTES)


def split_leaves(hashes: bytes) -> list[bytes]:
    return [hashes[i : i + LEAF_BYTES] for i in range(0, len(hashes), LEAF_BYTES)]


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Writing that fails names the folder: the system tells only what is wrong with it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _write_all(file: int, data: bytes, offset: int) -> None:
    """All of it: a short write is a full disk, and the next try says so."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
