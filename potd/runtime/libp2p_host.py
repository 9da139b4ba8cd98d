"""The network as a libp2p host on a thread of its own. Knows bytes and peers, not what nodes say to each other.

libp2p is trio, the daemon is asyncio: `Libp2pNetwork` is the asyncio side, `_Core` the trio side, and
`_Crossing` carries calls between the two threads in batches. Methods say which side they run on only where the
class does not.

Streams of a pair of nodes:

- `/potd/hello/1`, once per connection, from the dialer: hello, hello and verdict, verdict.
- `/potd/<network>/votes/1`, one each way, kept open: length-prefixed frames. A frame whose connection broke may
  arrive twice, or not at all.
- `/potd/<network>/ask/<kind>/1`, up to four a kind, kept open: question, answer, question, ...
- `/ipfs/ping/1.0.0`, one per connection, kept open.
"""

import asyncio
import contextlib
import ipaddress
import logging
import math
import os
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self, cast

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair as new_ed25519_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_pair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.protocol_muxer.multiselect import MULTISELECT_PROTOCOL_ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub.pb import rpc_pb2
from libp2p.rcmgr import Direction
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from libp2p.utils import encode_delim
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it ships no types

from potd.runtime import libp2p_patches as patches
from potd.runtime.network import (
    FRAME_BYTES_MAX,
    GOSSIP_BYTES_MAX,
    HELLO_BYTES_MAX,
    QUESTION_BYTES_MAX,
    REASON_BYTES_MAX,
    Allowance,
    Callbacks,
    Framed,
    Gossiped,
    Mismatched,
    NetworkConfig,
    NetworkEvent,
    NodeKey,
    PeerDown,
    PeerInfo,
    PeerUp,
    Refused,
    Unreachable,
)

log = logging.getLogger("potd.network")

HELLO = TProtocol("/potd/hello/1")
PING = TProtocol("/ipfs/ping/1.0.0")
PEERS = "peers"

WRITE_BYTES = patches.FRAME_BYTES - 12  # what one Yamux frame carries
INSTANCE_BYTES = 16
ADDRESSES_MAX = 8  # that one peer may announce
ADDRESS_BYTES_MAX = 320
INTRODUCED_MAX = 32
BACKLOG_BYTES_MAX = 64 << 20  # heard and not yet taken by the asyncio side: readers wait
BAN_S = 60.0
GOODBYE_S = 0.5  # for the polite part of hanging up

LENGTH = struct.Struct("!I")
ANSWER = struct.Struct("!IB")
ANSWERED, REFUSED, FAILED = 0, 1, 2

# What a stream or connection raises when the other side, or the way there, fails.
BROKEN = (BaseLibp2pError, trio.BrokenResourceError, trio.ClosedResourceError, OSError, EOFError)


class _Nonsense(Exception):
    """A peer's bytes are wrong. The message is a short fixed sentence, because it is counted by it."""


class _NotSpoken(Exception):
    """The peer says that it does not speak a protocol."""


# --- names and addresses ---

_ED25519_PREFIX = bytes.fromhex("002408011220")  # identity multihash, 36 bytes; protobuf: Ed25519, 32 bytes


def id_of(key: NodeKey) -> ID:
    """The libp2p peer id of a node."""
    assert len(key) == 32
    return ID(_ED25519_PREFIX + key)


def key_of(peer: ID) -> NodeKey | None:
    """The node's key inside a peer id, or None where the id is of another kind of key."""
    raw = peer.to_bytes()
    return raw[6:] if len(raw) == 38 and raw.startswith(_ED25519_PREFIX) else None


@dataclass(frozen=True)
class Address:
    """A place to dial and who must answer there."""

    key: NodeKey
    host: str
    text: str  # the multiaddr without /p2p

    def __str__(self) -> str:
        return f"{self.text}/p2p/{id_of(self.key)}"

    @property
    def loopback(self) -> bool:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


_ADDRESS = re.compile(
    r"/(ip4|ip6|dns|dns4|dns6)/([0-9A-Za-z.:-]{1,253})/tcp/([0-9]{1,5})/p2p/([1-9A-HJ-NP-Za-km-z]{40,64})"
)


def parse_address(text: str) -> Address:
    """Read `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/ID`, and nothing else. Raises ValueError with a sentence."""
    parts = _ADDRESS.fullmatch(text) if len(text) <= ADDRESS_BYTES_MAX else None
    if parts is None:
        raise ValueError(f"not a multiaddr of the form /ip4/HOST/tcp/PORT/p2p/ID: {text[:100]!r}")
    kind, host, port, peer = parts.groups()
    if kind in ("ip4", "ip6"):
        try:
            number = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"not an address of its kind: {text!r}") from None
        if number.is_multicast:
            raise ValueError(f"nobody can be dialled at {text!r}")
        host = str(number)
    if not 1 <= int(port) <= 65_535:
        raise ValueError(f"no such port: {text!r}")
    try:
        key = key_of(ID.from_base58(peer))
    except ValueError:
        key = None
    if key is None:
        raise ValueError(f"not the peer id of an Ed25519 key: {text!r}")
    return Address(key, host, f"/{kind}/{host}/tcp/{int(port)}")


def _own_host() -> str:
    """The address this machine would send from, without sending anything."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


# --- allowances ---


class _Bucket:
    """A token bucket that may go into debt, and says how long the debt lasts."""

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._tokens = allowance.burst
        self._at = now

    def _refill(self, now: float) -> None:
        self._tokens = min(self._allowance.burst, self._tokens + (now - self._at) * self._allowance.rate)
        self._at = now

    def spend(self, units: float, now: float) -> float:
        """Take the units and return the seconds to wait for them, 0 if there were enough."""
        self._refill(now)
        self._tokens -= units
        return max(0.0, -self._tokens / self._allowance.rate)

    def allows(self, now: float) -> bool:
        """Take one unit if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


# --- between the threads ---


