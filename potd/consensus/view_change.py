"""What a view change must prove and what a new view must carry over. Pure functions. [4.4]"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from potd.consensus.quorum import Group, certificate_fault, least
from potd.wire.blocks import NULL, Certificate, batch_digest
from potd.wire.codec import Malformed, decode
from potd.wire.consensus import NewView, Prepare, Prepared, PrePrepare, ViewChange
from potd.wire.envelope import Verified, attests, verify
from potd.wire.ids import Digest

NULL_DIGEST = batch_digest(NULL)


def prepared_fault(proof: Prepared, group: Group) -> str:
    """Why this does not prove that the batch was prepared, or nothing if it does."""
    if proof.primary.key != group.primary(proof.view):
        return "prepared proof ordered by another than the view's primary"
    if not attests(proof.primary, group.network, PrePrepare(proof.view, proof.seq, proof.batch)):
        return "prepared proof with a wrong signature of the primary"
    backups = [one.key for one in proof.backups]
    if backups != sorted(set(backups)) or proof.primary.key in backups:
        return "prepared proof with backups out of order or twice"
    if len(backups) + 1 != group.quorum:  # nor more: a new view that shows such proofs would fit no message
        return f"prepared proof of {len(backups) + 1} replicas, not {group.quorum}"
    agreement = Prepare(proof.view, proof.seq, proof.batch, proof.primary.signature)
    for one in proof.backups:
        if one.key not in group or not attests(one, group.network, agreement):
            return "prepared proof with a wrong signature of a backup"
    return ""


def view_change_fault(message: Verified[ViewChange], group: Group, window: int) -> str:
    """Why this view change counts for nothing, or nothing if it is valid."""
    body = message.body
    if message.sender not in group:
        return "view change by a stranger"
    if len(body.certificate) != (1 if body.stable else 0):
        return "view change without the certificate of its checkpoint"
    for certificate in body.certificate:
        if certificate.header.height != body.stable:
            return "view change with the certificate of another height"
        fault = certificate_fault(certificate, group)
        if fault:
            return fault
        if certificate != least(certificate, group):
            return "view change with more signatures under its checkpoint than prove it"
    last = body.stable
    for proof in body.prepared:
        if not last < proof.seq <= body.stable + window:
            return "view change with prepared proofs out of order or outside the watermarks"
        if proof.view >= body.view:
            return "view change with a proof from a view that is not before it"
        fault = prepared_fault(proof, group)
        if fault:
            return fault
        last = proof.seq
    return ""


def era_fault(stables: Iterable[int], group: Group, ends: int | None) -> str:
    """Why view changes from these checkpoints are of another set of validators, whose views have nothing to do with
    ours, or nothing if they are not. Honest ones come late, or early. `ends` is the last height of our era, if known.

    Who has seen `base` become permanent is of our era, and who has not is of the one before: no replica leaves a view
    once the end of its era is permanent to it.
    """
    for stable in stables:
        if stable < group.base:
            return "view change of earlier validators"
        if ends is not None and stable >= ends:
            return "view change of later validators"
    return ""


def stables_of(body: NewView) -> list[int]:
    """The checkpoints of the view changes that a new view shows, as far as they can be read."""
    stables: list[int] = []
    for signed in body.view_changes:
        try:
            stables.append(decode(signed.payload, ViewChange).stable)
        except Malformed:
            continue  # new_view_fault says so
    return stables


@dataclass(frozen=True)
class Carried:
    """What a set of view changes obliges the new view to begin with."""

    stable: int  # min-s: the highest stable checkpoint in V
    certificate: Certificate | None
    orders: tuple[tuple[int, Digest], ...]  # seq and digest for every seq above it up to max-s [O]


def carry_over(view_changes: list[ViewChange]) -> Carried:
    """min-s is the *highest* stable checkpoint, max-s the highest prepared seq; between them, per seq, the proof of
    the highest view wins, and a gap becomes the null request. [4.4]"""
    highest = max(view_changes, key=lambda one: one.stable)
    best: dict[int, Prepared] = {}
    for one in view_changes:
        for proof in one.prepared:
            if proof.seq not in best or proof.view > best[proof.seq].view:
                best[proof.seq] = proof
    last = max([highest.stable, *best])
    orders = [
        (seq, best[seq].batch if seq in best else NULL_DIGEST)  #
        for seq in range(highest.stable + 1, last + 1)
    ]
    certificate = highest.certificate[0] if highest.certificate else None
    return Carried(highest.stable, certificate, tuple(orders))


def new_view_fault(
    message: Verified[NewView], group: Group, window: int
) -> tuple[str, Carried | None, tuple[Verified[PrePrepare], ...]]:
    """Why a new view is not to be followed, or nothing, with what it carries and its verified orders.

    The backup computes O itself and refuses any other. [4.4]
    """
    body = message.body
    if message.sender != group.primary(body.view):
        return "new view by another than its primary", None, ()
    view_changes: list[Verified[ViewChange]] = []
    for signed in body.view_changes:
        try:
            view_changes.append(verify(signed, group.network, ViewChange))
        except Malformed as error:
            return f"new view with a bad view change: {error}", None, ()
    senders = [one.sender for one in view_changes]
    if senders != sorted(set(senders)) or len(senders) != group.quorum:
        return f"new view with {len(set(senders))} view changes of {group.quorum}", None, ()
    for one in view_changes:
        if one.body.view != body.view:
            return "new view with a view change to another view", None, ()
        fault = view_change_fault(one, group, window)
        if fault:
            return f"new view with a {fault}", None, ()
    carried = carry_over([one.body for one in view_changes])
    orders: list[Verified[PrePrepare]] = []
    for signed in body.pre_prepares:
        try:
            orders.append(verify(signed, group.network, PrePrepare))
        except Malformed as error:
            return f"new view with a bad order: {error}", None, ()
    if [one.sender for one in orders] != [message.sender] * len(orders):
        return "new view with orders of another", None, ()
    expected = [PrePrepare(body.view, seq, digest) for seq, digest in carried.orders]
    if [one.body for one in orders] != expected:
        return "new view whose orders do not follow from its view changes", None, ()
    return "", carried, tuple(orders)
