"""The pump: effects in order, nothing sent before what precedes it is durable, floods bounded, our own kept."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from potd.node.events import (
    Effect,
    Framed,
    Gossiped,
    Hide,
    Input,
    JobDone,
    Log,
    Note,
    PeerUp,
    Publish,
    Refuse,
    Run,
    Send,
    Store,
    StoreCertificate,
    Tell,
    Ticked,
)
from potd.runtime.blobs import BlobStore
from potd.runtime.fetcher import Fetcher
from potd.runtime.journal import Journal, open_journal
from potd.runtime.pump import BYTES_OF_ALL_MAX, FRAMES_OF_ONE_MAX, INPUT_BYTES, News, Pump
from potd.runtime.refusals import ALLOWED, Refusals
from potd.wire.ids import NO_BLOB
from potd.wire.jobs import Apply, Failed
from tests.runtime.cable import Cable, End, key
from tests.runtime.chain import NETWORK, SIGNER, batch, certificate, header
from tests.runtime.test_workers import SPEC

MIB = bytes((1 << 20) - INPUT_BYTES)  # of data, so that an input of it is a MiB
FULL = BYTES_OF_ALL_MAX >> 20

Answer = Callable[[Input], Sequence[Effect]]


class Machine:
    """Answers each input as it is told to, and remembers them."""

    def __init__(self, answer: Answer, first: Sequence[Effect] = ()) -> None:
        self.inputs: list[Input] = []
        self._answer = answer
        self._first = first

    def start(self) -> list[Effect]:
        return list(self._first)

    def step(self, event: Input) -> list[Effect]:
        self.inputs.append(event)
        return list(self._answer(event))


class Bench:
    def __init__(self, folder: Path, machine: Machine, group: asyncio.TaskGroup) -> None:
        self.end: End = Cable().end(key(1))
        self.journal: Journal = open_journal(folder / "journal.sqlite", NETWORK, SIGNER.key)
        self.blobs = BlobStore(folder / "blobs", 10**9)
        self.blobs.open()
        self.refusals = Refusals(clock=lambda: 0.0)
        fetcher = Fetcher(self.blobs, self.end, lambda event: None, lambda peer, reason: None, group)
        self.pump = Pump(machine, self.journal, self.blobs, self.end, fetcher, (), self.refusals)
        self.group = group

    def run(self) -> asyncio.Task[None]:
        return self.group.create_task(self.pump.run())

    def notes(self) -> dict[str, bytes]:
        return dict(self.journal.recover().notes)


class _Done(Exception):
    pass


def on_bench(folder: Path, machine: Machine, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                bench = Bench(folder, machine, group)
                with bench.journal:
                    await play(bench)
                    raise _Done
        except* _Done:
            pass

    uvloop.run(main())


def test_nothing_waits_for_a_certificate_to_be_durable_and_it_is_so_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potd.runtime.pump.OWED_S", 0.05)

    def answer(event: Input) -> Sequence[Effect]:
        return [] if isinstance(event, Ticked) else [StoreCertificate(certificate(1)), Send(key(2), b"after")]

    async def play(bench: Bench) -> None:
        bench.journal.commit([Store(header(1), batch(1), ())])
        bench.run()
        await bench.pump.take(PeerUp(key(2), 0))
        assert (bench.end.sent, bench.pump.syncs) == ([(key(2), b"after")], 0)
        turns = 0
        while bench.journal.owes:
            turns += 1
            await bench.pump.take(Ticked())
        assert (bench.journal.recover().certificate, bench.pump.syncs) == (certificate(1), 1)
        assert turns > 1, "it was written at once"

    on_bench(tmp_path, Machine(answer), play)


def test_effects_are_carried_out_in_the_order_they_were_ordered(tmp_path: Path) -> None:
    def answer(event: Input) -> Sequence[Effect]:
        assert isinstance(event, PeerUp)
        number = event.height
        return [Send(key(2), b"before %d" % number), Note("n", b"%d" % number), Send(key(2), b"after %d" % number)]

    async def play(bench: Bench) -> None:
        bench.run()
        for number in range(20):
            bench.pump.put(PeerUp(key(2), number))
        await bench.pump.take(PeerUp(key(2), 20))
        assert bench.end.sent == [
            (key(2), b"%s %d" % (when, number)) for number in range(21) for when in (b"before", b"after")
        ]
        assert bench.notes() == {"n": b"20"}
        assert bench.pump.syncs < 21, "one sync for each drained inbox"

    on_bench(tmp_path, Machine(answer), play)


def test_nothing_that_follows_a_write_is_sent_before_the_write_is_durable(tmp_path: Path) -> None:
    found: list[dict[str, bytes]] = []

    async def play(bench: Bench) -> None:
        plain = bench.end.send

        def send(peer: bytes, frame: bytes) -> None:
            found.append(bench.notes())  # what another process would find on disk at this moment
            plain(peer, frame)

        bench.end.send = send  # type: ignore[method-assign]  # to look at the disk at the moment of sending
        bench.run()
        await bench.pump.take(Ticked())

    answer: list[Effect] = [Send(key(2), b"early"), Note("vote", b"commit"), Send(key(2), b"late")]
    on_bench(tmp_path, Machine(lambda event: answer), play)
    assert found == [{}, {"vote": b"commit"}]


def test_what_the_machine_orders_at_its_start_comes_first(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.pump.put(Ticked())
        bench.run()
        await bench.pump.take(Ticked())
        assert [topic for topic, _ in bench.end.published] == ["first", "step", "step"]

    on_bench(tmp_path, Machine(lambda event: [Publish("step", b"")], [Publish("first", b"")]), play)


def test_without_writes_nothing_is_synced(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.run()
        await bench.pump.take(Ticked())
        assert (bench.pump.steps, bench.pump.syncs) == (1, 0)

    on_bench(tmp_path, Machine(lambda event: [Send(key(2), b"x")]), play)


def test_a_failing_disk_ends_the_pump_before_anything_that_followed_is_sent(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.journal._writer.execute("PRAGMA max_page_count = 12")
        running = bench.run()
        bench.pump.put(Ticked())
        await asyncio.wait([running])
        assert bench.end.sent == []

    with pytest.raises(ExceptionGroup) as group:
        on_bench(tmp_path, Machine(lambda event: [Note("large", bytes(10**6)), Send(key(2), b"x")]), play)
    assert group.group_contains(OSError, match="full")


def test_a_broken_invariant_ends_the_pump(tmp_path: Path) -> None:
    def answer(event: Input) -> Sequence[Effect]:
        raise AssertionError("two digests in one slot")

    async def play(bench: Bench) -> None:
        bench.pump.put(Ticked())
        await asyncio.wait([bench.run()])

    with pytest.raises(ExceptionGroup) as group:
        on_bench(tmp_path, Machine(answer), play)
    assert group.group_contains(AssertionError, match="two digests")


def test_a_flooding_peer_loses_frames_and_nobody_else_does(tmp_path: Path) -> None:
    machine = Machine(lambda event: ())

    async def play(bench: Bench) -> None:
        for number in range(FRAMES_OF_ONE_MAX + 10):
            bench.pump.put_frame(Framed(key(2), b"%d" % number))
        bench.pump.put_frame(Framed(key(3), b"honest"))
        bench.pump.put_gossip(Gossiped("commitments", b"honest"))
        bench.run()
        await bench.pump.take(Ticked())
        assert dict(bench.pump.dropped) == {"frames of 00000000": 10}
        assert machine.inputs[:2] == [Framed(key(2), b"0"), Framed(key(2), b"1")]
        assert machine.inputs[-3:] == [Framed(key(3), b"honest"), Gossiped("commitments", b"honest"), Ticked()]
        bench.pump.put_frame(Framed(key(2), b"again"))
        await bench.pump.take(Ticked())
        assert machine.inputs[-2:] == [Framed(key(2), b"again"), Ticked()], "its share is free again"

    on_bench(tmp_path, machine, play)


def test_a_peers_large_frames_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for _ in range(40):
            bench.pump.put_frame(Framed(key(2), MIB))
        assert bench.pump.waiting == 32

    on_bench(tmp_path, Machine(lambda event: ()), play)


def test_peers_that_flood_together_fill_so_much_and_a_quiet_one_is_heard_all_the_same(tmp_path: Path) -> None:
    machine = Machine(lambda event: ())
    quiet = [Framed(key(99), b"%d" % number) for number in range(100)]

    async def play(bench: Bench) -> None:
        for _ in range(40):
            for peer in range(2, 12):  # ten floods of 40 MiB
                bench.pump.put_frame(Framed(key(peer), MIB))
        assert bench.pump.waiting == FULL
        for event in quiet:
            bench.pump.put_frame(event)
        bench.pump.put_gossip(Gossiped("commitments", b"honest"))
        bench.run()
        while bench.pump.waiting:
            await bench.pump.take(Ticked())
        heard = [event for event in machine.inputs if not isinstance(event, Ticked)]
        assert heard[-101:] == [*quiet, Gossiped("commitments", b"honest")]
        kept = Counter(event.peer for event in heard[:-101] if isinstance(event, Framed))
        assert sorted(kept.values()) == [12] * 3 + [13] * 7, "each flood had as much as any other"
        assert sum(bench.pump.dropped.values()) == 400 - sum(kept.values())

    on_bench(tmp_path, machine, play)


def test_what_a_flood_loses_to_a_quiet_peer_is_its_newest_and_no_more_than_that_needs(tmp_path: Path) -> None:
    machine = Machine(lambda event: ())
    flood = [Framed(key(2), b"%02d" % number + MIB[2:]) for number in range(32)]
    others = [Framed(key(peer), MIB) for peer in (3, 4, 5, 6, 7) for _ in range(20)]
    quiet = Framed(key(8), MIB + MIB[INPUT_BYTES:])

    async def play(bench: Bench) -> None:
        for event in [*flood[:28], *others, *flood[28:]]:  # 128 MiB and 4 more, for which there is no room
            bench.pump.put_frame(event)
        assert bench.pump.dropped.total() == 4
        bench.pump.put_frame(quiet)
        assert bench.pump.dropped.total() == 4 + 2
        bench.run()
        while bench.pump.waiting:
            await bench.pump.take(Ticked())
        assert [event for event in machine.inputs if event != Ticked()] == [*flood[:26], *others, quiet]

    on_bench(tmp_path, machine, play)


def test_who_has_as_much_as_any_other_takes_no_room_from_them(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for _ in range(8):
            for peer in range(2, 18):
                bench.pump.put_frame(Framed(key(peer), MIB))
        for peer in range(2, 18):
            before = bench.pump.waiting
            bench.pump.put_frame(Framed(key(peer), MIB))
            assert bench.pump.waiting == before

    on_bench(tmp_path, Machine(lambda event: ()), play)


def test_many_small_frames_count_as_what_they_cost(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        for peer in range(2, 68):
            for _ in range(FRAMES_OF_ONE_MAX):
                bench.pump.put_frame(Framed(key(peer), b""))
        assert bench.pump.waiting == BYTES_OF_ALL_MAX // INPUT_BYTES

    on_bench(tmp_path, Machine(lambda event: ()), play)


def test_ticks_that_were_missed_are_not_made_up(tmp_path: Path) -> None:
    machine = Machine(lambda event: ())

    async def play(bench: Bench) -> None:
        ticking = bench.group.create_task(bench.pump.tick())
        await asyncio.sleep(0.4)  # nobody turns the pump
        assert bench.pump.waiting == 1
        bench.run()
        await asyncio.sleep(0.5)
        ticking.cancel()
        assert 5 <= len(machine.inputs) <= 12

    on_bench(tmp_path, machine, play)


def test_a_job_for_a_worker_that_this_node_lacks_fails_at_once(tmp_path: Path) -> None:
    machine = Machine(lambda event: [Run("trainer", JOB)] if isinstance(event, Ticked) else ())
    JOB = Apply(5, SPEC, 0, NO_BLOB, NO_BLOB, NO_BLOB)

    async def play(bench: Bench) -> None:
        bench.run()
        await bench.pump.take(Ticked())
        await bench.pump.take(PeerUp(key(2), 0))
        assert machine.inputs[1] == JobDone(Failed(5, "this node has no trainer"))

    on_bench(tmp_path, machine, play)


def test_refusals_are_counted_and_a_peer_that_uses_up_its_allowance_is_dropped(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        bench.run()
        await bench.pump.take(Ticked())
        assert bench.refusals.by_reason == {"garbage": ALLOWED}
        assert bench.end.dropped == []
        await bench.pump.take(Ticked())
        assert bench.end.dropped[0] == (key(2), "refused too often, last: garbage")

    on_bench(tmp_path, Machine(lambda event: [Refuse(key(2), "garbage")] * ALLOWED), play)


def test_listeners_hear_heights_certificates_and_events_after_they_are_durable(tmp_path: Path) -> None:
    store, tell = Store(header(1), batch(1), ()), Tell("moved", bytes(32), (("round", 1),))

    async def play(bench: Bench) -> None:
        heard: list[tuple[News, int]] = []
        stop = bench.pump.listen(lambda event: heard.append((event, bench.journal.recover().header is not None)))
        bench.run()
        await bench.pump.take(Ticked())
        stop()
        assert heard == [(store, True), (tell, True)]

    on_bench(tmp_path, Machine(lambda event: [store, tell]), play)


def test_blobs_and_log_lines_go_where_they_belong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def play(bench: Bench) -> None:
        ref = bench.blobs.write(b"payload")
        machine._answer = lambda event: [Hide(ref), Log(logging.INFO, "entered view 4")]
        bench.run()
        await bench.pump.take(Ticked())
        assert not bench.blobs.is_served(ref)
        assert "entered view 4" in caplog.messages

    machine = Machine(lambda event: ())
    on_bench(tmp_path, machine, play)
