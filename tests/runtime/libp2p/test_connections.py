"""Connections and their limits."""

import asyncio
import functools
from typing import TYPE_CHECKING

from potd.runtime.libp2p.addresses import parse_address
from potd.runtime.network import PeerDown

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_two_connections_between_two_peers_are_one_peer_and_either_may_break(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob") as (alice, bob):
            alice.network.dial(bob.network.addresses)
            bob.network.dial(alice.network.addresses)
            await alice.until_up(bob)
            await bob.until_up(alice)
            # A second connection, whether or not the two dials met.
            host = bob.network._host
            place = parse_address(alice.network.addresses[0])
            connecting = asyncio.get_running_loop().create_future()

            async def connect() -> None:
                connecting.get_loop().call_soon_threadsafe(connecting.set_result, await host.dialler.connect(place))

            bob.network._crossing.to_trio(host.start, connect)
            assert await connecting
            assert alice.up() == [bob.key]
            assert len(host.peers.connected[alice.key].connections) >= 2
            while True:
                bob.network.send(alice.key, b"b%d" % len(bob.frames()))
                alice.network.send(bob.key, b"a%d" % len(bob.frames()))
                count = len(bob.frames()) + 1
                assert (await bob.until_frames(count))[-1] == b"a%d" % (count - 1)
                assert (await alice.until_frames(count))[-1] == b"b%d" % (count - 1)
                first, *rest = host.peers.connected[alice.key].connections
                if not rest:
                    break
                bob.network._crossing.to_trio(host.start, functools.partial(host.connections.hang_up, first, "a test"))
                async with asyncio.timeout(5):
                    while len(alice.network._host.peers.connected[bob.key].connections) > len(rest):
                        await asyncio.sleep(0.01)
            assert (alice.up(), bob.up()) == ([bob.key], [alice.key])

    nodes.run(run())


def test_a_dropped_peer_is_hung_up_on_and_kept_out(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            alice.network.drop(bob.key, "it lies")
            await alice.witness.until(lambda heard: bool(heard.all(PeerDown)))
            assert alice.witness.all(PeerDown) == [PeerDown(bob.key, "dropped: it lies")]
            await alice.until_counted("refused connection: dropped a moment ago")
            assert alice.up() == []

    nodes.run(run())


def test_connections_beyond_the_limit_are_refused(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", connections_max=2) as (alice,), nodes.started("b", "c", "d") as others:
            for node in others:
                node.network.dial(alice.network.addresses)
            await alice.until_counted("refused connection: too many connections")
            await alice.witness.until(lambda _: len(alice.up()) == 2)
            assert len(alice.network._host.swarm.get_connections()) == 2

    nodes.run(run())
