"""The heart of the daemon: one inbox, one consumer, effects in order. Knows no protocol and no library.

A drained inbox is stepped input by input; what it wrote is made durable with one sync, and only then does whatever
follows a write leave the machine. Where nothing hangs on what was written, it is left to the next sync. Peers' inputs
are bounded and dropped when there are too many; those of our own workers, files and clock are not. When peers together
want more than there is, whoever has least in the inbox is heard first: the newest of the largest share makes room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from potd.node.events import (
    ARITHMETIC,
    OWED,
    TRAINER,
    Effect,
    Fetch,
    FetchBatch,
    FetchBlocks,
    FetchPart,
    FetchSnapshot,
    Forget,
    Framed,
    Gossiped,
    Hide,
    Ignore,
    Input,
    JobDone,
    Keep,
    Log,
    Note,
    Publish,
    Read,
    Refuse,
    Retain,
    Reveal,
    Run,
    Send,
    Store,
    StoreCertificate,
    StoreSnapshot,
    Tell,
    Ticked,
    Unfetch,
)
from potd.runtime.blobs import BlobStore
from potd.runtime.fetcher import Fetcher
from potd.runtime.journal import WRITES, Journal, Write
from potd.runtime.network import Network
from potd.runtime.refusals import Refusals
from potd.runtime.workers import Worker
from potd.wire.genesis import TICK_MS
from potd.wire.ids import NOTHING, Key, short
from potd.wire.jobs import Failed

log = logging.getLogger(__name__)

DRAINED_MAX = 512  # inputs between two syncs
DRAIN_S = 0.05  # and the longest that a drain may take before its effects leave
OWED_S = 1.0  # so long at most a write waits for others, where nothing waits for it
FRAMES_OF_ONE_MAX = 4_096  # of one peer, in the inbox
BYTES_OF_ONE_MAX = 32 << 20
BYTES_OF_ALL_MAX = 128 << 20  # of peers, in the inbox; four floods fill it, however many peers there are
INPUT_BYTES = 512  # that an input takes beside its data, so that many small ones count as what they cost
NAMES_MAX = 256  # of those whose inputs were dropped, in the count
GOSSIP_MAX = 8_192
GOSSIPER = b"gossip"  # the share of the inbox that all gossip has together: whoever passes it on is not to blame


News = Store | StoreCertificate | StoreSnapshot | Tell  # what listeners hear of


class Machine(Protocol):
    """What the pump turns: the node. Pure and synchronous."""

    def start(self) -> list[Effect]: ...

    def step(self, event: Input) -> list[Effect]: ...


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An input in the inbox. A peer's has a size, and counts against its share."""

    event: Input
    share: bytes = b""
    size: int = 0
    done: asyncio.Future[None] | None = None


@dataclass(eq=False)
class _Share:
    """What one peer, or all gossip, has in the inbox."""

    numbers: deque[int] = field(default_factory=deque)  # of the inputs, oldest first
    size: int = 0


