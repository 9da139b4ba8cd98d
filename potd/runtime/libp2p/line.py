"""The bytes of one connection: read in large pieces, written at once where there is room. Knows nothing of streams.

libp2p 0.8.1 reads the length and the body of each Noise message by themselves, and takes every read and write through
seven coroutines and two locks, each of which is a turn of the scheduler even when nobody else holds it.
"""

import os
from typing import Any

import trio
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession

READ_BYTES = 64 << 10
LENGTH_BYTES = 2  # of a Noise message, before it
SHARE_BYTES = 16 << 10  # whoever writes more at once lets others have their turn


def tcp_under(session: ISecureConn) -> trio.SocketStream | None:
    """The TCP stream that a Noise session runs on, if that is what this is."""
    if not isinstance(session, SecureSession) or not isinstance(session.conn, NoiseTransportReadWriter):
        return None
    raw = session.conn.read_writer.read_write_closer
    if not isinstance(raw, RawConnection) or not isinstance(raw.stream, TrioTCPStream):
        return None
    return raw.stream.stream


class Line:
    """What a muxer reads from and writes to, in place of its session. One task reads; writes come one at a time."""

    def __init__(self, session: SecureSession, tcp: trio.SocketStream) -> None:
        assert isinstance(session.conn, NoiseTransportReadWriter), "a session without Noise"
        self._session = session
        self._noise = session.conn
        self._tcp = tcp
        self._sealed = b""  # the beginning of a Noise message
        self.unsent = b""  # of what was written: the socket was full
        self.opened = bytearray(session._drain(None))  # deciphered, and not yet taken

    async def fill(self, count: int) -> None:
        """Have so many bytes opened. Raises ConnectionClosedError, or what trio raises when we hang up ourselves."""
        while len(self.opened) < count:
            await trio.lowlevel.wait_readable(self._tcp.socket.fileno())
            try:
                piece = os.read(self._tcp.socket.fileno(), READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConnectionClosedError(f"cannot be read: {error}", transport="tcp") from error
            if not piece:
                raise ConnectionClosedError("the peer has hung up", transport="tcp")
            self._open(self._sealed + piece)

    def take(self, count: int) -> bytes:
        """The next opened bytes, which are there."""
        taken = bytes(memoryview(self.opened)[:count])
        del self.opened[:count]
        return taken

    def write_now(self, data: bytes) -> None:
        """Write what there is room for, and leave the rest to the next `write`. Raises ConnectionClosedError."""
        sealed = self.unsent + self._seal(data)
        try:
            sent = os.write(self._tcp.socket.fileno(), sealed)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectionClosedError(f"cannot be written: {error}", transport="tcp") from error
        self.unsent = sealed[sent:]

    async def write(self, data: bytes) -> None:
        """Write all of it, even when cancelled meanwhile. Raises ConnectionClosedError."""
        self.write_now(data)
        if self.unsent:
            with trio.CancelScope(shield=True):
                try:
                    await self._tcp.send_all(self.unsent)
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise ConnectionClosedError("closed while writing", transport="tcp") from error
            self.unsent = b""
        elif len(data) > SHARE_BYTES:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _open(self, sealed: bytes) -> None:
        at = 0
        while at + LENGTH_BYTES <= len(sealed):
            begin = at + LENGTH_BYTES
            end = begin + int.from_bytes(sealed[at:begin], "big")
            if end > len(sealed):
                break
            self.opened += self._noise.decrypt(sealed[begin:end])
            at = end
        self._sealed = sealed[at:]

    def _seal(self, data: bytes) -> bytes:
        pieces = []
        for start in range(0, len(data), MAX_PLAINTEXT_LENGTH):
            sealed = self._noise.encrypt(data[start : start + MAX_PLAINTEXT_LENGTH])
            pieces += [len(sealed).to_bytes(LENGTH_BYTES, "big"), sealed]
        return b"".join(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
