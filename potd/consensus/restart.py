"""What a journal's records say of the life before: votes, proofs, and the view. Votes on nothing.

Every vote that was written is known again before the first message is sent, so that no restart votes twice for
one view, height and phase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from potd.consensus.checkpoint import Checkpoints
from potd.consensus.quorum import Group
from potd.consensus.slots import Log, order_in
from potd.consensus.view_change import era_fault, new_view_fault, stables_of
from potd.wire.blocks import Batch, Header, batch_digest
from potd.wire.consensus import Commit, NewView, Prepare, Prepared, PrePrepare, Refusal, ViewChange
from potd.wire.envelope import Signed, Verified, verify
from potd.wire.ids import Digest, Key


@dataclass
class Recalled:
    """Where a replica stood when its journal ends."""

    log: Log
    checkpoints: Checkpoints
    view: int = 0
    active: bool = True
    view_change: Verified[ViewChange] | None = None  # our own, while between views
    new_view: Signed | None = None  # what began the view
    carried: tuple[Verified[PrePrepare], ...] = ()  # its orders above our high watermark
    assigned: int = 0
    said: set[bytes] = field(default_factory=set)  # payloads under our key
    batches: dict[Digest, Batch] = field(default_factory=dict)


def recall(records: Iterable[object], stable: int, group: Group, window: int, own: Key) -> Recalled:
    """`records` are what was persisted, oldest first; `own` is our key."""
    found = Recalled(Log(window), Checkpoints())
    for record in records:
        match record:
            case Batch():
                found.batches[batch_digest(record)] = record
            case Prepared():
                _proof(found, record, stable)
            case Signed():
                _signed(found, record, stable, group)
                if record.key == own:
                    found.said.add(record.payload)
            case _:
                raise AssertionError(f"the journal holds a {type(record).__name__}")
    if found.new_view is not None:
        _orders(found, found.new_view, stable, group, window)
    return found


def _proof(found: Recalled, proof: Prepared, stable: int) -> None:
    if proof.seq > stable:
        slot = found.log.slot(proof.seq)
        if slot.proof is None or slot.proof.view < proof.view:
            slot.proof = proof


def _signed(found: Recalled, signed: Signed, stable: int, group: Group) -> None:
    message = verify(signed, group.network, PrePrepare, Prepare, Commit, Header, ViewChange, NewView, Refusal)
    body = message.body
    match body:
        case NewView() if era_fault(stables_of(body), group, None):
            pass  # of an earlier set of validators that we were in
        case ViewChange() if era_fault([body.stable], group, None):
            pass
        case NewView():
            if body.view >= found.view:
                found.view, found.active, found.new_view, found.view_change = body.view, True, signed, None
        case ViewChange():
            if body.view > found.view:
                own = Verified(message.sender, body, signed)
                found.view, found.active, found.new_view, found.view_change = body.view, False, None, own
        case Header():
            if body.height > stable:
                found.checkpoints.add(Verified(message.sender, body, signed))
        case Refusal():
            if body.seq > stable:
                found.log.slot(body.seq).refusals[message.sender] = Verified(message.sender, body, signed)
        case PrePrepare() | Prepare() | Commit():
            if body.seq > stable:
                _vote(found, message.sender, body, signed, group)


def _vote(found: Recalled, sender: Key, body: PrePrepare | Prepare | Commit, signed: Signed, group: Group) -> None:
    ballot = found.log.slot(body.seq).ballot(body.view)
    match body:
        case PrePrepare():
            ballot.order, ballot.judged = Verified(sender, body, signed), True
        case Prepare():
            ballot.order, ballot.judged = order_in(body, group.primary(body.view)), True
            ballot.prepares[sender] = Verified(sender, body, signed)
        case Commit():
            ballot.commits[sender] = Verified(sender, body, signed)


def _orders(found: Recalled, signed: Signed, stable: int, group: Group, window: int) -> None:
    """What our view began with, so far as it is not permanent, is due again."""
    fault, carried, orders = new_view_fault(verify(signed, group.network, NewView), group, window)
    assert carried is not None, f"the journal holds a {fault}"
    found.said.update(one.signed.payload for one in orders)
    found.assigned = max([carried.stable, *(seq for seq, _ in carried.orders)])
    for order in orders:
        if found.log.between(stable, order.body.seq):
            ballot = found.log.slot(order.body.seq).ballot(found.view)
            ballot.order, ballot.carried = order, True
    found.carried = tuple(one for one in orders if one.body.seq > stable + window)
