"""A key gives way to the next one when the ledger has it, and not before; with what it has said."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from potd.config.home import Home, public_key, read_account, read_key, write_key
from potd.ledger.apply import execute
from potd.ledger.state import genesis_ledger
from potd.node.events import Keep, Note, Store, StoreCertificate
from potd.runtime.journal import JournalError, open_journal
from potd.runtime.succession import succeed
from potd.wire.blocks import Batch, Certificate
from potd.wire.consensus import Commit
from potd.wire.envelope import Signer, attestation_of
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, account_id
from potd.wire.operations import Possession, Rekey

OLD, NEW = bytes(32), b"\x01" * 32
OWNER = public_key(OLD)
GENESIS = Genesis("alone", 1, 1, (OWNER,), (Allotment(OWNER, 10**12),), Parameters(window_heights=2))
NETWORK = genesis_digest(GENESIS)
ACCOUNT = account_id(OWNER)
SHOWN = Note("handover/3", b"who decided up to there")
CHANGES = 3  # the height at which the set with the new key takes over


def home(folder: Path, heights: int, certified: int) -> Home:
    """A validator's home that has asked for the new key in height 1."""
    place, signer, coming = Home(folder), Signer(OLD, NETWORK), Signer(NEW, NETWORK)
    write_key(place.key, OLD)
    write_key(place.key_next, NEW)
    proof = coming.sign(Possession(ACCOUNT)).signature
    asked = Batch((signer.sign(Rekey(ACCOUNT, 0, NOTHING, coming.key, proof)),))
    ledger = genesis_ledger(GENESIS)
    with open_journal(place.journal, NETWORK, OWNER) as journal:
        for height in range(1, heights + 1):
            batch = asked if height == 1 else Batch(())
            done = execute(ledger, batch)
            changes = done.changes if height > 1 else tuple(done.ledger.entries.items())
            journal.commit([Store(done.header, batch, changes)])
            if height <= certified:
                attested = (attestation_of(signer.sign(done.header)),)
                journal.commit([StoreCertificate(Certificate(done.header, attested))])
            ledger = done.ledger
        journal.commit([Keep(heights + 1, signer.sign(Commit(0, heights + 1, NOTHING))), Note("x", b"said"), SHOWN])
    return place


def test_the_next_key_takes_over_once_its_set_has_and_is_certified(tmp_path: Path) -> None:
    place = home(tmp_path, CHANGES, CHANGES)
    assert succeed(place, NETWORK)
    assert (read_key(place.key), read_key(place.key_old)) == (NEW, OLD)
    assert read_account(place) == ACCOUNT
    assert not place.key_next.exists()
    assert stat.S_IMODE(os.stat(place.key_old).st_mode) == 0o600
    with open_journal(place.journal, NETWORK, public_key(NEW)) as journal:
        recovered = journal.recover()
    assert recovered.header is not None
    assert recovered.header.height == CHANGES
    assert (recovered.records, recovered.notes) == ((), {SHOWN.name: SHOWN.data})
    with pytest.raises(JournalError, match="two keys must not share"):
        open_journal(place.journal, NETWORK, OWNER)
    assert not succeed(place, NETWORK)


@pytest.mark.parametrize(("heights", "certified"), [(CHANGES - 1, CHANGES - 1), (CHANGES, CHANGES - 1), (CHANGES, 0)])
def test_before_that_the_old_key_goes_on_and_knows_what_it_said(tmp_path: Path, heights: int, certified: int) -> None:
    place = home(tmp_path, heights, certified)
    assert not succeed(place, NETWORK)
    assert (read_key(place.key), read_key(place.key_next)) == (OLD, NEW)
    with open_journal(place.journal, NETWORK, OWNER) as journal:
        assert journal.recover().notes == {"x": b"said", SHOWN.name: SHOWN.data}
        assert len(journal.recover().records) == 1


def test_a_succession_that_was_interrupted_is_ended(tmp_path: Path) -> None:
    place = home(tmp_path, CHANGES, CHANGES)
    with open_journal(place.journal, NETWORK, OWNER) as journal:
        journal.pass_on(public_key(NEW))
    assert succeed(place, NETWORK)
    assert read_key(place.key) == NEW


def test_a_key_that_was_never_asked_for_waits(tmp_path: Path) -> None:
    place = home(tmp_path, CHANGES, CHANGES)
    place.key_next.unlink()
    assert not succeed(place, NETWORK)
    write_key(place.key_next, b"\x02" * 32)
    assert not succeed(place, NETWORK)
    assert read_key(place.key) == OLD


def test_a_home_without_a_journal_keeps_its_key(tmp_path: Path) -> None:
    place = Home(tmp_path)
    write_key(place.key, OLD)
    write_key(place.key_next, NEW)
    assert not succeed(place, NETWORK)
    assert not place.journal.exists()
