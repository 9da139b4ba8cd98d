"""Single messages and proofs, made by hand, for tests of one replica."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from potd.consensus.events import (
    Broadcast,
    Deliver,
    Effect,
    Executed,
    Held,
    Judged,
    Persist,
    Received,
    Recollecting,
    Send,
    Ticked,
)
from potd.consensus.replica import Replica
from potd.wire.blocks import Batch, Certificate, Header, batch_digest
from potd.wire.codec import decode
from potd.wire.consensus import (
    WORDS,
    Commit,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    Recollected,
    Refusal,
    ViewChange,
)
from potd.wire.envelope import Signed, Verified, attestation_of
from potd.wire.ids import digest
from tests.consensus.cluster import batch_of, group, headers, heard, signer

PATIENCE = 10
WINDOW = 8
A, B, C = batch_of(b"a"), batch_of(b"b"), batch_of(b"c")
FIRST, SECOND = headers(A, B)
BOOT = digest("boot", b"")


def replica(index: int, size: int = 4) -> Replica:
    return Replica(signer(index), group(size), patience_ticks=PATIENCE, window=WINDOW)


def said(index: int, body: Any) -> Received | Recollecting:
    return heard(signer(index).verified(body))


def recollected(
    one: Replica, by: int, votes: Iterable[Verified[Any]] = (), stable: Certificate | None = None, boot: bytes = BOOT
) -> Received | Recollecting:
    """What a member holds of another's words."""
    shown = tuple(vote.signed for vote in votes)
    return said(by, Recollected(boot, one.key, (stable,) if stable else (), shown, ()))


def told_nothing(one: Replica, stable: Certificate | None = None) -> list[Effect]:
    """A quorum holds no word of this member's above its stable checkpoint."""
    others = [key for key in one.group.keys if key != one.key]
    keys = [signer(index).key for index in range(16)]
    answers = [recollected(one, keys.index(key), (), stable) for key in others[: one.group.quorum - 1]]
    return [effect for answer in answers for effect in one.step(answer)]


def order(batch: Batch, seq: int = 1, view: int = 0, size: int = 4) -> Verified[PrePrepare]:
    """The order of the view's primary."""
    return signer(view % size).verified(PrePrepare(view, seq, batch_digest(batch)))


def agreement(index: int, batch: Batch, seq: int = 1, view: int = 0, size: int = 4) -> Verified[Prepare]:
    signature = order(batch, seq, view, size).signed.signature
    return signer(index).verified(Prepare(view, seq, batch_digest(batch), signature))


def refusal(
    index: int, batch: Batch, seq: int = 1, view: int = 0, size: int = 4, reason: str = "another sum"
) -> Verified[Refusal]:
    signature = order(batch, seq, view, size).signed.signature
    return signer(index).verified(Refusal(view, seq, batch_digest(batch), signature, reason))


def commitment(index: int, batch: Batch, seq: int = 1, view: int = 0) -> Verified[Commit]:
    return signer(index).verified(Commit(view, seq, batch_digest(batch)))


def proof(batch: Batch, seq: int = 1, view: int = 0, size: int = 4, by: tuple[int, ...] = (1, 2)) -> Prepared:
    backups = sorted(attestation_of(agreement(one, batch, seq, view, size).signed) for one in by)
    primary = attestation_of(order(batch, seq, view, size).signed)
    return Prepared(view, seq, batch_digest(batch), primary, tuple(backups))


def certificate(header: Header, by: tuple[int, ...] = (0, 1, 2)) -> Certificate:
    return Certificate(header, tuple(sorted(attestation_of(signer(one).sign(header)) for one in by)))


def leave(
    index: int, view: int = 1, proofs: Iterable[Prepared] = (), stable: Certificate | None = None
) -> Verified[ViewChange]:
    height = stable.header.height if stable else 0
    return signer(index).verified(ViewChange(view, height, (stable,) if stable else (), tuple(proofs)))


def begin(view_changes: Iterable[Verified[ViewChange]], orders: Iterable[tuple[int, Batch]] = (), view: int = 1) -> Any:
    """A new view by its primary (of four), right or wrong."""
    primary = signer(view % 4)
    shown = tuple(one.signed for one in sorted(view_changes, key=lambda one: one.sender))
    ordered = tuple(primary.sign(PrePrepare(view, seq, batch_digest(batch))) for seq, batch in orders)
    return primary.verified(NewView(view, shown, ordered))


def propose(backup: Replica, batch: Batch, seq: int = 1, view: int = 0, size: int = 4) -> list[Effect]:
    """The order, its batch and an agreeing judgement."""
    effects = backup.step(Received(order(batch, seq, view, size)))
    effects += backup.step(Held(batch_digest(batch), batch))
    return effects + backup.step(Judged(view, seq, batch_digest(batch), ""))


def sent(effects: Iterable[Effect], kind: type[Any]) -> list[Any]:
    """The bodies of this kind that go out, to everybody or to one."""
    bodies = []
    for effect in effects:
        signed = (
            effect.signed if isinstance(effect, Broadcast) else effect.message if isinstance(effect, Send) else None
        )
        bodies += [_body(signed, kind)] if isinstance(signed, Signed) else []
    return [one for one in bodies if one is not None]


def ticks(one: Replica, count: int) -> list[Effect]:
    return [effect for _ in range(count) for effect in one.step(Ticked())]


def new_primary(*view_changes: Verified[ViewChange]) -> list[Effect]:
    """What n1 does with the view changes of others to its view 1."""
    one = replica(1)
    return [effect for message in view_changes for effect in one.step(Received(message))]


def executed(*batches: bytes) -> Replica:
    """A backup (n1 of four) that has executed these batches."""
    backup = replica(1)
    made = [batch_of(one) for one in batches]
    for seq, (batch, header) in enumerate(zip(made, headers(*made), strict=True), start=1):
        propose(backup, batch, seq)
        backup.step(Received(agreement(2, batch, seq)))
        backup.step(Received(commitment(2, batch, seq)))
        assert of_kind(backup.step(Received(commitment(3, batch, seq))), Deliver)
        backup.step(Executed(header))
    return backup


def persisted(effects: Iterable[Effect]) -> list[object]:
    return [one.record for one in effects if isinstance(one, Persist)]


def of_kind(effects: Iterable[Effect], kind: type[Any]) -> list[Any]:
    return [one for one in effects if isinstance(one, kind)]


def _body(signed: Signed, kind: type[Any]) -> Any:

    body = decode(signed.payload, *WORDS)
    return body if isinstance(body, kind) else None
