"""What this node said and executed, on disk. Knows nothing of what it means.

One sqlite file. Writing is one transaction for everything that one drained inbox ordered, and is durable (a write-ahead
log, synced) when `commit` returns. Reading for others goes over a second connection and never waits for a sync.

A journal that was cut is either a consistent earlier one or is refused. The log is emptied as soon as it has been moved
into the file, so that its beginning never stands on a file that is newer; a number that each log counts up tells
whether a log and a file belong together; signatures tell whether a record is what was written.
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

from potd.node.events import OWED, Forget, Keep, Note, Store, StoreCertificate, StoreSnapshot
from potd.node.shelf import HANDOVER_NOTES
from potd.wire.blocks import Batch, Block, Certificate, Header, batch_digest
from potd.wire.codec import Malformed, decode, encode, tag_of
from potd.wire.consensus import WORDS, Prepare, Prepared, PrePrepare
from potd.wire.envelope import Attestation, Signed, attests, verify
from potd.wire.ids import Digest, Key, short

SCHEMA = 1
SCHEMA_SNAPSHOT = 2  # since it holds a snapshot: a release from before these would begin again at genesis
_SNAPSHOT = "snapshot"  # in `about`: the certificate of the state that the blocks follow on
PAGE_BYTES = 4096  # of sqlite
LOG_BYTES_MAX = 4 << 20  # the write-ahead log is moved into the file when it is so long
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

    def __init__(
        self, path: Path, network: Digest, key: Key, writer: sqlite3.Connection, reader: sqlite3.Connection
    ) -> None:
        self.key = key  # of the node whose journal it is
        self._path = path
        self._network = network
        self._writer = writer
        self._reader = reader
        self._reading = threading.Lock()
        self._logged = False  # whether the log is of this life
        self._owed: list[Write] = []
        self._certificates: dict[int, Certificate] = {}  # of these, by height

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(sqlite3.Error, OSError):  # whatever could not be moved stays in the log
            if self._owed:
                self.commit(())
            if self._logged:
                self._empty_log()
        with self._reading:
            self._reader.close()
        self._writer.close()

    @property
    def owes(self) -> bool:
        """Whether something waits for the next commit."""
        return bool(self._owed)

    def owe(self, writes: Iterable[Write]) -> None:
        """Make these, of the kinds in `OWED`, durable with the next commit, or when the journal is closed.

        A crash before that is as one that came before them. Peers are answered as if they were written.
        """
        for write in writes:
            assert isinstance(write, OWED), f"{type(write).__name__} cannot wait"
            self._owed.append(write)
            if isinstance(write, StoreCertificate):
                self._certificates[write.certificate.header.height] = write.certificate

    def commit(self, writes: Iterable[Write]) -> None:
        """Make these durable, all of them or none, and what is owed with them. Raises OSError if the disk is full or
        fails."""
        with self._transaction():
            for write in (*self._owed, *writes):
                self._write(write)
        self._owed = []
        self._certificates = {}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _disk(self._path):
            if not self._logged and _is_filled(_log_of(self._path)):
                self._empty_log()  # that of a life which did not end well
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                if not self._logged:
                    _count_up(self._writer)
                yield
                self._writer.execute("COMMIT")
                self._logged = True
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            if os.stat(_log_of(self._path)).st_size > LOG_BYTES_MAX:
                self._empty_log()

    def _empty_log(self) -> None:
        """Move the log into the file, and begin it afresh with the next transaction.

        Its last transaction says that it ends here: while it is being moved, only all of it fits the file."""
        self._writer.execute(
            "INSERT OR REPLACE INTO about (name, data) SELECT 'logs ended', data FROM about WHERE name = 'logs'"
        )
        with self._reading:  # nobody reads the log meanwhile
            busy, _, _ = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "somebody else reads the journal"
        self._logged = False

    def pass_on(self, key: Key) -> None:
        """Go on as the journal of another key, and forget what the present one has said: none of it binds the other.

        Who decided up to which height is nothing that it said, and newcomers will have to be shown."""
        with self._transaction():
            self._writer.execute("DELETE FROM records")
            kept = HANDOVER_NOTES
            self._writer.execute("DELETE FROM notes WHERE substr(name, 1, ?) != ?", (len(kept), kept))
            self._writer.execute("UPDATE about SET data = ? WHERE name = 'key'", (key,))
        self.key = key

    def recover(self) -> Recovered:
        """Everything that a node needs to go on. Raises JournalError if what is here cannot be read."""
        try:
            with _disk(self._path):
                return self._recover()
        except Malformed as error:
            raise self.damaged(str(error)) from None

    def damaged(self, why: str) -> JournalError:
        """What to raise for a journal that holds what was never written."""
        return JournalError(_corrupt(self._path, why))

    def blocks(self, first: int, bytes_max: int, count_max: int = 4096) -> tuple[Block, ...]:
        """Blocks of consecutive heights from `first`, the last one certified, of about `bytes_max` together."""
        found: list[Block] = []
        total = certified = 0
        owed = self._certificates  # of before the query, which sees those that were written by then
        query = "SELECT height, header, batch, certificate FROM blocks WHERE height >= ? ORDER BY height"
        with self._reading, _disk(self._path):
            for height, header, batch, certificate in self._reader.execute(query, (first,)):
                total += len(header) + len(batch) + len(certificate or b"")
                if height != first + len(found) or len(found) == count_max or (certified and total > bytes_max):
                    break
                attestations = decode(certificate, Certificate).attestations if certificate is not None else ()
                if height in owed:
                    attestations = owed[height].attestations
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
        for name in (self._path, _log_of(self._path)):
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
        newest = read("SELECT header, batch FROM blocks ORDER BY height DESC LIMIT 1").fetchone()
        certified = read(
            "SELECT certificate FROM blocks WHERE certificate IS NOT NULL ORDER BY height DESC LIMIT 1"
        ).fetchone()
        snapshot = _snapshot(self._writer)
        header = decode(newest[0], Header) if newest else snapshot.header if snapshot is not None else None
        if newest and header is not None and batch_digest(decode(newest[1], Batch)) != header.batch:
            raise Malformed(f"the batch of height {header.height} is another than its header names")
        certificate = decode(certified[0], Certificate) if certified else snapshot
        if certificate is not None:
            _check_signatures(certificate.header.network, certificate.header, certificate.attestations)
        return Recovered(
            header=header,
            certificate=certificate,
            entries=tuple(
                (bytes(key), bytes(value)) for key, value in read("SELECT key, value FROM state ORDER BY key")
            ),
            records=tuple(_record(data, self._network) for (data,) in read("SELECT data FROM records ORDER BY id")),
            notes={name: bytes(data) for name, data in read("SELECT name, data FROM notes ORDER BY name")},
            begins=snapshot.header.height if snapshot is not None else 0,
        )


def open_journal(path: Path, network: Digest, *keys: Key) -> Journal:
    """The journal at `path`, of one of these keys; made for the first of them if there is none.

    Raises JournalError if it is damaged, of another release, another network or another node; OSError if the disk
    fails. In either case what was there is as it was.
    """
    key = keys[0]
    with _disk(path):
        try:
            fresh = _is_new(path)
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
    return Journal(path, network, key, writer, reader)


def _is_new(path: Path) -> bool:
    """Whether nothing was ever written here. A journal can also be one whose first log was lost."""
    log = _log_of(path)
    size = path.stat().st_size if path.exists() else 0
    if _is_filled(log):
        if size < PAGE_BYTES:  # sqlite would throw the log away
            raise JournalError(
                f"{path}: the journal has {size} bytes, and its log {log.name} has more. Nothing was changed. Put the "
                "journal back, or move both away and start again"
            )
        return False
    if size == 0:
        return True
    with contextlib.closing(_look(path)) as connection:
        return connection.execute("SELECT name FROM sqlite_master").fetchone() is None


def _check(path: Path, network: Digest, keys: Sequence[Key]) -> Key:
    """Refuse a journal that is not ours to go on with, before anything is written to it. Returns whose it is."""
    connection = _look(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "about" not in tables:
            raise JournalError(
                f"{path}: a database, but not a journal of ours. Nothing was changed. Move it away to begin anew"
            )
        for check in _checks(path):
            verdict = connection.execute(check).fetchone()[0]
            if verdict != "ok":
                raise JournalError(_corrupt(path, " ".join(verdict.split())))
        about = {name: bytes(data) for name, data in connection.execute("SELECT name, data FROM about")}
    finally:
        connection.close()
    logs, known = about.get("logs", b""), _logs_in_file(path)
    ended = about.get("logs ended", b"") == logs
    # A file that has taken something of this log is consistent only with all of it.
    if _is_filled(_log_of(path)) and _number(logs) != known + 1 and not (_number(logs) == known and ended):
        raise JournalError(
            f"{path}: log {_number(logs)} beside a file that has taken {known}: one of {path.name} and "
            f"{_log_of(path).name} is from another copy of this home, or was cut. Nothing was changed. Put back the "
            "two that belong together, or move both away and start again"
        )
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


def _look(path: Path, mode: str = "mode=ro") -> sqlite3.Connection:
    """Open it for reading only, so that closing it moves nothing from the log into a damaged file."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=5.0)


