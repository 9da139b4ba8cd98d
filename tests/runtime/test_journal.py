"""The journal: what was committed is there, whatever happened; what is not ours is refused and left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from potd.node.events import Forget, Keep, Note, Store, StoreCertificate, StoreSnapshot
from potd.runtime.journal import Journal, JournalError, Recovered, Write, open_journal
from potd.wire.blocks import Certificate, batch_digest
from potd.wire.codec import encode
from potd.wire.consensus import Commit, NewView, Prepare, Prepared, PrePrepare, ViewChange
from potd.wire.envelope import attestation_of
from tests.runtime.chain import NETWORK, SIGNER, batch, block, certificate, header

KEY = SIGNER.key


def opened(folder: Path) -> Journal:
    return open_journal(folder / "journal.sqlite", NETWORK, KEY)


def reopened(folder: Path) -> Recovered:
    with opened(folder) as journal:
        return journal.recover()


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    assert reopened(tmp_path) == Recovered(None, None, (), (), {})


def test_what_was_committed_is_recovered(tmp_path: Path) -> None:
    vote = SIGNER.sign(Commit(0, 2, bytes(32)))
    with opened(tmp_path) as journal:
        journal.commit([Store(header(1), batch(1), ((b"b", b"2"), (b"a", b"1"))), StoreCertificate(certificate(1))])
        journal.commit([Store(header(2), batch(2), ((b"a", None), (b"c", b"3"))), Keep(3, batch(3)), Keep(3, vote)])
        journal.commit([Note("x", b"old"), Note("x", b"new"), Note("y", b"1"), Note("y", b"")])
    assert reopened(tmp_path) == Recovered(
        header=header(2),
        certificate=certificate(1),
        entries=((b"b", b"2"), (b"c", b"3")),
        records=(batch(3), vote),
        notes={"x": b"new"},
    )


def test_records_below_a_stable_seq_are_forgotten_and_views_are_not(tmp_path: Path) -> None:
    low, high = SIGNER.sign(Commit(0, 1, bytes(32))), SIGNER.sign(Commit(0, 2, bytes(32)))
    view = SIGNER.sign(ViewChange(1, 0, (), ()))
    with opened(tmp_path) as journal:
        journal.commit([Keep(1, low), Keep(2, high), Keep(2**62, view), Forget(1)])
    assert reopened(tmp_path).records == (high, view)


def test_of_view_changes_and_new_views_only_the_newest_is_kept(tmp_path: Path) -> None:
    changes = [SIGNER.sign(ViewChange(view, 0, (), ())) for view in (1, 2)]
    news = [SIGNER.sign(NewView(view, (changes[0],), ())) for view in (1, 2)]
    with opened(tmp_path) as journal:
        for change, new in zip(changes, news, strict=True):
            journal.commit([Keep(2**62, change), Keep(2**62, new)])
    assert reopened(tmp_path).records == (changes[1], news[1])


def test_a_transaction_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(AssertionError, match="height 9, which is not stored"):
            journal.commit([Note("x", b"1"), StoreCertificate(certificate(9))])
        journal.commit([Note("y", b"1")])
    assert reopened(tmp_path).notes == {"y": b"1"}


def test_what_is_owed_is_served_at_once_and_written_with_the_next_commit(tmp_path: Path) -> None:
    early, late = SIGNER.sign(Commit(0, 1, bytes(32))), SIGNER.sign(Commit(0, 2, bytes(32)))
    with opened(tmp_path) as journal:
        journal.commit([Keep(1, early), Store(header(1), batch(1), ())])
        journal.owe([StoreCertificate(certificate(1)), Forget(1)])
        assert journal.blocks(1, 10**6) == (block(1),)
        held = journal.recover()
        assert (held.certificate, held.records, journal.owes) == (None, (early,), True)
        journal.commit([Keep(2, late)])
        held = journal.recover()
        assert (held.certificate, held.records, journal.owes) == (certificate(1), (late,), False)
        assert journal.blocks(1, 10**6) == (block(1),)


def test_what_is_owed_is_written_when_the_journal_is_closed(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.commit([Store(header(1), batch(1), ())])
        journal.owe([StoreCertificate(certificate(1))])
    assert reopened(tmp_path).certificate == certificate(1)


def test_a_vote_cannot_be_owed(tmp_path: Path) -> None:
    with opened(tmp_path) as journal, pytest.raises(AssertionError, match="Keep cannot wait"):
        journal.owe([Keep(1, SIGNER.sign(Commit(0, 1, bytes(32))))])


def test_blocks_are_served_as_far_as_they_are_certified_and_fit(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for height in range(1, 7):
            journal.commit([Store(header(height), batch(height), ())])
            if height != 5:
                journal.commit([StoreCertificate(certificate(height))])
        size = sum(len(encode(one)) for one in (header(1), certificate(1), batch(1)))
        bare = replace(block(5), attestations=())
        everything = (*(block(height) for height in (1, 2, 3, 4)), bare, block(6))
        assert journal.blocks(1, 10**6) == everything
        assert journal.blocks(3, 10**6) == everything[2:]
        assert journal.blocks(1, 2 * size) == everything[:2]
        assert journal.blocks(1, 1) == everything[:1], "a block larger than the limit can be had too"
        assert journal.blocks(5, 1) == (bare, block(6)), "a height that nobody certified goes with the next that is"
        journal.commit([Store(header(7), batch(7), ())])
        assert journal.blocks(7, 10**6) == ()
        assert journal.batch(batch_digest(batch(5))) == encode(batch(5))
        assert journal.batch(bytes(32)) is None


def test_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.commit([Store(header(1), batch(1), ()), StoreCertificate(certificate(1))])
        other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert journal.blocks(1, 10**6) == (block(1),)
        other.close()


def test_another_network_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).__exit__(None, None, None)
    with pytest.raises(JournalError, match=r"genesis.toml describes ffffffff; use another home"):
        open_journal(tmp_path / "journal.sqlite", b"\xff" * 32, KEY)


def test_another_key_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).__exit__(None, None, None)
    with pytest.raises(JournalError, match="node.key is that of ffffffff; put the old key back"):
        open_journal(tmp_path / "journal.sqlite", NETWORK, b"\xff" * 32)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).__exit__(None, None, None)
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    other.execute("UPDATE about SET data = ? WHERE name = 'schema'", ((99).to_bytes(4, "big"),))
    other.commit()
    other.close()
    with pytest.raises(JournalError, match="a journal of schema 99, and this release reads 1"):
        opened(tmp_path)


def test_another_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    other.execute("CREATE TABLE cats (name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(JournalError, match="not a journal of ours"):
        opened(tmp_path)


@pytest.mark.parametrize("damage", ["beginning", "middle", "text"])
def test_a_damaged_journal_is_refused_and_left_as_it_was(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite"
    with opened(tmp_path) as journal:
        for height in range(1, 40):
            journal.commit([Store(header(height), batch(height), ((bytes([height]) * 40, os.urandom(400)),))])
    data = bytearray(path.read_bytes())
    if damage == "beginning":
        data[:100] = bytes(100)
    elif damage == "middle":
        data[4096:] = os.urandom(len(data) - 4096)
    else:
        data = bytearray(b"this is no database, but somebody's letter\n" * 200)
    path.write_bytes(data)
    with pytest.raises(JournalError, match="the journal is damaged .* Nothing was changed"):
        opened(tmp_path)
    assert path.read_bytes() == data


def test_a_record_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    opened(tmp_path).__exit__(None, None, None)
    other = sqlite3.connect(tmp_path / "journal.sqlite")
    other.execute("INSERT INTO records (seq, kind, tag, data) VALUES (1, 1, 1, x'00')")
    other.commit()
    other.close()
    with pytest.raises(JournalError, match="damaged"):
        reopened(tmp_path)


ORDER = SIGNER.sign(PrePrepare(0, 2, bytes(32)))
AGREED = SIGNER.sign(Prepare(0, 2, bytes(32), ORDER.signature))
PROOF = Prepared(0, 2, bytes(32), attestation_of(ORDER), (attestation_of(AGREED),))


@pytest.mark.parametrize(
    "write",
    [
        Keep(2, replace(ORDER, signature=bytes(64))),
        Keep(2, replace(PROOF, primary=replace(PROOF.primary, signature=AGREED.signature))),
        Keep(2, replace(PROOF, backups=(replace(PROOF.backups[0], signature=ORDER.signature),))),
        Store(header(2), batch(3), ()),
        StoreCertificate(Certificate(header(1), (replace(certificate(1).attestations[0], signature=bytes(64)),))),
    ],
    ids=["vote", "proof", "backup of a proof", "batch", "certificate"],
)
def test_what_was_never_signed_is_damage(tmp_path: Path, write: Write) -> None:
    """sqlite does not notice what changes within a value."""
    with opened(tmp_path) as journal:
        journal.commit(
            [Store(header(1), batch(1), ()), Keep(2, ORDER), Keep(2, PROOF), StoreCertificate(certificate(1))]
        )
        assert len(journal.recover().records) == 2
        journal.commit([write])
        with pytest.raises(JournalError, match="the journal is damaged"):
            journal.recover()


def test_a_full_disk_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.commit([Note("before", b"1")])
        journal._writer.execute("PRAGMA max_page_count = 12")  # what sqlite knows as a full disk
        with pytest.raises(OSError, match=r"journal.sqlite: the disk is full; make room"):
            journal.commit([Note("large", bytes(10**6))])
    assert reopened(tmp_path).notes == {"before": b"1"}


def test_what_commit_returned_from_survives_kill_9(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from potd.node.events import Note
from potd.runtime.journal import open_journal
journal = open_journal(Path(sys.argv[1]), bytes(range(32)), bytes.fromhex(sys.argv[2]))
for number in range(20):
    journal.commit([Note("last", b"%d" % number)])
print(number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "journal.sqlite"
    done = subprocess.run([sys.executable, "-c", script, str(path), KEY.hex()], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert reopened(tmp_path).notes == {"last": done.stdout.strip()}


def test_a_snapshot_takes_the_place_of_the_state_and_of_the_blocks_before_it(tmp_path: Path) -> None:
    vote = SIGNER.sign(Commit(0, 1, bytes(32)))
    with opened(tmp_path) as journal:
        journal.commit([Store(header(1), batch(1), ((b"a", b"1"), (b"b", b"2"))), StoreCertificate(certificate(1))])
        journal.commit([Keep(1, vote), Note("x", b"1"), StoreSnapshot(certificate(64), ((b"b", b"3"), (b"c", b"4")))])
        assert journal.begins() == 64
        assert journal.blocks(1, 10**6) == journal.blocks(64, 10**6) == ()
        assert journal.batch(batch_digest(batch(1))) is None
    assert reopened(tmp_path) == Recovered(
        header=header(64),
        certificate=certificate(64),
        entries=((b"b", b"3"), (b"c", b"4")),
        records=(vote,),
        notes={"x": b"1"},
        begins=64,
    )


def test_blocks_follow_on_a_snapshot(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.commit([StoreSnapshot(certificate(64), ((b"a", b"1"),))])
        journal.commit([Store(header(65), batch(65), ((b"a", None), (b"b", b"2"))), StoreCertificate(certificate(65))])
        journal.commit([Store(header(66), batch(66), ())])
        assert journal.blocks(65, 10**6) == (block(65),)
        assert journal.blocks(1, 10**6) == ()
    recovered = reopened(tmp_path)
    assert (recovered.header, recovered.certificate, recovered.begins) == (header(66), certificate(65), 64)
    assert recovered.entries == ((b"b", b"2"),)
    with opened(tmp_path) as journal:  # and long away once more
        journal.commit([StoreSnapshot(certificate(640), ())])
        assert (journal.begins(), journal.blocks(65, 10**6)) == (640, ())


def test_a_release_that_knows_no_snapshots_would_refuse_a_journal_with_one(tmp_path: Path) -> None:
    """It would see neither blocks nor a height, and begin at genesis with another height's state."""

    def schema() -> int:
        connection = sqlite3.connect(tmp_path / "journal.sqlite")
        (data,) = connection.execute("SELECT data FROM about WHERE name = 'schema'").fetchone()
        connection.close()
        return int.from_bytes(data, "big")

    with opened(tmp_path) as journal:
        assert schema() == 1
        journal.commit([StoreSnapshot(certificate(64), ())])
        assert schema() == 2
