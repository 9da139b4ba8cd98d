"""Messages over a byte stream: a length of four bytes, big-endian, then the message. Knows nothing of jobs."""

from __future__ import annotations

import socket
from typing import Any, TypeVar

from potd.wire.codec import Malformed, decode, encode
from potd.wire.jobs import FRAME_BYTES_MAX

M = TypeVar("M")

LENGTH_BYTES = 4


def framed(value: Any) -> bytes:
    """One message as a frame. Raises Malformed if it breaks a limit."""
    body = encode(value)
    if len(body) > FRAME_BYTES_MAX:
        raise Malformed(f"a frame of {len(body)} bytes, at most {FRAME_BYTES_MAX}")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def frame_length(header: bytes) -> int:
    """How many bytes follow this length. Raises Malformed for a frame that is empty or too long."""
    assert len(header) == LENGTH_BYTES
    length = int.from_bytes(header, "big")
    if not 1 <= length <= FRAME_BYTES_MAX:
        raise Malformed(f"a frame of {length} bytes, not 1..{FRAME_BYTES_MAX}")
    return length


def write_frame(connection: socket.socket, value: Any) -> None:
    """Send one message over a blocking socket. Raises OSError if the other end is gone."""
    connection.sendall(framed(value))


def read_frame(connection: socket.socket, *expected: type[M]) -> M | None:
    """The next message from a blocking socket, or None if the other end closed between two frames.

    Raises Malformed for anything but a whole frame with one of the `expected` messages."""
    header = _read(connection, LENGTH_BYTES)
    if not header:
        return None
    if len(header) < LENGTH_BYTES:
        raise Malformed("closed inside a frame's length")
    length = frame_length(header)
    body = _read(connection, length)
    if len(body) < length:
        raise Malformed(f"closed after {len(body)} of a frame's {length} bytes")
    return decode(body, *expected)


def _read(connection: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the other end closes."""
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 20))
        if not piece:
            break
        data += piece
    return bytes(data)
