"""Who is connected, and what is counted of each. Opens no stream and closes no connection."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import trio
from libp2p.abc import INetStream
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID

from potd.runtime.libp2p.addresses import Address, key_of
from potd.runtime.libp2p.limits import Bucket, Buckets
from potd.runtime.libp2p.outbox import Outbox
from potd.runtime.libp2p.streams import Reader
from potd.runtime.network import NetworkConfig, NodeKey, PeerInfo


@dataclass(eq=False)
class Connection:
    """One connection."""

    conn: SwarmConn
    opened_at: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    instance: bytes | None = None  # of the peer's process, once its hello on this connection was good
    deadline: float = float("inf")  # for the answer to a ping


@dataclass(eq=False)
class QuestionStream:
    """A stream on which we ask, and what of its answers was read ahead."""

    stream: INetStream
    reader: Reader


@dataclass(eq=False)
class Peer:
    """Everything about one connected peer. It is up when `instance` is set."""

    key: NodeKey
    address: str
    loopback: bool
    direction: Literal["in", "out"]
    since: float  # time.monotonic()
    outbox: Outbox
    buckets: Buckets
    connections: dict[SwarmConn, Connection] = field(default_factory=dict)
    instance: bytes | None = None
    up: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    guest: bool = False
    announced: tuple[Address, ...] = ()
    reason: str = "connection lost"
    votes_in: trio.CancelScope | None = None  # of the reader of its newest votes stream
    idle: dict[str, list[QuestionStream]] = field(default_factory=dict)
    turns: dict[str, trio.Semaphore] = field(default_factory=dict)
    rtt_ms: float | None = None
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0


class Peers:
    """The connected peers, outboxes also of others, and the counters.

    The asyncio side reads all of it, and puts frames into outboxes.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self.connected: dict[NodeKey, Peer] = {}
        self.outboxes: dict[NodeKey, Outbox] = {}
        self.counts: Counter[str] = Counter()
        self.met = trio.Event()  # somebody came up
        self._lock = threading.Lock()  # for making and forgetting outboxes
        self._dropped = 0  # frames, in outboxes that are forgotten

    def outbox(self, key: NodeKey) -> Outbox:
        """The outbox of a peer, connected or not."""
        with self._lock:
            return self._outbox(key)

    def put(self, key: NodeKey, frame: bytes) -> Outbox | None:
        """Queue a frame for a peer, connected or not. Returns the outbox if its writer must be woken.

        From either thread.
        """
        with self._lock:
            box = self._outbox(key)
            return box if box.put(frame, time.monotonic()) else None

    def _outbox(self, key: NodeKey) -> Outbox:
        box = self.outboxes.get(key)
        if box is None:
            box = self.outboxes[key] = Outbox(self._config)
        return box

    def of(self, peer: ID) -> Peer | None:
        """The connected peer of this id."""
        key = key_of(peer)
        return self.connected.get(key) if key is not None else None

    def up(self) -> list[Peer]:
        """Those who said a good hello."""
        return [peer for peer in self.connected.values() if peer.instance is not None]

    def refuse(self, who: ID | None, protocol: str, reason: str) -> None:
        """Count an input that was refused. Both words come from a fixed set."""
        self.counts[f"refused {protocol}: {reason}"] += 1
        peer = self.of(who) if who is not None else None
        if peer is not None:
            peer.refused += 1

    async def afford(self, bucket: Bucket, units: float) -> None:
        """Take the units from a peer's bucket, and wait until it has them."""
        wait = bucket.spend(units, trio.current_time())
        if wait > 0:
            self.counts["inputs delayed"] += 1
            await trio.sleep(wait)

    def expire(self, before: float) -> None:
        """Drop frames that were queued earlier than that for peers that stay away.

        The outbox of an absent peer is forgotten with its last frame: keys cost a stranger nothing.
        """
        with self._lock:
            for key, box in list(self.outboxes.items()):
                if key not in self.connected or self.connected[key].instance is None:
                    box.expire(before)
                if key not in self.connected and box.empty:
                    self._dropped += box.dropped
                    del self.outboxes[key]

    def described(self) -> tuple[PeerInfo, ...]:
        """See `Network.peers`. From either thread."""
        now = time.monotonic()
        return tuple(
            PeerInfo(
                peer.key, peer.address, peer.direction, now - peer.since, peer.rtt_ms, peer.frames_in,
                peer.frames_out, peer.bytes_in, peer.bytes_out, peer.outbox.dropped, peer.refused, peer.guest,
            )
            for peer in sorted(self.connected.copy().values(), key=lambda peer: peer.key)
            if peer.instance is not None or peer.guest
        )  # fmt: skip

    def announced(self) -> tuple[str, ...]:
        """See `Libp2pNetwork.known`. From either thread."""
        up = sorted(self.connected.copy().values(), key=lambda peer: peer.key)
        return tuple(str(address) for peer in up if peer.instance is not None for address in peer.announced)

    def counters(self) -> dict[str, int]:
        """See `Network.counters`. From either thread."""
        with self._lock:
            dropped = self._dropped + sum(box.dropped for box in self.outboxes.values())
        return {**dict(self.counts), "frames dropped": dropped}
