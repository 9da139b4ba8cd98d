"""Whatever a stranger sends is refused, counted, and survived."""

import asyncio
import contextlib
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux import yamux
from multiaddr import Multiaddr

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.addresses import parse_address
from potd.runtime.network import FRAME_BYTES_MAX, Allowance, Allowances, PeerDown, PeerUp

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Node, Nodes

VOTES = "/potd/c0ffee/votes/1"
ASK = "/potd/c0ffee/ask/blob/1"
HELLO = "/potd/hello/1"
MESHSUB = "/meshsub/1.1.0"


class Mallory:
    """A libp2p host without any of our cures, at the throat of one node."""

    def __init__(self, host: IHost, place: Multiaddr) -> None:
        self.host = host
        self._place = info_from_p2p_addr(place)

    async def open(self, protocol: str) -> INetStream:
        """A stream, on a new connection if the last one was closed on us."""
        for _ in range(50):
            with contextlib.suppress(Exception):  # it is still closing the last one
                await self.host.connect(self._place)
                return await self.host.new_stream(self._place.peer_id, [TProtocol(protocol)])
            await trio.sleep(0.05)
        raise OSError("the node lets nobody in")

    async def say_hello(self, greeting: bytes = b"hello from mallory") -> None:
        stream = await self.open(HELLO)
        body = bytes(16) + struct.pack("!H", 0) + greeting
        await stream.write(struct.pack("!I", len(body)) + body + struct.pack("!I", 0))
        await stream.read(1)


Attack = Callable[[Mallory], Awaitable[None]]


async def attacked(node: "Node", attack: Attack) -> None:
    """Run an attack on the node, on a thread of its own."""

    async def run() -> None:
        host = new_host(muxer_preference="YAMUX")
        mallory = Mallory(host, Multiaddr(node.network.addresses[0]))
        async with host.run([]):
            with trio.move_on_after(20) as patience:
                await attack(mallory)
            assert not patience.cancelled_caught
            for peer in host.get_connected_peers():
                await host.disconnect(peer)

    await asyncio.to_thread(trio.run, run)


async def until_reset(stream: INetStream) -> None:
    """Read until the other side has enough of us."""
    with trio.fail_after(10):
        try:
            while await stream.read(65_536):
                pass
        except Exception:  # the many ways to say that the stream is over
            return


async def alive(alice: "Node", bob: "Node") -> None:
    """The two still talk, and never stopped."""
    count = len(bob.frames()) + 1
    alice.network.send(bob.key, b"alive")
    assert (await bob.until_frames(count))[-1] == b"alive"
    assert await bob.ask(alice, b"abc") == b"cba"
    assert bob.key not in {event.peer for event in alice.witness.all(PeerDown)}


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def prefixed(body: bytes) -> bytes:
    return varint(len(body)) + body


def garbage() -> list[bytes]:
    chance = random.Random(7)
    return [
        b"",
        b"\x00",
        b"\xff" * 16,
        b"\xff\xff\xff\xff",
        struct.pack("!I", 1 << 31),
        struct.pack("!I", 100) + b"only this",
        bytes(70_000),
        b"GET / HTTP/1.1\r\n\r\n",
        varint(1 << 40),
        prefixed(b"\xff" * 40),
        prefixed(b"\x0a\x05\x08\x01\x12\x01"),
        prefixed(
            rpc_pb2.RPC(
                publish=[rpc_pb2.Message(from_id=b"x", seqno=b"y", data=b"z", topicIDs=["t"])]
            ).SerializeToString()
        ),
        prefixed(rpc_pb2.RPC(control=rpc_pb2.ControlMessage(iwant=[rpc_pb2.ControlIWant()])).SerializeToString()),
        chance.randbytes(3_000),
        prefixed(chance.randbytes(3_000)),
    ]


