"""Nodes of a small network on loopback, in one process, for the tests of the network layer."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import uvloop

from potd.gossip.admit import Screening
from potd.runtime.network import (
    Framed,
    Gossiped,
    NetworkConfig,
    NetworkEvent,
    NodeKey,
    PeerDown,
    PeerUp,
    Refused,
)

Event = TypeVar("Event")

NETWORK = "c0ffee"
TOPIC = "commitments"
WIRE_TOPIC = f"/potd/{NETWORK}/{TOPIC}/1"
QUICK = NetworkConfig(
    listen=("/ip4/127.0.0.1/tcp/0",),
    handshake_s=1.0,
    backoff_first_s=0.1,
    backoff_last_s=1.0,
    heartbeat_s=0.2,
)


class Witness:
    """The callbacks of one node: remembers what it heard, and answers as it is told to."""

    def __init__(self, name: str) -> None:
        self.events: list[NetworkEvent] = []
        self.greeting = f"hello from {name}".encode()
        self.refusal: str | None = None
        self.screened: dict[bytes, Screening] = {}
        self.answers: dict[bytes, Callable[[], Awaitable[bytes]]] = {}
        self.topics: set[str] = set()  # that we were asked to screen
        self._changed = asyncio.Event()

    def heard(self, event: NetworkEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def screen(self, topic: str, data: bytes) -> Screening:
        self.topics.add(topic)
        return self.screened.get(data, Screening.ACCEPT)

    def hello(self) -> bytes:
        return self.greeting

    def admit(self, peer: NodeKey, hello: bytes) -> str | None:
        return self.refusal if hello.startswith(b"hello from ") else "that is no greeting"

    async def answer(self, peer: NodeKey, kind: str, question: bytes) -> bytes:
        if question in self.answers:
            return await self.answers[question]()
        if question.startswith(b"refuse "):
            raise Refused(question[7:].decode())
        if question.startswith(b"bytes "):
            return bytes(int(question[6:]))
        return question[::-1]

    def all(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, claim: Callable[["Witness"], bool], patience_s: float = 10) -> None:
        async with asyncio.timeout(patience_s):
            while not claim(self):
                self._changed.clear()
                await self._changed.wait()


class Node:
    """One node: its network and the witness that it talks to."""

    def __init__(self, name: str, config: NetworkConfig, network: str) -> None:
        from potd.runtime.libp2p import Libp2pNetwork

        self.witness = Witness(name)
        self.network = Libp2pNetwork(
            hashlib.sha256(name.encode()).digest(),
            network=network,
            topics=(TOPIC,),
            direct=(TOPIC,),
            kinds=("blob", "block"),
            callbacks=self.witness,
            config=config,
        )

    async def __aenter__(self) -> "Node":
        await self.network.__aenter__()
        return self

    async def __aexit__(self, *given: Any) -> None:
        await self.network.__aexit__(*given)

    @property
    def key(self) -> NodeKey:
        return self.network.key

    def up(self) -> list[NodeKey]:
        """Who is up, as the events tell it, in that order."""
        there: list[NodeKey] = []
        for event in self.witness.events:
            if isinstance(event, PeerUp):
                there.append(event.peer)
            elif isinstance(event, PeerDown):
                there.remove(event.peer)
        return there

    def frames(self) -> list[bytes]:
        return [event.frame for event in self.witness.all(Framed)]

    def gossip(self) -> list[bytes]:
        return [event.data for event in self.witness.all(Gossiped)]

    async def ask(self, peer: "Node", question: bytes, *, bytes_max: int = 1 << 20, patience_s: float = 5) -> bytes:
        return await self.network.ask(peer.key, "blob", question, answer_bytes_max=bytes_max, patience_s=patience_s)

    async def until_up(self, *peers: "Node", patience_s: float = 10) -> None:
        await self.witness.until(lambda _: {peer.key for peer in peers} <= set(self.up()), patience_s)

    async def until_frames(self, count: int) -> list[bytes]:
        await self.witness.until(lambda _: len(self.frames()) >= count)
        return self.frames()

    async def until_gossip(self, count: int) -> list[bytes]:
        await self.witness.until(lambda _: len(self.gossip()) >= count)
        return self.gossip()

    async def until_counted(self, name: str, count: int = 1, patience_s: float = 10) -> None:
        """Counters are not events, so this one looks every now and then."""
        async with asyncio.timeout(patience_s):
            while self.network.counters().get(name, 0) < count:
                await asyncio.sleep(0.01)

    def subscribers(self) -> int:
        """How many peers we know to listen to the topic."""
        return len(self.network._host.topics.pubsub.peer_topics.get(WIRE_TOPIC, ()))

    async def until_subscribed(self, count: int) -> None:
        async with asyncio.timeout(10):
            while self.subscribers() < count:
                await asyncio.sleep(0.01)


class Nodes:
    """Makes nodes, runs tests on uvloop."""

    topic = TOPIC
    wire_topic = WIRE_TOPIC
    name = NETWORK

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        uvloop.run(asyncio.wait_for(test, 60))

    def new(self, name: str, *, network: str = NETWORK, **changes: Any) -> Node:
        return Node(name, replace(QUICK, **changes), network)

    @contextlib.asynccontextmanager
    async def started(self, *names: str, **changes: Any) -> AsyncIterator[list[Node]]:
        async with contextlib.AsyncExitStack() as stack:
            made = [self.new(name, **changes) for name in names]
            for node in made:
                await stack.enter_async_context(node)
            yield made

    @contextlib.asynccontextmanager
    async def pair(self, **changes: Any) -> AsyncIterator[tuple[Node, Node]]:
        """Two nodes that are up to each other; the second one dialled."""
        async with self.started("alice", "bob", **changes) as (alice, bob):
            bob.network.dial(alice.network.addresses)
            await alice.until_up(bob)
            await bob.until_up(alice)
            yield alice, bob


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()
