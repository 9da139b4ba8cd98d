"""Fetching and answering, store to store: verified by chunk, from any holder, resumable, liars blamed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import uvloop

from potd.node.events import (
    BatchFetched,
    BlobRead,
    BlocksFetched,
    Fetched,
    PartFetched,
    SnapshotFetched,
    Store,
    StoreCertificate,
)
from potd.runtime.answers import Answers
from potd.runtime.blobs import BlobStore
from potd.runtime.fetcher import ASKED_OF_ONE, Fetcher, Told
from potd.runtime.journal import Journal, open_journal
from potd.runtime.network import Refused
from potd.wire import transfer
from potd.wire.blobs import blob_ref, read_blob
from potd.wire.blocks import Batch, batch_digest
from potd.wire.codec import encode
from potd.wire.ids import BlobRef, Digest
from potd.wire.merkle import CHUNK_BYTES
from potd.wire.merkle_map import EVERYTHING, MerkleMap, Prefix, verify_part
from potd.wire.transfer import Part, Snapshot, WantBlocks, WantChunk, WantLeaves, WantPart, WantSnapshot
from tests.runtime.cable import Answer, Cable, key
from tests.runtime.chain import NETWORK, SIGNER, batch, block, certificate, header

US = key(1)
SMALL = os.urandom(1000)
TWO_CHUNKS = os.urandom(CHUNK_BYTES + 7)
LARGE = os.urandom(9 * CHUNK_BYTES + 7)


class OneState:
    """A node that keeps the state of height 64, of three entries."""

    def __init__(self) -> None:
        self.entries = MerkleMap.of((bytes([one]), b"value") for one in range(3))

    def snapshot(self, want: WantSnapshot) -> Snapshot | None:
        return Snapshot(certificate(64), (), ()) if want.height in (0, 64) else None

    def part(self, want: WantPart) -> Part | None:
        found = self.entries.part(Prefix(want.prefix, want.length), 1000, 1000) if want.height == 64 else None
        if found is None:
            return None
        return Part(tuple(key for key, _ in found[0]), tuple(value for _, value in found[0]), (found[1],))


STATES = OneState()


class Bench:
    """Our fetcher on a cable with other nodes' real answers."""

    def __init__(self, folder: Path, group: asyncio.TaskGroup) -> None:
        self.folder = folder
        self.cable = Cable()
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.blamed: list[tuple[bytes, str]] = []
        self.blobs = self.store("us")
        self.fetcher = Fetcher(
            self.blobs,
            self.cable.end(US),
            self.told.put_nowait,
            lambda peer, reason: self.blamed.append((peer, reason)),
            group,
        )
        self.journals: list[Journal] = []

    def store(self, name: str) -> BlobStore:
        store = BlobStore(self.folder / name, 10**9)
        store.open()
        return store

    def holder(self, number: int, data: Iterable[bytes] = (), in_flight: Iterable[Batch] = ()) -> Answers:
        """Another node, with these blobs, and blocks 1 to 5 of which 4 are certified."""
        store = self.store(f"node{number}")
        for one in data:
            store.write(one)
        journal = open_journal(self.folder / f"{number}.sqlite", NETWORK, SIGNER.key)
        for height in range(1, 6):
            journal.commit([Store(header(height), batch(height), ())])
        journal.commit([StoreCertificate(certificate(height)) for height in range(1, 5)])
        self.journals.append(journal)
        flying: dict[Digest, Batch] = {batch_digest(one): one for one in in_flight}
        answers = Answers(store, journal, flying.get, lambda peer, reason: self.blamed.append((peer, reason)), STATES)
        self.cable.answers[key(number)] = answers.answer
        return answers

    def liar(self, number: int, lie: Callable[[str, bytes], bytes]) -> None:
        async def answer(peer: bytes, kind: str, question: bytes) -> bytes:
            return lie(kind, question)

        self.cable.answers[key(number)] = answer

    async def heard(self) -> Told:
        return await asyncio.wait_for(self.told.get(), 10)

    async def brings(self, data: bytes) -> None:
        """The blob comes whole, and the node is told once."""
        assert await self.heard() == Fetched(blob_ref(data))
        assert read_blob(self.blobs.folder, blob_ref(data)) == data
        assert self.fetcher.wanted() == ()


