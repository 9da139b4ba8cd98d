"""What this node said and executed, on disk. Knows nothing of what it means.

One sqlite file. Writing is one transaction for everything that one drained inbox ordered, and is durable (a write-ahead
log, synced) when `commit` returns. Reading for others goes over a second connection and never waits for a sync.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

import msgpack

from potd.node.events import Forget, Keep, Note, Store, StoreCertificate, StoreSnapshot
from potd.wire.blocks import Batch, Block, Certificate, Header
from potd.wire.codec import Malformed, decode, encode, tag_of
from potd.wire.consensus import Prepared
from potd.wire.envelope import Signed
from potd.wire.ids import Digest, Key, short

SCHEMA = 1
SCHEMA_SNAPSHOT = 2  # since it holds a snapshot: a release from before these would begin again at genesis
_SNAPSHOT = "snapshot"  # in `about`: the certificate of the state that the blocks follow on
SEQ_UNBOUND = 2**62  # the seq of what belongs to no height: of each kind only the newest is kept
DISK_FAULTS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, kind INTEGER NOT NULL,
                      tag INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX records_by_seq ON records (seq);
CREATE TABLE blocks (height INTEGER PRIMARY KEY, digest BLOB NOT NULL, header BLOB NOT NULL, batch BLOB NOT NULL,
                     certificate BLOB);
CREATE INDEX blocks_by_batch ON blocks (digest);
CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
"""

Write = Keep | Forget | Store | StoreCertificate | StoreSnapshot | Note
WRITES = (Keep, Forget, Store, StoreCertificate, StoreSnapshot, Note)


class JournalError(Exception):
    """This journal cannot be used; the text says why, and what to do. Nothing in it was changed."""


@dataclass(frozen=True)
class Recovered:
    """What a journal holds of the life before. `records` oldest first."""

    header: Header | None
    certificate: Certificate | None
    entries: tuple[tuple[bytes, bytes], ...]
    records: tuple[Signed | Prepared | Batch, ...]
    notes: Mapping[str, bytes]
    begins: int = 0  # the height of the snapshot that the blocks follow on; 0 for genesis


