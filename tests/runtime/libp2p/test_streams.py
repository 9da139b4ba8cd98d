"""Reading and writing one stream."""

import tracemalloc
from typing import Any

import pytest
import trio

from potd.runtime.libp2p.streams import LENGTH, WRITE_BYTES, Nonsense, Reader, framed, unframed, write
from potd.runtime.network import FRAME_BYTES_MAX


class Wire:
    """The other end of a stream: says these pieces, then nothing more."""

    def __init__(self, *said: bytes) -> None:
        self._said = list(said)
        self.written: list[bytes] = []

    async def read(self, n: int) -> bytes:
        if not self._said:
            await trio.sleep_forever()
        return self._said.pop(0)

    async def write(self, data: bytes) -> None:
        self.written.append(data)


def test_a_length_alone_takes_no_memory() -> None:
    async def run() -> None:
        wire: Any = Wire(LENGTH.pack(FRAME_BYTES_MAX), bytes(10_000))
        reader = Reader(wire)
        with trio.move_on_after(0.05):
            await reader.framed(FRAME_BYTES_MAX)
        assert reader.held == 10_000

    tracemalloc.start()
    try:
        trio.run(run)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_large_frame_that_was_taken_leaves_nothing_behind() -> None:
    async def run() -> None:
        pieces = [bytes([n]) * (1 << 20) for n in range(8)]
        wire: Any = Wire(LENGTH.pack(FRAME_BYTES_MAX), *pieces, b"next")
        reader = Reader(wire)
        assert await reader.framed(FRAME_BYTES_MAX) == b"".join(pieces)
        assert await reader.exactly(4) == b"next"
        assert reader._buffer.__sizeof__() < 1 << 16

    trio.run(run)


def test_a_frame_that_is_too_long_is_refused_by_its_length() -> None:
    async def run() -> None:
        wire: Any = Wire(LENGTH.pack(11))
        with pytest.raises(Nonsense, match="too long"):
            await Reader(wire).framed(10)

    trio.run(run)


@pytest.mark.parametrize("size", [0, 1, WRITE_BYTES - 4, WRITE_BYTES - 3, 2 * WRITE_BYTES, FRAME_BYTES_MAX])
def test_what_is_written_is_whole_and_in_pieces_that_fit(size: int) -> None:
    async def run() -> None:
        wire: Any = Wire()
        body = bytes(range(256)) * (size // 256 + 1)
        await write(wire, b"head", body[:size])
        assert b"".join(wire.written) == b"head" + body[:size]
        assert max(map(len, wire.written)) <= WRITE_BYTES

    trio.run(run)


def test_frames_are_taken_apart_if_they_are_whole_and_none_too_long() -> None:
    frames = [b"one", b"", b"three"]
    data = b"".join(map(framed, frames))
    assert unframed(data, 5) == frames
    assert unframed(data, 4) is None
    assert unframed(b"", 5) == []
    assert all(unframed(data[:end], 5) is None for end in range(len(data)) if end not in (0, 7, 11))