class _Done(Exception):
    pass


def on_bench(folder: Path, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                bench = Bench(folder, group)
                await play(bench)
                for journal in bench.journals:
                    journal.__exit__(None, None, None)
                raise _Done
        except* _Done:
            pass

    uvloop.run(main())


@pytest.mark.parametrize("data", [b"", b"x", SMALL, SMALL * 200, bytes(CHUNK_BYTES), bytes(CHUNK_BYTES + 1), LARGE])
def test_a_blob_of_any_size_comes_whole(tmp_path: Path, data: bytes) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2, [data])
        bench.fetcher.fetch(blob_ref(data), [key(2)])
        await bench.brings(data)
        assert bench.blamed == []

    on_bench(tmp_path, play)


def test_a_small_blob_takes_one_question(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2, [SMALL])
        bench.fetcher.fetch(blob_ref(SMALL), [key(2)])
        await bench.brings(SMALL)
        assert bench.cable.asked == [(key(2), "chunk")]

    on_bench(tmp_path, play)


def test_a_blob_that_is_held_is_fetched_at_once(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        ref = bench.blobs.write(SMALL)
        bench.fetcher.fetch(ref, [key(2)])
        assert bench.told.get_nowait() == Fetched(ref)
        assert bench.cable.asked == []

    on_bench(tmp_path, play)


def test_a_blob_that_the_named_holder_lacks_comes_from_another_peer(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.holder(3, [SMALL])
        bench.fetcher.fetch(blob_ref(SMALL), [key(2), key(9)])
        await bench.brings(SMALL)

    on_bench(tmp_path, play)


def test_a_blob_that_nobody_has_yet_is_asked_for_until_somebody_has(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch(blob_ref(LARGE), [key(2)])
        await asyncio.sleep(0.2)
        assert bench.told.empty()
        bench.holder(3, [LARGE])
        bench.fetcher.peer_up()
        await bench.brings(LARGE)

    on_bench(tmp_path, play)


def test_a_large_blob_comes_from_several_holders_at_once(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for number in (2, 3):
            bench.holder(number, [LARGE])
        bench.fetcher.fetch(blob_ref(LARGE), [key(2), key(3)])
        await bench.brings(LARGE)
        chunks = [peer for peer, kind in bench.cable.asked if kind == "chunk"]
        assert min(chunks.count(key(2)), chunks.count(key(3))) >= 3
        assert bench.cable.concurrent_max <= ASKED_OF_ONE

    on_bench(tmp_path, play)


def test_a_holder_that_never_gives_the_leaves_helps_with_the_chunks(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        honest = bench.holder(2, [LARGE])

        async def answer(peer: bytes, kind: str, question: bytes) -> bytes:
            if kind == transfer.LEAVES:
                await asyncio.Event().wait()  # as one that hashes a large blob on a slow disk
            return await honest.answer(peer, kind, question)

        bench.cable.answers[key(2)] = answer
        bench.holder(3, [LARGE])
        bench.fetcher.fetch(blob_ref(LARGE), [key(2), key(3)])
        await bench.brings(LARGE)
        assert {peer for peer, kind in bench.cable.asked if kind == "chunk"} == {key(2), key(3)}

    on_bench(tmp_path, play)


def test_nothing_is_asked_twice_of_holders_that_are_quick(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for number in (2, 3, 4):
            bench.holder(number, [TWO_CHUNKS])  # hashed at once: nobody is slow enough to be joined
        bench.fetcher.fetch(blob_ref(TWO_CHUNKS), [key(2), key(3), key(4)])
        await bench.brings(TWO_CHUNKS)
        assert [kind for _, kind in bench.cable.asked] == ["leaves", "chunk", "chunk"]

    on_bench(tmp_path, play)


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_a_liar_is_blamed_once_and_others_help(tmp_path: Path, data: bytes) -> None:
    async def play(bench: Bench) -> None:
        bench.liar(2, lambda kind, question: bytes(100))
        bench.holder(3, [data])
        bench.fetcher.fetch(blob_ref(data), [key(2), key(3)])
        await bench.brings(data)
        assert {peer for peer, _ in bench.blamed} == {key(2)}

    on_bench(tmp_path, play)


def test_a_holder_of_right_leaves_and_wrong_chunks_is_blamed(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        honest = bench.holder(3, [LARGE])

        async def answer(peer: bytes, kind: str, question: bytes) -> bytes:
            told = await honest.answer(peer, kind, question)
            return told if kind == transfer.LEAVES else told[:-1] + b"?"

        bench.cable.answers[key(2)] = answer
        bench.fetcher.fetch(blob_ref(LARGE), [key(2)])
        await bench.brings(LARGE)
        assert set(bench.blamed) == {(key(2), "a chunk that is not of its blob")}

    on_bench(tmp_path, play)


def test_a_silent_holder_delays_a_blob_by_a_moment_only(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        async def silence(peer: bytes, kind: str, question: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        bench.cable.answers[key(2)] = silence
        bench.holder(3, [SMALL])
        bench.fetcher.fetch(blob_ref(SMALL), [key(2), key(3)])
        async with asyncio.timeout(2):
            await bench.brings(SMALL)

    on_bench(tmp_path, play)


def test_a_download_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    ref = blob_ref(LARGE)

    def counting(answers: Answers, allowed: int, asked: list[int]) -> Answer:
        async def answer(peer: bytes, kind: str, question: bytes) -> bytes:
            if kind == transfer.CHUNK:
                if len(asked) >= allowed:
                    raise Refused("enough")
                asked.append(1)
            return await answers.answer(peer, kind, question)

        return answer

    first: list[int] = []
    second: list[int] = []

    async def cut_off(bench: Bench) -> None:
        bench.cable.answers[key(2)] = counting(bench.holder(2, [LARGE]), 6, first)
        bench.fetcher.fetch(ref, [key(2)])
        while len(first) < 6:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)

    async def go_on(bench: Bench) -> None:
        bench.cable.answers[key(3)] = counting(bench.holder(3, [LARGE]), 100, second)
        bench.fetcher.fetch(ref, [key(3)])
        await bench.brings(LARGE)

    on_bench(tmp_path, cut_off)
    on_bench(tmp_path, go_on)
    assert len(first) == 6
    assert len(second) == 4


def test_what_is_wanted_no_more_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        for data in (SMALL, LARGE):
            bench.fetcher.fetch(blob_ref(data), [key(2)])
        await asyncio.sleep(0.1)
        for data in (SMALL, LARGE):
            bench.fetcher.unfetch(blob_ref(data))
        await asyncio.sleep(0)
        bench.holder(3, [SMALL, LARGE])
        bench.fetcher.peer_up()
        await asyncio.sleep(0.1)
        assert bench.told.empty()
        assert os.listdir(bench.blobs.folder) == []

    on_bench(tmp_path, play)


@pytest.mark.parametrize("turns", range(6))
def test_what_is_given_up_in_the_very_moment_of_another_try_is_given_up(tmp_path: Path, turns: int) -> None:
    """Python 3.11's asyncio.wait_for forgets that it was cancelled if what it waits for is done by then."""

    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch(blob_ref(SMALL), [key(2)])
        (fetching,) = (task for task in asyncio.all_tasks() if task.get_name().startswith("fetch "))
        while not bench.cable.asked:
            await asyncio.sleep(0)
        for _ in range(20):  # turns of the loop, until it was refused and waits
            await asyncio.sleep(0)
        bench.fetcher.peer_up()
        for _ in range(turns):
            await asyncio.sleep(0)
        bench.fetcher.unfetch(blob_ref(SMALL))
        await asyncio.wait([fetching], timeout=1)
        stopped = fetching.cancelled()
        fetching.cancel()
        assert stopped

    on_bench(tmp_path, play)


def test_a_blob_that_somebody_else_waits_for_survives_the_nodes_unfetch(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        ref = blob_ref(LARGE)
        waiting = asyncio.create_task(bench.fetcher.until_held(ref))
        await asyncio.sleep(0)
        bench.fetcher.fetch(ref, [])
        bench.fetcher.unfetch(ref)
        bench.holder(2, [LARGE])
        bench.fetcher.peer_up()
        await asyncio.wait_for(waiting, 10)
        assert bench.told.empty(), "the node does not want it any more"

    on_bench(tmp_path, play)


def test_a_blob_that_a_worker_makes_meanwhile_need_not_come(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.fetcher.fetch(blob_ref(LARGE), [key(2)])
        await asyncio.sleep(0.05)
        bench.blobs.write(LARGE)
        await bench.brings(LARGE)

    on_bench(tmp_path, play)


def test_a_blob_beyond_the_budget_is_not_begun(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch(BlobRef(bytes(32), 10**10), [key(2)])
        await asyncio.sleep(0.01)
        assert bench.cable.asked == []
        with pytest.raises(OSError, match="more than this node stores"):
            await bench.fetcher.until_held(BlobRef(bytes(32), 10**10))

    on_bench(tmp_path, play)


def test_a_blob_that_is_read_comes_with_its_bytes(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2, [SMALL])
        bench.fetcher.read(blob_ref(SMALL))
        assert await bench.heard() == BlobRead(blob_ref(SMALL), SMALL)

    on_bench(tmp_path, play)


def test_a_batch_comes_from_the_first_peer_that_has_it(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.holder(3, in_flight=[batch(9)])
        for wanted in (batch(9), batch(2)):  # in flight at one, executed at both
            bench.fetcher.fetch_batch(batch_digest(wanted), [key(8), key(2), key(3)])
            assert await bench.heard() == BatchFetched(batch_digest(wanted), encode(wanted))

    on_bench(tmp_path, play)


@pytest.mark.parametrize("lie", [b"", b"nonsense", encode(batch(3))])
def test_who_gives_another_batch_is_blamed_and_the_next_is_asked(tmp_path: Path, lie: bytes) -> None:
    """The order in which validators are asked is the same each time: the first one could keep it from us for ever."""

    async def play(bench: Bench) -> None:
        bench.liar(8, lambda kind, question: lie)
        bench.holder(2)
        bench.fetcher.fetch_batch(batch_digest(batch(2)), [key(8), key(2)])
        assert await bench.heard() == BatchFetched(batch_digest(batch(2)), encode(batch(2)))
        assert bench.blamed == [(key(8), "a batch that is another")]

    on_bench(tmp_path, play)


def test_certified_blocks_come_and_an_unhelpful_peer_gives_none(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch_blocks(key(2), 2)
        assert await bench.heard() == BlocksFetched(key(2), (block(2), block(3), block(4)))
        bench.fetcher.fetch_blocks(key(2), 5)
        assert await bench.heard() == BlocksFetched(key(2), ())
        bench.fetcher.fetch_blocks(key(8), 2)
        assert await bench.heard() == BlocksFetched(key(8), ())
        bench.liar(3, lambda kind, question: b"nonsense")
        bench.fetcher.fetch_blocks(key(3), 2)
        assert await bench.heard() == BlocksFetched(key(3), ())
        assert [peer for peer, _ in bench.blamed] == [key(3)]

    on_bench(tmp_path, play)


def test_what_is_hidden_or_not_here_or_no_question_is_refused(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        answers = bench.holder(2, [SMALL])
        store = answers._blobs
        ref = blob_ref(SMALL)

        async def why_not(kind: str, question: bytes) -> str:
            with pytest.raises(Refused) as refusal:
                await answers.answer(US, kind, question)
            return refusal.value.reason

        store.hide(ref)
        assert await why_not("chunk", encode(WantChunk(ref, 0))) == "not held"
        assert await why_not("leaves", encode(WantLeaves(ref))) == "not held"
        store.reveal(ref)
        assert await answers.answer(US, "chunk", encode(WantChunk(ref, 0))) == SMALL
        assert await why_not("chunk", encode(WantChunk(BlobRef(ref.root, 999), 0))) == "not held"
        assert bench.blamed == []
        assert "chunk 1 of a blob of 1" in await why_not("chunk", encode(WantChunk(ref, 1)))
        assert "not a question" in await why_not("chunk", b"garbage")
        assert "not a question" in await why_not("chunk", encode(WantBlocks(1)))
        assert await why_not("weather", b"") == "nobody here knows about weather"
        assert [peer for peer, _ in bench.blamed] == [US] * 3

    on_bench(tmp_path, play)


def test_a_spoiled_blob_is_not_served_and_not_kept(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        answers = bench.holder(2, [LARGE])
        store, ref = answers._blobs, blob_ref(LARGE)
        with store.path(ref).open("r+b") as file:
            file.write(b"spoiled")
        with pytest.raises(Refused, match="not held"):
            await answers.answer(US, "leaves", encode(WantLeaves(ref)))
        assert not store.has(ref)

    on_bench(tmp_path, play)


def test_a_state_comes_by_its_certificate_and_part_by_part(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch_snapshot(key(2), 0, 0)
        assert await bench.heard() == SnapshotFetched(key(2), 0, Snapshot(certificate(64), (), ()))
        gathered: list[tuple[bytes, bytes]] = []
        for half in EVERYTHING.halves():
            bench.fetcher.fetch_part(key(2), 64, half)
            heard = await bench.heard()
            assert isinstance(heard, PartFetched) and heard.part is not None
            assert (heard.peer, heard.height, heard.prefix) == (key(2), 64, half)
            entries = tuple(zip(heard.part.keys, heard.part.values, strict=True))
            assert verify_part(STATES.entries.root(), half, entries, heard.part.proof[0])
            gathered += entries
        assert gathered == list(STATES.entries.items())
        assert bench.blamed == []

    on_bench(tmp_path, play)


def test_a_state_that_a_peer_does_not_have_is_answered_by_nothing(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.holder(2)
        bench.fetcher.fetch_snapshot(key(2), 128, 0)
        assert await bench.heard() == SnapshotFetched(key(2), 128, None)
        bench.fetcher.fetch_part(key(2), 128, EVERYTHING)
        assert await bench.heard() == PartFetched(key(2), 128, EVERYTHING, None)
        bench.fetcher.fetch_part(key(9), 64, EVERYTHING)  # who is not there
        assert await bench.heard() == PartFetched(key(9), 64, EVERYTHING, None)
        assert bench.blamed == []

    on_bench(tmp_path, play)


def test_a_part_that_cannot_be_read_is_blamed(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.liar(2, lambda kind, question: b"nonsense")
        bench.fetcher.fetch_part(key(2), 64, EVERYTHING)
        assert await bench.heard() == PartFetched(key(2), 64, EVERYTHING, None)
        ((who, reason),) = bench.blamed
        assert (who, reason.startswith("part that cannot be read")) == (key(2), True)

    on_bench(tmp_path, play)


def test_a_question_with_bits_behind_its_prefix_is_none(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        answers = bench.holder(2)
        with pytest.raises(Refused, match="bits behind its end"):
            await answers.answer(key(7), transfer.PART, encode(WantPart(64, bytes([0b0101_0000]) + bytes(31), 3)))
        assert [who for who, _ in bench.blamed] == [key(7)]

    on_bench(tmp_path, play)
