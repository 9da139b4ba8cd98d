"""The first words on a connection."""

import asyncio
from typing import TYPE_CHECKING

from potd.runtime.network import Mismatched

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_both_sides_are_told_why_a_hello_was_refused_and_the_dialer_backs_off(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob") as (alice, bob):
            alice.witness.refusal = "your genesis is 0badcafe, ours is c0ffee"
            bob.network.dial(alice.network.addresses)
            await bob.witness.until(lambda heard: bool(heard.all(Mismatched)))
            told = bob.witness.all(Mismatched)[0]
            assert told.reason == "it refuses us: your genesis is 0badcafe, ours is c0ffee"
            await alice.witness.until(lambda heard: bool(heard.all(Mismatched)))
            assert alice.witness.all(Mismatched)[0].reason == "your genesis is 0badcafe, ours is c0ffee"
            await asyncio.sleep(1)
            assert (alice.up(), bob.up()) == ([], [])
            assert bob.network.counters()["dials"] <= 6
            alice.witness.refusal = None
            await bob.until_up(alice)

    nodes.run(run())
