"""Connections are made, and made again."""

from typing import TYPE_CHECKING

from potd.runtime.libp2p.addresses import parse_address
from potd.runtime.network import PeerDown, PeerUp

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_a_peer_that_restarts_is_found_again_more_often_than_any_limit(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", connections_max=6) as (alice,):
            for n in range(12):
                async with nodes.started("bob") as (bob,):
                    bob.network.dial(alice.network.addresses)
                    await bob.until_up(alice)
                    assert await bob.ask(alice, b"abc") == b"cba"
                await alice.witness.until(lambda heard, n=n: len(heard.all(PeerDown)) == n + 1)  # type: ignore[misc]  # n is bound now
            assert len(alice.witness.all(PeerUp)) == 12

    nodes.run(run())


def test_the_dialer_reconnects_when_the_peer_comes_back(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            async with nodes.started("bob") as (bob,):
                place = bob.network.addresses
                alice.network.dial(place)
                await alice.until_up(bob)
            await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 1)
            port = parse_address(place[0]).text
            async with nodes.started("bob", listen=(port,)) as (bob,):
                await alice.until_up(bob)
                assert await alice.ask(bob, b"abc") == b"cba"

    nodes.run(run())
