"""Lies at the wire: what a member with its own key, and no others', may send instead of what its replica says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

from nacl import bindings

from potd.wire.blocks import Batch, Header, batch_digest
from potd.wire.codec import encode, tag_of
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Recollected, Refusal, Status, ViewChange
from potd.wire.envelope import Signed, verify
from potd.wire.ids import digest
from tests.consensus.cluster import BAD, ELSEWHERE, NETWORK, Cluster, Lie, Member, Said, batch_of, signer


def mute(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Says nothing."""
    return []


def hide_what_was_said(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Answers who asks for its own words that there are none."""
    body = _body(cluster, said)
    if isinstance(body, Recollected):
        return [Said(member.signer.sign(replace(body, certificate=(), votes=())), None)]
    return [said]


def mute_as_primary(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Orders nothing and begins no view, but votes."""
    return [] if isinstance(_body(cluster, said), PrePrepare | NewView) else [said]


def equivocate(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Orders one batch to the even and another to the odd."""
    body = _body(cluster, said)
    if isinstance(body, PrePrepare) and to % 2:
        return [_order(member, body.view, body.seq, batch_of(b"other", bytes([body.seq % 256])))]
    return [said]


def order_bad_batches(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Orders what no correct member agrees to, the same to all."""
    body = _body(cluster, said)
    return [_order(member, body.view, body.seq, batch_of(BAD))] if isinstance(body, PrePrepare) else [said]


def withhold_batches(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Orders batches that it shows to nobody."""
    body = _body(cluster, said)
    if isinstance(body, PrePrepare):
        return [replace(_order(member, body.view, body.seq, batch_of(b"hidden", bytes([to]))), batch=None)]
    return [said]


def sign_in_two_ways(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Signs each order with another nonce for each backup: all valid, none equal."""
    body = _body(cluster, said)
    return [Said(sign_with_nonce(member.index, body, to), said.batch)] if isinstance(body, PrePrepare) else [said]


def order_to_one(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Shows its orders to a single backup."""
    first = (member.index + 1) % len(cluster.members)
    return [] if isinstance(_body(cluster, said), PrePrepare) and to != first else [said]


def forge_view_changes(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Leaves for ever other views, hiding what it has prepared."""
    body = _body(cluster, said)
    if isinstance(body, Status):
        view = cluster.chance.choice([body.view + 1, body.view + 2, 2**40 - cluster.now])
        return [said, Said(member.signer.sign(ViewChange(view, 0, (), ())), None)]
    return [said]


def begin_with_nothing(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """As new primary, carries over null requests whatever was prepared."""
    body = _body(cluster, said)
    if isinstance(body, NewView):
        orders = [verify(one, NETWORK, PrePrepare).body for one in body.pre_prepares]
        others = tuple(member.signer.sign(replace(one, batch=batch_digest(Batch(())))) for one in orders)
        return [Said(member.signer.sign(replace(body, pre_prepares=others)), None)]
    return [said]


def do_anything(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Now one lie, now another, and replays of whatever was heard."""
    chance = cluster.chance
    sent = list(chance.choice(_LIES)(cluster, member, to, said)) if chance.random() < 0.3 else [said]
    sent = [_twisted(cluster, member, one) if chance.random() < 0.2 else one for one in sent]
    if chance.random() < 0.3:
        sent.append(chance.choice(cluster.heard[-400:]))
    return sent


_LIES: tuple[Lie, ...] = (
    mute,
    hide_what_was_said,
    equivocate,
    order_bad_batches,
    withhold_batches,
    sign_in_two_ways,
    order_to_one,
    forge_view_changes,
    begin_with_nothing,
)


def any_lie(chance: Random) -> Lie:
    return chance.choice((*_LIES, mute_as_primary, do_anything, do_anything, do_anything))


def _twisted(cluster: Cluster, member: Member, said: Said) -> Said:
    """The same kind of message with one field changed, properly signed."""
    chance, body = cluster.chance, _body(cluster, said)
    other = digest("test", bytes([chance.randrange(4)]))
    match body:
        case PrePrepare() | Prepare() | Commit() | Refusal():
            body = chance.choice(
                [
                    replace(body, batch=other),
                    replace(body, seq=body.seq + chance.choice([1, 3, 2**40])),
                    replace(body, view=body.view + 1),
                ]
            )
        case Header():
            body = chance.choice([replace(body, state=other), replace(body, height=body.height + 1)])
        case ViewChange():
            body = chance.choice(
                [
                    replace(body, prepared=()),
                    replace(body, certificate=(), stable=0),
                    replace(body, stable=body.stable + 1),
                    replace(body, view=body.view + 1),
                    replace(body, prepared=body.prepared[::-1]),
                ]
            )
        case NewView():
            body = chance.choice(
                [
                    replace(body, pre_prepares=body.pre_prepares[:-1]),
                    replace(body, view_changes=body.view_changes[:1] * len(body.view_changes)),
                    replace(body, view=body.view + len(cluster.members)),
                ]
            )
        case Status():
            body = replace(body, executed=0, stable=0, view=chance.choice([0, body.view + 1]))
    if chance.random() < 0.1:
        return Said(signer(member.index, ELSEWHERE).sign(body), said.batch)
    return Said(member.signer.sign(body), said.batch)


def _body(cluster: Cluster, said: Said) -> Any:
    message = cluster.verified(said.signed)
    assert message is not None
    return message.body


def _order(member: Member, view: int, seq: int, batch: Batch) -> Said:
    return Said(member.signer.sign(PrePrepare(view, seq, batch_digest(batch))), batch)


def sign_with_nonce(index: int, body: Any, nonce: int) -> Signed:
    """A valid Ed25519 signature that an honest signer would not make: its nonce is chosen, not derived."""
    honest = signer(index)
    payload = encode(body)
    bound = b"potd signature\x00" + NETWORK + tag_of(type(body)).to_bytes(4, "big") + payload
    seed = digest("test key", bytes([index]))
    secret = bytearray(hashlib.sha512(seed).digest()[:32])
    secret[0] &= 248
    secret[31] = (secret[31] & 127) | 64
    drawn = bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(b"%d" % nonce + seed).digest())
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(drawn)
    challenge = bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(point + honest.key + bound).digest())
    scalar = bindings.crypto_core_ed25519_scalar_reduce(bytes(secret) + bytes(32))
    product = bindings.crypto_core_ed25519_scalar_mul(challenge, scalar)
    return Signed(honest.key, payload, point + bindings.crypto_core_ed25519_scalar_add(drawn, product))
