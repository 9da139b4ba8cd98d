"""Connections, from the end of their handshake until they are closed. Knows peers, not what is said to them."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.swarm import Swarm
from libp2p.rcmgr import Direction
from multiaddr import Multiaddr

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import Address, id_of, key_of, kind_of
from potd.runtime.libp2p.backlog import Backlog
from potd.runtime.libp2p.limits import full_buckets
from potd.runtime.libp2p.peers import Connection, Peer, Peers
from potd.runtime.libp2p.streams import connection_of, open_stream
from potd.runtime.network import NetworkConfig, NodeKey, PeerDown, Unreachable

log = logging.getLogger("potd.network")

BAN_S = 60.0
GOODBYE_S = 0.5  # for the polite part of hanging up


class Connections:
    """The connections of one host."""

    def __init__(
        self,
        key: NodeKey,
        config: NetworkConfig,
        swarm: Swarm,
        nursery: trio.Nursery,
        peers: Peers,
        backlog: Backlog,
        attend: Callable[[Peer, Connection], Awaitable[None]],
    ) -> None:
        self._key = key
        self._config = config
        self._swarm = swarm
        self._nursery = nursery
        self._peers = peers
        self._backlog = backlog
        self._attend_to = attend
        self._banned: dict[NodeKey, float] = {}

    @property
    def all(self) -> list[SwarmConn]:
        return [cast(SwarmConn, conn) for conn in self._swarm.get_connections()]

    # --- coming and going ---

    def connected(self, conn: SwarmConn) -> Connection | None:
        """Know a connection. A stream on it may come before the swarm's own notice of it."""
        key = key_of(conn.muxed_conn.peer_id)
        peer = self._peers.connected.get(key) if key is not None else None
        if peer is not None and conn in peer.connections:
            return peer.connections[conn]
        if conn.is_closed:
            return None
        now = trio.current_time()
        why = None
        if key is None:
            why = "not an Ed25519 key"
        elif key == self._key:
            why = "our own key"
        elif self._banned.get(key, 0) > now:
            why = "dropped a moment ago"
        elif peer is not None and len(peer.connections) >= self._config.connections_per_peer_max:
            why = "too many connections of one peer"
        if why is not None or key is None:
            self._peers.refuse(None, "connection", why or "")
            self._nursery.start_soon(self.hang_up, conn, why or "")
            return None
        if peer is None:
            peer = self._peers.connected[key] = self._new_peer(key, conn, now)
        connection = peer.connections[conn] = Connection(conn, now)
        self._nursery.start_soon(self._attend, peer, connection)
        return connection

    def _new_peer(self, key: NodeKey, conn: SwarmConn, now: float) -> Peer:
        host, port = remote(conn)
        return Peer(
            key, f"/{kind_of(host)}/{host}/tcp/{port}", Address(key, host, "").loopback,
            "out" if conn.direction == Direction.OUTBOUND else "in", time.monotonic(), self._peers.outbox(key),
            full_buckets(self._config.allowances, now),
        )  # fmt: skip

    async def _attend(self, peer: Peer, connection: Connection) -> None:
        """Everything that lives as long as one connection, and takes nothing else along when it fails."""
        with connection.scope, self._survived(connection.conn):
            await self._attend_to(peer, connection)

    @contextlib.contextmanager
    def _survived(self, conn: SwarmConn) -> Iterator[None]:
        """Hang up where libp2p raises what nobody foresaw: a peer provoked it."""
        try:
            yield
        except Exception as error:
            log.warning("a connection failed: %r", error, exc_info=error)
            self._peers.refuse(conn.muxed_conn.peer_id, "connection", "unforeseen")
            self._nursery.start_soon(self.hang_up, conn, "unforeseen failure")

    def disconnected(self, conn: SwarmConn) -> None:
        peer = self._peers.of(conn.muxed_conn.peer_id)
        if peer is None or conn not in peer.connections:
            return
        peer.connections.pop(conn).scope.cancel()
        if peer.connections:
            return
        del self._peers.connected[peer.key]
        peer.scope.cancel()
        peer.gone.set()
        with contextlib.suppress(Exception):  # a store without the peer is what we want
            self._swarm.peerstore.clear_peerdata(id_of(peer.key))
        if peer.instance is not None:
            self._backlog.put(PeerDown(peer.key, peer.reason))

    def start_hanging_up(self, conn: SwarmConn, reason: str) -> None:
        """Hang up in a task of its own: the caller may be one that lives as long as the connection."""
        self._nursery.start_soon(self.hang_up, conn, reason)

    async def hang_up(self, conn: SwarmConn, reason: str) -> None:
        """Close a connection politely, and then for certain: a stuck write holds its lock until the socket closes."""
        peer = self._peers.of(conn.muxed_conn.peer_id)
        if peer is not None and conn in peer.connections and len(peer.connections) == 1:
            peer.reason = reason
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_close, conn)
                with trio.move_on_after(GOODBYE_S):
                    await cast(patches.Muxer, conn.muxed_conn).event_closed.wait()
                with contextlib.suppress(Exception):  # closed already, in one way or another
                    await cast(patches.Muxer, conn.muxed_conn).secured_conn.close()
        self.disconnected(conn)

    # --- who is kept out ---

    def drop(self, key: NodeKey, reason: str) -> None:
        """Hang up on a peer and keep it out for `BAN_S`."""
        self._banned[key] = trio.current_time() + BAN_S
        peer = self._peers.connected.get(key)
        if peer is not None:
            peer.reason = f"dropped: {reason}"
            for conn in list(peer.connections):
                self._nursery.start_soon(self.hang_up, conn, peer.reason)

    def banned(self, key: NodeKey) -> bool:
        return self._banned.get(key, 0) > trio.current_time()

    def forgive(self) -> None:
        """Forget the bans that are over."""
        now = trio.current_time()
        self._banned = {key: until for key, until in self._banned.items() if until > now}

    # --- streams on them ---

    async def open_to(self, peer: Peer, protocol: TProtocol) -> patches.Stream:
        """A new stream on a connection on which the peer said who it is, the newest first."""
        for conn, connection in reversed(list(peer.connections.items())):
            if connection.instance is not None and connection.instance == peer.instance and not conn.is_closed:
                return await open_stream(conn, protocol, self._config.handshake_s)
        raise Unreachable("not connected")

    async def peer_of(self, stream: INetStream) -> Peer | None:
        """The peer behind a stream of ours, once it is up. Its first stream may overtake its hello."""
        known = self.connected(connection_of(stream)) is not None
        peer = self._peers.of(stream.muxed_conn.peer_id) if known else None
        if peer is not None:
            with trio.move_on_after(2 * self._config.handshake_s) as patience:
                await peer.up.wait()
            if not patience.cancelled_caught:
                return peer
        self._peers.refuse(stream.muxed_conn.peer_id, stream.get_protocol() or "stream", "no hello")
        await patches.reset(stream)
        return None


class Notifee(INotifee):
    """What libp2p tells of connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._connections.connected(cast(SwarmConn, conn))

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._connections.disconnected(cast(SwarmConn, conn))

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass


def remote(conn: SwarmConn) -> tuple[str, int]:
    """The IP address and port at the other end."""
    return cast(patches.Muxer, conn.muxed_conn).get_remote_address() or ("0.0.0.0", 0)


async def _close(conn: SwarmConn) -> None:
    try:
        await conn.close()
    except Exception as error:  # it is closed for certain afterwards
        log.debug("closing a connection: %r", error)
