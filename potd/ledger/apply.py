"""Executing a batch: from one height's ledger to the next one's, with its receipts and its header.

Total on whatever was agreed: a record whose premise does not hold becomes a receipt that says so, the same everywhere.

The header of height h states
    previous    digest of the header of h - 1, NOTHING at height 1
    batch       digest of the batch
    receipts    Merkle root over the encoded receipts (RFC 6962 leaves): for each record one, and after a seal's own one
                for each commitment that was dropped from it, by the commitment's record digest
    state       root of the state map after the batch, with `previous` and `history` already in its globals
    history     root of the mountain range over the digests of headers 1 to h - 1
    validators  digest of the keys that decide h + 1, in order

So the state's root covers everything but its own header, proofs against a certified header are proofs from this very
map, and the header is linked as the first act of the next height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from potd.ledger import accounts, rewards, seats, training
from potd.ledger.entries import GLOBALS, Globals
from potd.ledger.state import Ledger
from potd.ledger.working import Working
from potd.wire import merkle
from potd.wire.blocks import Batch, Header, Receipt, batch_digest, header_digest, validators_digest
from potd.wire.codec import encode
from potd.wire.envelope import Signed
from potd.wire.ids import NOTHING, Digest
from potd.wire.rounds import Evaluation, Seal, Update


@dataclass(frozen=True)
class Executed:
    """`changes` is what `ledger` has and the one before had not, for who stores it: key and bytes, None for gone."""

    ledger: Ledger
    receipts: tuple[Receipt, ...]
    header: Header
    changes: tuple[tuple[bytes, bytes | None], ...]


def execute(ledger: Ledger, batch: Batch) -> Executed:
    """The next height."""
    before = ledger.globals()
    previous, history = _linked(before, ledger.header)
    work = Working(ledger, before.height + 1, previous)
    receipts: list[Receipt] = []
    for record in batch.records:
        match record:
            case Signed():
                receipts.append(accounts.operate(work, record))
            case Seal():
                receipts.extend(training.seal(work, record))
            case Update():
                receipts.append(training.update(work, record))
            case Evaluation():
                receipts.append(training.evaluate(work, record))
            case _:
                assert_never(record)
    rewards.settle(work)
    fees = _shared(work, before.fees_micro)
    following = seats.close(work)
    work.put(
        GLOBALS,
        Globals(
            before.network,
            before.protocol,
            work.height,
            before.supply_micro,
            fees,
            previous,
            history.count,
            history.peaks,
        ),
    )
    changes = work.changes()
    state = ledger.entries.updated(changes)
    header = Header(
        network=before.network,
        protocol=before.protocol,
        height=work.height,
        previous=previous,
        batch=batch_digest(batch),
        receipts=receipts_root(receipts),
        state=state.root(),
        history=history.root(),
        validators=validators_digest([seat.key for seat in following]),
    )
    return Executed(Ledger(state, header, ledger.decoded), tuple(receipts), header, changes)


def receipts_root(receipts: list[Receipt] | tuple[Receipt, ...]) -> Digest:
    return merkle.root([merkle.leaf_hash(encode(one)) for one in receipts])


def _linked(before: Globals, header: Header | None) -> tuple[Digest, merkle.Range]:
    """The previous header's digest, and the history with it."""
    history = merkle.Range(before.history_count, before.history_peaks)
    if header is None:
        assert before.height == 0
        return NOTHING, history
    assert header.height == before.height
    name = header_digest(header)
    return name, history.appended(merkle.leaf_hash(name))


def _shared(work: Working, carried_micro: int) -> int:
    """Pay the validators what was taken for them, in equal parts; what does not divide waits in `fees_micro`."""
    fees_micro = carried_micro + work.taken_micro
    paid = work.paid()
    if not paid:
        return fees_micro
    share, rest = divmod(fees_micro, len(paid))
    if share:
        for account in paid:
            work.credit(account, share)
    return rest
