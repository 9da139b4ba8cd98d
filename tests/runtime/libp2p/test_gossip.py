"""Messages on topics."""

from typing import TYPE_CHECKING

from potd.runtime.network import Allowance, Allowances, Gossiped

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_gossip_travels_over_a_third_node_and_names_its_origin(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", "carol", peers_target=0) as (alice, bob, carol):
            alice.network.dial(bob.network.addresses)
            carol.network.dial(bob.network.addresses)
            await bob.until_up(alice, carol)
            await bob.until_subscribed(2)
            await alice.until_subscribed(1)
            bob.witness.screened.add(b"rubbish")
            alice.network.publish(nodes.topic, b"rubbish")
            await bob.until_counted("refused gossip: screened")
            alice.network.publish(nodes.topic, b"news")
            assert await carol.until_gossip(1) == [b"news"]
            assert carol.witness.all(Gossiped) == [Gossiped(nodes.topic, alice.key, b"news")]
            assert alice.gossip() == []

    nodes.run(run())


def test_a_burst_of_gossip_arrives_completely(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            await alice.until_subscribed(1)
            for n in range(500):
                alice.network.publish(nodes.topic, b"%03d" % n)
            assert sorted(await bob.until_gossip(500)) == [b"%03d" % n for n in range(500)]

    nodes.run(run())


def test_gossip_is_heard_after_a_quick_restart(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            for n in range(2):
                async with nodes.started("bob") as (bob,):
                    bob.network.dial(alice.network.addresses)
                    await bob.until_subscribed(1)
                    bob.network.publish(nodes.topic, b"again")
                    assert await alice.until_gossip(n + 1) == [b"again"] * (n + 1)

    nodes.run(run())


def test_gossip_beyond_a_forwarders_allowance_is_dropped_and_counted(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(allowances=Allowances(gossip=Allowance(rate=1, burst=10))) as (alice, bob):
            await alice.until_subscribed(1)
            for n in range(100):
                alice.network.publish(nodes.topic, bytes([n]))
            await bob.until_counted("refused gossip: over its allowance", 80)
            assert 10 <= len(bob.gossip()) <= 20
            assert next(peer for peer in bob.network.peers() if peer.key == alice.key).refused >= 80

    nodes.run(run())