def _checks(path: Path) -> tuple[str, ...]:
    """What to ask sqlite. All of a journal that was not closed is looked through; of one that was, the blocks, which
    only ever grow, are not: sqlite itself compares the file's length, and damage in an old block shows when it is read.
    """
    if _log_of(path).exists():
        return ("PRAGMA quick_check(1)",)
    return tuple(f"PRAGMA quick_check('{table}')" for table in ("sqlite_master", "about", "records", "state", "notes"))


def _logs_in_file(path: Path) -> int:
    """How many logs have been moved into the file, by the file alone."""
    with contextlib.closing(_look(path, "immutable=1")) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'about'").fetchone()[0]:
            return 0
        row = connection.execute("SELECT data FROM about WHERE name = 'logs'").fetchone()
    return _number(row[0]) if row is not None else 0


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _is_filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _count_up(connection: sqlite3.Connection) -> None:
    """The first transaction of a log counts it."""
    row = connection.execute("SELECT data FROM about WHERE name = 'logs'").fetchone()
    logs = _number(row[0]) if row is not None else 0
    connection.execute("INSERT OR REPLACE INTO about (name, data) VALUES ('logs', ?)", ((logs + 1).to_bytes(8, "big"),))


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


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
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _snapshot(connection: sqlite3.Connection) -> Certificate | None:
    """The certificate of the state that the blocks follow on; None if that is genesis."""
    row = connection.execute("SELECT data FROM about WHERE name = ?", (_SNAPSHOT,)).fetchone()
    return None if row is None else decode(row[0], Certificate)