@pytest.mark.parametrize(
    "protocol",
    [
        HELLO,
        VOTES,
        ASK,
        "/potd/c0ffee/ask/peers/1",
        MESHSUB,
        "/ipfs/ping/1.0.0",
        "/ipfs/id/1.0.0",
        "/ipfs/id/push/1.0.0",
    ],
)
def test_garbage_on_any_protocol_is_survived(nodes: "Nodes", protocol: str) -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                for junk in garbage():
                    with contextlib.suppress(Exception):  # closed on us before we were done
                        if protocol != HELLO:
                            await mallory.say_hello()
                        stream = await mallory.open(protocol)
                        await stream.write(junk)
                        with trio.move_on_after(0.2 if protocol == HELLO else 0.02):
                            await until_reset(stream)
                        await stream.reset()
                        told.append(junk)

            told: list[bytes] = []
            await attacked(alice, attack)
            await alive(alice, bob)
            refused = sum(count for name, count in alice.network.counters().items() if name.startswith("refused"))
            assert refused > 0 or protocol.startswith("/ipfs")
            assert told == garbage()

    nodes.run(run())


def test_malformed_protobuf_in_gossip_is_counted(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                stream = await mallory.open(MESHSUB)
                await stream.write(prefixed(b"\xff" * 40))
                await until_reset(stream)

            await attacked(alice, attack)
            assert alice.network.counters()["refused /meshsub/1.1.0: DecodeError"] == 1
            await alive(alice, bob)

    nodes.run(run())


def test_a_frame_that_is_too_long_is_refused(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                await mallory.say_hello()
                stream = await mallory.open(VOTES)
                await stream.write(struct.pack("!I", FRAME_BYTES_MAX + 1))
                await until_reset(stream)

            await attacked(alice, attack)
            assert alice.network.counters()["refused votes: frame too long"] == 1
            await alive(alice, bob)

    nodes.run(run())


def test_a_question_that_is_too_long_is_refused(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                await mallory.say_hello()
                stream = await mallory.open(ASK)
                await stream.write(struct.pack("!I", 70_000))
                await until_reset(stream)

            await attacked(alice, attack)
            assert alice.network.counters()["refused ask blob: question too long"] == 1
            await alive(alice, bob)

    nodes.run(run())


@pytest.mark.parametrize(("protocol", "name"), [(VOTES, "votes: frame"), (ASK, "ask blob: question")])
def test_what_is_begun_and_never_finished_is_refused(nodes: "Nodes", protocol: str, name: str) -> None:
    async def run() -> None:
        async with nodes.pair(unfinished_s=0.3) as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                await mallory.say_hello()
                stream = await mallory.open(protocol)
                await stream.write(struct.pack("!I", 1_000) + b"half")
                await until_reset(stream)

            await attacked(alice, attack)
            assert alice.network.counters()[f"refused {name} never finished"] == 1
            await alive(alice, bob)

    nodes.run(run())


def test_half_frames_on_ever_new_streams_are_paid_for_and_only_the_newest_is_read(nodes: "Nodes") -> None:
    async def run() -> None:
        allowances = Allowances(frame_bytes=Allowance(rate=1 << 20, burst=1 << 20))
        async with nodes.pair(allowances=allowances) as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                await mallory.say_hello()
                streams = [await mallory.open(VOTES) for _ in range(4)]
                for stream in streams[:-1]:
                    await until_reset(stream)
                for _ in range(4):
                    await streams[-1].write(struct.pack("!I", FRAME_BYTES_MAX) + bytes(1_000_000))
                    await trio.sleep(0.1)
                    streams.append(await mallory.open(VOTES))
                    await until_reset(streams[-2])
                await streams[-1].write(struct.pack("!I", 4) + b"late")
                while not alice.frames():
                    await trio.sleep(0.01)

            await attacked(alice, attack)
            assert alice.frames() == [b"late"]
            assert alice.network.counters()["inputs delayed"] > 0
            await alive(alice, bob)

    nodes.run(run())


@pytest.mark.parametrize("protocol", [VOTES, ASK])
def test_who_has_not_said_hello_gets_no_streams(nodes: "Nodes", protocol: str) -> None:
    async def run() -> None:
        async with nodes.pair(handshake_s=0.3) as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                stream = await mallory.open(protocol)
                await stream.write(struct.pack("!I", 4) + b"vote")
                await until_reset(stream)

            await attacked(alice, attack)
            assert alice.network.counters()[f"refused {protocol}: no hello"] == 1
            assert alice.frames() == []
            await alive(alice, bob)

    nodes.run(run())


def test_a_hello_of_another_network_or_none_at_all_is_refused_by_name(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def rude(mallory: Mallory) -> None:
                await mallory.say_hello(b"good evening")

            async def endless(mallory: Mallory) -> None:
                stream = await mallory.open(HELLO)
                await stream.write(struct.pack("!I", 1 << 20))
                await until_reset(stream)

            await attacked(alice, rude)
            await attacked(alice, endless)
            await alice.until_counted("refused hello: not admitted")
            await alice.until_counted("refused hello: malformed")
            assert len(alice.witness.all(PeerUp)) == 1
            await alive(alice, bob)

    nodes.run(run())


def test_streams_beyond_the_limit_are_reset(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(streams_per_peer_max=16) as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                await mallory.open(HELLO)
                connection = mallory.host.get_network().get_connections()[0]
                for _ in range(200):
                    await connection.new_stream()
                await trio.sleep(1)

            await attacked(alice, attack)
            await alice.until_counted("refused stream: too many streams", 150)
            await alive(alice, bob)

    nodes.run(run())


def test_a_peer_that_ignores_its_window_is_disconnected(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                stream = await mallory.open("/ipfs/ping/1.0.0")
                muxed = stream.muxed_stream  # type: ignore[attr-defined]  # not part of the interface
                frame = struct.pack("!BBHII", 0, yamux.TYPE_DATA, 0, muxed.stream_id, 60_000) + bytes(60_000)
                with trio.fail_after(10):
                    try:
                        while not muxed.conn.is_closed:
                            await muxed.conn._write_frame(frame)
                    except Exception:  # the connection is gone, in one of many ways
                        return

            await attacked(alice, attack)
            await alive(alice, bob)

    nodes.run(run())


def test_a_stream_holds_no_more_than_its_window() -> None:
    class Stream:
        target_recv_window = 100_000

    buffer = patches._Buffer(Stream())  # type: ignore[arg-type]  # only the window is looked at
    buffer.extend(bytes(100_000))
    with pytest.raises(patches.Overrun):
        buffer.extend(bytes(100_000))
    assert len(buffer) == 100_000


def test_connections_that_never_shake_hands_do_not_keep_others_out(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", handshakes_max=8, handshake_s=5.0) as (alice, bob):
            place = parse_address(alice.network.addresses[0])
            port = int(place.text.rpartition("/")[2])
            idle = []
            for n in range(100):
                sock = socket.create_connection(("127.0.0.1", port))
                idle.append(sock)
                if n % 3 == 0:
                    sock.sendall(os.urandom(200))
            bob.network.dial(alice.network.addresses)
            await bob.until_up(alice, patience_s=3)
            for sock in idle:
                sock.close()
            assert alice.network.counters()["refused connection: too many handshakes"] > 50
            await alive(alice, bob)

    nodes.run(run())


def test_gossip_in_the_name_of_another_is_refused(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def attack(mallory: Mallory) -> None:
                stream = await mallory.open(MESHSUB)
                for seqno in range(3):
                    forged = rpc_pb2.Message(
                        from_id=b"\x00\x24\x08\x01\x12\x20" + bob.key, seqno=bytes([seqno] * 8), data=b"lies",
                        topicIDs=[nodes.wire_topic], signature=bytes(64),
                    )  # fmt: skip
                    await stream.write(prefixed(rpc_pb2.RPC(publish=[forged]).SerializeToString()))
                await trio.sleep(0.2)

            await attacked(alice, attack)
            assert alice.network.counters()["refused gossip: bad signature"] == 3
            assert alice.gossip() == []
            await alive(alice, bob)

    nodes.run(run())


def test_more_than_a_few_guests_are_not_kept(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(handshake_s=0.2, guests_max=1) as (alice, bob):

            async def stays(mallory: Mallory) -> None:
                await mallory.open("/ipfs/ping/1.0.0")
                await trio.sleep(1.5)

            await asyncio.gather(*(attacked(alice, stays) for _ in range(3)))
            assert alice.network.counters()["refused hello: too many guests"] == 2
            await alive(alice, bob)

    nodes.run(run())
