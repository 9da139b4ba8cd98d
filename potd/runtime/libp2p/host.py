"""The trio side: puts the parts of a libp2p host together and runs them. Knows what each is for, not how it works."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence

import trio
from libp2p.crypto.ed25519 import create_new_key_pair as new_ed25519_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import RetryConfig
from libp2p.peer.peerstore import PeerStore
from libp2p.rcmgr import Direction
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import Address, id_of
from potd.runtime.libp2p.ask import Answerer, Asker, ask_protocols
from potd.runtime.libp2p.backlog import Backlog
from potd.runtime.libp2p.connections import Connections, Notifee
from potd.runtime.libp2p.crossing import AsyncioSide, Crossing
from potd.runtime.libp2p.dialling import Dialler
from potd.runtime.libp2p.exchange import Exchange
from potd.runtime.libp2p.gossip import Topics
from potd.runtime.libp2p.hello import HELLO, Hello
from potd.runtime.libp2p.limits import swarm_limits
from potd.runtime.libp2p.listening import Handshakes, announced, bind
from potd.runtime.libp2p.peers import Connection, Peer, Peers
from potd.runtime.libp2p.ping import Pings
from potd.runtime.libp2p.votes import Votes
from potd.runtime.network import Callbacks, NetworkConfig, NodeKey

log = logging.getLogger("potd.network")

FAREWELL_S = 1.2  # for hanging up on everyone


class Host:
    """The trio side. Only `run` and what it starts touch it, but for `peers`, which anyone may read."""

    def __init__(
        self,
        seed: bytes,
        network: str,
        topics: Sequence[str],
        fanout: Sequence[str],
        direct: Sequence[str],
        kinds: Sequence[str],
        callbacks: Callbacks,
        config: NetworkConfig,
        crossing: Crossing,
        user: AsyncioSide,
    ) -> None:
        self._pair = new_ed25519_pair(seed)
        self.key: NodeKey = self._pair.public_key.to_bytes()
        self._network = network
        self._topics = tuple(topics)
        self._fanout = tuple(fanout)
        self._direct = tuple(direct)
        self._kinds = tuple(kinds)
        self._callbacks = callbacks
        self._config = config
        self._crossing = crossing
        self._user = user
        self.peers = Peers(config)
        self.backlog = Backlog(crossing, user)

    async def run(self, ready: Callable[[tuple[str, ...]], None], stop: Callable[[trio.Event], None]) -> None:
        """Listen and serve until the event given to `stop` is set. Raises OSError when an address cannot be had."""
        config = self._config
        self._crossing.open()
        listeners = await bind(config.listen)
        addresses = announced(self.key, config.announce, listeners)
        patches.apply()
        self.swarm = self._new_swarm()
        host = patches.Host(self.swarm, refuse=self.peers.refuse, streams_per_peer_max=config.streams_per_peer_max)
        host.announce([Multiaddr(address.text) for address in addresses])
        self.topics = Topics(
            self._network, self._topics, self._fanout, self._direct, config, host, self._callbacks, self.peers,
            self.backlog,
        )  # fmt: skip
        stopping = trio.Event()
        try:
            async with host.run([]), self.topics.running(), trio.open_nursery() as nursery:
                self._nursery = nursery
                self.connections = Connections(
                    self.key, config, self.swarm, nursery, self.peers, self.backlog, self._attend
                )
                self.swarm.register_notifee(Notifee(self.connections))
                votes = Votes(self._network, config, self.peers, self.backlog, self.connections)
                self._hello = Hello(
                    config, self._callbacks, addresses, nursery, self.peers, self.backlog, self.connections, votes
                )
                self._pings = Pings(config, self.peers, self.connections)
                protocols = ask_protocols(self._network, self._kinds)
                self.asker = Asker(protocols, config, self.peers, self.connections)
                self.dialler = Dialler(self.key, config, self.swarm, nursery, self.peers, self.connections)
                self._exchange = Exchange(
                    self.key, config, nursery, self.peers, self.connections, self.asker, self.dialler
                )
                self.answerer = Answerer(
                    config, self._crossing, self._user, self.peers, self.connections, self._exchange.introduce
                )
                host.set_stream_handler(HELLO, self._hello.on_stream)
                host.set_stream_handler(votes.protocol, votes.on_stream)
                for kind, protocol in protocols.items():
                    host.set_stream_handler(protocol, self.answerer.handler(kind))
                handshakes = Handshakes(config, self.swarm, nursery, self.peers, self.connections)

                await self.topics.start(nursery)
                for listener in listeners:
                    nursery.start_soon(handshakes.accept, listener)
                nursery.start_soon(self._exchange.run)
                nursery.start_soon(self._sweep)
                stop(stopping)
                ready(tuple(str(address) for address in addresses))
                await stopping.wait()
                for listener in listeners:
                    await listener.aclose()
                with trio.move_on_after(FAREWELL_S):
                    async with trio.open_nursery() as farewell:
                        for conn in self.connections.all:
                            farewell.start_soon(self.connections.hang_up, conn, "we stop")
                nursery.cancel_scope.cancel()
        finally:
            self.topics.stop()
            for listener in listeners:
                listener.socket.close()

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run it among our tasks. Raises RuntimeError when we have stopped."""
        self._nursery.start_soon(work)

    def drop(self, key: NodeKey, reason: str) -> None:
        """See `Network.drop`."""
        self._exchange.forget(key)
        self.connections.drop(key, reason)

    def introduce(self, addresses: Sequence[Address]) -> None:
        """See `Libp2pNetwork.introduce`."""
        self._exchange.introduced(addresses)

    def seek(self, keys: Sequence[NodeKey]) -> None:
        """See `Libp2pNetwork.seek`."""
        self._exchange.seek(keys)
        self.topics.join(keys)

    def _new_swarm(self) -> patches.PlainSwarm:
        """TCP with Noise and Yamux, and nothing else."""
        seconds = math.ceil(self._config.handshake_s)  # 0.8.1 truncates
        noise = NoiseTransport(self._pair, noise_privkey=new_x25519_pair().private_key)
        upgrader = TransportUpgrader({TProtocol(NOISE): noise}, {}, negotiate_timeout=seconds)
        upgrader.muxer_multistream = patches.MuxerChoice({TProtocol(YAMUX): patches.Muxer}, negotiate_timeout=seconds)
        store = PeerStore()
        store.add_key_pair(id_of(self.key), self._pair)
        limits = swarm_limits(self._config)
        return patches.PlainSwarm(id_of(self.key), store, upgrader, [TCP()], RetryConfig(max_retries=0), limits)

    async def _attend(self, peer: Peer, connection: Connection) -> None:
        """What every connection has."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pings.keep_alive, peer, connection)
            if connection.conn.direction == Direction.OUTBOUND:
                nursery.start_soon(self._hello.greet, peer, connection)
            else:
                nursery.start_soon(self._hello.expect, peer, connection)

    async def _sweep(self) -> None:
        """Forget what is over: frames for peers that stay away, bans."""
        while True:
            await trio.sleep(1)
            self.peers.expire(time.monotonic() - self._config.away_s)
            self.connections.forgive()
