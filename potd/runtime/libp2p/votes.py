"""Frames between two nodes: one stream each way, kept open. Knows nothing of what a frame says."""

import functools
import logging
import time
from typing import cast

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import id_of
from potd.runtime.libp2p.backlog import Backlog
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.line import SHARE_BYTES
from potd.runtime.libp2p.peers import Peer, Peers
from potd.runtime.libp2p.streams import BROKEN, LENGTH, WRITE_BYTES, Nonsense, Reader, framed, kept, unframed, write
from potd.runtime.network import FRAME_BYTES_MAX, Framed, NetworkConfig

log = logging.getLogger("potd.network")


class Votes:
    """Our side of `/potd/<network>/votes/1`."""

    def __init__(
        self, network: str, config: NetworkConfig, peers: Peers, backlog: Backlog, connections: Connections
    ) -> None:
        self.protocol = TProtocol(f"/potd/{network}/votes/1")
        self._config = config
        self._peers = peers
        self._backlog = backlog
        self._connections = connections

    async def write(self, peer: Peer) -> None:
        """Send what is in the outbox of a peer, until it is gone."""
        box = peer.outbox
        stream: patches.Stream | None = None
        failures = 0
        with peer.scope:
            while True:
                frames = box.take(WRITE_BYTES)
                if not frames and (stream is None or stream.flushed):
                    await self._wait(peer, stream)
                    continue
                *small, last = frames or [b""]
                head = b"".join(map(framed, small)) + LENGTH.pack(len(last))
                try:
                    if stream is None:
                        stream = await self._connections.open_to(peer, self.protocol)
                    if frames:
                        await write(stream, head, last)
                    else:
                        await stream.flush()
                except Exception as error:  # BROKEN, or what nobody foresaw: the stream is of no more use
                    log.debug("votes stream lost: %r", error)
                    if stream is not None:
                        await patches.reset(stream)
                    stream = None
                    box.give_back(frames, time.monotonic())
                    failures += 1
                    self._peers.counts["votes streams lost"] += 1
                    await trio.sleep(min(0.02 * 2**failures, 2.0))
                    continue
                failures = 0
                if frames:
                    self._count_out(peer, frames)

    async def _wait(self, peer: Peer, stream: patches.Stream | None) -> None:
        """Until there is something for `write`: what can be written at once is not."""
        box = peer.outbox
        if stream is not None:
            box.writes = functools.partial(self._write_now, peer, stream)
        try:
            await box.wake.wait()
        finally:
            box.writes = None
        box.wake = trio.Event()

    def _write_now(self, peer: Peer, stream: patches.Stream) -> bool:
        """Send what is in the outbox of a peer without a turn of the scheduler. False if something is left to do."""
        frames = peer.outbox.take(SHARE_BYTES)
        if not frames:
            return True  # written already
        if not stream.write_now(b"".join(map(framed, frames))):
            peer.outbox.give_back(frames, time.monotonic())
            return False
        self._count_out(peer, frames)
        return peer.outbox.empty and stream.flushed

    def _count_out(self, peer: Peer, frames: list[bytes]) -> None:
        peer.frames_out += len(frames)
        peer.bytes_out += sum(LENGTH.size + len(frame) for frame in frames)

    async def on_stream(self, stream: INetStream) -> None:
        """Hear frames, one after another, as fast as the peer may send."""
        peer = await self._connections.peer_of(stream)
        if peer is None:
            return
        if peer.votes_in is not None:
            peer.votes_in.cancel()  # it opened another: the old one is lost to it
        scope = peer.votes_in = trio.CancelScope()
        reader = Reader(stream)
        try:
            with scope:
                async with kept(stream):
                    await self._read(peer, cast(patches.Stream, stream), reader)
        except Nonsense:
            self._peers.refuse(id_of(peer.key), "votes", "frame too long")
        except trio.TooSlowError:
            self._peers.refuse(id_of(peer.key), "votes", "frame never finished")
        except BROKEN:
            pass
        finally:
            # Half a frame costs what a whole one does, or who never finishes any could send without end.
            peer.buckets.frame_bytes.spend(reader.held, trio.current_time())
            if peer.votes_in is scope:
                peer.votes_in = None

    async def _read(self, peer: Peer, stream: patches.Stream, reader: Reader) -> None:
        await self._peers.afford(peer.buckets.frame_bytes, 0)  # what its last stream owes
        while True:
            await self._backlog.wait_for_room()
            frame = reader.framed_already(FRAME_BYTES_MAX)
            if frame is None and not reader.held:
                with stream.heard_by(functools.partial(self._hear_now, peer)):
                    await reader.begin()
                continue
            if frame is None:
                frame = await self._finish(reader)
            self._heard(peer, frame)
            await self._peers.afford(peer.buckets.frames, 1)
            await self._peers.afford(peer.buckets.frame_bytes, len(frame))

    def _hear_now(self, peer: Peer, data: bytes) -> bool:
        """Hear what has come without a turn of the scheduler, if it is whole frames and nobody has to wait."""
        frames = None if self._backlog.full else unframed(data, FRAME_BYTES_MAX)
        if frames is None:
            return False
        now, spent = trio.current_time(), ((peer.buckets.frames, len(frames)), (peer.buckets.frame_bytes, len(data)))
        if not all(bucket.has(units, now) for bucket, units in spent):
            return False
        for bucket, units in spent:
            bucket.spend(units, now)
        for frame in frames:
            self._heard(peer, frame)
        return True

    def _heard(self, peer: Peer, frame: bytes) -> None:
        peer.frames_in += 1
        peer.bytes_in += len(frame) + LENGTH.size
        self._backlog.put(Framed(peer.key, frame), len(frame))

    async def _finish(self, reader: Reader) -> bytes:
        """The frame that has begun. A slow line may send a large one, so the patience is for each MiB of it."""
        with trio.fail_after(self._config.unfinished_s) as patience:
            size = await reader.length(FRAME_BYTES_MAX)
            patience.deadline += (size >> 20) * self._config.unfinished_s
            return await reader.exactly(size)
