"""Getting blobs, batches, blocks and states from peers. Knows nothing of why they are wanted.

A blob comes chunk by chunk, each verified as it comes, from as many holders as help: first those named to us, after
a round of refusals any peer. Whoever is slow is joined by the next one; whoever lies is blamed and asked no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from potd.node.events import BatchFetched, BlobRead, BlocksFetched, Fetched, PartFetched, SnapshotFetched
from potd.runtime.blobs import BlobStore, Part, split_leaves
from potd.runtime.network import Network, Refused, Unreachable
from potd.wire import transfer
from potd.wire.blobs import read_blob
from potd.wire.blocks import BATCH_BYTES_MAX
from potd.wire.codec import Malformed, decode, encode
from potd.wire.ids import BlobRef, Digest, Key, digest, short
from potd.wire.merkle import CHUNK_BYTES, blob_root, chunk_count, leaf_hash
from potd.wire.merkle_map import Prefix
from potd.wire.transfer import (
    Blocks,
    Leaves,
    Snapshot,
    WantBatch,
    WantBlocks,
    WantChunk,
    WantLeaves,
    WantPart,
    WantSnapshot,
)
from potd.wire.transfer import (
    Part as StatePart,
)

log = logging.getLogger(__name__)

ASKED_AT_ONCE = 8  # questions about blobs, to all peers together
ASKED_OF_ONE = 2
LANES = 4  # a blob of several chunks begins with so many
OTHERS_AT_ONCE = 8  # peers beside the named holders that one pass tries
SLOW_S = 0.5  # without an answer for so long, the next holder is asked too
PATIENCE_S = 20.0  # for a chunk: a line of 13 kB/s is the slowest that helps
READ_BYTES_MAX = 16 << 20  # what is read is a manifest
BATCH_PATIENCE_S = 5.0
SLACK_BYTES = 512 * 1024  # of an answer beyond what it is to hold: lengths, proofs, the last of many
RETRY_FIRST_S = 0.05  # a miner reveals when it hears of the certificate, a moment after or before we do
RETRY_LAST_S = 5.0

A = TypeVar("A", Blocks, Snapshot, StatePart)
Told = Fetched | BlobRead | BatchFetched | BlocksFetched | SnapshotFetched | PartFetched

Lane = Callable[[Key], Awaitable[None]]  # asks one peer until it has no more, or fails: Refused, Unreachable


@dataclass(eq=False)
class _Want:
    """One blob until it is here."""

    ref: BlobRef
    holders: list[Key] = field(default_factory=list)
    ordered: bool = False  # by the node, which is told when it is here
    watchers: int = 0  # others who wait for it
    here: asyncio.Event = field(default_factory=asyncio.Event)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)  # set for a moment whenever a question has ended
    liars: set[Key] = field(default_factory=set)
    part: Part | None = None  # a blob of one chunk has none: its leaf follows from its bytes
    in_flight: dict[int, dict[Key, float]] = field(default_factory=dict)  # chunk → whom we asked for it, and when

    def next_chunk(self, peer: Key, now_s: float) -> int | None:
        """What to ask this peer for: what nobody is being asked for, else what one other peer takes long over."""
        assert self.part is not None
        missing, asked = self.part.missing, self.in_flight
        free = next((index for index in missing if not asked.get(index)), None)
        if free is not None:
            return free
        slow = (index for index in missing if len(asked[index]) == 1 and now_s - max(asked[index].values()) >= SLOW_S)
        return next((index for index in slow if peer not in asked[index]), None)


class Fetcher:
    """Everything that is wanted from peers. Used from one asyncio thread."""

    def __init__(
        self,
        blobs: BlobStore,
        network: Network,
        heard: Callable[[Told], None],
        blame: Callable[[Key, str], None],
        group: asyncio.TaskGroup,
    ) -> None:
        self._blobs = blobs
        self._network = network
        self._heard = heard
        self._blame = blame
        self._group = group
        self._wants: dict[BlobRef, _Want] = {}
        self._tasks: dict[BlobRef, asyncio.Task[None]] = {}
        self._reading: set[BlobRef] = set()
        self._batches: set[Digest] = set()
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._asking_one: dict[Key, asyncio.Semaphore] = {}
        self.bytes_in = 0

    def fetch(self, ref: BlobRef, holders: Iterable[Key]) -> None:
        """Get a blob for the node, and tell it when the blob is here; at once if it is."""
        if ref not in self._wants and self._blobs.has(ref):
            self._heard(Fetched(ref))
            return
        want = self._want(ref)
        if want is None:
            log.warning("blob %s of %d bytes is beyond what this node stores", short(ref.root), ref.size)
            return
        want.ordered = True
        new = [key for key in holders if key not in want.holders and key != self._network.key]
        if new:
            want.holders += new
            want.woken.set()

    def unfetch(self, ref: BlobRef) -> None:
        """The node wants it no more."""
        want = self._wants.get(ref)
        if want is not None:
            want.ordered = False
            if want.watchers == 0:
                self._cancel(ref)
                self._blobs.drop_part(ref.root)

    async def until_held(self, ref: BlobRef) -> None:
        """Get a blob for somebody else. If cancelled, what has come in waits for another try. Raises OSError if it
        is more than this node stores."""
        while not self._blobs.has(ref):
            want = self._want(ref)
            if want is None:
                raise OSError(f"a blob of {ref.size} bytes is more than this node stores")
            want.watchers += 1
            try:
                await want.here.wait()
            finally:
                want.watchers -= 1
                if self._wants.get(ref) is want and want.watchers == 0 and not want.ordered:
                    self._cancel(ref)

    def read(self, ref: BlobRef) -> None:
        """Get a blob for the node, and tell it the bytes."""
        if ref.size > READ_BYTES_MAX:
            log.warning("blob %s of %d bytes is too large to be read", short(ref.root), ref.size)
        elif ref not in self._reading:
            self._reading.add(ref)
            self._group.create_task(self._read(ref), name=f"read {short(ref.root)}")

    def fetch_batch(self, name: Digest, peers: Sequence[Key]) -> None:
        if name not in self._batches:
            self._batches.add(name)
            self._group.create_task(self._get_batch(name, peers), name=f"batch {short(name)}")

    def fetch_blocks(self, peer: Key, first: int) -> None:
        self._group.create_task(self._get_blocks(peer, first), name=f"blocks from {first}")

    def fetch_snapshot(self, peer: Key, height: int, base: int) -> None:
        self._group.create_task(self._get_snapshot(peer, height, base), name=f"snapshot {height}")

    def fetch_part(self, peer: Key, height: int, prefix: Prefix) -> None:
        self._group.create_task(self._get_part(peer, height, prefix), name=f"part of the state of {height}")

    def peer_up(self) -> None:
        """Somebody new may hold what is wanted."""
        for want in self._wants.values():
            want.woken.set()

    def wanted(self) -> tuple[BlobRef, ...]:
        return tuple(self._wants)

    # Blobs

    def _want(self, ref: BlobRef) -> _Want | None:
        """The blob as one that is being fetched; None if it is too large."""
        if ref.size > min(transfer.BLOB_BYTES_MAX, self._blobs.bytes_max):
            return None
        want = self._wants.get(ref)
        if want is None:
            want = self._wants[ref] = _Want(ref)
            self._tasks[ref] = self._group.create_task(self._get(want), name=f"fetch {short(ref.root)}")
        return want

    def _cancel(self, ref: BlobRef) -> None:
        del self._wants[ref]
        self._tasks.pop(ref).cancel()

    async def _get(self, want: _Want) -> None:
        try:
            if chunk_count(want.ref.size) > 1:
                want.part = self._blobs.open_part(want.ref)
                for _ in want.part.resume():
                    await asyncio.sleep(0)  # others have their turn between two chunks
            await self._until_whole(want)
        finally:
            if want.part is not None:
                want.part.close()
        # No await since the blob was whole, so nobody can have called unfetch.
        del self._wants[want.ref], self._tasks[want.ref]
        want.here.set()
        if want.ordered:
            self._heard(Fetched(want.ref))

    async def _until_whole(self, want: _Want) -> None:
        pause, only_holders = RETRY_FIRST_S, True
        while True:
            want.woken.clear()
            if await self._pass(want, self._candidates(want, only_holders)):
                return
            try:
                # Jitter, so that nodes that were refused together do not come back together.
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):
                    await want.woken.wait()
                pause = RETRY_FIRST_S
            except TimeoutError:
                pause, only_holders = min(2 * pause, RETRY_LAST_S), False

    def _candidates(self, want: _Want, only_holders: bool) -> list[Key]:
        holders = [key for key in want.holders if key not in want.liars]
        if holders and only_holders:
            return holders
        known = {*want.liars, *want.holders}
        others = [one.key for one in self._network.peers() if not one.guest and one.key not in known]
        return holders + random.sample(others, min(len(others), OTHERS_AT_ONCE))

    async def _pass(self, want: _Want, candidates: Sequence[Key]) -> bool:
        """Try each of these once. Returns whether the blob is here."""

        def here() -> bool:
            return self._is_here(want)

        if here():
            return True
        part = want.part
        if part is None:
            return await self._join(want, candidates, 1, lambda peer: self._whole(want, peer), here)
        if part.leaves is None:
            # From one alone, since they say all; then all help at once, also those who would be slow to hash.
            known = await self._join(
                want,
                candidates,
                1,
                lambda peer: self._leaves(want, part, peer),
                lambda: part.leaves is not None or self._blobs.has(want.ref),
            )
            if not known:
                return False
            if here():
                return True
        lanes = [key for key in candidates if key not in want.liars] * ASKED_OF_ONE
        return await self._join(want, lanes, LANES, lambda peer: self._chunks(want, part, peer), here)

    async def _join(self, want: _Want, peers: Iterable[Key], width: int, lane: Lane, done: Callable[[], bool]) -> bool:
        """Run a lane for each peer, `width` at once and one more whenever none ends for long, until done. Returns
        whether it is; asked again after each lane."""
        waiting = deque(peers)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                while waiting and len(running) < width:
                    running.add(asyncio.create_task(self._helped(want, lane, waiting.popleft())))
                if not running:
                    return False
                patience = SLOW_S if waiting else None
                ended, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for one in ended:
                    one.result()
                if done():
                    return True
                if not ended:
                    width += 1
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _is_here(self, want: _Want) -> bool:
        """Whether the blob is whole; a worker may have made it meanwhile."""
        if want.part is not None and want.part.leaves is not None and not want.part.missing:
            self._blobs.finish_part(want.part)
            return True
        if self._blobs.has(want.ref):
            self._blobs.drop_part(want.ref.root)
            return True
        return False

    async def _helped(self, want: _Want, lane: Lane, peer: Key) -> None:
        """One peer's help, if it gives any."""
        try:
            await lane(peer)
        except Refused as refusal:
            log.debug("blob %s: %s refused: %s", short(want.ref.root), short(peer), refusal.reason)
        except Unreachable as error:
            log.debug("blob %s: %s: %s", short(want.ref.root), short(peer), error)

    async def _chunks(self, want: _Want, part: Part, peer: Key) -> None:
        """Until all are here. While others are being asked for all that is missing, this peer is kept for what they
        fail to give or take long over."""
        while part.missing and peer not in want.liars:
            index = want.next_chunk(peer, asyncio.get_running_loop().time())
            if index is not None:
                await self._chunk(want, part, peer, index)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLOW_S):
                    await want.moved.wait()

    async def _whole(self, want: _Want, peer: Key) -> None:
        ref = want.ref
        data = b""
        if ref.size:
            data = await self._ask(peer, transfer.CHUNK, WantChunk(ref, 0), ref.size)
        if blob_root(len(data), [leaf_hash(data)] if data else []) != ref.root or len(data) != ref.size:
            self._lied(want, peer, "a chunk that is not of its blob")
        elif not self._blobs.has(ref):
            self._blobs.write(data)

    async def _leaves(self, want: _Want, part: Part, peer: Key) -> None:
        hashes_max = part.count * transfer.LEAF_BYTES
        answer = await self._ask(peer, transfer.LEAVES, WantLeaves(want.ref), hashes_max + 16)
        try:
            leaves = split_leaves(decode(answer, Leaves).hashes)
        except Malformed:
            leaves = []
        if part.leaves is None and not part.begin(leaves):
            self._lied(want, peer, "leaves that are not of their blob")

    async def _chunk(self, want: _Want, part: Part, peer: Key, index: int) -> None:
        asked = want.in_flight.setdefault(index, {})
        asked[peer] = asyncio.get_running_loop().time()
        try:
            data = await self._ask(peer, transfer.CHUNK, WantChunk(want.ref, index), CHUNK_BYTES)
        finally:
            del asked[peer]
            want.moved.set()
            want.moved.clear()
        if not part.put(index, data):
            self._lied(want, peer, "a chunk that is not of its blob")

    def _lied(self, want: _Want, peer: Key, reason: str) -> None:
        want.liars.add(peer)
        self._blame(peer, reason)

    async def _ask(self, peer: Key, kind: str, question: Any, answer_bytes_max: int) -> bytes:
        if len(self._asking_one) > 4096:
            self._asking_one = {key: one for key, one in self._asking_one.items() if one.locked()}
        one = self._asking_one.setdefault(peer, asyncio.Semaphore(ASKED_OF_ONE))
        async with one, self._asking:
            answer = await self._network.ask(
                peer, kind, encode(question), answer_bytes_max=answer_bytes_max, patience_s=PATIENCE_S
            )
        self.bytes_in += len(answer)
        return answer

    async def _read(self, ref: BlobRef) -> None:
        try:
            await self.until_held(ref)
            data = read_blob(self._blobs.folder, ref)
        finally:
            self._reading.discard(ref)
        self._heard(BlobRead(ref, data))

    # Batches, blocks and states: whoever ordered them judges them

    async def _get_batch(self, name: Digest, peers: Sequence[Key]) -> None:
        try:
            for peer in peers:
                with contextlib.suppress(Refused, Unreachable):
                    data = await self._network.ask(
                        peer,
                        transfer.BATCH,
                        encode(WantBatch(name)),
                        answer_bytes_max=BATCH_BYTES_MAX + CHUNK_BYTES,
                        patience_s=BATCH_PATIENCE_S,
                    )
                    if digest("batch", data) == name:
                        self._heard(BatchFetched(name, data))
                        return
                    self._blame(peer, "a batch that is another")  # and whoever comes next may have the right one
            log.debug("batch %s: none of %d peers gave it", short(name), len(peers))
        finally:
            self._batches.discard(name)

    async def _get_blocks(self, peer: Key, first: int) -> None:
        bytes_max = transfer.BLOCKS_BYTES_MAX + 2 * BATCH_BYTES_MAX
        answer = await self._answer(peer, transfer.BLOCKS, WantBlocks(first), bytes_max, Blocks)
        self._heard(BlocksFetched(peer, answer.blocks if answer is not None else ()))

    async def _get_snapshot(self, peer: Key, height: int, base: int) -> None:
        bytes_max = transfer.HANDOVERS_BYTES_MAX + SLACK_BYTES
        answer = await self._answer(peer, transfer.SNAPSHOT, WantSnapshot(height, base), bytes_max, Snapshot)
        self._heard(SnapshotFetched(peer, height, answer))

    async def _get_part(self, peer: Key, height: int, prefix: Prefix) -> None:
        bytes_max = max(transfer.PART_BYTES_MAX, transfer.ENTRY_BYTES_MAX) + SLACK_BYTES
        question = WantPart(height, prefix.bits, prefix.length)
        answer = await self._answer(peer, transfer.PART, question, bytes_max, StatePart)
        self._heard(PartFetched(peer, height, prefix, answer))

    async def _answer(self, peer: Key, kind: str, question: object, bytes_max: int, expected: type[A]) -> A | None:
        """A peer's answer, decoded; None if there is none."""
        try:
            answer = await self._network.ask(
                peer, kind, encode(question), answer_bytes_max=bytes_max, patience_s=PATIENCE_S
            )
            return decode(answer, expected)
        except (Refused, Unreachable) as error:
            log.debug("%s: %s: %s", kind, short(peer), error)
        except Malformed as error:
            self._blame(peer, f"{kind} that cannot be read: {error}")
        return None
