"""Claims about frames over a blocking socket."""

from __future__ import annotations

import socket
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.wire.codec import Malformed
from potd.wire.frames import frame_length, framed, read_frame, write_frame
from potd.wire.jobs import FRAME_BYTES_MAX, Failed, Ready


@given(st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=1000), max_size=5))
def test_messages_arrive_as_they_were_sent_and_in_order(reasons: list[str]) -> None:
    sent = [Failed(job, reason) for job, reason in enumerate(reasons)]
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for one in sent:
                write_frame(ours, one)
        assert [read_frame(theirs, Failed) for _ in sent] == sent
        assert read_frame(theirs, Failed) is None


def test_a_message_arrives_however_it_is_cut() -> None:
    sent = Ready("arithmetic", "cpu", "2", bytes(32))
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def trickle() -> None:
            for byte in framed(sent):
                ours.sendall(bytes([byte]))

        sender = Thread(target=trickle)
        sender.start()
        assert read_frame(theirs, Ready) == sent
        sender.join()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x00", "closed inside a frame's length"),
        (bytes(4), "a frame of 0 bytes"),
        ((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), f"a frame of {FRAME_BYTES_MAX + 1} bytes"),
        (b"\x00\x00\x00\x09\x93", "closed after 1 of a frame's 9 bytes"),
        (b"\x00\x00\x00\x01\xc0", "not an array"),
        (framed(Ready("a", "b", "", bytes(32))), "tag 80 where Failed is expected"),
        (framed(Failed(1, "x"))[:-1] + b"\xff", "not msgpack"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(data)
        with pytest.raises(Malformed, match=reason):
            read_frame(theirs, Failed)


def test_a_frame_says_how_long_it_is() -> None:
    data = framed(Failed(1, "full disk"))
    assert frame_length(data[:4]) == len(data) - 4


def test_writing_to_nobody_is_an_error_of_the_world() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(OSError, match="Broken pipe"):
        write_frame(ours, Failed(1, "x"))
