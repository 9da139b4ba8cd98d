"""The first words on a connection: who is there, and whether either side minds. Knows nothing of what follows."""

import os
import struct
from collections.abc import Sequence

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import ADDRESS_BYTES_MAX, Address, id_of, parse_addresses
from potd.runtime.libp2p.backlog import Backlog
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.peers import Connection, Peer, Peers
from potd.runtime.libp2p.streams import (
    BROKEN,
    Nonsense,
    NotSpoken,
    Reader,
    connection_of,
    framed,
    kept,
    open_stream,
    readable,
    sentence,
)
from potd.runtime.libp2p.votes import Votes
from potd.runtime.network import (
    HELLO_BYTES_MAX,
    REASON_BYTES_MAX,
    Callbacks,
    Mismatched,
    NetworkConfig,
    PeerDown,
    PeerUp,
)

HELLO = TProtocol("/potd/hello/1")

INSTANCE_BYTES = 16
ADDRESSES_MAX = 8  # that one peer may announce
HELLO_FRAME_MAX = INSTANCE_BYTES + 2 + ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 1) + HELLO_BYTES_MAX


class Hello:
    """Our side of `/potd/hello/1`."""

    def __init__(
        self,
        config: NetworkConfig,
        callbacks: Callbacks,
        addresses: Sequence[Address],
        nursery: trio.Nursery,
        peers: Peers,
        backlog: Backlog,
        connections: Connections,
        votes: Votes,
    ) -> None:
        self._config = config
        self._callbacks = callbacks
        self._addresses = addresses
        self._nursery = nursery
        self._peers = peers
        self._backlog = backlog
        self._connections = connections
        self._votes = votes
        self._instance = os.urandom(INSTANCE_BYTES)

    def _ours(self) -> bytes:
        body = self._callbacks.hello()
        assert len(body) <= HELLO_BYTES_MAX, f"our hello has {len(body)} bytes"
        addresses = "\n".join(str(address) for address in self._addresses[:ADDRESSES_MAX]).encode()
        return self._instance + struct.pack("!H", len(addresses)) + addresses + body

    def _judge(self, peer: Peer, told: bytes) -> tuple[str | None, bytes]:
        """Why not, and the peer's instance. Keeps the addresses it announced."""
        if len(told) < INSTANCE_BYTES + 2:
            return "malformed hello", b""
        instance = told[:INSTANCE_BYTES]
        (size,) = struct.unpack_from("!H", told, INSTANCE_BYTES)
        start = INSTANCE_BYTES + 2
        if len(told) < start + size or len(told) > start + size + HELLO_BYTES_MAX:
            return "malformed hello", b""
        why = self._callbacks.admit(peer.key, told[start + size :])
        if why is None:
            heard = parse_addresses(told[start : start + size], ADDRESSES_MAX)
            peer.announced = tuple(
                address for address in heard if address.key == peer.key and (peer.loopback or not address.loopback)
            )
        return why, instance

    async def greet(self, peer: Peer, connection: Connection) -> None:
        """Say hello on a connection that we opened."""
        why: str | None = "no hello in time"
        try:
            with trio.move_on_after(2 * self._config.handshake_s):
                stream = await open_stream(connection.conn, HELLO, self._config.handshake_s)
                async with kept(stream):
                    await stream.write(framed(self._ours()))
                    reader = Reader(stream)
                    theirs = await reader.framed(HELLO_FRAME_MAX)
                    verdict = await reader.framed(REASON_BYTES_MAX)
                    why, instance = self._judge(peer, theirs)
                    await stream.write(framed(sentence(why or "")))
                    await stream.close()
                if why is not None:
                    self._peers.refuse(id_of(peer.key), "hello", "not admitted")
                elif verdict:
                    why = f"it refuses us: {readable(verdict)}"
                else:
                    self._came_up(peer, connection, instance)
        except NotSpoken:
            why = "it does not speak /potd/hello/1"
        except Nonsense:
            self._peers.refuse(id_of(peer.key), "hello", "malformed")
            why = "malformed hello"
        except BROKEN:
            why = "connection lost during hello"
        if why is not None:
            self._backlog.put(Mismatched(peer.key, peer.address, why))
            self._connections.start_hanging_up(connection.conn, why)

    async def on_stream(self, stream: INetStream) -> None:
        """Hear hello on a connection that the peer opened, or on any other."""
        connection = self._connections.connected(connection_of(stream))
        if connection is None:
            await patches.reset(stream)
            return
        peer = self._peers.of(stream.muxed_conn.peer_id)
        assert peer is not None  # it has a connection
        why: str | None = "no hello in time"
        try:
            with trio.move_on_after(2 * self._config.handshake_s):
                async with kept(stream):
                    reader = Reader(stream)
                    why, instance = self._judge(peer, await reader.framed(HELLO_FRAME_MAX))
                    await stream.write(framed(self._ours()) + framed(sentence(why or "")))
                    verdict = await reader.framed(REASON_BYTES_MAX)
                    await stream.close()
                if why is not None:
                    self._peers.refuse(id_of(peer.key), "hello", "not admitted")
                elif verdict:
                    why = f"it refuses us: {readable(verdict)}"
                else:
                    self._came_up(peer, connection, instance)
        except Nonsense:
            self._peers.refuse(id_of(peer.key), "hello", "malformed")
            why = "malformed hello"
        except BROKEN:
            why = why or "connection lost during hello"
        if why is not None:
            self._backlog.put(Mismatched(peer.key, peer.address, why))
            await self._connections.hang_up(connection.conn, why)

    async def expect(self, peer: Peer, connection: Connection) -> None:
        """Give a peer that connected some time to say hello. Who does not is a guest, if there is room."""
        with trio.move_on_after(2 * self._config.handshake_s) as patience:
            await peer.up.wait()
        if not patience.cancelled_caught:
            return
        guests = sum(1 for other in self._peers.connected.values() if other.guest)
        if not peer.guest and guests >= self._config.guests_max:
            self._peers.refuse(id_of(peer.key), "hello", "too many guests")
            self._connections.start_hanging_up(connection.conn, "no hello")
            return
        peer.guest = True

    def _came_up(self, peer: Peer, connection: Connection, instance: bytes) -> None:
        if connection.conn not in peer.connections:
            return
        connection.instance = instance
        if peer.instance == instance:
            return
        if peer.instance is not None:
            # The same key from another process: the old one is gone, though its connection does not know it yet.
            self._backlog.put(PeerDown(peer.key, "it started again"))
            for old in list(peer.connections.values()):
                if old is not connection and old.instance == peer.instance:
                    self._connections.start_hanging_up(old.conn, "it started again")
            peer.idle.clear()
        else:
            self._nursery.start_soon(self._votes.write, peer)
        peer.instance = instance
        peer.guest = False
        self._backlog.put(PeerUp(peer.key, peer.address))
        peer.up.set()
        self._peers.met.set()
