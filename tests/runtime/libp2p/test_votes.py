"""Frames on the votes stream."""

import asyncio
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from potd.runtime.libp2p import streams
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


def test_a_frame_that_comes_alone_takes_no_task_its_turn(nodes: "Nodes", monkeypatch: pytest.MonkeyPatch) -> None:
    turns: Counter[str] = Counter()
    taken, written = streams.Reader.framed_already, streams.write

    def take(reader: streams.Reader, bytes_max: int) -> bytes | None:
        turns["reader"] += 1
        return taken(reader, bytes_max)

    async def write(*given: Any) -> None:
        turns["writer"] += 1
        await written(*given)

    monkeypatch.setattr(streams.Reader, "framed_already", take)
    monkeypatch.setattr("potd.runtime.libp2p.votes.write", write)

    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            alice.network.send(bob.key, b"opens the stream")
            await bob.until_frames(1)
            box = alice.network._host.peers.outbox(bob.key)
            async with asyncio.timeout(10):
                while box.writes is None or not turns["reader"]:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # its reader has nothing left
            turns.clear()
            for number in range(20):
                alice.network.send(bob.key, bytes([number]))
                assert (await bob.until_frames(2 + number))[-1] == bytes([number])
            assert not turns

    nodes.run(run())


def test_frames_are_whole_though_the_socket_takes_a_few_bytes_at_once(
    nodes: "Nodes", monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write

    def write(file: int, data: bytes) -> int:
        return whole(file, data[:7])

    async def run() -> None:
        async with nodes.pair(ping_every_s=1000.0) as (alice, bob):  # nothing else is written that takes the rest along
            monkeypatch.setattr(os, "write", write)
            for number in range(20):
                alice.network.send(bob.key, bytes([number]) * 100 * number)
                assert (await bob.until_frames(1 + number))[-1] == bytes([number]) * 100 * number
            monkeypatch.undo()

    nodes.run(run())


def test_who_has_sent_too_much_is_heard_no_quicker_for_sending_frames_alone(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(allowances=Allowances(frames=Allowance(rate=50, burst=10))) as (alice, bob):
            began = time.monotonic()
            for number in range(40):
                alice.network.send(bob.key, bytes([number]))
                await bob.until_frames(1 + number)
            assert time.monotonic() - began > 0.5

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
