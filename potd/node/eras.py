"""Which validators decide which heights, with which keys, as the ledger says. Votes on nothing, and verifies nothing.

An era is a stretch of heights decided by one set: those above its base, up to the height of the change that ends it. A
change takes force a window above the height that agrees on it, and nothing above its height is ordered before that
height is permanent.
"""

from __future__ import annotations

from dataclasses import dataclass

from potd.consensus.quorum import Group, certificate_fault
from potd.gossip.admit import Screening
from potd.ledger.entries import Seats
from potd.ledger.state import Ledger
from potd.wire.blocks import Certificate
from potd.wire.codec import decode
from potd.wire.ids import NOTHING, AccountId, Digest, Key

ERA_NOTE = (
    "era"  # the seats of the era whose replica is at work: the ledger goes on before its last height is permanent
)


def group_of(network: Digest, seats: Seats) -> Group:
    return Group(network, tuple(seat.key for seat in seats.seats), seats.base, seats.before)


def era_of(ledger: Ledger, certified: int, noted: bytes) -> tuple[Group, int | None]:
    """The validators who are at work, and the last height that they decide, if that is known.

    The ledger's are those of the next height. If its own height was the last of an era, and is not certified yet, those
    of that era are still at work: they are in what was `noted` when they began, or are those of genesis.
    """
    seats = ledger.seats()
    if certified < seats.base == ledger.height:
        if noted:
            return group_of(ledger.network, decode(noted, Seats)), seats.base
        return Group(ledger.network, seats.before), seats.base
    change = ledger.change()
    return group_of(ledger.network, seats), change.height if change is not None else None


@dataclass(frozen=True)
class Watch:
    """What tells a certificate that honest nodes forward from one that they do not, as of one height of ours."""

    group: Group  # who is at work
    began: int  # the base of those before them
    horizon: int  # up to which height the former decide for sure

    def screen(self, certificate: Certificate) -> Screening:
        """What proves something is forwarded, late or not, and what may be of validators whom we do not know yet. Of
        those before the last ones we cannot tell, and no more need we: an honest node that has not come as far as we
        may have forwarded it."""
        height, group = certificate.header.height, self.group
        if height > self.horizon:
            return Screening.ACCEPT
        if height <= self.began:
            return Screening.IGNORE
        known = Group(group.network, group.before) if height < group.base else group
        return Screening.REJECT if certificate_fault(certificate, known) else Screening.ACCEPT


def watch_of(ledger: Ledger, group: Group, ends: int | None) -> Watch:
    began = max((base for base in ledger.eras().bases if base < group.base), default=0)
    return Watch(group, began, ends if ends is not None else horizon(ledger))


def key_of(ledger: Ledger, certified: int, account: AccountId) -> Key | None:
    """The node key of an account, once the one before it has nothing left to sign: it may have to sign the height at
    which the present validators took over, until that is certified. None before, and for an account without a key."""
    held = ledger.account(account)
    if held is None or held.node_key == NOTHING or certified < ledger.seats().base:
        return None
    return held.node_key


def horizon(ledger: Ledger) -> int:
    """Up to which height those who decide the next one decide for sure: a change that has not been agreed on yet takes
    force a window above the height that will agree on it."""
    change = ledger.change()
    return change.height if change is not None else ledger.height + ledger.parameters().window_heights
