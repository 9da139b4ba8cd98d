"""Questions and answers: a few streams a kind and peer, kept open. Knows nothing of what is asked."""

import logging
import struct
from collections.abc import Awaitable, Callable, Sequence

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from potd.runtime.libp2p.addresses import id_of
from potd.runtime.libp2p.connections import Connections
from potd.runtime.libp2p.crossing import AsyncioSide, Crossing
from potd.runtime.libp2p.peers import Peer, Peers, QuestionStream
from potd.runtime.libp2p.streams import (
    BROKEN,
    LENGTH,
    Nonsense,
    NotSpoken,
    Reader,
    kept,
    readable,
    write,
)
from potd.runtime.network import (
    QUESTION_BYTES_MAX,
    REASON_BYTES_MAX,
    NetworkConfig,
    NodeKey,
    Refused,
    Unreachable,
)

log = logging.getLogger("potd.network")

ANSWER = struct.Struct("!IB")
ANSWERED, REFUSED, FAILED = 0, 1, 2
PEERS = "peers"  # the kind that this layer answers itself


def ask_protocols(network: str, kinds: Sequence[str]) -> dict[str, TProtocol]:
    """The stream protocol of each kind of question."""
    return {kind: TProtocol(f"/potd/{network}/ask/{kind}/1") for kind in (*kinds, PEERS)}


class Asker:
    """Asks peers."""

    def __init__(
        self, protocols: dict[str, TProtocol], config: NetworkConfig, peers: Peers, connections: Connections
    ) -> None:
        self._protocols = protocols
        self._config = config
        self._peers = peers
        self._connections = connections

    async def ask(self, key: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float) -> bytes:
        """See `Network.ask`."""
        try:
            with trio.fail_after(patience_s):
                peer = self._peers.connected.get(key)
                if peer is None or peer.instance is None:
                    raise Unreachable("not connected")
                turns = peer.turns.setdefault(kind, trio.Semaphore(self._config.streams_per_kind_max))
                async with turns:
                    return await self._ask_in_turn(peer, kind, question, answer_bytes_max)
        except trio.TooSlowError:
            raise Unreachable(f"no answer about {kind} within {patience_s:g} s") from None
        except NotSpoken:
            raise Unreachable(f"the peer takes no questions about {kind}") from None
        except Nonsense as error:
            self._peers.refuse(id_of(key), f"ask {kind}", str(error))
            raise Unreachable(f"the answer about {kind} is {error}") from None
        except BROKEN as error:
            if isinstance(error, Unreachable):
                raise
            raise Unreachable(f"connection lost while asking about {kind}") from error
        except Refused:
            raise
        except Exception as error:  # libp2p raised what nobody foresaw
            log.warning("asking about %s failed: %r", kind, error, exc_info=error)
            raise Unreachable(f"asking about {kind} failed") from error

    async def _ask_in_turn(self, peer: Peer, kind: str, question: bytes, answer_bytes_max: int) -> bytes:
        idle = peer.idle.setdefault(kind, [])
        while idle:
            kept = idle.pop()
            try:
                return await self._ask_on(peer, kind, kept, question, answer_bytes_max)
            except BROKEN:
                continue  # it was closed while idle; a stream of its own fails for a reason of its own
        stream = await self._connections.open_to(peer, self._protocols[kind])
        return await self._ask_on(peer, kind, QuestionStream(stream, Reader(stream)), question, answer_bytes_max)

    async def _ask_on(
        self, peer: Peer, kind: str, asked: QuestionStream, question: bytes, answer_bytes_max: int
    ) -> bytes:
        async with kept(asked.stream):
            await write(asked.stream, LENGTH.pack(len(question)), question)
            size, status = ANSWER.unpack(await asked.reader.exactly(ANSWER.size))
            if size > (answer_bytes_max if status == ANSWERED else REASON_BYTES_MAX) or status > FAILED:
                raise Nonsense("too long" if status <= FAILED else "malformed")
            answer = await asked.reader.exactly(size)
        peer.bytes_out += len(question) + LENGTH.size
        peer.bytes_in += size + ANSWER.size
        if self._peers.connected.get(peer.key) is peer:
            peer.idle.setdefault(kind, []).append(asked)
        if status != ANSWERED:
            raise Refused(readable(answer))
        return answer


class Answerer:
    """Takes peers' questions to the asyncio side, and its answers back."""

    def __init__(
        self,
        config: NetworkConfig,
        crossing: Crossing,
        user: AsyncioSide,
        peers: Peers,
        connections: Connections,
        introduce: Callable[[Peer], bytes],
    ) -> None:
        self._config = config
        self._crossing = crossing
        self._user = user
        self._peers = peers
        self._connections = connections
        self._introduce = introduce
        self._answers: dict[int, tuple[trio.Event, list[tuple[int, bytes]]]] = {}
        self._tickets = 0

    def handler(self, kind: str) -> Callable[[INetStream], Awaitable[None]]:
        """The handler of the streams on which peers ask about something."""

        async def on_stream(stream: INetStream) -> None:
            peer = await self._connections.peer_of(stream)
            if peer is None:
                return
            try:
                async with kept(stream), trio.open_nursery() as nursery:
                    # The reader goes on while an answer is prepared, to notice that nobody waits for it any more.
                    questions, heard = trio.open_memory_channel[bytes](0)
                    nursery.start_soon(self._read_questions, peer, stream, questions)
                    async for question in heard:
                        await self._answer_on(peer, kind, stream, question)
            except* Nonsense:
                self._peers.refuse(id_of(peer.key), f"ask {kind}", "question too long")
            except* trio.TooSlowError:
                self._peers.refuse(id_of(peer.key), f"ask {kind}", "question never finished")
            except* BROKEN:
                pass

        return on_stream

    async def _read_questions(self, peer: Peer, stream: INetStream, questions: trio.MemorySendChannel[bytes]) -> None:
        reader = Reader(stream)
        while True:
            await reader.begin()
            with trio.fail_after(self._config.unfinished_s):
                question = await reader.framed(QUESTION_BYTES_MAX)
            peer.bytes_in += len(question) + LENGTH.size
            await self._peers.afford(peer.buckets.questions, 1)
            await questions.send(question)

    async def _answer_on(self, peer: Peer, kind: str, stream: INetStream, question: bytes) -> None:
        if kind == PEERS:
            status, answer = ANSWERED, self._introduce(peer)
        else:
            status, answer = await self._answer(peer.key, kind, question)
        await self._peers.afford(peer.buckets.answer_bytes, len(answer))
        head = ANSWER.pack(len(answer), status)
        await write(stream, head, answer)
        peer.bytes_out += len(head) + len(answer)

    async def _answer(self, key: NodeKey, kind: str, question: bytes) -> tuple[int, bytes]:
        """Have the asyncio side answer. Cancelled here, it is cancelled there."""
        if len(self._answers) >= self._config.answers_at_once_max:
            self._peers.refuse(id_of(key), f"ask {kind}", "too many at once")
            return REFUSED, b"busy"
        self._tickets += 1
        ticket = self._tickets
        done, result = self._answers[ticket] = (trio.Event(), list[tuple[int, bytes]]())
        self._crossing.to_asyncio(self._user.begin_answer, ticket, key, kind, question)
        try:
            await done.wait()
        finally:
            del self._answers[ticket]
            if not result:
                self._crossing.to_asyncio(self._user.end_answer, ticket)
        return result[0]

    def answered(self, ticket: int, status: int, answer: bytes) -> None:
        """The asyncio side has an answer."""
        if ticket in self._answers:
            done, result = self._answers[ticket]
            result.append((status, answer))
            done.set()
