"""What one node has made durable. A write is on the disk once it is synced, and not before."""

from __future__ import annotations

from typing import assert_never

from potd.node.events import Forget, Keep, Note, Store, StoreCertificate, StoreSnapshot
from potd.node.node import Restored
from potd.node.shelf import HANDOVER_NOTES
from potd.wire.blocks import Batch, Block, Certificate, Header
from potd.wire.consensus import Prepared
from potd.wire.envelope import Signed
from potd.wire.ids import BlobRef, Digest

Write = Keep | Forget | Store | StoreCertificate | StoreSnapshot | Note

NEWEST = 2**62  # the seq under which a journal keeps the newest view change or new view, and no other
BLOCKS_MAX = 8  # in one answer, but up to a certificate at least


class Disk:
    """The journal, and the blobs that are held. `certificates` is what a reader sees, written or owed."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Signed | Prepared | Batch]] = []
        self.blocks: dict[int, tuple[Header, Batch]] = {}
        self.certificates: dict[int, Certificate] = {}
        self.entries: dict[bytes, bytes] = {}
        self.notes: dict[str, bytes] = {}
        self.held: set[BlobRef] = set()
        self.snapshot: Certificate | None = None  # of what the blocks follow on, if that is not genesis
        self.owed: list[Forget | StoreCertificate] = []  # durable with the next write

    def owe(self, effect: Forget | StoreCertificate) -> None:
        """Durable with the next write. Peers are answered as if it were so already."""
        match effect:
            case StoreCertificate(certificate):
                if certificate.header.height in self.certificates:
                    return
                self.certificates[certificate.header.height] = certificate
            case Forget():
                pass
            case _:
                assert_never(effect)
        self.owed.append(effect)

    def settle(self) -> None:
        """What was owed is durable from now on."""
        owed, self.owed = self.owed, []
        for effect in owed:
            self.write(effect)

    def lose(self, kept: int) -> None:
        """Of what was owed, only so much was written when the power went."""
        lost, self.owed = self.owed[kept:], self.owed[:kept]
        for effect in lost:
            if isinstance(effect, StoreCertificate):
                del self.certificates[effect.certificate.header.height]
        self.settle()

    def write(self, effect: Write) -> None:
        """Durable from now on, and what was owed with it."""
        if self.owed:
            self.settle()
        match effect:
            case Keep(seq, record):
                if seq == NEWEST:
                    self.records = [one for one in self.records if one[0] != NEWEST]
                self.records.append((seq, record))
            case Forget(seq):
                self.records = [one for one in self.records if one[0] > seq]
            case Store(header, batch, entries):
                self.blocks[header.height] = (header, batch)
                for name, value in entries:
                    if value is None:
                        self.entries.pop(name, None)
                    else:
                        self.entries[name] = value
            case StoreCertificate(certificate):
                self.certificates[certificate.header.height] = certificate
            case StoreSnapshot(certificate, entries):
                self.snapshot, self.entries = certificate, dict(entries)
                self.blocks, self.certificates = {}, {}
            case Note(name, b""):
                self.notes.pop(name, None)
            case Note(name, data):
                self.notes[name] = data
            case _:
                assert_never(effect)

    def copy(self) -> Disk:
        """A backup: what is written to one of them from now on is not in the other."""
        other = Disk()
        other.records = list(self.records)
        owed = {one.certificate.header.height for one in self.owed if isinstance(one, StoreCertificate)}
        other.blocks = dict(self.blocks)
        other.certificates = {height: one for height, one in self.certificates.items() if height not in owed}
        other.entries, other.notes = dict(self.entries), dict(self.notes)
        other.held, other.snapshot = set(self.held), self.snapshot
        return other

    def pass_on(self) -> None:
        """Go on as the disk of another key, and forget what the present one has said, as a journal does."""
        self.records = []
        self.notes = {name: data for name, data in self.notes.items() if name.startswith(HANDOVER_NOTES)}

    def restored(self, boot: Digest) -> Restored:
        """What a node that starts finds; `boot` is drawn at every start."""
        height = max(self.blocks, default=0)
        newest = max(self.certificates, default=0)
        snapshot = self.snapshot
        return Restored(
            self.blocks[height][0] if height else snapshot.header if snapshot is not None else None,
            self.certificates[newest] if newest else snapshot,
            tuple(self.entries.items()),
            tuple(record for _, record in self.records),
            dict(self.notes),
            tuple(sorted(self.held)),
            boot,
            snapshot.header.height if snapshot is not None else 0,
        )

    def answer(self, first: int) -> tuple[Block, ...]:
        """The blocks from this height on, for a peer that follows."""
        blocks: list[Block] = []
        while first in self.blocks and (len(blocks) < BLOCKS_MAX or not blocks[-1].attestations):
            header, batch = self.blocks[first]
            certificate = self.certificates.get(first)
            blocks.append(Block(header, certificate.attestations if certificate is not None else (), batch))
            first += 1
        return tuple(blocks)
