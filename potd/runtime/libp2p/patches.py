"""What py-libp2p 0.8.1 needs to be fast and to survive a bad peer. Knows nothing of potd's protocols.

Every cure is for release 0.8.1 and says what was wrong there; on any other release the import fails with a
sentence, because a cure for the wrong code is a fault of its own. What can be a subclass is one, so that an
untouched host may live in the same process; `apply` changes the few things that only exist by name in a module.

Three faults are cured by not using what has them: the resource manager (off by one, its stream limit hangs), the
listener (it shares its port with anyone, hides that a port is taken, and never gives an inbound slot back) and
`dial_peer` (250 ms of happy eyeballs, a 60 s blacklist). `Host` is built without the first, the other two are
replaced in `listening` and `dialling`.
"""

import contextlib
import logging
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any, Final, cast

RELEASE: Final = "0.8.1"


def require_release(installed: str) -> None:
    """Raise ImportError unless `installed` is the release that the cures are for."""
    if installed != RELEASE:
        raise ImportError(
            f"libp2p {installed} is installed, and potd's cures are for libp2p {RELEASE}: "
            f"install libp2p=={RELEASE}, or revise potd/runtime/libp2p/patches.py for the other release"
        )


require_release(version("libp2p"))

# Only now: another release may lack these names, and the sentence above is the better error.
# ruff: noqa: E402
import libp2p.network.connection.swarm_connection as swarm_connection_module
import libp2p.peer.peerstore as peerstore_module
import libp2p.pubsub.gossipsub as gossipsub_module
import libp2p.pubsub.pubsub as pubsub_module
import libp2p.pubsub.utils as pubsub_utils_module
import libp2p.stream_muxer.yamux.yamux as yamux_module
import trio
from libp2p.abc import IHost, IMuxedConn, INetConn, INetStream, ISecureConn
from libp2p.host.basic_host import BasicHost
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream, StreamState
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from multiaddr import Multiaddr

from potd.runtime.libp2p.line import SHARE_BYTES, Line, tcp_under

HEADER: Final = struct.Struct(yamux_module.YAMUX_HEADER_FORMAT)
BODY_S: Final = 60.0  # for what a header has announced
FRAME_BYTES: Final = 256 << 10
WINDOW_BYTES_MAX: Final = 4 << 20
BUFFER_SLACK_BYTES: Final = 64 << 10
GOSSIP_QUEUE_MAX: Final = 1_024
READ_BYTES: Final = 64 << 10

Refuse = Callable[[ID | None, str, str], None]  # peer, protocol, reason
Listener = Callable[[bytes], bool]  # takes what has come on a stream, or says that it will be read


# --- the muxer ---


class Overrun(trio.TooSlowError):
    """A peer wrote past its receive window. The read loop closes the connection on this class alone."""


class _Buffer(bytearray):
    """What one stream has received and nobody has read, never more than its window."""

    def __init__(self, stream: YamuxStream) -> None:
        super().__init__()
        self._stream = stream

    def extend(self, data: Any) -> None:
        if len(self) + len(data) > self._stream.target_recv_window + BUFFER_SLACK_BYTES:
            raise Overrun("peer wrote past its receive window")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    """The buffers of one connection. The muxer assigns an empty bytearray; what is kept is a bounded one."""

    def __init__(self, streams: dict[int, YamuxStream]) -> None:
        super().__init__()
        self._streams = streams

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        super().__setitem__(stream_id, _Buffer(self._streams[stream_id]))


class _Frames(Line):
    """A line that gives its muxer plain frames by itself, and has it read the rest.

    0.8.1 takes every frame of some bytes of a stream through four locks, and so turns of the scheduler.
    """

    def __init__(self, muxer: "Muxer", session: SecureSession, tcp: trio.SocketStream) -> None:
        super().__init__(session, tcp)
        self._muxer = muxer

    async def read(self, n: int | None = None) -> bytes:
        """The header of the next frame that is not plain. The muxer reads nothing else from here."""
        assert n == yamux_module.HEADER_SIZE, "a header is read as a whole"
        while True:
            await self.fill(n)
            _, kind, flags, stream_id, length = HEADER.unpack_from(self.opened)
            stream = self._muxer.streams.get(stream_id)
            if stream is None or flags or length > yamux_module.MAX_WINDOW_SIZE:
                return self.take(n)
            if kind == yamux_module.TYPE_DATA:
                self.take(n)
                self._hand_over(stream_id, await self.body(length))
            elif kind == yamux_module.TYPE_WINDOW_UPDATE:
                self.take(n)
                stream.send_window += length
            else:
                return self.take(n)

    async def body(self, length: int) -> bytes:
        """What follows a header. Raises trio.TooSlowError if it is never finished."""
        if len(self.opened) < length:
            with trio.fail_after(BODY_S):
                await self.fill(length)
        return self.take(length)

    def _hand_over(self, stream_id: int, body: bytes) -> None:
        stream = self._muxer.streams.get(stream_id)
        if stream is None:
            return  # closed while its frame was on the way
        buffer, listener = self._muxer.stream_buffers[stream_id], self._muxer.listeners.get(stream_id)
        left = stream.recv_window - len(body)
        if listener is not None and not buffer and 2 * left > stream.target_recv_window and listener(body):
            stream.recv_window = left
            return
        buffer.extend(body)
        stream.recv_window = max(0, left)
        self._muxer.stream_events[stream_id].set()