def _record(data: bytes, network: Digest) -> Signed | Prepared | Batch:
    """A record as it was written. Raises Malformed if a signature in it does not hold."""
    record = decode(data, Signed, Prepared, Batch)
    assert isinstance(record, Signed | Prepared | Batch)
    match record:
        case Signed():
            verify(record, network, *WORDS)
        case Prepared(view, seq, batch, primary, backups):
            _check_signatures(network, PrePrepare(view, seq, batch), (primary,))
            _check_signatures(network, Prepare(view, seq, batch, primary.signature), backups)
        case Batch():
            pass  # known by its digest: another than was asked for is not used
        case _:
            assert_never(record)
    return record


def _check_signatures(network: Digest, body: object, attestations: Iterable[Attestation]) -> None:
    if not all(attests(one, network, body) for one in attestations):
        raise Malformed(f"wrong signature under a {type(body).__name__}")


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
        f"{path}: the journal is damaged ({why}). Nothing was changed. Move it away, with its -wal and -shm, and start "
        "again: the node follows the chain afresh, and a validator asks the others what it said before it votes"
    )


def _is_disk_fault(error: sqlite3.Error) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(DISK_FAULTS)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What sqlite says of the disk, as the OSError that it is."""
    try:
        yield
    except sqlite3.Error as error:
        if str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise JournalError(_corrupt(path, str(error))) from None
        if not _is_disk_fault(error):
            raise
        if error.sqlite_errorname == "SQLITE_FULL":
            raise OSError(f"{path}: the disk is full; make room and start again: what was written is safe") from error
        raise OSError(f"{path}: the disk failed: {error} ({error.sqlite_errorname})") from error
