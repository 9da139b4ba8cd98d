"""Peers that introduce others. Knows addresses, not how to dial them."""

import random
from collections.abc import Sequence

import trio

from potd.runtime.libp2p.addresses import Address, parse_addresses
from potd.runtime.libp2p.ask import PEERS, Asker
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.dialling import Dialler
from potd.runtime.libp2p.peers import Peer, Peers
from potd.runtime.network import NetworkConfig, NodeKey, Refused, Unreachable

INTRODUCED_MAX = 32


class Exchange:
    """Asks peers for more peers while there are too few, or one that we seek is lacking, and answers who asks us."""

    def __init__(
        self,
        key: NodeKey,
        config: NetworkConfig,
        nursery: trio.Nursery,
        peers: Peers,
        connections: Connections,
        asker: Asker,
        dialler: Dialler,
    ) -> None:
        self._key = key
        self._config = config
        self._nursery = nursery
        self._peers = peers
        self._connections = connections
        self._asker = asker
        self._dialler = dialler
        self._known: dict[NodeKey, tuple[Address, int]] = {}  # learnt from peers, with the failures since
        self._sought: frozenset[NodeKey] = frozenset()

    def seek(self, keys: Sequence[NodeKey]) -> None:
        """Find these, however many others are up."""
        self._sought = frozenset(keys) - {self._key}
        self._peers.met.set()

    def introduce(self, asker: Peer) -> bytes:
        """Up to `INTRODUCED_MAX` addresses of peers that are up: first of those whom we seek ourselves, in a random
        order."""
        addresses = [
            address
            for peer in self._peers.up()
            if peer is not asker
            for address in peer.announced[:2]
            if asker.loopback or not address.loopback
        ]
        random.shuffle(addresses)
        addresses.sort(key=lambda address: address.key not in self._sought)
        return "\n".join(str(address) for address in addresses[:INTRODUCED_MAX]).encode()

    async def run(self) -> None:
        """Ask peers for more peers while there are too few, or one that we seek is lacking."""
        config = self._config
        while True:
            with trio.move_on_after(config.peers_every_s * random.uniform(0.8, 1.2)):
                await self._peers.met.wait()
                await trio.sleep(min(1.0, config.peers_every_s))  # it may know more in a moment
            self._peers.met = trio.Event()
            up = self._peers.up()
            if not up:
                self.introduced(())  # to whom we were introduced before
                continue
            if len(up) >= config.peers_target and self._sought <= self._peers.connected.keys():
                continue
            peer = random.choice(up)
            try:
                answer = await self._asker.ask(peer.key, PEERS, b"", answer_bytes_max=16 << 10, patience_s=5)
            except (Refused, Unreachable):
                continue
            told = parse_addresses(answer, INTRODUCED_MAX)
            self.introduced([address for address in told if peer.loopback or not address.loopback])

    def introduced(self, addresses: Sequence[Address]) -> None:
        """Dial those whom we seek, and as many others as are lacking, of all that we were told of."""
        for address in addresses:
            if address.key != self._key:
                self._learn(address)
        known = [address for address, _ in self._known.values() if address.key not in self._peers.connected]
        random.shuffle(known)
        sought = [address for address in known if address.key in self._sought]
        others = [address for address in known if address.key not in self._sought]
        room = max(0, self._config.peers_target - len(self._peers.up()) - len(sought))
        for address in (*sought, *others[:room]):
            if not self._dialler.at_it(address.key):
                self._nursery.start_soon(self._try, address)

    def _learn(self, address: Address) -> None:
        full = len(self._known) >= self._config.addresses_max
        if address.key in self._known or (full and address.key not in self._sought):
            return
        if not self._connections.banned(address.key):
            self._known[address.key] = (address, 0)

    async def _try(self, address: Address) -> None:
        if await self._dialler.connect(address):
            self._known[address.key] = (address, 0)
            return
        failures = self._known.pop(address.key, (address, 3))[1] + 1
        if failures < 3:
            self._known[address.key] = (address, failures)

    def forget(self, key: NodeKey) -> None:
        """Do not dial it for having been told of it."""
        self._known.pop(key, None)