class Muxer(Yamux):
    """Yamux whose writes are whole and whose buffers end."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # 0.8.1 warns when a peer ignores its window and goes on buffering, without end.
        self.stream_buffers = _Buffers(self.streams)
        self.listeners: dict[int, Listener] = {}  # by stream
        tcp = tcp_under(self.secured_conn)
        self.line = _Frames(self, cast(SecureSession, self.secured_conn), tcp) if tcp is not None else None
        if self.line is not None:
            self.secured_conn = cast(ISecureConn, self.line)

    async def _read_data_body(self, length: int) -> bytes:
        return await (self.line.body(length) if self.line is not None else super()._read_data_body(length))

    async def _write_frame(self, data: bytes) -> None:
        """Write a frame wholly or not at all.

        0.8.1 can be cancelled in the middle of one, and half a Noise message ends the connection that all
        streams share (37 of 40 cancelled transfers did). Waiting for one's turn may still be cancelled.
        """
        if self.line is not None and not self._write_lock.locked():
            self._write_lock.acquire_nowait()
            try:
                await self.line.write(data)
            finally:
                self._write_lock.release()
            return
        async with self._write_lock:
            with trio.CancelScope(shield=True):
                await self.secured_conn.write(data)


class Stream(NetStream):
    """A stream that asks no scheduler for what can be done at once.

    In 0.8.1 a write of some bytes takes four locks, and a read six, each a turn of the scheduler though free.
    """

    async def read(self, n: int | None = None) -> bytes:
        muxed = self.muxed_stream
        if not isinstance(muxed, YamuxStream) or not isinstance(muxed.conn, Muxer) or self._state in _UNREADABLE:
            return await super().read(n)
        muxer, name = muxed.conn, muxed.stream_id
        while not muxer.stream_buffers.get(name):
            if muxed.recv_closed or muxed.closed or name not in muxer.streams or muxer.event_shutting_down.is_set():
                return await super().read(n)  # it knows what to raise
            await muxer.stream_events[name].wait()
            if name in muxer.stream_events:
                muxer.stream_events[name] = trio.Event()
        if muxed.closed:
            return await super().read(n)  # it tidies up behind the last bytes
        buffer = muxer.stream_buffers[name]
        taken = bytes(memoryview(buffer)[: len(buffer) if n is None or n < 0 else n])
        del buffer[: len(taken)]
        await _update_window(muxed, bytes_read=len(taken))
        return taken

    @contextlib.contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Meanwhile the listener has what comes, in the muxer's turn, unless something waits to be read or the peer is
        to be given credit."""
        listeners, name = self._muxer.listeners, cast(YamuxStream, self.muxed_stream).stream_id
        listeners[name] = listener
        try:
            yield
        finally:
            del listeners[name]

    async def write(self, data: bytes) -> None:
        muxer = self._free_for(data)
        if muxer is None:
            await super().write(data)
            return
        try:
            await muxer._write_frame(self._frame(data))
        except Exception as error:
            self._state = StreamState.ERROR
            raise StreamError(f"cannot be written: {error}") from error

    def write_now(self, data: bytes) -> bool:
        """Write without waiting. False if that cannot be, and nothing was written; what has found no room in the socket
        waits for `flush`."""
        muxer = self._free_for(data)
        if muxer is None or muxer.line is None or muxer._write_lock.locked() or len(data) > SHARE_BYTES:
            return False
        try:
            muxer.line.write_now(self._frame(data))
        except Exception:  # the next write says what it was
            self._state = StreamState.ERROR
            return False
        return True

    @property
    def flushed(self) -> bool:
        """Whether nothing that was written on its connection waits for room."""
        line = self._muxer.line
        return line is None or not line.unsent

    async def flush(self) -> None:
        """Have it sent. Raises ConnectionClosedError."""
        await self._muxer._write_frame(b"")

    @property
    def _muxer(self) -> Muxer:
        return cast(Muxer, cast(YamuxStream, self.muxed_stream).conn)

    def _free_for(self, data: bytes) -> Muxer | None:
        """The muxer, if it may have this in one frame at once."""
        muxed = self.muxed_stream
        if (
            not isinstance(muxed, YamuxStream)
            or not isinstance(muxed.conn, Muxer)
            or self._state in _UNWRITABLE
            or muxed.send_closed
            or muxed.closed
            or muxed.rw_lock._writer_lock.value == 0  # another write goes first
            or muxed.send_window < len(data)
            or len(data) > FRAME_BYTES - yamux_module.HEADER_SIZE
        ):
            return None
        return muxed.conn

    def _frame(self, data: bytes) -> bytes:
        muxed = cast(YamuxStream, self.muxed_stream)
        muxed.send_window -= len(data)
        return HEADER.pack(0, yamux_module.TYPE_DATA, 0, muxed.stream_id, len(data)) + data