class _Crossing:
    """Calls from one thread to the other, in order. A batch costs one wake-up, however long it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._token: trio.lowlevel.TrioToken | None = None
        self._to_trio: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._to_asyncio: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._trio_called = False
        self._asyncio_called = False

    def open(self) -> None:
        """On the trio thread, once: calls made before this run now."""
        self._token = trio.lowlevel.current_trio_token()
        self._call_trio()

    def to_trio(self, work: Callable[..., object], *given: Any) -> None:
        """From any thread. Dropped when the other side has ended."""
        self._to_trio.append((work, given))
        if not self._trio_called:
            self._call_trio()

    def _call_trio(self) -> None:
        if self._token is None:
            return
        self._trio_called = True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._in_trio)

    def _in_trio(self) -> None:
        self._trio_called = False  # before the first popleft: what comes later than the last one calls again
        while self._to_trio:
            work, given = self._to_trio.popleft()
            work(*given)

    def to_asyncio(self, work: Callable[..., object], *given: Any) -> None:
        """From any thread. Dropped when the loop has closed."""
        self._to_asyncio.append((work, given))
        if not self._asyncio_called:
            self._asyncio_called = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._in_asyncio)

    def _in_asyncio(self) -> None:
        self._asyncio_called = False
        while self._to_asyncio:
            work, given = self._to_asyncio.popleft()
            work(*given)


class _Outbox:
    """Frames for one peer, connected or not. The asyncio side puts, the trio side takes."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self.called = False  # the writer has been woken and has not looked yet
        self.wake = trio.Event()
        self.dropped = 0

    def put(self, frame: bytes, now: float) -> bool:
        """Queue a frame, dropping the oldest for lack of room. True if the writer must be woken."""
        with self._lock:
            self._frames.append((now, frame))
            self._bytes += len(frame)
            while len(self._frames) > self._config.outbox_frames_max or self._bytes > self._config.outbox_bytes_max:
                self._drop()
            woken, self.called = self.called, True
            return not woken

    def take(self, bytes_max: int) -> list[bytes]:
        """The oldest frames, with their lengths no more than `bytes_max`, but at least one if there is any."""
        taken: list[bytes] = []
        size = 0
        with self._lock:
            self.called = False
            while self._frames and (not taken or size + len(self._frames[0][1]) + LENGTH.size <= bytes_max):
                frame = self._frames.popleft()[1]
                self._bytes -= len(frame)
                size += len(frame) + LENGTH.size
                taken.append(frame)
            self.called = bool(self._frames)
        return taken

    def give_back(self, frames: list[bytes], now: float) -> None:
        """Put frames back in front: their stream broke under them."""
        with self._lock:
            self._frames.extendleft((now, frame) for frame in reversed(frames))
            self._bytes += sum(map(len, frames))

    def expire(self, before: float) -> None:
        """Drop what was queued earlier than that."""
        with self._lock:
            while self._frames and self._frames[0][0] < before:
                self._drop()

    def _drop(self) -> None:
        self._bytes -= len(self._frames.popleft()[1])
        self.dropped += 1


# --- streams ---


