"""Messages on topics."""

from typing import TYPE_CHECKING

from potd.gossip.admit import Screening
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
            bob.witness.screened = {b"rubbish": Screening.REJECT, b"old news": Screening.IGNORE}
            alice.network.publish(nodes.topic, b"old news")
            await bob.until_counted("gossip ignored")
            assert not [name for name in bob.network.counters() if name.startswith("refused")]
            alice.network.publish(nodes.topic, b"rubbish")
            await bob.until_counted(f"refused gossip: rejected from {nodes.topic}")
            alice.network.publish(nodes.topic, b"news")
            assert await carol.until_gossip(1) == [b"news"]
            assert carol.witness.all(Gossiped) == [Gossiped(nodes.topic, alice.key, b"news")]
            assert alice.gossip() == []

    nodes.run(run())


def test_a_direct_topic_is_not_passed_on_within_our_circle_and_is_beyond_it(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", "carol", "dave", peers_target=0) as (alice, bob, carol, dave):
            alice.network.dial(bob.network.addresses)
            for one in (carol, dave):
                one.network.dial(bob.network.addresses)
            await bob.until_up(alice, carol, dave)
            await bob.until_subscribed(3)
            await alice.until_subscribed(1)
            bob.network.seek([alice.key, carol.key])
            for _ in range(2):  # which of the two listeners comes first is chance
                alice.network.publish(nodes.topic, b"within")
            assert await dave.until_gossip(2) == [b"within"] * 2
            bob.network.seek([carol.key])
            alice.network.publish(nodes.topic, b"from outside")
            assert await carol.until_gossip(1) == [b"from outside"]

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
            assert 10 <= len(await bob.until_gossip(10)) <= 20
            assert next(peer for peer in bob.network.peers() if peer.key == alice.key).refused >= 80

    nodes.run(run())


def test_what_is_said_on_another_network_is_not_heard(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob), nodes.new("eve", network="0badcafe") as eve:
            eve.network.dial(alice.network.addresses)
            await alice.until_up(eve)  # their hellos agree, as those of real nodes would not
            await alice.until_subscribed(1)
            alice.network.publish(nodes.topic, b"ours")
            eve.network.publish(nodes.topic, b"theirs")
            assert await bob.until_gossip(1) == [b"ours"]
            await eve.until_counted("gossip published")
            bob.network.publish(nodes.topic, b"also ours")
            assert await alice.until_gossip(1) == [b"also ours"]
            assert (eve.gossip(), alice.subscribers()) == ([], 1)

    nodes.run(run())


def test_a_topic_carries_the_networks_name_on_the_wire_only(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            await alice.until_subscribed(1)
            assert set(alice.network._host.topics.pubsub.peer_topics) == {"/potd/c0ffee/commitments/1"}
            alice.network.publish("commitments", b"news")
            await bob.until_gossip(1)
            assert bob.witness.all(Gossiped) == [Gossiped("commitments", alice.key, b"news")]
            assert bob.witness.topics == {"commitments"}

    nodes.run(run())
