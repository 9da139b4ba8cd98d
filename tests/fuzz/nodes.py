"""Correct nodes under anything that comes in: frames, gossip, batches, blocks, parts of a state and answers, made from
real ones by changing bytes, or by changing values and signing them with a liar's key. One seed is one run.

The world checks words, chain and money; nothing may raise in a node that is correct, and no replica in it outgrow its
bounds.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from potd.node import events as ev
from potd.simulation.words import SPOKEN
from potd.simulation.world import World
from potd.wire.blobs import write_blob
from potd.wire.blocks import Block, Certificate, batch_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Proposal
from potd.wire.envelope import Signed, Signer
from potd.wire.ids import BlobRef, Key, digest
from potd.wire.jobs import Failed
from potd.wire.merkle_map import Prefix
from potd.wire.operations import Transfer
from potd.wire.transfer import WantPart, WantSnapshot
from tests.fuzz.tally import Tally, Violation
from tests.fuzz.twist import broken, twisted

POOL = 200
ENVELOPES: tuple[type[Signed] | type[Proposal] | type[Certificate], ...] = (Signed, Proposal, Certificate)
STRANGER = bytes([99]) * 32


class Fuzzed(World):
    """A world in which some nodes lie, and in which every node hears more than was said."""

    def __init__(self, folder: Path, seed: int, tally: Tally) -> None:
        chance = Random(seed)
        size = chance.choice([4, 4, 5, 7])
        self.chance = chance
        self.tally = tally
        self.heard: dict[str, deque[bytes]] = {}  # frames, and gossip by topic, the newest
        self.hostile = False
        self.liars: tuple[Key, ...] = ()
        super().__init__(
            folder,
            size,
            seed,
            chance.choice([20, 60]),
            miners=chance.choice([0, 1]),
            window_heights=chance.choice([4, 8, 64]),
        )
        self.liars = tuple(chance.sample(self.validators, (size - 1) // 3))
        self.stranger = Signer(STRANGER, self.network)
        self.lies = chance.choice([8, 16, 40])
        self.distrust(*self.liars)
        self.watchers.append(self._watched)
        self._inputs: tuple[Callable[[Key, Key], ev.Input | None], ...] = (
            *[self._frame] * 8,
            *[self._gossip] * 4,
            self._batch,
            self._blocks,
            self._blocks,
            self._snapshot,
            self._part,
            self._peer,
            self._blob,
            self._worker,
            self._job,
            self._operation,
        )

    # What happens

    def input(self, key: Key, event: ev.Input, life: int | None = None) -> None:
        member = self.members[key]
        if member.node is None or (life is not None and member.life != life):
            return
        if key not in self.liars:
            self.tally.inputs[type(event).__name__] += 1
            self.tally.hostile += self.hostile
            self.hostile = False
        super().input(key, event, life)

    def _watched(self, key: Key, effect: ev.Effect) -> None:
        match effect:
            case ev.Send(_, data):
                self._hear("frame", data)
            case ev.Publish(topic, data):
                self._hear(topic, data)
            case _:
                pass
        if key not in self.liars:
            self.tally.effects[f"node {type(effect).__name__}"] += 1
            if isinstance(effect, ev.Ignore | ev.Refuse):
                self.tally.reason(f"node {type(effect).__name__}", effect.reason)

    def _hear(self, kind: str, data: bytes) -> None:
        known = self.heard.setdefault(kind, deque(maxlen=POOL))
        if not known or known[-1] != data:
            known.append(data)

    def _tampered(self, key: Key, effect: ev.Effect) -> ev.Effect | None:
        """What a liar sends: as its node would, changed, or not at all."""
        if key not in self.liars or not isinstance(effect, ev.Send | ev.Publish) or self.chance.random() < 0.6:
            return effect
        data = self._changed(effect.data, self.members[key].signer)
        if data is None:
            return None
        return ev.Send(effect.to, data) if isinstance(effect, ev.Send) else ev.Publish(effect.topic, data)

    def go(self, inputs: int) -> None:
        """Until so many inputs were taken."""
        end = self.tally.total + inputs
        self.pass_time(5)
        self.submit(rounds=1_000)
        self.tamper = self._tampered
        while self.tally.total < end:
            self.pass_time(1)
            for key in self.keys:
                if self.members[key].node is None:
                    if self.chance.random() < 0.1:
                        self.start(key)
                elif self.chance.random() < 0.001:
                    self.stop(key)
            for _ in range(self.chance.randint(0, self.lies)):
                self._mean_ill()
        self.check()

    def _mean_ill(self) -> None:
        target = self.chance.choice([key for key in self.keys if key not in self.liars])
        event = self.chance.choice(self._inputs)(target, self.chance.choice(self.liars))
        if event is not None:
            self.hostile = True
            self.input(target, event)
            self.hostile = False

    def _liar(self) -> Signer:
        """Who signs: sometimes one who is nobody."""
        if self.chance.random() < 0.05:
            return self.stranger
        return self.members[self.chance.choice(self.liars)].signer

    # What comes in

    def _changed(self, data: bytes, liar: Signer) -> bytes | None:
        """Bytes that are nearly these: broken, or of other values and properly signed by a liar."""
        if self.chance.random() < 0.2:
            return broken(data, self.chance)
        try:
            envelope: Signed | Proposal | Certificate = decode(data, *ENVELOPES)
            if isinstance(envelope, Certificate):
                return encode(twisted(envelope, self.chance))
            if isinstance(envelope, Signed):
                return encode(self._said(envelope, liar))
            batch = twisted(envelope.batch, self.chance) if self.chance.random() < 0.5 else envelope.batch
            order = decode(envelope.pre_prepare.payload, *SPOKEN)
            order = twisted(order, self.chance) if self.chance.random() < 0.5 else order
            order = order if self.chance.random() < 0.1 else _naming(order, batch_digest(batch))
            return encode(Proposal(liar.sign(order), batch))
        except Malformed:
            return None

    def _said(self, signed: Signed, liar: Signer) -> Signed:
        body: Any = decode(signed.payload, *SPOKEN)
        for _ in range(self.chance.choice([0, 1, 1, 1, 2])):
            body = twisted(body, self.chance)
        return liar.sign(body)

    def _real(self, kind: str) -> bytes:
        return self.chance.choice(self.heard.get(kind) or [b""])

    def _frame(self, target: Key, peer: Key) -> ev.Input | None:
        data = self._real(self.chance.choice(["frame", "frame", "frame", "certificates", "commitments"]))
        changed = data if self.chance.random() < 0.2 else self._changed(data, self._liar())
        return ev.Framed(peer, changed) if changed is not None else None

    def _gossip(self, target: Key, peer: Key) -> ev.Input | None:
        topic = self.chance.choice(ev.TOPICS)
        data = self._real(topic if self.chance.random() < 0.9 else "frame")
        changed = data if self.chance.random() < 0.2 else self._changed(data, self._liar())
        return ev.Gossiped(topic, changed) if changed is not None else None

    def _chain(self) -> dict[int, tuple[Any, Any]]:
        return self.members[self.chance.choice(self.keys)].disk.blocks

    def _batch(self, target: Key, peer: Key) -> ev.Input | None:
        """An answer to FetchBatch, asked for or not."""
        chain = self._chain()
        if not chain:
            return None
        _, batch = chain[self.chance.choice(list(chain))]
        data = encode(batch)
        name = batch_digest(batch) if self.chance.random() < 0.8 else bytes(32)
        return ev.BatchFetched(name, data if self.chance.random() < 0.5 else broken(data, self.chance))

    def _blocks(self, target: Key, peer: Key) -> ev.Input | None:
        disk = self.members[self.chance.choice(self.keys)].disk
        if not disk.blocks:
            return None
        height = self.node(target).height if self.members[target].node is not None else 0
        first = max(1, height + self.chance.choice([1, 1, 1, 0, 2, -3]))
        blocks: list[Block] = []
        for at in range(first, first + self.chance.randrange(1, 5)):
            if at in disk.blocks:
                header, batch = disk.blocks[at]
                certificate = disk.certificates.get(at)
                blocks.append(Block(header, certificate.attestations if certificate is not None else (), batch))
        if blocks and self.chance.random() < 0.7:
            at = self.chance.randrange(len(blocks))
            blocks[at] = twisted(blocks[at], self.chance)
        return ev.BlocksFetched(peer, tuple(blocks)) if _fits(blocks) else None

    def _snapshot(self, target: Key, peer: Key) -> ev.Input | None:
        node = self.members[self.chance.choice(self.running())].node
        assert node is not None
        snapshot = node.snapshot(WantSnapshot(0, 0))
        if snapshot is not None and self.chance.random() < 0.7:
            snapshot = twisted(snapshot, self.chance)
            if not _fits([snapshot]):
                return None
        return ev.SnapshotFetched(peer, self.chance.choice([0, node.height, 2**62]), snapshot)

    def _part(self, target: Key, peer: Key) -> ev.Input | None:
        node = self.members[self.chance.choice(self.running())].node
        assert node is not None
        height = max(0, node.height - self.chance.randrange(3))
        length = self.chance.choice([0, 0, 1, 4])
        prefix = Prefix(bytes([(self.chance.randrange(1 << length) << (8 - length)) & 255]) + bytes(31), length)
        part = node.part(WantPart(height, prefix.bits, prefix.length))
        if part is not None and self.chance.random() < 0.7:
            part = twisted(part, self.chance)
            if not _fits([part]):
                return None
        return ev.PartFetched(peer, height, prefix, part)

    def _peer(self, target: Key, peer: Key) -> ev.Input:
        if self.chance.random() < 0.5:
            return ev.PeerDown(peer)
        return ev.PeerUp(peer, self.chance.choice([0, 5, 2**62]))

    def _blob(self, target: Key, peer: Key) -> ev.Input:
        """A blob that is held, whoever asked for it, and whatever is in it: its name is a liar's choice."""
        data = self.chance.randbytes(self.chance.randrange(1, 80))
        if self.chance.random() < 0.5:
            data = broken(self._real("frame"), self.chance) or data
        ref = write_blob(self.folder, data)
        if self.chance.random() < 0.3:
            return ev.BlobRead(ref, data)
        return ev.Fetched(self.chance.choice([BlobRef(bytes(32), 5), ref]))

    def _worker(self, target: Key, peer: Key) -> ev.Input:
        kind = self.chance.choice([ev.TRAINER, ev.ARITHMETIC])
        node = self.members[target].node
        golden = node._golden if node is not None else bytes(32)
        if self.chance.random() < 0.5:
            return ev.WorkerLost(kind, "killed")
        return ev.WorkerReady(kind, "cpu", golden)

    def _job(self, target: Key, peer: Key) -> ev.Input:
        return ev.JobDone(Failed(self.chance.choice([0, 10**6, 2**62]), "who asked?"))

    def _operation(self, target: Key, peer: Key) -> ev.Input | None:
        """What the operator asks for, and what everybody can tell to be wrong."""
        node = self.members[target].node
        if node is None:
            return None
        nonce = node.next_nonce()
        good = Transfer(node.account, nonce, digest("to"), 1, "")
        if self.chance.random() < 0.7:
            return ev.OperationAsked(node.signer.sign(good))
        try:
            return ev.OperationAsked(self._liar().sign(twisted(good, self.chance)))
        except Malformed:
            return None


def _naming(order: Any, name: bytes) -> Any:
    return type(order)(order.view, order.seq, name)


def _fits(messages: Iterable[Any]) -> bool:
    """Whether these values can be bytes at all, and so come in."""
    try:
        for one in messages:
            encode(one)
    except Malformed:
        return False
    return True


def play(seed: int, inputs: int, tally: Tally) -> None:
    """One run of so many inputs. Raises Violation."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            Fuzzed(Path(folder), seed, tally).go(inputs)
        except Exception as error:
            raise Violation(f"{type(error).__name__}: {error}") from error