class _Reader:
    """Exact reads from a stream."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def begun(self) -> bool:
        """Whether there is a byte that nobody has taken yet."""
        return bool(self._buffer)

    async def begin(self) -> None:
        """Wait for the first byte, however long."""
        if not self._buffer:
            await self._fill(patches.READ_BYTES)

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill(max(count - len(self._buffer), patches.READ_BYTES))
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken

    def framed_already(self, bytes_max: int) -> bytes | None:
        """One length-prefixed frame if it is here whole. Raises _Nonsense as `framed` does."""
        if len(self._buffer) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._buffer)
        if size > bytes_max:
            raise _Nonsense("too long")
        end = LENGTH.size + size
        if len(self._buffer) < end:
            return None
        taken = bytes(memoryview(self._buffer)[LENGTH.size : end])
        del self._buffer[:end]
        return taken

    async def framed(self, bytes_max: int) -> bytes:
        """One length-prefixed frame. Raises _Nonsense on a length above `bytes_max`."""
        (size,) = LENGTH.unpack(await self.exactly(LENGTH.size))
        if size > bytes_max:
            raise _Nonsense("too long")
        return await self.exactly(size)

    async def _fill(self, count: int) -> None:
        piece = await self._stream.read(count)
        if not piece:
            raise EOFError("stream ended")
        self._buffer += piece


def _framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


@contextlib.asynccontextmanager
async def _kept(stream: INetStream) -> AsyncIterator[None]:
    """Reset the stream if the block fails or is cancelled; half-spoken streams are good for nothing."""
    try:
        yield
    except BaseException:
        await patches.reset(stream)
        raise


async def _write(stream: INetStream, data: bytes) -> None:
    for start in range(0, len(data), WRITE_BYTES):
        await stream.write(data[start : start + WRITE_BYTES])


# --- peers ---


@dataclass(eq=False)
class _Line:
    """One connection."""

    conn: SwarmConn
    opened_at: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    instance: bytes | None = None  # of the peer's process, once its hello on this connection was good
    deadline: float = float("inf")  # for the answer to a ping


@dataclass(eq=False)
class _Asked:
    stream: INetStream
    reader: _Reader


@dataclass(eq=False)
class _Peer:
    """Everything about one connected peer. It is up when `instance` is set."""

    key: NodeKey
    address: str
    loopback: bool
    direction: Literal["in", "out"]
    since: float  # time.monotonic()
    outbox: _Outbox
    frames: _Bucket
    frame_bytes: _Bucket
    gossip: _Bucket
    gossip_bytes: _Bucket
    questions: _Bucket
    answer_bytes: _Bucket
    lines: dict[SwarmConn, _Line] = field(default_factory=dict)
    instance: bytes | None = None
    up: trio.Event = field(default_factory=trio.Event)
    gone: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    guest: bool = False
    announced: tuple[Address, ...] = ()
    reason: str = "connection lost"
    votes_in: INetStream | None = None
    idle: dict[str, list[_Asked]] = field(default_factory=dict)
    turns: dict[str, trio.Semaphore] = field(default_factory=dict)
    rtt_ms: float | None = None
    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0


class _Watch(INotifee):
    """Tells the core of connections."""

    def __init__(self, core: "_Core") -> None:
        self._core = core

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._core.connected(cast(SwarmConn, conn))

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._core.disconnected(cast(SwarmConn, conn))

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        pass

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        pass


class _Core:
    """The trio side. Only `run` and what it starts touch it, but for the counters, which anyone may read."""

    def __init__(
        self,
        seed: bytes,
        network: str,
        topics: Sequence[str],
        fanout: Sequence[str],
        kinds: Sequence[str],
        callbacks: Callbacks,
        config: NetworkConfig,
        crossing: _Crossing,
        owner: "Libp2pNetwork",
    ) -> None:
        self._pair = new_ed25519_pair(seed)
        self.key = self._pair.public_key.to_bytes()
        self._id = id_of(self.key)
        self._votes = TProtocol(f"/potd/{network}/votes/1")
        self._ask_id = {kind: TProtocol(f"/potd/{network}/ask/{kind}/1") for kind in (*kinds, PEERS)}
        self._topics = tuple(topics)
        self._all_topics = frozenset((*topics, *fanout))
        self._callbacks = callbacks
        self._config = config
        self._crossing = crossing
        self._owner = owner
        self._instance = os.urandom(INSTANCE_BYTES)
        self.peers: dict[NodeKey, _Peer] = {}
        self.outboxes: dict[NodeKey, _Outbox] = {}
        self.counts: Counter[str] = Counter()
        self._listening: tuple[Address, ...] = ()
        self._handshakes: dict[trio.CancelScope, str] = {}
        self._banned: dict[NodeKey, float] = {}
        self._wanted: dict[NodeKey, list[Address]] = {}
        self._known: dict[NodeKey, tuple[Address, int]] = {}  # learnt from peers, with the failures since
        self._dialling: set[NodeKey] = set()
        self._answers: dict[int, tuple[trio.Event, list[tuple[int, bytes]]]] = {}
        self._tickets = 0
        self._backlog_bytes = 0
        self._room = trio.Event()
        self._met = trio.Event()
        self._dial_turns = trio.Semaphore(config.dials_max)

    # --- life ---

    async def run(self, ready: Callable[[tuple[str, ...]], None], stop: Callable[[trio.Event], None]) -> None:
        config = self._config
        self._crossing.open()
        listeners = await self._listen()
        self._listening = self._announced(listeners)
        patches.apply()
        seconds = math.ceil(config.handshake_s)  # 0.8.1 truncates
        noise = NoiseTransport(self._pair, noise_privkey=new_x25519_pair().private_key)
        upgrader = TransportUpgrader({TProtocol(NOISE): noise}, {}, negotiate_timeout=seconds)
        upgrader.muxer_multistream = patches.MuxerChoice({TProtocol(YAMUX): patches.Muxer}, negotiate_timeout=seconds)
        store = PeerStore()
        store.add_key_pair(self._id, self._pair)
        limits = ConnectionConfig(
            max_connections=config.connections_max, high_watermark=config.connections_max, low_watermark=0,
            min_connections=0, max_connections_per_peer=config.connections_max,  # `connected` limits these
            inbound_upgrade_timeout=config.handshake_s, outbound_upgrade_timeout=config.handshake_s,
            outbound_stream_protocol_negotiation_timeout=seconds,
            inbound_stream_protocol_negotiation_timeout=seconds,
        )  # fmt: skip
        swarm = self._swarm = patches.PlainSwarm(self._id, store, upgrader, [TCP()], RetryConfig(max_retries=0), limits)
        swarm.register_notifee(_Watch(self))
        host = patches.Host(swarm, refuse=self._refuse, streams_per_peer_max=config.streams_per_peer_max)
        host.announce([Multiaddr(address.text) for address in self._listening])
        host.set_stream_handler(HELLO, self._on_hello)
        host.set_stream_handler(self._votes, self._on_votes)
        for kind, protocol in self._ask_id.items():
            host.set_stream_handler(protocol, self._asked_about(kind))
        router = patches.Router(heartbeat_s=config.heartbeat_s, refuse=self._refuse)
        gossip = self._gossip = patches.Gossip(
            host, router, topics=self._all_topics, rpc_bytes_max=2 * GOSSIP_BYTES_MAX,
            admit=self._admits_gossip, afford=self._afford_gossip,
        )  # fmt: skip
        for topic in self._all_topics:
            gossip.set_topic_validator(topic, self._screen, False)
        stopping = trio.Event()
        send, receive = trio.open_memory_channel[tuple[str, bytes]](patches.GOSSIP_QUEUE_MAX)
        self._publications = send
        try:
            async with (
                host.run([]),
                background_trio_service(gossip),
                background_trio_service(router),
                trio.open_nursery() as nursery,
            ):
                self._nursery = nursery
                await gossip.wait_until_ready()
                for topic in self._topics:
                    nursery.start_soon(self._hear_gossip, topic, await gossip.subscribe(topic))
                for listener in listeners:
                    nursery.start_soon(self._accept, listener)
                nursery.start_soon(self._publish, receive)
                nursery.start_soon(self._exchange)
                nursery.start_soon(self._sweep)
                stop(stopping)
                ready(tuple(str(address) for address in self._listening))
                await stopping.wait()
                for listener in listeners:
                    await listener.aclose()
                with trio.move_on_after(1.2):
                    async with trio.open_nursery() as farewell:
                        for conn in swarm.get_connections():
                            farewell.start_soon(self._hang_up, cast(SwarmConn, conn), "we stop")
                nursery.cancel_scope.cancel()
        finally:
            gossip.stop()
            for listener in listeners:
                listener.socket.close()

    async def _listen(self) -> list[trio.SocketListener]:
        listeners: list[trio.SocketListener] = []
        for text in self._config.listen:
            parts = re.fullmatch(r"/(ip4|ip6)/([0-9a-fA-F.:]+)/tcp/([0-9]{1,5})", text)
            if parts is None:
                raise OSError(f"cannot listen on {text!r}: not of the form /ip4/HOST/tcp/PORT")
            kind, host, port = parts.groups()
            sock = trio.socket.socket(socket.AF_INET if kind == "ip4" else socket.AF_INET6, socket.SOCK_STREAM)
            try:
                # Never SO_REUSEPORT: two nodes would share a port and each get half of the callers.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if kind == "ip6":
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                await sock.bind((host, int(port)))
                sock.listen(128)
            except (OSError, OverflowError) as error:
                sock.close()
                for listener in listeners:
                    listener.socket.close()
                why = error.strerror if isinstance(error, OSError) else "no such port"
                raise OSError(f"cannot listen on {text}: {why}") from error
            listeners.append(trio.SocketListener(sock))
        return listeners

    def _announced(self, listeners: Sequence[trio.SocketListener]) -> tuple[Address, ...]:
        if self._config.announce:
            return tuple(parse_address(f"{text}/p2p/{self._id}") for text in self._config.announce)
        addresses = []
        for listener in listeners:
            host, port = listener.socket.getsockname()[:2]
            kind = "ip6" if ":" in host else "ip4"
            if host == "0.0.0.0":
                host = _own_host()
            elif host == "::":
                host = "::1"
            addresses.append(Address(self.key, host, f"/{kind}/{host}/tcp/{port}"))
        return tuple(addresses)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run it among our tasks. Raises RuntimeError when we have stopped."""
        self._nursery.start_soon(work)

    def _emit(self, event: NetworkEvent, size: int = 0) -> None:
        self._backlog_bytes += size
        self._crossing.to_asyncio(self._owner.heard, event, size)

    def heard(self, size: int) -> None:
        """The asyncio side has taken that many bytes."""
        self._backlog_bytes -= size
        if self._backlog_bytes <= BACKLOG_BYTES_MAX // 2:
            self._room.set()

    async def _wait_for_room(self) -> None:
        while self._backlog_bytes > BACKLOG_BYTES_MAX:
            self._room = trio.Event()
            await self._room.wait()

    def _refuse(self, who: ID | None, protocol: str, reason: str) -> None:
        """Count an input that was refused. Both words come from a fixed set."""
        self.counts[f"refused {protocol}: {reason}"] += 1
        key = key_of(who) if who is not None else None
        if key is not None and key in self.peers:
            self.peers[key].refused += 1

    # --- connections ---

    async def _accept(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError:  # out of descriptors, mostly: let some go first
                self.counts["accepts failed"] += 1
                await trio.sleep(0.1)
                continue
            self._nursery.start_soon(self._welcome, stream)

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """Upgrade an inbound connection, or close it. When too many are at it, the oldest has had its chance."""
        try:
            host, port = stream.socket.getpeername()[:2]
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        why = self._no_room_for(host)
        if why is not None:
            self._refuse(None, "connection", why)
            await trio.aclose_forcefully(stream)
            return
        if len(self._handshakes) >= self._config.handshakes_max:
            self._refuse(None, "connection", "too many handshakes")
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        wrapped = TrioTCPStream(stream)
        wrapped._cached_remote_address = (host, port)  # 0.8.1 cannot read it from an IPv6 socket
        raw = RawConnection(wrapped, False)
        scope = trio.CancelScope()
        self._handshakes[scope] = host
        done = False
        try:
            with scope:
                await self._swarm.upgrade_inbound_raw_conn(raw, Multiaddr(f"/{_kind(host)}/{host}/tcp/{port}"))
                done = True
        except Exception as error:  # everything that a stranger's handshake can do wrong
            log.debug("handshake with %s failed: %r", host, error)
            self._refuse(None, "connection", "handshake failed")
        finally:
            self._handshakes.pop(scope, None)
            if not done:
                await trio.aclose_forcefully(stream)

    def _no_room_for(self, host: str) -> str | None:
        connections = self._swarm.get_connections()
        if len(connections) >= self._config.connections_max:
            return "too many connections"
        if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            return None
        there = sum(1 for conn in connections if _remote(cast(SwarmConn, conn))[0] == host)
        there += sum(1 for other in self._handshakes.values() if other == host)
        return "too many from one address" if there >= self._config.connections_per_address_max else None

    def connected(self, conn: SwarmConn) -> _Line | None:
        """Know a connection. A stream on it may come before the swarm's own notice of it."""
        key = key_of(conn.muxed_conn.peer_id)
        peer = self.peers.get(key) if key is not None else None
        if peer is not None and conn in peer.lines:
            return peer.lines[conn]
        if conn.is_closed:
            return None
        now = trio.current_time()
        why = None
        if key is None:
            why = "not an Ed25519 key"
        elif key == self.key:
            why = "our own key"
        elif self._banned.get(key, 0) > now:
            why = "dropped a moment ago"
        elif peer is not None and len(peer.lines) >= self._config.connections_per_peer_max:
            why = "too many connections of one peer"
        if why is not None or key is None:
            self._refuse(None, "connection", why or "")
            self._nursery.start_soon(self._hang_up, conn, why or "")
            return None
        if peer is None:
            peer = self.peers[key] = self._new_peer(key, conn, now)
        line = peer.lines[conn] = _Line(conn, now)
        self._nursery.start_soon(self._attend, peer, line)
        return line

    def _new_peer(self, key: NodeKey, conn: SwarmConn, now: float) -> _Peer:
        host, port = _remote(conn)
        may = self._config.allowances
        out = conn.direction == Direction.OUTBOUND
        return _Peer(
            key, f"/{_kind(host)}/{host}/tcp/{port}", Address(key, host, "").loopback, "out" if out else "in",
            time.monotonic(),
            self.outboxes.setdefault(key, _Outbox(self._config)), _Bucket(may.frames, now),
            _Bucket(may.frame_bytes, now), _Bucket(may.gossip, now), _Bucket(may.frame_bytes, now),
            _Bucket(may.questions, now), _Bucket(may.answer_bytes, now),
        )  # fmt: skip

    async def _attend(self, peer: _Peer, line: _Line) -> None:
        """Everything that lives as long as one connection, and takes nothing else along when it fails."""
        with line.scope, self._survived(line.conn):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_alive, peer, line)
                if line.conn.direction == Direction.OUTBOUND:
                    nursery.start_soon(self._greet, peer, line)
                else:
                    nursery.start_soon(self._expect_hello, peer, line)

    @contextlib.contextmanager
    def _survived(self, conn: SwarmConn) -> Iterator[None]:
        """Hang up where libp2p raises what nobody foresaw: a peer provoked it."""
        try:
            yield
        except Exception as error:
            log.warning("a connection failed: %r", error, exc_info=error)
            self._refuse(conn.muxed_conn.peer_id, "connection", "unforeseen")
            self._nursery.start_soon(self._hang_up, conn, "unforeseen failure")

    def disconnected(self, conn: SwarmConn) -> None:
        key = key_of(conn.muxed_conn.peer_id)
        peer = self.peers.get(key) if key is not None else None
        if peer is None or conn not in peer.lines:
            return
        peer.lines.pop(conn).scope.cancel()
        if peer.lines:
            return
        del self.peers[peer.key]
        peer.scope.cancel()
        peer.gone.set()
        with contextlib.suppress(Exception):  # a store without the peer is what we want
            self._swarm.peerstore.clear_peerdata(id_of(peer.key))
        if peer.instance is not None:
            self._emit(PeerDown(peer.key, peer.reason))

    async def _hang_up(self, conn: SwarmConn, reason: str) -> None:
        """Close a connection politely, and then for certain: a stuck write holds its lock until the socket closes."""
        key = key_of(conn.muxed_conn.peer_id)
        peer = self.peers.get(key) if key is not None else None
        if peer is not None and conn in peer.lines and len(peer.lines) == 1:
            peer.reason = reason
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_close, conn)
                with trio.move_on_after(GOODBYE_S):
                    await cast(patches.Muxer, conn.muxed_conn).event_closed.wait()
                with contextlib.suppress(Exception):  # closed already, in one way or another
                    await cast(patches.Muxer, conn.muxed_conn).secured_conn.close()
        self.disconnected(conn)

    def drop(self, key: NodeKey, reason: str) -> None:
        self._banned[key] = trio.current_time() + BAN_S
        self._known.pop(key, None)
        peer = self.peers.get(key)
        if peer is not None:
            peer.reason = f"dropped: {reason}"
            for conn in list(peer.lines):
                self._nursery.start_soon(self._hang_up, conn, peer.reason)

    async def _open(self, conn: SwarmConn, protocol: TProtocol) -> INetStream:
        """A new stream on this connection. Raises _NotSpoken, or what BROKEN names.

        Says at once what 0.8.1 says in two turns, and tells "no" from silence, which it does not.
        """
        stream = await conn.new_stream()
        async with _kept(stream):
            talk = MultiselectCommunicator(stream)
            try:
                with trio.fail_after(self._config.handshake_s):
                    await stream.write(encode_delim(MULTISELECT_PROTOCOL_ID.encode()) + encode_delim(protocol.encode()))
                    greeting, choice = await talk.read(), await talk.read()
            except trio.TooSlowError:
                raise Unreachable("no answer to a new stream") from None
            if greeting != MULTISELECT_PROTOCOL_ID or choice != protocol:
                raise _NotSpoken(protocol)
            stream.set_protocol(protocol)
        return stream

    async def _open_to(self, peer: _Peer, protocol: TProtocol) -> INetStream:
        """A new stream on a connection on which the peer said who it is, the newest first."""
        for conn, line in reversed(list(peer.lines.items())):
            if line.instance is not None and line.instance == peer.instance and not conn.is_closed:
                return await self._open(conn, protocol)
        raise Unreachable("not connected")

    # --- hello ---

    def _our_hello(self) -> bytes:
        body = self._callbacks.hello()
        assert len(body) <= HELLO_BYTES_MAX, f"our hello has {len(body)} bytes"
        addresses = "\n".join(str(address) for address in self._listening[:ADDRESSES_MAX]).encode()
        return self._instance + struct.pack("!H", len(addresses)) + addresses + body

    def _judge(self, peer: _Peer, told: bytes) -> tuple[str | None, bytes]:
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
            heard = _addresses(told[start : start + size], ADDRESSES_MAX)
            peer.announced = tuple(
                address for address in heard if address.key == peer.key and (peer.loopback or not address.loopback)
            )
        return why, instance

    async def _greet(self, peer: _Peer, line: _Line) -> None:
        """Say hello on a connection that we opened."""
        why: str | None = "no hello in time"
        try:
            with trio.move_on_after(2 * self._config.handshake_s):
                stream = await self._open(line.conn, HELLO)
                async with _kept(stream):
                    await stream.write(_framed(self._our_hello()))
                    reader = _Reader(stream)
                    theirs = await reader.framed(_HELLO_FRAME_MAX)
                    verdict = await reader.framed(REASON_BYTES_MAX)
                    why, instance = self._judge(peer, theirs)
                    await stream.write(_framed(_sentence(why or "")))
                    await stream.close()
                if why is not None:
                    self._refuse(id_of(peer.key), "hello", "not admitted")
                elif verdict:
                    why = f"it refuses us: {_readable(verdict)}"
                else:
                    self._came_up(peer, line, instance)
        except _NotSpoken:
            why = "it does not speak /potd/hello/1"
        except _Nonsense:
            self._refuse(id_of(peer.key), "hello", "malformed")
            why = "malformed hello"
        except BROKEN:
            why = "connection lost during hello"
        if why is not None:
            self._emit(Mismatched(peer.key, peer.address, why))
            self._nursery.start_soon(self._hang_up, line.conn, why)

    async def _on_hello(self, stream: INetStream) -> None:
        """Hear hello on a connection that the peer opened, or on any other."""
        line = self.connected(_conn_of(stream))
        if line is None:
            await patches.reset(stream)
            return
        key = key_of(stream.muxed_conn.peer_id)
        assert key is not None  # it has a line
        peer = self.peers[key]
        why: str | None = "no hello in time"
        try:
            with trio.move_on_after(2 * self._config.handshake_s):
                async with _kept(stream):
                    reader = _Reader(stream)
                    why, instance = self._judge(peer, await reader.framed(_HELLO_FRAME_MAX))
                    await stream.write(_framed(self._our_hello()) + _framed(_sentence(why or "")))
                    verdict = await reader.framed(REASON_BYTES_MAX)
                    await stream.close()
                if why is not None:
                    self._refuse(id_of(peer.key), "hello", "not admitted")
                elif verdict:
                    why = f"it refuses us: {_readable(verdict)}"
                else:
                    self._came_up(peer, line, instance)
        except _Nonsense:
            self._refuse(id_of(peer.key), "hello", "malformed")
            why = "malformed hello"
        except BROKEN:
            why = why or "connection lost during hello"
        if why is not None:
            self._emit(Mismatched(peer.key, peer.address, why))
            await self._hang_up(line.conn, why)

    async def _expect_hello(self, peer: _Peer, line: _Line) -> None:
        """Give a peer that connected some time to say hello. Who does not is a guest, if there is room."""
        with trio.move_on_after(2 * self._config.handshake_s) as patience:
            await peer.up.wait()
        if not patience.cancelled_caught:
            return
        guests = sum(1 for other in self.peers.values() if other.guest)
        if not peer.guest and guests >= self._config.guests_max:
            self._refuse(id_of(peer.key), "hello", "too many guests")
            self._nursery.start_soon(self._hang_up, line.conn, "no hello")
            return
        peer.guest = True

    def _came_up(self, peer: _Peer, line: _Line, instance: bytes) -> None:
        if line.conn not in peer.lines:
            return
        line.instance = instance
        if peer.instance == instance:
            return
        if peer.instance is not None:
            # The same key from another process: the old one is gone, though its connection does not know it yet.
            self._emit(PeerDown(peer.key, "it started again"))
            for old in list(peer.lines.values()):
                if old is not line and old.instance == peer.instance:
                    self._nursery.start_soon(self._hang_up, old.conn, "it started again")
            peer.idle.clear()
        else:
            self._nursery.start_soon(self._write_votes, peer)
        peer.instance = instance
        peer.guest = False
        self._emit(PeerUp(peer.key, peer.address))
        peer.up.set()
        self._met.set()

    async def _peer_of(self, stream: INetStream) -> _Peer | None:
        """The peer behind a stream of ours, once it is up. Its first stream may overtake its hello."""
        key = key_of(stream.muxed_conn.peer_id)
        peer = self.peers.get(key) if key is not None and self.connected(_conn_of(stream)) is not None else None
        if peer is not None:
            with trio.move_on_after(2 * self._config.handshake_s) as patience:
                await peer.up.wait()
            if not patience.cancelled_caught:
                return peer
        self._refuse(stream.muxed_conn.peer_id, stream.get_protocol() or "stream", "no hello")
        await patches.reset(stream)
        return None

    # --- keeping alive ---

    async def _keep_alive(self, peer: _Peer, line: _Line) -> None:
        """Hang up on a connection that answers no ping.

        The pings are in a task of their own, because a write into a full socket cannot be cancelled.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ping, peer, line)
            while True:
                await trio.sleep(min(1.0, self._config.ping_every_s))
                if trio.current_time() <= line.deadline:
                    continue
                await trio.sleep(min(1.0, self._config.ping_every_s))  # it may be us who were asleep
                if trio.current_time() > line.deadline:
                    self.counts["peers stalled"] += 1
                    self._nursery.start_soon(self._hang_up, line.conn, "no answer to pings")
                    return

    async def _ping(self, peer: _Peer, line: _Line) -> None:
        config = self._config
        stream: INetStream | None = None
        reader: _Reader | None = None
        while True:
            await trio.sleep(config.ping_every_s * random.uniform(0.75, 1))
            sent_at = trio.current_time()
            line.deadline = min(line.deadline, sent_at + config.ping_patience_s)  # failing is no answer, either
            try:
                if stream is None or reader is None:
                    stream = await self._open(line.conn, PING)
                    reader = _Reader(stream)
                    sent_at = trio.current_time()
                token = os.urandom(32)
                await stream.write(token)
                if await reader.exactly(32) != token:
                    raise _Nonsense("wrong echo")
            except _NotSpoken:
                line.deadline = float("inf")
                return
            except (_Nonsense, *BROKEN):
                if stream is not None:
                    await patches.reset(stream)
                stream = None
                continue
            peer.rtt_ms = 1_000 * (trio.current_time() - sent_at)
            line.deadline = float("inf")

    # --- votes ---

    async def _write_votes(self, peer: _Peer) -> None:
        box = peer.outbox
        stream: INetStream | None = None
        failures = 0
        with peer.scope:
            while True:
                frames = box.take(WRITE_BYTES)
                if not frames:
                    await box.wake.wait()
                    box.wake = trio.Event()
                    continue
                data = b"".join(map(_framed, frames))
                try:
                    if stream is None:
                        stream = await self._open_to(peer, self._votes)
                    await _write(stream, data)
                except Exception as error:  # BROKEN, or what nobody foresaw: the stream is of no more use
                    log.debug("votes stream lost: %r", error)
                    if stream is not None:
                        await patches.reset(stream)
                    stream = None
                    box.give_back(frames, time.monotonic())
                    failures += 1
                    self.counts["votes streams lost"] += 1
                    await trio.sleep(min(0.02 * 2**failures, 2.0))
                    continue
                failures = 0
                peer.frames_out += len(frames)
                peer.bytes_out += len(data)

    def wake(self, box: _Outbox) -> None:
        box.wake.set()

    async def _on_votes(self, stream: INetStream) -> None:
        peer = await self._peer_of(stream)
        if peer is None:
            return
        if peer.votes_in is not None:
            await patches.reset(peer.votes_in)  # it opened another: the old one is lost to it
        peer.votes_in = stream
        reader = _Reader(stream)
        try:
            async with _kept(stream):
                while True:
                    await self._wait_for_room()
                    frame = reader.framed_already(FRAME_BYTES_MAX)
                    if frame is None and not reader.begun:
                        await reader.begin()
                        continue
                    if frame is None:
                        with trio.fail_after(self._config.unfinished_s):
                            frame = await reader.framed(FRAME_BYTES_MAX)
                    peer.frames_in += 1
                    peer.bytes_in += len(frame) + LENGTH.size
                    self._emit(Framed(peer.key, frame), len(frame))
                    await self._afford(peer.frames, 1)
                    await self._afford(peer.frame_bytes, len(frame))
        except _Nonsense:
            self._refuse(id_of(peer.key), "votes", "frame too long")
        except trio.TooSlowError:
            self._refuse(id_of(peer.key), "votes", "frame never finished")
        except BROKEN:
            pass
        finally:
            if peer.votes_in is stream:
                peer.votes_in = None

    async def _afford(self, bucket: _Bucket, units: float) -> None:
        wait = bucket.spend(units, trio.current_time())
        if wait > 0:
            self.counts["inputs delayed"] += 1
            await trio.sleep(wait)

    # --- questions ---

    async def ask(self, key: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float) -> bytes:
        """See `Network.ask`."""
        try:
            with trio.fail_after(patience_s):
                peer = self.peers.get(key)
                if peer is None or peer.instance is None:
                    raise Unreachable("not connected")
                turns = peer.turns.setdefault(kind, trio.Semaphore(self._config.streams_per_kind_max))
                async with turns:
                    return await self._ask_in_turn(peer, kind, question, answer_bytes_max)
        except trio.TooSlowError:
            raise Unreachable(f"no answer about {kind} within {patience_s:g} s") from None
        except _NotSpoken:
            raise Unreachable(f"the peer takes no questions about {kind}") from None
        except _Nonsense as error:
            self._refuse(id_of(key), f"ask {kind}", str(error))
            raise Unreachable(f"the answer about {kind} is {error}") from None
        except BROKEN as error:
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(f"connection lost while asking about {kind}") from error
        except Refused:
            raise
        except Exception as error:  # libp2p raised what nobody foresaw
            log.warning("asking about %s failed: %r", kind, error, exc_info=error)
            raise Unreachable(f"asking about {kind} failed") from error

    async def _ask_in_turn(self, peer: _Peer, kind: str, question: bytes, answer_bytes_max: int) -> bytes:
        idle = peer.idle.setdefault(kind, [])
        while idle:
            kept = idle.pop()
            try:
                return await self._ask_on(peer, kind, kept, question, answer_bytes_max)
            except BROKEN:
                continue  # it was closed while idle; a stream of its own fails for a reason of its own
        stream = await self._open_to(peer, self._ask_id[kind])
        return await self._ask_on(peer, kind, _Asked(stream, _Reader(stream)), question, answer_bytes_max)

    async def _ask_on(self, peer: _Peer, kind: str, asked: _Asked, question: bytes, answer_bytes_max: int) -> bytes:
        async with _kept(asked.stream):
            await _write(asked.stream, _framed(question))
            size, status = ANSWER.unpack(await asked.reader.exactly(ANSWER.size))
            if size > (answer_bytes_max if status == ANSWERED else REASON_BYTES_MAX) or status > FAILED:
                raise _Nonsense("too long" if status <= FAILED else "malformed")
            answer = await asked.reader.exactly(size)
        peer.bytes_out += len(question) + LENGTH.size
        peer.bytes_in += size + ANSWER.size
        if self.peers.get(peer.key) is peer:
            peer.idle.setdefault(kind, []).append(asked)
        if status != ANSWERED:
            raise Refused(_readable(answer))
        return answer

    def _asked_about(self, kind: str) -> Callable[[INetStream], Awaitable[None]]:
        async def on_stream(stream: INetStream) -> None:
            peer = await self._peer_of(stream)
            if peer is None:
                return
            try:
                async with _kept(stream), trio.open_nursery() as nursery:
                    # The reader goes on while an answer is prepared, to notice that nobody waits for it any more.
                    questions, heard = trio.open_memory_channel[bytes](0)
                    nursery.start_soon(self._read_questions, peer, stream, questions)
                    async for question in heard:
                        await self._answer_on(peer, kind, stream, question)
            except* _Nonsense:
                self._refuse(id_of(peer.key), f"ask {kind}", "question too long")
            except* trio.TooSlowError:
                self._refuse(id_of(peer.key), f"ask {kind}", "question never finished")
            except* BROKEN:
                pass

        return on_stream

    async def _read_questions(self, peer: _Peer, stream: INetStream, questions: trio.MemorySendChannel[bytes]) -> None:
        reader = _Reader(stream)
        while True:
            await reader.begin()
            with trio.fail_after(self._config.unfinished_s):
                question = await reader.framed(QUESTION_BYTES_MAX)
            peer.bytes_in += len(question) + LENGTH.size
            await self._afford(peer.questions, 1)
            await questions.send(question)

    async def _answer_on(self, peer: _Peer, kind: str, stream: INetStream, question: bytes) -> None:
        if kind == PEERS:
            status, answer = ANSWERED, self._introduce(peer)
        else:
            status, answer = await self._answer(peer.key, kind, question)
        await self._afford(peer.answer_bytes, len(answer))
        head = ANSWER.pack(len(answer), status)
        if len(answer) <= WRITE_BYTES - ANSWER.size:
            await stream.write(head + answer)
        else:
            await stream.write(head)
            await _write(stream, answer)
        peer.bytes_out += len(head) + len(answer)

    async def _answer(self, key: NodeKey, kind: str, question: bytes) -> tuple[int, bytes]:
        """Have the asyncio side answer. Cancelled here, it is cancelled there."""
        if len(self._answers) >= self._config.answers_at_once_max:
            self._refuse(id_of(key), f"ask {kind}", "too many at once")
            return REFUSED, b"busy"
        self._tickets += 1
        ticket = self._tickets
        done, result = self._answers[ticket] = (trio.Event(), list[tuple[int, bytes]]())
        self._crossing.to_asyncio(self._owner.begin_answer, ticket, key, kind, question)
        try:
            await done.wait()
        finally:
            del self._answers[ticket]
            if not result:
                self._crossing.to_asyncio(self._owner.end_answer, ticket)
        return result[0]

    def answered(self, ticket: int, status: int, answer: bytes) -> None:
        if ticket in self._answers:
            done, result = self._answers[ticket]
            result.append((status, answer))
            done.set()

    # --- gossip ---

    def publish(self, topic: str, data: bytes) -> None:
        try:
            self._publications.send_nowait((topic, data))
        except trio.WouldBlock:
            self.counts["gossip dropped"] += 1

    async def _publish(self, publications: trio.MemoryReceiveChannel[tuple[str, bytes]]) -> None:
        async for topic, data in publications:
            await self._gossip.publish(topic, data)
            self.counts["gossip published"] += 1

    async def _hear_gossip(self, topic: str, subscription: Any) -> None:
        ours = self._id.to_bytes()
        async for message in subscription:
            if message.from_id == ours:
                continue
            origin = key_of(ID(message.from_id))
            assert origin is not None  # the screen saw to it
            self.counts["gossip heard"] += 1
            self._emit(Gossiped(topic, origin, message.data), len(message.data))
            await self._wait_for_room()

    def _screen(self, forwarder: ID, message: rpc_pb2.Message) -> bool:
        if forwarder == self._id:
            return True
        why = None
        if len(message.topicIDs) != 1:
            why = "not on one topic"
        elif len(message.data) > GOSSIP_BYTES_MAX:
            why = "too long"
        elif key_of(ID(message.from_id)) is None:
            why = "origin is not an Ed25519 key"
        elif not self._callbacks.screen(message.topicIDs[0], message.data):
            why = "screened"
        if why is not None:
            self._refuse(forwarder, "gossip", why)
        return why is None

    def _admits_gossip(self, forwarder: ID) -> bool:
        peer = self.peers.get(key_of(forwarder) or b"")
        if peer is None or peer.gossip.allows(trio.current_time()):
            return True
        self._refuse(forwarder, "gossip", "over its allowance")
        return False

    async def _afford_gossip(self, forwarder: ID, size: int) -> None:
        peer = self.peers.get(key_of(forwarder) or b"")
        if peer is not None:
            await self._afford(peer.gossip_bytes, size)

    # --- finding peers ---

    def dial(self, addresses: Sequence[Address]) -> None:
        for address in addresses:
            if address.key == self.key:
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
            peer = self.peers.get(key)
            if peer is not None:
                await _either(peer.up, peer.gone)
                if peer.instance is not None:
                    await peer.gone.wait()
                    backoff = config.backoff_first_s
                    await trio.sleep(random.uniform(0, backoff))  # it may be dialling us, too
                    continue
            elif self._banned.get(key, 0) <= trio.current_time():
                places = self._wanted[key]
                if await self._connect(places[turn % len(places)]):
                    continue
                turn += 1
            await trio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(2 * backoff, config.backoff_last_s)

    async def _connect(self, address: Address) -> bool:
        """Dial, and wait for the hello. Whether the peer came up."""
        self._dialling.add(address.key)
        try:
            async with self._dial_turns:
                self.counts["dials"] += 1
                with trio.fail_after(3 * self._config.handshake_s):
                    await self._swarm.dial_addr(Multiaddr(address.text), id_of(address.key))
        except Exception as error:  # a stranger's handshake can fail in any way
            log.debug("dial of %s failed: %r", address, error)
            self.counts["dials failed"] += 1
            return False
        finally:
            self._dialling.discard(address.key)
        peer = self.peers.get(address.key)
        if peer is None:
            return False
        await _either(peer.up, peer.gone)
        return peer.instance is not None

    def _introduce(self, asker: _Peer) -> bytes:
        """Up to `INTRODUCED_MAX` addresses of peers that are up, in a random order."""
        addresses = [
            str(address)
            for peer in self.peers.values()
            if peer.instance is not None and peer is not asker
            for address in peer.announced[:2]
            if asker.loopback or not address.loopback
        ]
        random.shuffle(addresses)
        return "\n".join(addresses[:INTRODUCED_MAX]).encode()

    async def _exchange(self) -> None:
        """Ask peers for more peers while there are too few."""
        config = self._config
        while True:
            with trio.move_on_after(config.peers_every_s * random.uniform(0.8, 1.2)):
                await self._met.wait()
                await trio.sleep(min(1.0, config.peers_every_s))  # it may know more in a moment
            self._met = trio.Event()
            up = [peer for peer in self.peers.values() if peer.instance is not None]
            if not up or len(up) >= config.peers_target:
                continue
            peer = random.choice(up)
            try:
                answer = await self.ask(peer.key, PEERS, b"", answer_bytes_max=16 << 10, patience_s=5)
            except (Refused, Unreachable):
                continue
            for address in _addresses(answer, INTRODUCED_MAX):
                if address.key != self.key and (peer.loopback or not address.loopback):
                    self._learn(address)
            known = [address for address, _ in self._known.values() if address.key not in self.peers]
            random.shuffle(known)
            for address in known[: config.peers_target - len(up)]:
                if address.key not in self._wanted and address.key not in self._dialling:
                    self._nursery.start_soon(self._try, address)

    def _learn(self, address: Address) -> None:
        if address.key in self._known or len(self._known) >= self._config.addresses_max:
            return
        if self._banned.get(address.key, 0) <= trio.current_time():
            self._known[address.key] = (address, 0)

    async def _try(self, address: Address) -> None:
        if await self._connect(address):
            self._known[address.key] = (address, 0)
            return
        failures = self._known.pop(address.key, (address, 3))[1] + 1
        if failures < 3:
            self._known[address.key] = (address, failures)

    async def _sweep(self) -> None:
        """Forget what is over: frames for peers that stay away, bans."""
        while True:
            await trio.sleep(1)
            old = time.monotonic() - self._config.away_s
            for key, box in list(self.outboxes.items()):
                if key not in self.peers or self.peers[key].instance is None:
                    box.expire(old)
            now = trio.current_time()
            self._banned = {key: until for key, until in self._banned.items() if until > now}


_HELLO_FRAME_MAX = INSTANCE_BYTES + 2 + ADDRESSES_MAX * (ADDRESS_BYTES_MAX + 1) + HELLO_BYTES_MAX


def _addresses(told: bytes, count_max: int) -> list[Address]:
    """The good ones among addresses that a peer sent, one a line."""
    good = []
    for line in told.split(b"\n", count_max)[:count_max]:
        with contextlib.suppress(ValueError):
            good.append(parse_address(line.decode("ascii")))
    return good


def _sentence(reason: str) -> bytes:
    return reason.encode()[:REASON_BYTES_MAX]


def _readable(reason: bytes) -> str:
    """A peer's sentence, fit for a log."""
    text = reason.decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _kind(host: str) -> str:
    return "ip6" if ":" in host else "ip4"


