"""Whether the other end of a connection is still there. Knows nothing of what else the connection carries."""

import os
import random

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.peers import Connection, Peer, Peers
from potd.runtime.libp2p.streams import BROKEN, Nonsense, NotSpoken, Reader, open_stream
from potd.runtime.network import NetworkConfig

PING = TProtocol("/ipfs/ping/1.0.0")


class Pings:
    """Our side of `/ipfs/ping/1.0.0`, asking; libp2p answers by itself."""

    def __init__(self, config: NetworkConfig, peers: Peers, connections: Connections) -> None:
        self._config = config
        self._peers = peers
        self._connections = connections

    async def keep_alive(self, peer: Peer, connection: Connection) -> None:
        """Hang up on a connection that answers no ping.

        The pings are in a task of their own, because a write into a full socket cannot be cancelled.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ping, peer, connection)
            while True:
                await trio.sleep(min(1.0, self._config.ping_every_s))
                if trio.current_time() <= connection.deadline:
                    continue
                await trio.sleep(min(1.0, self._config.ping_every_s))  # it may be us who were asleep
                if trio.current_time() > connection.deadline:
                    self._peers.counts["peers stalled"] += 1
                    self._connections.start_hanging_up(connection.conn, "no answer to pings")
                    return

    async def _ping(self, peer: Peer, connection: Connection) -> None:
        config = self._config
        stream: INetStream | None = None
        reader: Reader | None = None
        while True:
            await trio.sleep(config.ping_every_s * random.uniform(0.75, 1))
            sent_at = trio.current_time()
            connection.deadline = min(
                connection.deadline, sent_at + config.ping_patience_s
            )  # failing is no answer, either
            try:
                if stream is None or reader is None:
                    stream = await open_stream(connection.conn, PING, config.handshake_s)
                    reader = Reader(stream)
                    sent_at = trio.current_time()
                token = os.urandom(32)
                await stream.write(token)
                if await reader.exactly(32) != token:
                    raise Nonsense("wrong echo")
            except NotSpoken:
                connection.deadline = float("inf")
                return
            except (Nonsense, *BROKEN):
                if stream is not None:
                    await patches.reset(stream)
                stream = None
                continue
            peer.rtt_ms = 1_000 * (trio.current_time() - sent_at)
            connection.deadline = float("inf")
