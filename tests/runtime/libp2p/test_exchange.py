"""Peers introduce each other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_bootstrap_peers_introduce_nodes_to_each_other(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("hub", "alice", "bob", "carol", peers_every_s=0.3) as (hub, *others):
            for node in others:
                node.network.dial(hub.network.addresses)
            for node in others:
                await node.until_up(*(other for other in others if other is not node))

    nodes.run(run())


def test_whom_we_seek_is_found_however_many_others_are_up(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("hub", "alice", "bob", "carol", peers_every_s=0.3, peers_target=1) as made:
            hub, alice, bob, carol = made
            for node in (alice, bob, carol):
                node.network.dial(hub.network.addresses)
                await node.until_up(hub)
            alice.network.seek([alice.key, hub.key, bob.key])
            await alice.until_up(hub, bob)
            assert carol.key not in alice.up()

    nodes.run(run())


def test_those_who_were_known_to_somebody_before_are_dialled_when_it_comes_again_as_another(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(peers_every_s=0.3) as (alice, bob):
            known = alice.network.known()
            assert known == bob.network.addresses
            async with nodes.new("alice under another key", peers_every_s=0.3) as again:
                again.network.introduce(known)
                await again.until_up(bob)

    nodes.run(run())
