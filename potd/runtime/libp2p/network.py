"""The asyncio side: what the daemon holds of the network. Knows no protocol."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import trio

from potd.runtime.libp2p.addresses import parse_address
from potd.runtime.libp2p.ask import ANSWERED, FAILED, REFUSED
from potd.runtime.libp2p.crossing import Crossing
from potd.runtime.libp2p.host import Host
from potd.runtime.libp2p.streams import sentence
from potd.runtime.network import (
    FRAME_BYTES_MAX,
    GOSSIP_BYTES_MAX,
    QUESTION_BYTES_MAX,
    Callbacks,
    NetworkConfig,
    NetworkEvent,
    NodeKey,
    PeerInfo,
    Refused,
    Unreachable,
)

log = logging.getLogger("potd.network")


class Libp2pNetwork:
    """A `Network` over libp2p: Noise and Yamux on TCP, GossipSub 1.1.

    `seed` is the Ed25519 seed of the node key, 32 bytes; `network` the hex prefix of the genesis digest that
    names our streams and topics; `topics` are heard, `fanout` only published on; on those that are `direct`, whom we
    seek hear each other without us; `kinds` are what peers may ask about.
    """

    def __init__(
        self,
        seed: bytes,
        *,
        network: str,
        topics: Sequence[str],
        kinds: Sequence[str],
        callbacks: Callbacks,
        fanout: Sequence[str] = (),
        direct: Sequence[str] = (),
        config: NetworkConfig | None = None,
    ) -> None:
        self._seed = seed
        self._names = (network, tuple(topics), tuple(fanout), tuple(direct), tuple(kinds))
        self._callbacks = callbacks
        self._config = config or NetworkConfig()
        self._addresses: tuple[str, ...] = ()
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._asking: set[asyncio.Future[bytes]] = set()
        self._stop: Callable[[], None] | None = None
        self._closing = False
        self._cancelled = False
        self._closed = False

    @property
    def key(self) -> NodeKey:
        return self._host.key

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._user = asyncio.current_task()
        self._crossing = Crossing(self._loop)
        network, topics, fanout, direct, kinds = self._names
        self._host = Host(
            self._seed, network, topics, fanout, direct, kinds, self._callbacks, self._config, self._crossing, self
        )
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._done: asyncio.Future[BaseException | None] = self._loop.create_future()
        threading.Thread(target=self._thread, name="libp2p", daemon=True).start()
        await self._ready
        return self

    def _thread(self) -> None:
        error: BaseException | None = None
        try:
            trio.run(self._host.run, self._on_ready, self._on_running, strict_exception_groups=True)
        except BaseException as caught:  # handed over to the thread that started us
            error = caught
        self._crossing.to_asyncio(self._on_done, error)

    def _on_running(self, stopping: trio.Event) -> None:
        self._stop = stopping.set

    def _on_ready(self, addresses: tuple[str, ...]) -> None:
        def tell() -> None:
            self._addresses = addresses
            if not self._ready.done():
                self._ready.set_result(None)

        self._crossing.to_asyncio(tell)

    def _on_done(self, error: BaseException | None) -> None:
        self._closed = True
        self._done.set_result(error)
        for answer in self._asking:
            if not answer.done():
                answer.set_exception(Unreachable("the network has stopped"))
        if not self._ready.done():
            self._ready.set_exception(error or RuntimeError("the network stopped before it started"))
        elif error is not None and self._user is not None and not self._closing:
            self._cancelled = True
            log.critical("the network failed: %r", error, exc_info=error)
            self._user.cancel("the network failed")  # as a task group does; __aexit__ says why

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if self._stop is not None:
            self._crossing.to_trio(self._stop)
        for task in self._answering.values():
            task.cancel()
        await asyncio.wait([self._done], timeout=5)
        if not self._done.done():
            raise RuntimeError("the network did not stop")
        failure = self._done.result()
        if failure is not None:
            if self._cancelled and self._user is not None:
                self._user.uncancel()
            raise RuntimeError("the network failed") from failure

    # --- for its user ---

    def send(self, peer: NodeKey, frame: bytes) -> None:
        assert len(frame) <= FRAME_BYTES_MAX, f"a frame of {len(frame)} bytes"
        box = self._host.peers.put(peer, frame)
        if box is not None:
            self._crossing.to_trio(box.awaken)

    def publish(self, topic: str, data: bytes) -> None:
        assert topic in self._names[1] + self._names[2], f"not a topic of ours: {topic!r}"
        assert len(data) <= GOSSIP_BYTES_MAX, f"gossip of {len(data)} bytes"
        self._crossing.to_trio(self._host.topics.publish, topic, data)

    async def ask(
        self, peer: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float
    ) -> bytes:
        assert len(question) <= QUESTION_BYTES_MAX, f"a question of {len(question)} bytes"
        if self._closed:
            raise Unreachable("the network has stopped")
        answer: asyncio.Future[bytes] = self._loop.create_future()
        scope = trio.CancelScope()
        self._asking.add(answer)
        try:
            self._crossing.to_trio(self._begin_ask, answer, scope, peer, kind, question, answer_bytes_max, patience_s)
            return await answer
        except asyncio.CancelledError:
            self._crossing.to_trio(scope.cancel)
            raise
        finally:
            self._asking.discard(answer)

    def dial(self, addresses: Sequence[str]) -> None:
        parsed = [parse_address(text) for text in addresses]
        if not self._closing:
            self._crossing.to_trio(self._host.dialler.dial, parsed)

    def seek(self, keys: Sequence[NodeKey]) -> None:
        """Connect to these, instead of those given before, once a peer tells where they are, however many are up."""
        if not self._closing:
            self._crossing.to_trio(self._host.seek, keys)

    def introduce(self, addresses: Sequence[str]) -> None:
        """Try these multiaddrs, as if a peer had told of them. Raises ValueError on a bad one."""
        parsed = [parse_address(text) for text in addresses]
        if not self._closing:
            self._crossing.to_trio(self._host.introduce, parsed)

    def known(self) -> tuple[str, ...]:
        """Where those who are up say that they can be dialled, ordered by key."""
        return self._host.peers.announced()

    def drop(self, peer: NodeKey, reason: str) -> None:
        if not self._closing:
            self._crossing.to_trio(self._host.drop, peer, reason)

    def peers(self) -> tuple[PeerInfo, ...]:
        return self._host.peers.described()

    def counters(self) -> Mapping[str, int]:
        return self._host.peers.counters()

    # --- for the host: on the asyncio thread ---

    def heard(self, event: NetworkEvent, size: int) -> None:
        self._host.backlog.taken(size)
        if not self._closed:
            self._callbacks.heard(event)

    def begin_answer(self, ticket: int, key: NodeKey, kind: str, question: bytes) -> None:
        self._answering[ticket] = self._loop.create_task(self._answer(ticket, key, kind, question))

    def end_answer(self, ticket: int) -> None:
        task = self._answering.get(ticket)
        if task is not None:
            task.cancel()

    async def _answer(self, ticket: int, key: NodeKey, kind: str, question: bytes) -> None:
        status, answer = FAILED, b"internal error"
        try:
            status, answer = ANSWERED, await self._callbacks.answer(key, kind, question)
        except Refused as refusal:
            status, answer = REFUSED, sentence(refusal.reason)
        except Exception:
            log.exception("answering a question about %s", kind)
        finally:
            del self._answering[ticket]
            self._crossing.to_trio(self._host.answerer.answered, ticket, status, answer)

    def _begin_ask(
        self,
        answer: asyncio.Future[bytes],
        scope: trio.CancelScope,
        peer: NodeKey,
        kind: str,
        question: bytes,
        answer_bytes_max: int,
        patience_s: float,
    ) -> None:
        """On the trio thread."""

        async def work() -> None:
            with scope:
                try:
                    heard = await self._host.asker.ask(
                        peer, kind, question, answer_bytes_max=answer_bytes_max, patience_s=patience_s
                    )
                except (Refused, Unreachable) as error:
                    self._crossing.to_asyncio(_settle, answer, error)
                else:
                    self._crossing.to_asyncio(_settle, answer, heard)

        try:
            self._host.start(work)
        except RuntimeError:  # it is closing
            self._crossing.to_asyncio(_settle, answer, Unreachable("the network has stopped"))


def _settle(answer: "asyncio.Future[bytes]", outcome: bytes | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, bytes):
        answer.set_result(outcome)
    else:
        answer.set_exception(outcome)
