"""One hop between two hosts: a frame there and back over the votes streams of libp2p, halved.

python -m tests.bench.hop ADDRESS     the host that sends back what it hears, until its standard input ends
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from potd.gossip.admit import Screening
from potd.runtime.libp2p import Libp2pNetwork
from potd.runtime.network import Allowance, Allowances, Framed, NetworkConfig, NetworkEvent, PeerUp

FRAME_BYTES = 256  # about what a vote has
WARM_UP = 100


class _Host:
    """The callbacks of one host: hands on the frames that it hears."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Framed] = asyncio.Queue()
        self.up: asyncio.Queue[PeerUp] = asyncio.Queue()

    def heard(self, event: NetworkEvent) -> None:
        if isinstance(event, Framed):
            self.frames.put_nowait(event)
        elif isinstance(event, PeerUp):
            self.up.put_nowait(event)

    def screen(self, topic: str, data: bytes) -> Screening:
        return Screening.IGNORE

    def hello(self) -> bytes:
        return b"hop"

    def admit(self, peer: bytes, hello: bytes) -> str | None:
        return None

    async def answer(self, peer: bytes, kind: str, question: bytes) -> bytes:
        return b""


def _network(seed: bytes, host: _Host, listen: str) -> Libp2pNetwork:
    plenty = Allowance(10**6, 10**6)  # nobody is to wait for an allowance
    config = NetworkConfig(listen=(listen,), allowances=Allowances(frames=plenty))
    return Libp2pNetwork(seed, network="hop", topics=(), kinds=(), callbacks=host, config=config)


async def _echo() -> None:
    host = _Host()
    async with _network(b"e" * 32, host, "/ip4/127.0.0.1/tcp/0") as network, _closed_with_input() as closed:
        print(network.addresses[0], flush=True)

        async def send_back() -> None:
            while True:
                heard = await host.frames.get()
                network.send(heard.peer, heard.frame)

        sending = asyncio.create_task(send_back())
        await closed.wait()
        sending.cancel()


@contextlib.asynccontextmanager
async def _closed_with_input() -> AsyncIterator[asyncio.Event]:
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, closed.set)
    try:
        yield closed
    finally:
        loop.remove_reader(sys.stdin)


async def median_ms(times: int = 1000) -> float:
    """Half of the median time that a frame takes to another process and back."""
    echo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.hop", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert echo.stdin is not None and echo.stdout is not None
    try:
        address = (await echo.stdout.readline()).decode().strip()
        host = _Host()
        taken = []
        async with _network(b"p" * 32, host, "/ip4/127.0.0.1/tcp/0") as network:
            network.dial([address])
            peer = (await host.up.get()).peer
            for _ in range(WARM_UP + times):
                began = time.perf_counter()
                network.send(peer, bytes(FRAME_BYTES))
                await host.frames.get()
                taken.append(1000 * (time.perf_counter() - began))
        return statistics.median(taken[WARM_UP:]) / 2
    finally:
        echo.stdin.close()
        await echo.wait()


if __name__ == "__main__":
    uvloop.run(_echo())