class Pump:
    """Takes inputs from everywhere, steps the machine, carries out its effects."""

    def __init__(
        self,
        machine: Machine,
        journal: Journal,
        blobs: BlobStore,
        network: Network,
        fetcher: Fetcher,
        workers: Sequence[Worker],
        refusals: Refusals,
    ) -> None:
        self.dropped: Counter[str] = Counter()  # inputs of peers for which there was no room
        self.steps = 0
        self.syncs = 0
        self.step_s = 0.0
        self.sync_s = 0.0
        self._machine = machine
        self._journal = journal
        self._blobs = blobs
        self._network = network
        self._fetcher = fetcher
        self._workers = {worker.kind: worker for worker in workers}
        self._refusals = refusals
        self._inbox: OrderedDict[int, _Waiting] = OrderedDict()  # by number, in order of arrival
        self._number = 0
        self._shares: dict[bytes, _Share] = {}
        self._size = 0  # of all shares
        self._filled = asyncio.Event()
        self._tick_waits = False
        self._owed_since = 0.0  # of the oldest write that waits for others
        self._listeners: list[Callable[[News], None]] = []

    # Inputs

    def put(self, event: Input) -> None:
        """An input of our own: never dropped."""
        self._append(_Waiting(event))

    async def take(self, event: Input) -> None:
        """An input of our own, and until its effects have been carried out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._append(_Waiting(event, done=done))
        await done

    def put_frame(self, event: Framed) -> None:
        self._put_bounded(_Waiting(event, event.peer, INPUT_BYTES + len(event.data)), FRAMES_OF_ONE_MAX)

    def put_gossip(self, event: Gossiped) -> None:
        self._put_bounded(_Waiting(event, GOSSIPER, INPUT_BYTES + len(event.data)), GOSSIP_MAX)

    def listen(self, listener: Callable[[News], None]) -> Callable[[], None]:
        """Call `listener` after every height that is executed, certified or taken over, and for every event, until the
        function returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def blame(self, peer: Key, reason: str) -> None:
        """Count what a peer (NOTHING: nobody knows whose it was) sent in vain; hang up on it if that was too often."""
        if self._refusals.count(peer, reason) and peer != NOTHING:
            self._network.drop(peer, f"refused too often, last: {reason}")

    @property
    def waiting(self) -> int:
        return len(self._inbox)

    async def tick(self) -> None:
        """A Ticked every 50 ms. One that the machine has not taken yet is not doubled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_MS / 1000, loop.time())
            await asyncio.sleep(due - loop.time())
            if not self._tick_waits:
                self._tick_waits = True
                self.put(Ticked())

    # Turning

    async def run(self) -> None:
        """Until cancelled. Raises OSError when the disk fails, and whatever the machine raises, which is our bug."""
        self._carry_out(self._machine.start())
        while True:
            await self._filled.wait()
            taken, effects = self._drain()
            self._carry_out(effects)
            for one in taken:
                if one.done is not None and not one.done.done():
                    one.done.set_result(None)
            if self._inbox:
                await asyncio.sleep(0)  # the network and the workers have their turn, however full the inbox is

    def _drain(self) -> tuple[list[_Waiting], list[Effect]]:
        """Step what waits, within bounds. Returns what was taken and what it brought."""
        taken: list[_Waiting] = []
        effects: list[Effect] = []
        began = time.perf_counter()
        for _ in range(DRAINED_MAX):
            if not self._inbox or time.perf_counter() - began > DRAIN_S:
                break
            taken.append(self._take())
            effects += self._machine.step(taken[-1].event)
            self.steps += 1
        if not self._inbox:
            self._filled.clear()
        self.step_s += time.perf_counter() - began
        return taken, effects

    def _append(self, one: _Waiting) -> int:
        self._number += 1
        self._inbox[self._number] = one
        self._filled.set()
        return self._number

    def _take(self) -> _Waiting:
        """The oldest input."""
        _, one = self._inbox.popitem(last=False)
        if one.share:
            self._shares[one.share].numbers.popleft()
            self._lighten(one)
        elif isinstance(one.event, Ticked):
            self._tick_waits = False
        return one

    def _put_bounded(self, one: _Waiting, count_max: int) -> None:
        """A peer's input, unless its share is full, or all shares together are and its own is none of the smaller."""
        share = self._shares.get(one.share) or _Share()
        size = share.size + one.size
        if len(share.numbers) >= count_max or size > BYTES_OF_ONE_MAX or not self._make_room(one.size, size):
            self._count_dropped(one)
            return
        self._shares[one.share] = share
        share.numbers.append(self._append(one))
        share.size = size
        self._size += one.size

    def _make_room(self, size: int, level: int) -> bool:
        """Drop the newest of the largest shares, down to `level` at most, for `size` bytes more. Drops nothing if that
        cannot be enough."""
        over = self._size + size - BYTES_OF_ALL_MAX
        if over > 0 and over > sum(max(0, share.size - level) for share in self._shares.values()):
            return False
        while self._size + size > BYTES_OF_ALL_MAX:
            largest = max(self._shares.values(), key=lambda share: share.size)
            dropped = self._inbox.pop(largest.numbers.pop())
            self._lighten(dropped)
            self._count_dropped(dropped)
        return True

    def _lighten(self, one: _Waiting) -> None:
        """A share is smaller by an input that has left it."""
        share = self._shares[one.share]
        share.size -= one.size
        self._size -= one.size
        if not share.numbers:
            del self._shares[one.share]

    def _count_dropped(self, one: _Waiting) -> None:
        name = f"gossip on {one.event.topic}" if isinstance(one.event, Gossiped) else f"frames of {short(one.share)}"
        if name in self.dropped or len(self.dropped) < NAMES_MAX:
            self.dropped[name] += 1

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        """Effects in order; everything from the first write on waits until all writes are durable, unless nothing waits
        for any of them.

        The machine takes no input meanwhile: handing the sync to another thread costs more than this one could do."""
        writes: list[Write] = [one for one in effects if isinstance(one, WRITES)]
        if all(isinstance(one, OWED) for one in writes):
            if writes and not self._journal.owes:
                self._owed_since = time.perf_counter()
            self._journal.owe(writes)
            overdue = self._journal.owes and time.perf_counter() - self._owed_since > OWED_S
            first = len(effects)
        else:
            overdue = False
            first = next(index for index, one in enumerate(effects) if one is writes[0])
        for effect in effects[:first]:
            self._do(effect)
        if overdue or first < len(effects):
            began = time.perf_counter()
            self._journal.commit(() if overdue else writes)
            self.syncs += 1
            self.sync_s += time.perf_counter() - began
        for effect in effects[first:]:
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Keep() | Forget() | Note():
                pass  # written before we came here
            case Store() | StoreCertificate() | StoreSnapshot():
                self._tell(effect)
            case Send(to, data):
                self._network.send(to, data)
            case Publish(topic, data):
                self._network.publish(topic, data)
            case Fetch(ref, holders):
                self._fetcher.fetch(ref, holders)
            case Unfetch(ref):
                self._fetcher.unfetch(ref)
            case Read(ref):
                self._fetcher.read(ref)
            case FetchBatch(digest, peers):
                self._fetcher.fetch_batch(digest, peers)
            case FetchBlocks(peer, first):
                self._fetcher.fetch_blocks(peer, first)
            case FetchSnapshot(peer, height, base):
                self._fetcher.fetch_snapshot(peer, height, base)
            case FetchPart(peer, height, prefix):
                self._fetcher.fetch_part(peer, height, prefix)
            case Hide(ref):
                self._blobs.hide(ref)
            case Reveal(ref):
                self._blobs.reveal(ref)
            case Retain(needed, surplus):
                self._blobs.retain(needed, surplus)
            case Run(kind, job):
                assert kind in (TRAINER, ARITHMETIC), f"a job for a {kind}"
                worker = self._workers.get(kind)
                if worker is None:
                    self.put(JobDone(Failed(job.job, f"this node has no {kind}")))
                else:
                    worker.give(job)
            case Ignore(reason):
                self._refusals.note(reason)
            case Refuse(peer, reason):
                self.blame(peer, reason)
            case Log(level, text):
                log.log(level, "%s", text)
            case Tell():
                self._tell(effect)
            case _:
                assert_never(effect)

    def _tell(self, event: News) -> None:
        for listener in list(self._listeners):
            listener(event)
