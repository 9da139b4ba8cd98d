"""Peers that stand still."""

import asyncio
import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

from potd.runtime.network import PeerDown, PeerUp

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


CHILD = """
import asyncio, hashlib, sys, uvloop
from potd.gossip.admit import Screening
from potd.runtime.libp2p import Libp2pNetwork
from potd.runtime.network import NetworkConfig

class Callbacks:
    def heard(self, event): print(type(event).__name__, flush=True)
    def screen(self, topic, data): return Screening.ACCEPT
    def hello(self): return b"hello from a child"
    def admit(self, peer, hello): return None
    async def answer(self, peer, kind, question): return question

async def main():
    network = Libp2pNetwork(hashlib.sha256(b"bob").digest(), network="c0ffee", topics=(), kinds=("blob",),
        callbacks=Callbacks(), config=NetworkConfig(listen=("/ip4/127.0.0.1/tcp/0",)))
    async with network:
        network.dial(sys.argv[1:])
        await asyncio.Event().wait()

uvloop.run(main())
"""


def test_a_peer_that_stands_still_is_let_go_and_may_start_again(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", ping_every_s=0.5, ping_patience_s=1.5) as (alice,):
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, *alice.network.addresses)
            try:
                await alice.witness.until(lambda heard: bool(heard.all(PeerUp)), 20)
                bob = alice.up()[0]
                child.send_signal(signal.SIGSTOP)
                # Another process with the same key: it is told from the old one at once, not by its silence.
                async with nodes.started("bob") as (again,):
                    assert again.key == bob
                    again.network.dial(alice.network.addresses)
                    await again.until_up(alice)
                    await alice.witness.until(lambda heard: len(heard.all(PeerUp)) == 2)
                    assert alice.witness.all(PeerDown) == [PeerDown(bob, "it started again")]
                    alice.network.send(bob, b"welcome back")
                    assert await again.until_frames(1) == [b"welcome back"]
                await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 2)
                child.send_signal(signal.SIGCONT)
                await alice.witness.until(lambda heard: len(heard.all(PeerUp)) == 3)
                child.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 3, 15)
                assert alice.witness.all(PeerDown)[-1].reason == "no answer to pings"
                assert time.monotonic() - began < 6
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    nodes.run(run())
