"""Opening, reading and writing one stream. Knows nothing of what is said on it."""

import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any, cast

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.protocol_muxer.multiselect import MULTISELECT_PROTOCOL_ID
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.utils import encode_delim

from potd.runtime.libp2p import patches
from potd.runtime.network import REASON_BYTES_MAX, Unreachable

WRITE_BYTES = patches.FRAME_BYTES - 12  # what one Yamux frame carries
LENGTH = struct.Struct("!I")

# What a stream or connection raises when the other side, or the way there, fails.
BROKEN = (BaseLibp2pError, trio.BrokenResourceError, trio.ClosedResourceError, OSError, EOFError)


class Nonsense(Exception):
    """A peer's bytes are wrong. The message is a short fixed sentence, because it is counted by it."""


class NotSpoken(Exception):
    """The peer says that it does not speak a protocol."""


class Reader:
    """Exact reads from a stream."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """How many bytes are here that nobody has taken yet."""
        return len(self._buffer)

    async def begin(self) -> None:
        """Wait for the first byte, however long."""
        if not self._buffer:
            await self._fill(patches.READ_BYTES)

    async def exactly(self, count: int) -> bytes:
        """That many bytes. Memory grows with what has arrived, not with what was announced."""
        while len(self._buffer) < count:
            await self._fill(max(count - len(self._buffer), patches.READ_BYTES))
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken

    def framed_already(self, bytes_max: int) -> bytes | None:
        """One length-prefixed frame if it is here whole. Raises Nonsense as `framed` does."""
        if len(self._buffer) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._buffer)
        if size > bytes_max:
            raise Nonsense("too long")
        end = LENGTH.size + size
        if len(self._buffer) < end:
            return None
        taken = bytes(memoryview(self._buffer)[LENGTH.size : end])
        del self._buffer[:end]
        return taken

    async def framed(self, bytes_max: int) -> bytes:
        """One length-prefixed frame. Raises Nonsense on a length above `bytes_max`."""
        return await self.exactly(await self.length(bytes_max))

    async def length(self, bytes_max: int) -> int:
        """The length before a frame. Raises Nonsense on one above `bytes_max`."""
        (size,) = LENGTH.unpack(await self.exactly(LENGTH.size))
        if size > bytes_max:
            raise Nonsense("too long")
        return int(size)

    async def _fill(self, count: int) -> None:
        piece = await self._stream.read(count)
        if not piece:
            raise EOFError("stream ended")
        self._buffer += piece


def framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def unframed(data: bytes, bytes_max: int) -> list[bytes] | None:
    """The length-prefixed frames that this consists of; None if there is more to it, or one is longer than that."""
    found = []
    at = 0
    while at + LENGTH.size <= len(data):
        (size,) = LENGTH.unpack_from(data, at)
        begin = at + LENGTH.size
        at = begin + size
        if size > bytes_max:
            return None
        found.append(data[begin:at])
    return found if at == len(data) else None


@contextlib.asynccontextmanager
async def kept(stream: INetStream) -> AsyncIterator[None]:
    """Reset the stream if the block fails or is cancelled; half-spoken streams are good for nothing."""
    try:
        yield
    except BaseException:
        await patches.reset(stream)
        raise


async def write(stream: INetStream, head: bytes, body: bytes) -> None:
    """Write both, in pieces that fill a Yamux frame.

    A large body is not copied as a whole, because many peers may get the same one at once.
    """
    first = WRITE_BYTES - len(head)
    await stream.write(head + body[:first])
    for start in range(first, len(body), WRITE_BYTES):
        await stream.write(body[start : start + WRITE_BYTES])


async def open_stream(conn: SwarmConn, protocol: TProtocol, patience_s: float) -> patches.Stream:
    """A new stream on this connection. Raises NotSpoken, or what BROKEN names.

    Says at once what 0.8.1 says in two turns, and tells "no" from silence, which it does not.
    """
    stream = cast(patches.Stream, await conn.new_stream())
    async with kept(stream):
        talk = MultiselectCommunicator(stream)
        try:
            with trio.fail_after(patience_s):
                await stream.write(encode_delim(MULTISELECT_PROTOCOL_ID.encode()) + encode_delim(protocol.encode()))
                greeting, choice = await talk.read(), await talk.read()
        except trio.TooSlowError:
            raise Unreachable("no answer to a new stream") from None
        if greeting != MULTISELECT_PROTOCOL_ID or choice != protocol:
            raise NotSpoken(protocol)
        stream.set_protocol(protocol)
    return stream


def connection_of(stream: INetStream) -> SwarmConn:
    return cast(SwarmConn, cast(Any, stream).swarm_conn)


def sentence(reason: str) -> bytes:
    """A reason as it is sent."""
    return reason.encode()[:REASON_BYTES_MAX]


def readable(reason: bytes) -> str:
    """A peer's sentence, fit for a log."""
    text = reason.decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() else "?" for sign in text)
