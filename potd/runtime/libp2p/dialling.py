"""Outbound connections: made, and made again when they are lost. Does not say whom to dial."""

import logging
import random
from collections.abc import Sequence

import trio
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from potd.runtime.libp2p.addresses import Address, id_of
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.peers import Peers
from potd.runtime.network import NetworkConfig, NodeKey

log = logging.getLogger("potd.network")


class Dialler:
    """Connects, and keeps connected."""

    def __init__(
        self,
        key: NodeKey,
        config: NetworkConfig,
        swarm: Swarm,
        nursery: trio.Nursery,
        peers: Peers,
        connections: Connections,
    ) -> None:
        self._key = key
        self._config = config
        self._swarm = swarm
        self._nursery = nursery
        self._peers = peers
        self._connections = connections
        self._wanted: dict[NodeKey, list[Address]] = {}
        self._dialling: set[NodeKey] = set()
        self._turns = trio.Semaphore(config.dials_max)

    def at_it(self, key: NodeKey) -> bool:
        """Whether this peer is being dialled, or will be when it is lost."""
        return key in self._wanted or key in self._dialling

    def dial(self, addresses: Sequence[Address]) -> None:
        """Keep connected to these."""
        for address in addresses:
            if address.key == self._key:
                continue
            places = self._wanted.setdefault(address.key, [])
            if not places:
                self._nursery.start_soon(self._keep_connected, address.key)
            if address not in places:
                places.append(address)

    async def _keep_connected(self, key: NodeKey) -> None:
        config = self._config
        backoff = config.backoff_first_s
        turn = 0
        while True:
            peer = self._peers.connected.get(key)
            if peer is not None:
                await _either(peer.up, peer.gone)
                if peer.instance is not None:
                    await peer.gone.wait()
                    backoff = config.backoff_first_s
                    await trio.sleep(random.uniform(0, backoff))  # it may be dialling us, too
                    continue
            elif not self._connections.banned(key):
                places = self._wanted[key]
                if await self.connect(places[turn % len(places)]):
                    continue
                turn += 1
            await trio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(2 * backoff, config.backoff_last_s)

    async def connect(self, address: Address) -> bool:
        """Dial, and wait for the hello. Whether the peer came up."""
        self._dialling.add(address.key)
        try:
            async with self._turns:
                self._peers.counts["dials"] += 1
                with trio.fail_after(3 * self._config.handshake_s):
                    await self._swarm.dial_addr(Multiaddr(address.text), id_of(address.key))
        except Exception as error:  # a stranger's handshake can fail in any way
            log.debug("dial of %s failed: %r", address, error)
            self._peers.counts["dials failed"] += 1
            return False
        finally:
            self._dialling.discard(address.key)
        peer = self._peers.connected.get(address.key)
        if peer is None:
            return False
        await _either(peer.up, peer.gone)
        return peer.instance is not None


async def _either(*events: trio.Event) -> None:
    async def one(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(one, event)
