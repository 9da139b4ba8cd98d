"""Messages on topics. Knows how large and how many they may be, not what they say.

On the wire a topic carries the network's name, so that what is said on one network is never passed on by
another; everybody else calls it by its plain name.
"""

import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service

from potd.gossip.admit import Screening
from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import id_of, key_of
from potd.runtime.libp2p.backlog import Backlog
from potd.runtime.libp2p.peers import Peers
from potd.runtime.network import GOSSIP_BYTES_MAX, Callbacks, Gossiped, NetworkConfig, NodeKey


def wire_topic(network: str, topic: str) -> str:
    """What a topic is called on the wire."""
    return f"/potd/{network}/{topic}/1"


class Topics:
    """What we hear and publish by GossipSub 1.1. `topics` are heard, `fanout` only published on. On those that are
    `direct` we pass nothing on from one member of a circle to another: they are connected to each other."""

    def __init__(
        self,
        network: str,
        topics: Sequence[str],
        fanout: Sequence[str],
        direct: Sequence[str],
        config: NetworkConfig,
        host: patches.Host,
        callbacks: Callbacks,
        peers: Peers,
        backlog: Backlog,
    ) -> None:
        self._topics = topics
        self._host = host
        self._callbacks = callbacks
        self._peers = peers
        self._backlog = backlog
        self._wire = {topic: wire_topic(network, topic) for topic in (*topics, *fanout)}
        self._direct = frozenset(self._wire[topic] for topic in direct)
        self._circle: frozenset[ID] = frozenset()
        self._router = patches.Router(heartbeat_s=config.heartbeat_s, refuse=peers.refuse, told=self._told)
        self.pubsub = patches.Gossip(
            host, self._router, topics=frozenset(self._wire.values()), rpc_bytes_max=2 * GOSSIP_BYTES_MAX,
            admit=self._admits, afford=self._afford,
        )  # fmt: skip
        for topic, wire in self._wire.items():
            self.pubsub.set_topic_validator(wire, functools.partial(self._screen, topic), False)
        self._publications, self._published = trio.open_memory_channel[tuple[str, bytes]](patches.GOSSIP_QUEUE_MAX)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background_trio_service(self.pubsub), background_trio_service(self._router):
            await self.pubsub.wait_until_ready()
            yield

    def stop(self) -> None:
        """End what outlives `running`, and may have begun before it."""
        self.pubsub.stop()

    async def start(self, nursery: trio.Nursery) -> None:
        """Subscribe, hear and publish, in tasks of the nursery."""
        for topic in self._topics:
            nursery.start_soon(self._hear, topic, await self.pubsub.subscribe(self._wire[topic]))
        nursery.start_soon(self._publish)

    def join(self, keys: Sequence[NodeKey]) -> None:
        """These are our circle from now on."""
        self._circle = frozenset(map(id_of, keys))

    def _told(self, topic: str, origin: ID) -> frozenset[ID]:
        return self._circle if topic in self._direct and origin in self._circle else frozenset()

    def publish(self, topic: str, data: bytes) -> None:
        try:
            self._publications.send_nowait((topic, data))
        except trio.WouldBlock:
            self._peers.counts["gossip dropped"] += 1

    async def _publish(self) -> None:
        async for topic, data in self._published:
            await self.pubsub.publish(self._wire[topic], data)
            self._peers.counts["gossip published"] += 1

    async def _hear(self, topic: str, subscription: Any) -> None:
        ours = self._host.get_id().to_bytes()
        async for message in subscription:
            if message.from_id == ours:
                continue
            origin = key_of(ID(message.from_id))
            assert origin is not None  # the screen saw to it
            self._peers.counts["gossip heard"] += 1
            self._backlog.put(Gossiped(topic, origin, message.data), len(message.data))
            await self._backlog.wait_for_room()

    def _screen(self, topic: str, forwarder: ID, message: rpc_pb2.Message) -> bool:
        if forwarder == self._host.get_id():
            return True
        why, screened = None, Screening.ACCEPT
        if len(message.topicIDs) != 1:
            why = "not on one topic"
        elif len(message.data) > GOSSIP_BYTES_MAX:
            why = "too long"
        elif key_of(ID(message.from_id)) is None:
            why = "origin is not an Ed25519 key"
        else:
            screened = self._callbacks.screen(topic, message.data)
        if screened is Screening.REJECT:
            why = f"rejected from {topic}"
        elif screened is Screening.IGNORE:
            self._peers.counts["gossip ignored"] += 1
        if why is not None:
            self._peers.refuse(forwarder, "gossip", why)
        return why is None and screened is Screening.ACCEPT

    def _admits(self, forwarder: ID) -> bool:
        peer = self._peers.of(forwarder)
        if peer is None or peer.buckets.gossip.allows(trio.current_time()):
            return True
        self._peers.refuse(forwarder, "gossip", "over its allowance")
        return False

    async def _afford(self, forwarder: ID, size: int) -> None:
        peer = self._peers.of(forwarder)
        if peer is not None:
            await self._peers.afford(peer.buckets.gossip_bytes, size)