def _conn_of(stream: INetStream) -> SwarmConn:
    return cast(SwarmConn, cast(Any, stream).swarm_conn)


def _remote(conn: SwarmConn) -> tuple[str, int]:
    return cast(patches.Muxer, conn.muxed_conn).get_remote_address() or ("0.0.0.0", 0)


async def _close(conn: SwarmConn) -> None:
    try:
        await conn.close()
    except Exception as error:  # it is closed for certain afterwards
        log.debug("closing a connection: %r", error)


async def _either(*events: trio.Event) -> None:
    async def one(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(one, event)


# --- the asyncio side ---


class Libp2pNetwork:
    """A `Network` over libp2p: Noise and Yamux on TCP, GossipSub 1.1.

    `seed` is the Ed25519 seed of the node key, 32 bytes; `network` the hex prefix of the genesis digest that
    names our streams; `topics` are heard, `fanout` only published on; `kinds` are what peers may ask about.
    """

    def __init__(
        self,
        seed: bytes,
        *,
        network: str,
        topics: Sequence[str],
        kinds: Sequence[str],
        callbacks: Callbacks,
        fanout: Sequence[str] = (),
        config: NetworkConfig | None = None,
    ) -> None:
        self._seed = seed
        self._names = (network, tuple(topics), tuple(fanout), tuple(kinds))
        self._callbacks = callbacks
        self._config = config or NetworkConfig()
        self._addresses: tuple[str, ...] = ()
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._asking: set[asyncio.Future[bytes]] = set()
        self._stop: Callable[[], None] | None = None
        self._closing = False
        self._cancelled = False
        self._closed = False

    @property
    def key(self) -> NodeKey:
        return self._core.key

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._user = asyncio.current_task()
        self._crossing = _Crossing(self._loop)
        network, topics, fanout, kinds = self._names
        self._core = _Core(
            self._seed, network, topics, fanout, kinds, self._callbacks, self._config, self._crossing, self
        )
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._done: asyncio.Future[BaseException | None] = self._loop.create_future()
        threading.Thread(target=self._thread, name="libp2p", daemon=True).start()
        await self._ready
        return self

    def _thread(self) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._core.run, self._on_ready, self._on_running, strict_exception_groups=True)
        except BaseException as caught:  # handed over to the thread that started us
            error = caught
        self._crossing.to_asyncio(self._on_done, error)

    def _on_running(self, stopping: trio.Event) -> None:
        self._stop = stopping.set

    def _on_ready(self, addresses: tuple[str, ...]) -> None:
        def tell() -> None:
            self._addresses = addresses
            if not self._ready.done():
                self._ready.set_result(None)

        self._crossing.to_asyncio(tell)

    def _on_done(self, error: BaseException | None) -> None:
        self._closed = True
        self._done.set_result(error)
        for answer in self._asking:
            if not answer.done():
                answer.set_exception(Unreachable("the network has stopped"))
        if not self._ready.done():
            self._ready.set_exception(error or RuntimeError("the network stopped before it started"))
        elif error is not None and self._user is not None and not self._closing:
            self._cancelled = True
            log.critical("the network failed: %r", error, exc_info=error)
            self._user.cancel("the network failed")  # as a task group does; __aexit__ says why

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._stop is not None:
            self._crossing.to_trio(self._stop)
        for task in self._answering.values():
            task.cancel()
        await asyncio.wait([self._done], timeout=5)
        if not self._done.done():
            raise RuntimeError("the network did not stop")
        failure = self._done.result()
        if failure is not None:
            if self._cancelled and self._user is not None:
                self._user.uncancel()
            raise RuntimeError("the network failed") from failure

    # --- for its user ---

    def send(self, peer: NodeKey, frame: bytes) -> None:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame)} bytes"
        core = self._core
        box = core.outboxes.get(peer) or core.outboxes.setdefault(peer, _Outbox(self._config))
        if box.put(frame, time.monotonic()):
            self._crossing.to_trio(core.wake, box)

    def publish(self, topic: str, data: bytes) -> None:
        assert len(data) <= GOSSIP_BYTES_MAX, f"gossip of {len(data)} bytes"
        self._crossing.to_trio(self._core.publish, topic, data)

    async def ask(
        self, peer: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float
    ) -> bytes:
        assert len(question) <= QUESTION_BYTES_MAX, f"a question of {len(question)} bytes"
        if self._closed:
            raise Unreachable("the network has stopped")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        scope = trio.CancelScope()
        self._asking.add(answer)
        try:
            self._crossing.to_trio(self._begin_ask, answer, scope, peer, kind, question, answer_bytes_max, patience_s)
            return await answer
        except asyncio.CancelledError:
            self._crossing.to_trio(scope.cancel)
            raise
        finally:
            self._asking.discard(answer)

    def dial(self, addresses: Sequence[str]) -> None:
        self._crossing.to_trio(self._core.dial, [parse_address(text) for text in addresses])

    def drop(self, peer: NodeKey, reason: str) -> None:
        self._crossing.to_trio(self._core.drop, peer, reason)

    def peers(self) -> tuple[PeerInfo, ...]:
        now = time.monotonic()
        return tuple(
            PeerInfo(
                peer.key, peer.address, peer.direction, now - peer.since, peer.rtt_ms, peer.frames_in,
                peer.frames_out, peer.bytes_in, peer.bytes_out, peer.outbox.dropped, peer.refused, peer.guest,
            )
            for peer in sorted(self._core.peers.copy().values(), key=lambda peer: peer.key)
            if peer.instance is not None or peer.guest
        )  # fmt: skip

    def counters(self) -> Mapping[str, int]:
        dropped = sum(box.dropped for box in list(self._core.outboxes.values()))
        return {**dict(self._core.counts), "frames dropped": dropped}

    # --- for the core: on the asyncio thread ---

    def heard(self, event: NetworkEvent, size: int) -> None:
        if size:
            self._crossing.to_trio(self._core.heard, size)
        if not self._closed:
            self._callbacks.heard(event)

    def begin_answer(self, ticket: int, key: NodeKey, kind: str, question: bytes) -> None:
        self._answering[ticket] = self._loop.create_task(self._answer(ticket, key, kind, question))

    def end_answer(self, ticket: int) -> None:
        task = self._answering.get(ticket)
        if task is not None:
            task.cancel()

    async def _answer(self, ticket: int, key: NodeKey, kind: str, question: bytes) -> None:
        status, answer = FAILED, b"internal error"
        try:
            status, answer = ANSWERED, await self._callbacks.answer(key, kind, question)
        except Refused as refusal:
            status, answer = REFUSED, _sentence(refusal.reason)
        except Exception:
            log.exception("answering a question about %s", kind)
        finally:
            del self._answering[ticket]
            self._crossing.to_trio(self._core.answered, ticket, status, answer)

    def _begin_ask(
        self,
        answer: asyncio.Future[bytes],
        scope: trio.CancelScope,
        peer: NodeKey,
        kind: str,
        question: bytes,
        answer_bytes_max: int,
        patience_s: float,
    ) -> None:
        """On the trio thread."""

        async def work() -> None:
            with scope:
                try:
                    heard = await self._core.ask(
                        peer, kind, question, answer_bytes_max=answer_bytes_max, patience_s=patience_s
                    )
                except (Refused, Unreachable) as error:
                    self._crossing.to_asyncio(_settle, answer, error)
                else:
                    self._crossing.to_asyncio(_settle, answer, heard)

        try:
            self._core.start(work)
        except RuntimeError:  # it is closing
            self._crossing.to_asyncio(_settle, answer, Unreachable("the network has stopped"))


def _settle(answer: "asyncio.Future[bytes]", outcome: bytes | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, bytes):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