class Journal:
    """An open journal. `commit` is called from one thread at a time; `blocks` and `batch` from any."""

    def __init__(self, path: Path, key: Key, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.key = key  # of the node whose journal it is
        self._path = path
        self._writer = writer
        self._reader = reader
        self._reading = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._reading:
            self._reader.close()
        self._writer.close()

    def commit(self, writes: Iterable[Write]) -> None:
        """Make these durable, all of them or none. Raises OSError if the disk is full or fails."""
        with _disk(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                for write in writes:
                    self._write(write)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def pass_on(self, key: Key) -> None:
        """Go on as the journal of another key, and forget what the present one has said: none of it binds the other."""
        with _disk(self._path):
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.execute("DELETE FROM records")
            self._writer.execute("DELETE FROM notes")
            self._writer.execute("UPDATE about SET data = ? WHERE name = 'key'", (key,))
            self._writer.execute("COMMIT")
        self.key = key

    def recover(self) -> Recovered:
        """Everything that a node needs to go on. Raises JournalError if what is here cannot be read."""
        try:
            with _disk(self._path):
                return self._recover()
        except (Malformed, sqlite3.Error) as error:
            raise JournalError(_corrupt(self._path, str(error))) from None

    def blocks(self, first: int, bytes_max: int, count_max: int = 4096) -> tuple[Block, ...]:
        """Blocks of consecutive heights from `first`, the last one certified, of about `bytes_max` together."""
        found: list[Block] = []
        total = certified = 0
        query = "SELECT height, header, batch, certificate FROM blocks WHERE height >= ? ORDER BY height"
        with self._reading, _disk(self._path):
            for height, header, batch, certificate in self._reader.execute(query, (first,)):
                total += len(header) + len(batch) + len(certificate or b"")
                if height != first + len(found) or len(found) == count_max or (certified and total > bytes_max):
                    break
                attestations = decode(certificate, Certificate).attestations if certificate is not None else ()
                found.append(Block(decode(header, Header), attestations, decode(batch, Batch)))
                if attestations:
                    certified = len(found)
        return tuple(found[:certified])

    def begins(self) -> int:
        """The height after which there are blocks: that of the snapshot which this node once took, or 0."""
        with self._reading, _disk(self._path):
            certificate = _snapshot(self._reader)
        return certificate.header.height if certificate is not None else 0

    def batch(self, digest: Digest) -> bytes | None:
        """The encoding of an executed batch."""
        with self._reading, _disk(self._path):
            row = self._reader.execute("SELECT batch FROM blocks WHERE digest = ? LIMIT 1", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        total = 0
        for name in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            try:
                total += os.stat(name).st_size
            except FileNotFoundError:
                continue
        return total

    def _write(self, write: Write) -> None:
        execute = self._writer.execute
        match write:
            case Keep(seq, record):
                kind, tag = tag_of(type(record)), _payload_tag(record)
                if seq == SEQ_UNBOUND:
                    execute("DELETE FROM records WHERE seq = ? AND kind = ? AND tag = ?", (seq, kind, tag))
                execute(
                    "INSERT INTO records (seq, kind, tag, data) VALUES (?, ?, ?, ?)", (seq, kind, tag, encode(record))
                )
            case Forget(seq):
                assert seq < SEQ_UNBOUND
                execute("DELETE FROM records WHERE seq <= ?", (seq,))
            case Store(header, batch, entries):
                execute(
                    "INSERT INTO blocks (height, digest, header, batch) VALUES (?, ?, ?, ?)",
                    (header.height, header.batch, encode(header), encode(batch)),
                )
                for key, value in entries:
                    if value is None:
                        execute("DELETE FROM state WHERE key = ?", (key,))
                    else:
                        execute("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", (key, value))
            case StoreCertificate(certificate):
                height = certificate.header.height
                done = execute(
                    "UPDATE blocks SET certificate = ? WHERE height = ?", (encode(certificate), height)
                ).rowcount
                assert done == 1, f"a certificate for height {height}, which is not stored"
            case StoreSnapshot(certificate, entries):
                execute("DELETE FROM blocks")
                execute("DELETE FROM state")
                self._writer.executemany("INSERT INTO state (key, value) VALUES (?, ?)", entries)
                about = {_SNAPSHOT: encode(certificate), "schema": SCHEMA_SNAPSHOT.to_bytes(4, "big")}
                self._writer.executemany("INSERT OR REPLACE INTO about (name, data) VALUES (?, ?)", about.items())
            case Note(name, data):
                if data:
                    execute("INSERT OR REPLACE INTO notes (name, data) VALUES (?, ?)", (name, data))
                else:
                    execute("DELETE FROM notes WHERE name = ?", (name,))
            case _:
                assert_never(write)

    def _recover(self) -> Recovered:
        read = self._writer.execute
        newest = read("SELECT header FROM blocks ORDER BY height DESC LIMIT 1").fetchone()
        certified = read(
            "SELECT certificate FROM blocks WHERE certificate IS NOT NULL ORDER BY height DESC LIMIT 1"
        ).fetchone()
        snapshot = _snapshot(self._writer)
        return Recovered(
            header=decode(newest[0], Header) if newest else snapshot.header if snapshot is not None else None,
            certificate=decode(certified[0], Certificate) if certified else snapshot,
            entries=tuple(
                (bytes(key), bytes(value)) for key, value in read("SELECT key, value FROM state ORDER BY key")
            ),
            records=tuple(_record(data) for (data,) in read("SELECT data FROM records ORDER BY id")),
            notes={name: bytes(data) for name, data in read("SELECT name, data FROM notes ORDER BY name")},
            begins=snapshot.header.height if snapshot is not None else 0,
        )


def open_journal(path: Path, network: Digest, *keys: Key) -> Journal:
    """The journal at `path`, of one of these keys; made for the first of them if there is none.

    Raises JournalError if it is damaged, of another release, another network or another node; OSError if the disk
    fails. In either case what was there is as it was.
    """
    fresh, key = not path.exists() or path.stat().st_size == 0, keys[0]
    with _disk(path):
        try:
            if not fresh:
                key = _check(path, network, keys)
            writer = _connect(path)
            if fresh:
                _make(writer, network, key)
            reader = _connect(path)
            reader.execute("PRAGMA query_only = ON")
        except sqlite3.DatabaseError as error:
            if _is_disk_fault(error):
                raise
            raise JournalError(_corrupt(path, str(error))) from None
    return Journal(path, key, writer, reader)


def _check(path: Path, network: Digest, keys: Sequence[Key]) -> Key:
    """Refuse a journal that is not ours to go on with, before anything is written to it. Returns whose it is."""
    # Read-only, so that closing it moves nothing from the write-ahead log into a damaged file.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise JournalError(_corrupt(path, " ".join(verdict.split())))
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "about" not in tables:
            raise JournalError(f"{path}: a database, but not a journal of ours; move it away to begin anew")
        about = {name: bytes(data) for name, data in connection.execute("SELECT name, data FROM about")}
    finally:
        connection.close()
    schema = int.from_bytes(about.get("schema", b""), "big")
    if schema not in (SCHEMA, SCHEMA_SNAPSHOT):
        raise JournalError(
            f"{path}: a journal of schema {schema}, and this release reads {SCHEMA} and {SCHEMA_SNAPSHOT}; start the "
            "release that wrote it"
        )
    if about.get("network") != network:
        raise JournalError(
            f"{path}: the journal of network {short(about.get('network', b''))}, and genesis.toml describes "
            f"{short(network)}; use another home for another network"
        )
    if about.get("key") not in keys:
        raise JournalError(
            f"{path}: the journal of node {short(about.get('key', b''))}, and node.key is that of {short(keys[0])}; "
            "put the old key back, or use another home: two keys must not share what one of them has said"
        )
    return about["key"]


def _make(connection: sqlite3.Connection, network: Digest, key: Key) -> None:
    about = {"schema": SCHEMA.to_bytes(4, "big"), "network": network, "key": key}
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.executemany("INSERT INTO about (name, data) VALUES (?, ?)", sorted(about.items()))
    connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a transaction is on disk when it ends
    return connection


def _snapshot(connection: sqlite3.Connection) -> Certificate | None:
    """The certificate of the state that the blocks follow on; None if that is genesis."""
    row = connection.execute("SELECT data FROM about WHERE name = ?", (_SNAPSHOT,)).fetchone()
    return None if row is None else decode(row[0], Certificate)


def _record(data: bytes) -> Signed | Prepared | Batch:
    record = decode(data, Signed, Prepared, Batch)
    assert isinstance(record, Signed | Prepared | Batch)
    return record


def _payload_tag(record: Signed | Prepared | Batch) -> int:
    """What kind of body was signed; 0 for what is not a signature over a body."""
    if not isinstance(record, Signed):
        return 0
    unpacker = msgpack.Unpacker()
    unpacker.feed(record.payload)
    unpacker.read_array_header()
    return int(unpacker.unpack())


def _corrupt(path: Path, why: str) -> str:
    return (
        f"{path}: the journal is damaged ({why}). Nothing was changed. Move it away and start again: the node follows "
        "the chain afresh. Not so a validator, which may have voted on what it would not remember: leave it out"
    )


def _is_disk_fault(error: sqlite3.Error) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(DISK_FAULTS)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What sqlite says of the disk, as the OSError that it is."""
    try:
        yield
    except sqlite3.Error as error:
        if not _is_disk_fault(error):
            raise
        if error.sqlite_errorname == "SQLITE_FULL":
            raise OSError(f"{path}: the disk is full; make room and start again: what was written is safe") from error
        raise OSError(f"{path}: the disk failed: {error} ({error.sqlite_errorname})") from error
