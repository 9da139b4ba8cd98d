"""A node's key giving way to the one in node.key.next, once the ledger says that it has. Asks nobody for it."""

from __future__ import annotations

import os

from potd.config import ConfigError
from potd.config.home import Home, public_key, read_account, read_key, write_atomically
from potd.ledger.state import Ledger
from potd.node.eras import key_of
from potd.runtime.journal import open_journal
from potd.wire.ids import Digest, Key


def succeed(home: Home, network: Digest) -> bool:
    """Before the daemon reads its key: whether the next one is in its place now.

    It is when the journal's state gives the account that node key, and the height at which the present validators
    took over is certified: until then the old key may have to sign that height. What the old key has said is forgotten
    with it, and so it must never vote again. Whatever interrupts this, doing it again ends it.

    Raises ConfigError for a key file that cannot be read, JournalError and OSError as the journal does.
    """
    if not home.key_next.exists() or not home.journal.exists():
        return False
    seed = read_key(home.key)
    present, coming = public_key(seed), public_key(read_key(home.key_next))
    if not _passed_on(home, network, present, coming):
        return False
    write_atomically(home.account, read_account(home).hex().encode() + b"\n")
    write_atomically(home.key_old, seed.hex().encode() + b"\n", 0o600)
    os.replace(home.key_next, home.key)
    return True


def has_seed(home: Home, coming: Key) -> bool:
    """Whether the key in node.key.next is this one. One that cannot be read is not."""
    try:
        return public_key(read_key(home.key_next)) == coming
    except ConfigError:
        return False


def _passed_on(home: Home, network: Digest, present: Key, coming: Key) -> bool:
    """Whether the journal is the next key's, perhaps since just now."""
    with open_journal(home.journal, network, present, coming) as journal:
        if journal.key == coming:
            return True
        recovered = journal.recover()
        if recovered.header is None or recovered.certificate is None:
            return False
        ledger = Ledger.from_entries(recovered.entries, recovered.header)
        if key_of(ledger, recovered.certificate.header.height, ledger.account_of(coming)) != coming:
            return False
        journal.pass_on(coming)
        return True
