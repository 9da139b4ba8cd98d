"""A network without sockets, for tests of what stands on the network: ends of one cable ask each other directly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from potd.runtime.network import NodeKey, PeerInfo, Refused, Unreachable

Answer = Callable[[NodeKey, str, bytes], Awaitable[bytes]]


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Cable:
    """Who is reachable, and how each answers."""

    def __init__(self) -> None:
        self.answers: dict[NodeKey, Answer] = {}
        self.asked: list[tuple[NodeKey, str]] = []  # whom, what kind
        self.concurrent: dict[NodeKey, int] = {}
        self.concurrent_max = 0

    def end(self, own: NodeKey) -> End:
        return End(self, own)


class End:
    """One node's network on the cable."""

    def __init__(self, cable: Cable, own: NodeKey) -> None:
        self._cable = cable
        self._own = own
        self.sent: list[tuple[NodeKey, bytes]] = []
        self.published: list[tuple[str, bytes]] = []
        self.dropped: list[tuple[NodeKey, str]] = []

    @property
    def key(self) -> NodeKey:
        return self._own

    @property
    def addresses(self) -> tuple[str, ...]:
        return ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def send(self, peer: NodeKey, frame: bytes) -> None:
        self.sent.append((peer, frame))

    def publish(self, topic: str, data: bytes) -> None:
        self.published.append((topic, data))

    async def ask(
        self, peer: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float
    ) -> bytes:
        cable = self._cable
        cable.asked.append((peer, kind))
        await asyncio.sleep(0)
        if peer not in cable.answers:
            raise Unreachable("not connected")
        cable.concurrent[peer] = cable.concurrent.get(peer, 0) + 1
        cable.concurrent_max = max(cable.concurrent_max, *cable.concurrent.values())
        try:
            async with asyncio.timeout(patience_s):
                answer = await cable.answers[peer](self._own, kind, question)
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        finally:
            cable.concurrent[peer] -= 1
        if len(answer) > answer_bytes_max:
            raise Refused(f"an answer of {len(answer)} bytes")
        return answer

    def dial(self, addresses: Sequence[str]) -> None:
        pass

    def drop(self, peer: NodeKey, reason: str) -> None:
        self.dropped.append((peer, reason))

    def peers(self) -> tuple[PeerInfo, ...]:
        others = sorted(one for one in self._cable.answers if one != self._own)
        return tuple(PeerInfo(one, "", "out", 0.0, None, 0, 0, 0, 0, 0, 0, False) for one in others)

    def counters(self) -> Mapping[str, int]:
        return {}
