"""The network as the daemon sees it."""

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from potd.runtime.libp2p.addresses import id_of
from potd.runtime.network import Network, Unreachable

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_the_host_is_a_network(nodes: "Nodes") -> None:
    network: Network = nodes.new("alice").network
    assert network.addresses == ()


def test_stopping_is_quick_and_leaves_no_thread(nodes: "Nodes") -> None:
    async def run() -> None:
        before = {thread.name for thread in threading.enumerate()}
        async with nodes.started("alice", "bob", "carol") as (alice, bob, carol):
            bob.network.dial(alice.network.addresses)
            carol.network.dial(alice.network.addresses)
            await alice.until_up(bob, carol)
            asking = asyncio.create_task(bob.ask(alice, b"bytes 50000000", bytes_max=1 << 26))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await alice.network.__aexit__(None, None, None)
            assert time.monotonic() - began < 2
            with pytest.raises(Unreachable):
                await asking
            with pytest.raises(Unreachable, match="stopped"):
                await alice.ask(bob, b"abc")
        async with asyncio.timeout(5):
            while {thread.name for thread in threading.enumerate()} - before:
                await asyncio.sleep(0.01)

    nodes.run(run())


def test_orders_that_come_while_it_stops_are_passed_over(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            place = bob.network.addresses
            stopping = asyncio.create_task(alice.network.__aexit__(None, None, None))
            while not stopping.done():
                alice.network.dial(place)
                alice.network.drop(bob.key, "a test")
                alice.network.send(bob.key, b"too late")
                await asyncio.sleep(0)
            await stopping

    nodes.run(run())


def test_peers_are_described(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(ping_every_s=0.1) as (alice, bob):
            bob.network.send(alice.key, b"12345")
            await alice.until_frames(1)
            async with asyncio.timeout(5):
                while alice.network.peers()[0].rtt_ms is None:
                    await asyncio.sleep(0.01)
            (seen,) = alice.network.peers()
            assert (seen.key, seen.direction, seen.frames_in, seen.bytes_in, seen.guest) == (bob.key, "in", 1, 9, False)
            (seen,) = bob.network.peers()
            assert (seen.key, seen.direction, seen.frames_out, seen.bytes_out) == (alice.key, "out", 1, 9)
            assert f"{seen.address}/p2p/{id_of(seen.key)}" == alice.network.addresses[0]

    nodes.run(run())
