"""Frames on the votes stream."""

import time
from typing import TYPE_CHECKING

from potd.runtime.network import FRAME_BYTES_MAX, Allowance, Allowances, Framed

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_frames_arrive_whole_and_in_order(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            frames = [bytes([n]) * (n * 997) for n in range(200)] + [bytes(FRAME_BYTES_MAX)]
            for frame in frames:
                alice.network.send(bob.key, frame)
                bob.network.send(alice.key, frame)
            assert await bob.until_frames(len(frames)) == frames
            assert await alice.until_frames(len(frames)) == frames
            assert {event.peer for event in bob.witness.all(Framed)} == {alice.key}

    nodes.run(run())


def test_a_large_frame_may_take_its_time(nodes: "Nodes") -> None:
    async def run() -> None:
        # Slowed down by its sender's votes, it is here after more than the patience for a small one.
        async with nodes.pair(unfinished_s=0.05) as (alice, bob):
            frames = [bytes([n]) * FRAME_BYTES_MAX for n in range(4)]
            for frame in frames:
                alice.network.send(bob.key, frame)
            assert await bob.until_frames(4) == frames
            assert "refused votes: frame never finished" not in bob.network.counters()

    nodes.run(run())


def test_frames_for_an_absent_peer_wait_and_the_oldest_give_way(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", outbox_frames_max=10) as (alice, bob):
            frames = [bytes([n]) for n in range(25)]
            for frame in frames:
                alice.network.send(bob.key, frame)
            alice.network.dial(bob.network.addresses)
            assert await bob.until_frames(10) == frames[15:]
            assert alice.network.counters()["frames dropped"] == 15

    nodes.run(run())


def test_frames_for_a_peer_that_stays_away_are_dropped_when_old(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", away_s=0.2) as (alice, bob):
            alice.network.send(bob.key, b"stale")
            await alice.until_counted("frames dropped", 1)
            alice.network.send(bob.key, b"fresh")
            alice.network.dial(bob.network.addresses)
            assert await bob.until_frames(1) == [b"fresh"]

    nodes.run(run())


def test_a_peer_that_sends_too_much_is_slowed_down_and_loses_nothing(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(allowances=Allowances(frames=Allowance(rate=100, burst=20))) as (alice, bob):
            began = time.monotonic()
            for n in range(120):
                alice.network.send(bob.key, bytes([n]))
            assert await bob.until_frames(120) == [bytes([n]) for n in range(120)]
            assert time.monotonic() - began > 0.8
            assert bob.network.counters()["inputs delayed"] > 0

    nodes.run(run())
