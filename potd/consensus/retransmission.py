"""What a peer lacks by its own word, and we can send it again: our votes in our view. [Castro 2001, 5.2]"""

from __future__ import annotations

from collections.abc import Mapping

from potd.consensus.events import Effect, Send
from potd.consensus.slots import Log, Slot
from potd.wire.blocks import Batch
from potd.wire.consensus import Status
from potd.wire.ids import Digest, Key


def votes_again(
    peer: Key, theirs: Status, own: Key, view: int, log: Log, batches: Mapping[Digest, Batch]
) -> list[Effect]:
    """Our votes of our view for every slot that is not permanent there.

    Also for what it has executed in an earlier view: those who have not may need its commitment in this one.
    """
    effects: list[Effect] = []
    for slot in log.slots():
        if slot.seq > theirs.stable:
            effects += _slot_again(peer, slot, own, view, batches)
    return effects


def refusals_again(peer: Key, theirs: Status, own: Key, log: Log) -> list[Effect]:
    """Our judgements against orders that are not permanent there, whatever the view: a proof may want them."""
    return [
        Send(peer, slot.refusals[own].signed)
        for slot in log.slots()
        if slot.seq > theirs.stable and own in slot.refusals
    ]


def _slot_again(peer: Key, slot: Slot, own: Key, view: int, batches: Mapping[Digest, Batch]) -> list[Effect]:
    ballot = slot.ballots.get(view)
    if ballot is None:
        return []
    effects: list[Effect] = []
    if ballot.order is not None and ballot.order.sender == own:
        effects.append(Send(peer, ballot.order.signed, batches.get(ballot.order.body.batch)))
    if own in ballot.prepares:
        effects.append(Send(peer, ballot.prepares[own].signed))
    if own in ballot.commits:
        effects.append(Send(peer, ballot.commits[own].signed))
    return effects
