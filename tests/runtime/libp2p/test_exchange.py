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
