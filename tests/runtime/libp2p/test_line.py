import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.testing
from libp2p.abc import ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedStreamEOF
from libp2p.stream_muxer.yamux import yamux

from potd.runtime.libp2p import patches
from potd.runtime.libp2p.line import Line, tcp_under

SEEDS = (bytes(32), bytes([1]) * 32)


async def sessions(ends: tuple[trio.SocketStream, trio.SocketStream]) -> list[ISecureConn]:
    """The two ends of one Noise session."""
    pairs = [create_new_key_pair(seed) for seed in SEEDS]
    noises = [Transport(pair, noise_privkey=new_x25519_pair().private_key) for pair in pairs]
    made: dict[int, ISecureConn] = {}

    async def call() -> None:
        made[0] = await noises[0].secure_outbound(
            RawConnection(TrioTCPStream(ends[0]), True), ID.from_pubkey(pairs[1].public_key)
        )

    async def answer() -> None:
        made[1] = await noises[1].secure_inbound(RawConnection(TrioTCPStream(ends[1]), False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        nursery.start_soon(answer)
    return [made[0], made[1]]


def on_sessions(work: Callable[[ISecureConn, ISecureConn], Awaitable[None]]) -> None:
    """Run it with the two ends of a session."""

    async def run() -> None:
        with trio.fail_after(10):
            listening = trio.socket.socket()
            await listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            calling = trio.socket.socket()
            await calling.connect(listening.getsockname())
            answering, _ = await listening.accept()
            listening.close()
            calling.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
            answering.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
            ends = (trio.SocketStream(calling), trio.SocketStream(answering))
            await work(*await sessions(ends))
            for end in ends:
                await end.aclose()

    trio.run(run)


def line(session: ISecureConn) -> Line:
    tcp = tcp_under(session)
    assert isinstance(session, SecureSession) and tcp is not None
    return Line(session, tcp)


def test_what_is_written_is_read_however_large_and_in_whatever_pieces() -> None:
    sizes = (1, 12, 65_519, 65_520, 300_000)
    said = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def work(near: ISecureConn, far: ISecureConn) -> None:
        writing, reading = line(near), line(far)

        async def say() -> None:
            for one in said:
                await writing.write(one)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say)
            heard = []
            for size in (*sizes[1:], sizes[0]):
                await reading.fill(size)
                heard.append(reading.take(size))
        assert b"".join(heard) == b"".join(said)
        assert not reading.opened

    on_sessions(work)


def test_what_the_session_had_read_ahead_is_not_lost() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        await near.write(b"first and second")
        assert await far.read(5) == b"first"
        reading = line(far)
        await reading.fill(11)
        assert reading.take(11) == b" and second"

    on_sessions(work)


def test_the_old_way_of_reading_understands_the_new_way_of_writing() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        await line(near).write(b"a vote")
        assert await far.read(6) == b"a vote"

    on_sessions(work)


def test_a_write_into_a_full_socket_is_finished_though_its_task_is_cancelled() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        writing, reading = line(near), line(far)
        said = bytes(8 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writing.write, said)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await reading.fill(len(said))
        assert reading.take(len(said)) == said

    on_sessions(work)


def test_what_found_no_room_goes_before_what_is_written_next() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        writing, reading = line(near), line(far)
        large = bytes(8 << 20)
        writing.write_now(large)
        assert writing.unsent
        writing.write_now(b"second")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writing.write, b"third")
            await reading.fill(len(large) + 11)
        assert reading.take(len(large)) == large
        assert reading.take(11) == b"secondthird"
        assert not writing.unsent

    on_sessions(work)


def test_a_connection_that_ends_raises_at_both_ends() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        writing, reading = line(near), line(far)
        await near.close()
        with pytest.raises(ConnectionClosedError, match="hung up"):
            await reading.fill(1)
        with pytest.raises(ConnectionClosedError, match="cannot be written"):
            await writing.write(b"late")

    on_sessions(work)


def test_a_frame_that_breaks_the_cipher_ends_the_connection() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        tcp, reading = tcp_under(near), line(far)
        assert tcp is not None
        await tcp.send_all(b"\x00\x20" + bytes(32))
        with pytest.raises(Exception, match="authentication"):
            await reading.fill(1)

    on_sessions(work)


def test_a_listener_hears_what_comes_until_something_is_to_be_read_or_the_peer_needs_credit() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        patches.apply()
        ends = [patches.Muxer(near, ID(b"far"), is_initiator=True), patches.Muxer(far, ID(b"near"), is_initiator=False)]
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.start)
                await end.event_started.wait()
            ours = await ends[0].open_stream()
            await ours.write(b"open")
            theirs = cast(yamux.YamuxStream, await ends[1].accept_stream())
            assert await theirs.read(4) == b"open"
            heard: list[bytes] = []

            def listen(body: bytes) -> bool:
                heard.append(body)
                return body != b"left"

            ends[1].listeners[theirs.stream_id] = listen
            for body in (b"one", b"two", b"left", b"behind it"):
                await ours.write(body)
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert heard == [b"one", b"two", b"left"]
            assert await theirs.read() == b"leftbehind it"
            half = bytes(yamux.DEFAULT_WINDOW_SIZE // 2)
            await ours.write(half)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert heard == [b"one", b"two", b"left"]
            assert await theirs.read() == half
            for end in ends:
                await end.close()

    on_sessions(work)


def test_a_muxer_hands_plain_frames_over_and_does_as_before_with_others() -> None:
    async def work(near: ISecureConn, far: ISecureConn) -> None:
        patches.apply()
        ends = [patches.Muxer(near, ID(b"far"), is_initiator=True), patches.Muxer(far, ID(b"near"), is_initiator=False)]
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(end.start)
                await end.event_started.wait()
            ours = await ends[0].open_stream()
            await ours.write(b"plain, behind one that opens the stream")
            theirs = await ends[1].accept_stream()
            assert await theirs.read(5) == b"plain"
            assert await theirs.read() == b", behind one that opens the stream"
            heard = 0
            nursery.start_soon(ours.write, bytes(4 * yamux.DEFAULT_WINDOW_SIZE))  # more than fits without credit
            while heard < 4 * yamux.DEFAULT_WINDOW_SIZE:
                heard += len(await theirs.read(1 << 20))
            await ours.close()
            with pytest.raises(MuxedStreamEOF):
                await theirs.read(1)
            for end in ends:
                await end.close()

    on_sessions(work)