_UNREADABLE: Final = (StreamState.ERROR, StreamState.RESET)
_UNWRITABLE: Final = (StreamState.ERROR, StreamState.RESET, StreamState.CLOSE_WRITE, StreamState.CLOSE_BOTH)


class MuxerChoice(MuxerMultistream):
    """0.8.1 names its own Yamux class here, whatever the host was told to use."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)

        async def on_close() -> None:
            """Replaced by the connection that is built on this one."""

        return self._annotate_connection(
            Muxer(conn, peer_id, is_initiator=conn.is_initiator, on_close=on_close), conn, protocol
        )


async def _update_window(self: YamuxStream, *, bytes_read: int = 0) -> None:
    """Give credit when half of the window is used.

    0.8.1 sends an update on every read, also of one byte: 10.6 frames for one gossip message.
    """
    if self.recv_closed or self.closed:
        return
    buffered = len(self.conn.stream_buffers.get(self.stream_id) or b"")
    credit = self.target_recv_window - (self.recv_window + buffered)
    if credit <= 0 or 2 * credit < self.target_recv_window:
        return
    now = trio.current_time()
    if self.epoch_start and now - self.epoch_start < max(4 * self._effective_rtt(), 0.05):
        wider = min(self.target_recv_window * 2, WINDOW_BYTES_MAX)
        credit += wider - self.target_recv_window
        self.target_recv_window = wider
    self.epoch_start = now
    self.recv_window += credit
    await self.send_window_update(credit)


# --- the swarm ---


class _NoConnector:
    """Stands where 0.8.1 has a task that dials whatever address any peer ever told it, below a low watermark of 0."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        pass

    async def maybe_connect(self) -> None:
        pass

    def record_disconnect(self, peer_id: ID) -> None:
        pass


class PlainSwarm(Swarm):
    """A swarm that opens no connection by itself. Whoever wants one uses `dial_addr`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.auto_connector = cast(AutoConnector, _NoConnector())

    async def dial_peer(self, peer_id: ID) -> list[INetConn]:
        """Refuse. In 0.8.1 every new stream to a lost peer dials it again, with addresses it once told us."""
        raise SwarmException(f"not connected to {peer_id}")


# --- the host ---


class Host(BasicHost):
    """A host that outlives whatever its stream handlers raise."""

    def __init__(self, swarm: Swarm, *, refuse: Refuse, streams_per_peer_max: int) -> None:
        self._announced: list[Multiaddr] = []
        # Observed addresses are a list that any peer can grow, and nothing here reads it.
        super().__init__(swarm, negotiate_timeout=5, disable_identify_address_discovery=True)
        self.refuse = refuse
        self._streams_per_peer_max = streams_per_peer_max
        self._streams_of: dict[ID, int] = {}
        self.record_cache: tuple[tuple[str, ...], bytes] | None = None

    def announce(self, addresses: list[Multiaddr]) -> None:
        """Name the addresses where we can be reached, since the listener is not the swarm's."""
        self._announced = addresses

    def get_transport_addrs(self) -> list[Multiaddr]:
        return list(self._announced)

    def get_addrs(self) -> list[Multiaddr]:
        return [address.encapsulate(Multiaddr(f"/p2p/{self.get_id()}")) for address in self._announced]

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        """Run one inbound stream.

        In 0.8.1 an exception in any handler ends the whole host: malformed protobuf on /meshsub is a remote
        crash. And nothing limits the streams that one peer may open.
        """
        peer = net_stream.muxed_conn.peer_id
        count = self._streams_of.get(peer, 0)
        if count >= self._streams_per_peer_max:
            self.refuse(peer, "stream", "too many streams")
            await reset(net_stream)
            return
        self._streams_of[peer] = count + 1
        try:
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:  # whatever a peer provoked is that peer's affair
            self.refuse(peer, net_stream.get_protocol() or "stream", type(error).__name__)
            await reset(net_stream)
        finally:
            left = self._streams_of[peer] - 1
            if left:
                self._streams_of[peer] = left
            else:
                del self._streams_of[peer]


