"""Frames that wait."""

import time

from potd.runtime.libp2p.outbox import Outbox
from potd.runtime.libp2p.peers import Peers
from potd.runtime.network import FRAME_BYTES_MAX, NetworkConfig

KEY = bytes(32)


def test_an_outbox_holds_a_few_of_the_largest_frames_and_the_oldest_give_way() -> None:
    box = Outbox(NetworkConfig())
    frames = [bytes([n]) * FRAME_BYTES_MAX for n in range(5)]
    for frame in frames:
        box.put(frame, 0.0)
    assert box.dropped == 1
    assert [box.take(1) for _ in range(5)] == [[frame] for frame in frames[1:]] + [[]]


def test_the_outbox_of_an_absent_peer_is_forgotten_with_its_last_frame() -> None:
    peers = Peers(NetworkConfig())
    for n in range(1_000):
        peers.outbox(n.to_bytes(32))
    peers.put(KEY, b"frame")
    peers.expire(time.monotonic() - 10)
    assert list(peers.outboxes) == [KEY]
    peers.expire(time.monotonic() + 1)
    assert peers.outboxes == {}
    assert peers.counters() == {"frames dropped": 1}
