"""A js-libp2p host meets a node: dial, identify, ping, gossip both ways. Run by scripts/interop.

Usage: python tests/interop/js.py FOLDER, where FOLDER holds peer.mjs and its installed modules.
"""

import asyncio
import sys

import uvloop

from potd.gossip.admit import Screening
from potd.runtime.libp2p import Libp2pNetwork
from potd.runtime.network import Gossiped, NetworkConfig, NetworkEvent, NodeKey

NETWORK = "c0ffee"
TOPIC = "commitments"
WIRE_TOPIC = f"/potd/{NETWORK}/{TOPIC}/1"
PATIENCE_S = 30


class Callbacks:
    def __init__(self) -> None:
        self.gossip: asyncio.Queue[bytes] = asyncio.Queue()

    def heard(self, event: NetworkEvent) -> None:
        if isinstance(event, Gossiped):
            self.gossip.put_nowait(event.data)

    def screen(self, topic: str, data: bytes) -> Screening:
        return Screening.ACCEPT

    def hello(self) -> bytes:
        return b"hello"

    def admit(self, peer: NodeKey, hello: bytes) -> str | None:
        return None

    async def answer(self, peer: NodeKey, kind: str, question: bytes) -> bytes:
        return question


async def main(folder: str) -> None:
    callbacks = Callbacks()
    network = Libp2pNetwork(
        bytes(range(32)),
        network=NETWORK,
        topics=(TOPIC,),
        kinds=("blob",),
        callbacks=callbacks,
        config=NetworkConfig(listen=("/ip4/127.0.0.1/tcp/0",), handshake_s=1.0, ping_every_s=1.0),
    )
    async with network:
        peer = await asyncio.create_subprocess_exec(
            "node", "peer.mjs", network.addresses[0], WIRE_TOPIC, cwd=folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert peer.stdin is not None
        assert peer.stdout is not None

        async def says(expected: str) -> None:
            assert peer.stdout is not None
            line = (await peer.stdout.readline()).decode().strip()
            print("js:", line, flush=True)
            assert line == expected, f"expected {expected!r}"

        try:
            async with asyncio.timeout(PATIENCE_S):
                await says("dialled /noise /yamux/1.0.0")
                await says("identified /meshsub/1.1.0 /potd/hello/1")
                await says("pinged")
                await says("joined")
                await says("published")
                assert await callbacks.gossip.get() == b"from js"
                print("node: heard from js", flush=True)
                network.publish(TOPIC, b"from the node")
                await says("heard signed from the node")
                while not network.peers():  # a guest is one when it has not said hello for a while
                    await asyncio.sleep(0.1)
                (guest,) = network.peers()
                assert guest.guest
                assert guest.rtt_ms is not None
                print(f"node: pinged js in {guest.rtt_ms:.1f} ms", flush=True)
                peer.stdin.close()
                assert await peer.wait() == 0
        finally:
            if peer.returncode is None:
                peer.kill()
                await peer.wait()
        refused = {name: count for name, count in network.counters().items() if name.startswith("refused")}
        assert refused == {}, refused
    print("a js-libp2p host and a node understand each other")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