async def reset(stream: INetStream) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
        try:
            await stream.reset()
        except Exception:  # a stream that cannot even be reset is gone
            return


# --- gossip ---


class _Throttled:
    """A stream read in large pieces, no faster than its peer may send.

    0.8.1 reads a message's length byte by byte, each through four locks, and starts a task for every message
    as fast as they come. A stream that is not read fills its window, and the peer has to wait.
    """

    def __init__(self, stream: INetStream, afford: Callable[[ID, int], Awaitable[None]]) -> None:
        self._stream = stream
        self._afford = afford
        self._buffer = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        if not self._buffer:
            self._buffer += await self._stream.read(READ_BYTES)
            await self._afford(self._stream.muxed_conn.peer_id, len(self._buffer))
        taken = bytes(self._buffer[:n])
        del self._buffer[:n]
        return taken


class Gossip(Pubsub):
    """Pubsub that a message cannot end, a flood cannot drown, and a restart does not silence."""

    def __init__(
        self,
        host: Host,
        router: GossipSub,
        *,
        topics: frozenset[str],
        rpc_bytes_max: int,
        admit: Callable[[ID], bool],
        afford: Callable[[ID, int], Awaitable[None]],
    ) -> None:
        super().__init__(
            host, router, strict_signing=True, allowed_topics=topics, max_inbound_rpc_size=rpc_bytes_max,
            max_subscriptions_per_rpc=4 * len(topics) + 16, max_subscriptions_per_peer=len(topics),
        )  # fmt: skip
        # Seconds, in 0.8.1: messages after a quick restart may pass for seen.
        self.counter = time.time_ns()
        self._refuse = host.refuse
        self._admit = admit
        self._afford = afford
        self._pushing: set[bytes] = set()

    async def stream_handler(self, stream: INetStream) -> None:
        # It is read, reset and asked whose it is, and _Throttled passes all of that on.
        await super().stream_handler(cast(INetStream, _Throttled(stream, self._afford)))

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judge a message once, and swallow what judging it raises.

        0.8.1 ends with the task that raised; it looks a message up before validating and marks it after, so
        that duplicates pass meanwhile; and its own rate limit counts our own messages too.
        """
        if msg_forwarder != self.my_id and not self._admit(msg_forwarder):
            return
        name = self._msg_id_constructor(msg)
        if name in self._pushing:
            return
        self._pushing.add(name)
        try:
            await super().push_msg(msg_forwarder, msg)
            if not self._is_msg_seen(msg) and self.validation_cache.get(name) is None:
                self._refuse(msg_forwarder, "gossip", "bad signature")  # the one reason that 0.8.1 tells nobody
        except Exception as error:  # as above
            self._refuse(msg_forwarder, "gossip", type(error).__name__)
        finally:
            self._pushing.discard(name)

    def stop(self) -> None:
        """End the thread that sweeps the seen messages, which 0.8.1 leaves running, without waiting for it."""
        self.seen_messages._stop_event.set()


class Router(GossipSub):
    """GossipSub 1.1 that a control message cannot end.

    1.2 sends IDONTWANT for every message (28.6 against 13.1 CPU ms a delivery). The rate limit of 0.8.1 counts
    our own messages; adaptive gossip and eclipse protection change the mesh by guesses on IP addresses.
    """

    def __init__(self, *, heartbeat_s: float, refuse: Refuse, told: Callable[[str, ID], frozenset[ID]]) -> None:
        super().__init__(
            protocols=[PROTOCOL_ID_V11], degree=6, degree_low=4, degree_high=12,
            heartbeat_interval=heartbeat_s,  # type: ignore[arg-type]  # declared an int, and only slept for
            heartbeat_initial_delay=heartbeat_s / 10, spam_protection_enabled=False,
            adaptive_gossip_enabled=False, eclipse_protection_enabled=False, max_pending_messages_per_peer=32,
        )  # fmt: skip
        self._refuse = refuse
        self._told = told

    def _get_peers_to_send(
        self, topic_ids: Iterable[str], msg_forwarder: ID, origin: ID, msg_id: bytes | None = None
    ) -> Iterable[ID]:
        """Send our own messages to everyone who listens, as GossipSub 1.1 says [flood publishing], and pass those of
        others on to whom their origin has not told them by itself.

        0.8.1 sends our own to the mesh alone, so to nobody while a new peer has not been grafted yet.
        """
        if self.pubsub is None or origin != self.pubsub.my_id:
            told = [self._told(topic, origin) for topic in topic_ids]
            for peer in super()._get_peers_to_send(topic_ids, msg_forwarder, origin, msg_id):
                if not any(peer in one for one in told):
                    yield peer
            return
        listening: set[ID] = set()
        for topic in topic_ids:
            listening |= self.pubsub.peer_topics.get(topic, set())
        yield from sorted(listening, key=ID.to_bytes)

    async def handle_rpc(self, rpc: rpc_pb2.RPC, sender_peer_id: ID) -> None:
        await self._survive(super().handle_rpc(rpc, sender_peer_id), sender_peer_id)

    async def on_peer_subscribed(self, peer_id: ID, topic: str) -> None:
        await self._survive(super().on_peer_subscribed(peer_id, topic), peer_id)

    async def flush_pending_messages(self, peer_id: ID) -> None:
        await self._survive(super().flush_pending_messages(peer_id), peer_id)

    async def heartbeat(self) -> None:
        """Beat for ever. One exception stops the heart of 0.8.1, and the host with it."""
        while True:
            await self._survive(super().heartbeat(), None)

    async def _survive(self, work: Awaitable[None], peer: ID | None) -> None:
        try:
            await work
        except Exception as error:  # as above
            self._refuse(peer, "gossip control", type(error).__name__)


def _long_queue() -> RpcQueue:
    """Room for a burst. 0.8.1 holds 32 messages for a peer and drops the rest in silence (7 % of 500 arrived)."""
    return RpcQueue(max_size=GOSSIP_QUEUE_MAX)


def apply() -> None:
    """Change in place what 0.8.1 reaches only by name. Doing it again changes nothing."""
    # 64 KiB and a header are more than one Noise message holds, so every frame costs two (14.4 against 7.4 ms/MB).
    _replace(yamux_module, "MAX_MESSAGE_SIZE", FRAME_BYTES)
    _replace(swarm_connection_module, "NetStream", Stream)
    _replace(YamuxStream, "_auto_tune_and_send_window_update", _update_window)
    _replace(pubsub_module, "RpcQueue", _long_queue)
    _replace(pubsub_module, "SUBSCRIPTION_CHANNEL_SIZE", GOSSIP_QUEUE_MAX)
    for module in (pubsub_module, gossipsub_module):
        _replace(module, "env_to_send_in_RPC", _our_record)
        _replace(module, "maybe_consume_signed_record", _take_record)
    # It logs through the root logger's functions, which install a handler where there is none.
    _replace(swarm_connection_module, "logging", logging.getLogger(swarm_connection_module.__name__))
    # Its errors are peers' doings, and the host counts those itself.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)


def _replace(owner: object, name: str, cure: object) -> None:
    assert hasattr(owner, name), f"libp2p {RELEASE} has no {name}"
    setattr(owner, name, cure)


_record_of = peerstore_module.env_to_send_in_RPC
_check_record = pubsub_utils_module.maybe_consume_signed_record


def _our_record(host: IHost) -> tuple[bytes, bool]:
    """Our signed addresses. 0.8.1 serialises them anew for every message."""
    if not isinstance(host, Host):
        return _record_of(host)
    addresses = tuple(str(address) for address in host.get_transport_addrs())
    if host.record_cache is None or host.record_cache[0] != addresses:
        host.record_cache = (addresses, _record_of(host)[0])
    return host.record_cache[1], False


def _take_record(message: rpc_pb2.RPC, host: IHost, peer_id: ID) -> bool:
    """Pass over a peer's signed addresses. 0.8.1 verifies them twice for every message; we never dial by them."""
    return isinstance(host, Host) or _check_record(message, host, peer_id)
