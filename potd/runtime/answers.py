"""Answering peers' questions from what is stored. Decides nothing but what may be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from potd.runtime.blobs import BlobStore
from potd.runtime.journal import Journal
from potd.runtime.network import Refused
from potd.wire import transfer
from potd.wire.blocks import Batch
from potd.wire.codec import Malformed, decode, encode
from potd.wire.ids import BlobRef, Digest, Key
from potd.wire.merkle import CHUNK_BYTES, chunk_count
from potd.wire.merkle_map import Prefix
from potd.wire.transfer import (
    Blocks,
    Leaves,
    Part,
    Snapshot,
    WantBatch,
    WantBlocks,
    WantChunk,
    WantLeaves,
    WantPart,
    WantSnapshot,
)

HASHED_INLINE_BYTES = 4 * CHUNK_BYTES  # a larger blob is hashed on a thread, beside the loop


class States(Protocol):
    """Who keeps states for others: the node. Called from any thread."""

    def snapshot(self, want: WantSnapshot) -> Snapshot | None: ...

    def part(self, want: WantPart) -> Part | None: ...


class Answers:
    """What peers may ask of this node. Every refusal says why."""

    def __init__(
        self,
        blobs: BlobStore,
        journal: Journal,
        batch_in_flight: Callable[[Digest], Batch | None],
        blame: Callable[[Key, str], None],
        states: States,
    ) -> None:
        self._blobs = blobs
        self._journal = journal
        self._batch_in_flight = batch_in_flight
        self._blame = blame
        self._states = states
        self.bytes_out = 0

    async def answer(self, peer: Key, kind: str, question: bytes) -> bytes:
        """The answer's bytes. Raises Refused."""
        try:
            answer = await self._answer(kind, question)
        except Malformed as error:
            self._blame(peer, f"a question about {kind} that is none: {error}")
            raise Refused(f"not a question: {error}") from None
        except FileNotFoundError:  # it made room between our looking and our reading
            raise Refused("not held") from None
        self.bytes_out += len(answer)
        return answer

    async def _answer(self, kind: str, question: bytes) -> bytes:
        match kind:
            case transfer.CHUNK:
                chunk = decode(question, WantChunk)
                self._served(chunk.blob)
                if chunk.index >= chunk_count(chunk.blob.size):
                    raise Malformed(f"chunk {chunk.index} of a blob of {chunk_count(chunk.blob.size)}")
                return self._blobs.read_chunk(chunk.blob, chunk.index)
            case transfer.LEAVES:
                return await self._leaves(decode(question, WantLeaves).blob)
            case transfer.BATCH:
                return await self._batch(decode(question, WantBatch).digest)
            case transfer.BLOCKS:
                first = decode(question, WantBlocks).first
                blocks = await asyncio.to_thread(self._journal.blocks, first, transfer.BLOCKS_BYTES_MAX)
                try:
                    return encode(Blocks(blocks))
                except Malformed:  # full batches in a row without a certificate between them: nobody's fault
                    raise Refused("too large to be served") from None
            case transfer.SNAPSHOT:
                return _held(await asyncio.to_thread(self._states.snapshot, decode(question, WantSnapshot)))
            case transfer.PART:
                want = decode(question, WantPart)
                if not Prefix(want.prefix, want.length).is_whole():
                    raise Malformed("a prefix with bits behind its end")
                return await asyncio.to_thread(lambda: _held(self._states.part(want)))
            case _:
                raise Refused(f"nobody here knows about {kind}")

    def _served(self, ref: BlobRef) -> None:
        if not self._blobs.is_served(ref):
            raise Refused("not held")  # whether it is hidden or not here is nobody's business

    async def _leaves(self, ref: BlobRef) -> bytes:
        self._served(ref)
        if ref.size > transfer.BLOB_BYTES_MAX:
            raise Refused("too large to be served")
        leaves = self._blobs.leaves(ref)
        if leaves is None:
            if ref.size <= HASHED_INLINE_BYTES:
                leaves = self._blobs.hash_leaves(ref)
            else:
                leaves = await asyncio.to_thread(self._blobs.hash_leaves, ref)
            if leaves is None:
                self._blobs.drop_damaged(ref)
                raise Refused("not held")
            self._blobs.remember_leaves(ref, leaves)
        return encode(Leaves(b"".join(leaves)))

    async def _batch(self, digest: Digest) -> bytes:
        batch = self._batch_in_flight(digest)
        data = encode(batch) if batch is not None else await asyncio.to_thread(self._journal.batch, digest)
        if data is None:
            raise Refused("not held")
        return data


def _held(answer: Snapshot | Part | None) -> bytes:
    """Its encoding. Raises Refused for nothing."""
    if answer is None:
        raise Refused("not held")
    return encode(answer)
