"""Whoever is far behind takes a certified state, part by part, from several peers; no peer can make it another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from potd.consensus.quorum import Group
from potd.consensus.succession import Handover, Line
from potd.ledger.entries import GLOBALS, Globals
from potd.ledger.state import Ledger
from potd.node import events as ev
from potd.node.shelf import Shelf
from potd.node.snapshot import (
    LONELY_TICKS,
    OFFER_TICKS,
    PATIENCE_TICKS,
    PAUSE_TICKS,
    RETRY_TICKS,
    SLOW_TICKS,
    Taken,
    Taking,
)
from potd.wire.blocks import Certificate, Header, validators_digest
from potd.wire.codec import encode
from potd.wire.envelope import Signer, attestation_of
from potd.wire.ids import NOTHING, Key
from potd.wire.merkle_map import EVERYTHING, MerkleMap, Prefix
from potd.wire.transfer import Part, Snapshot, WantSnapshot

NETWORK = bytes(range(32))
SIGNERS = tuple(Signer(bytes([one]) * 32, NETWORK) for one in range(1, 9))
VALIDATORS = Group(NETWORK, tuple(one.key for one in SIGNERS[:4]))
LINE = Line.begin(VALIDATORS)
A, B, C, D = (bytes([one]) * 32 for one in (0xA, 0xB, 0xC, 0xD))
SMALL_BYTES = 2_000  # what counts as a large part in these tests


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potd.node.snapshot.PART_BYTES_MAX", SMALL_BYTES)
    monkeypatch.setattr("potd.node.shelf.PART_BYTES_MAX", SMALL_BYTES)


def certified(height: int, state: bytes, following: Group = VALIDATORS, by: tuple[int, ...] = (0, 1, 2)) -> Certificate:
    header = Header(NETWORK, 1, height, NOTHING, NOTHING, NOTHING, state, NOTHING, validators_digest(following.keys))
    return Certificate(header, tuple(sorted(attestation_of(SIGNERS[one].sign(header)) for one in by)))


Lie = Callable[[ev.FetchSnapshot | ev.FetchPart], Snapshot | Part | None]


class Peers:
    """Some that have one state, and one node that takes it, without anything between them."""

    def __init__(self, *names: Key, entries: int = 300, height: int = 640) -> None:
        self.map = MerkleMap.of((bytes([one % 256, one // 256]), bytes(100)) for one in range(entries))
        self.certificate = certified(height, self.map.root())
        self.taking = Taking()
        self.lies: dict[Key, Lie] = {}
        self.mute: set[Key] = set()
        self.asked: list[ev.FetchSnapshot | ev.FetchPart] = []
        self.said: list[ev.Effect] = []
        self.gain_min: int | None = 128
        for name in names:
            self.taking.up(name)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.certificate, (), ())

    def part(self, prefix: Prefix) -> Part:
        part = self.map.part(prefix, SMALL_BYTES, 10**6)
        if part is None:
            return Part((), (), ())
        return Part(tuple(key for key, _ in part[0]), tuple(value for _, value in part[0]), (part[1],))

    def answer(self, question: ev.FetchSnapshot | ev.FetchPart) -> list[ev.Effect]:
        lie = self.lies.get(question.peer)
        if isinstance(question, ev.FetchSnapshot):
            offered = lie(question) if lie is not None else self.snapshot()
            assert offered is None or isinstance(offered, Snapshot)
            return self.taking.on_snapshot(ev.SnapshotFetched(question.peer, question.height, offered))
        part = lie(question) if lie is not None else self.part(question.prefix)
        assert part is None or isinstance(part, Part)
        return self.taking.on_part(ev.PartFetched(question.peer, question.height, question.prefix, part))

    def tick(self) -> Taken | None:
        """One tick, and the answers of all who give any."""
        effects = self.taking.tick(0, self.gain_min, LINE)
        while effects:
            effect = effects.pop(0)
            if isinstance(effect, ev.FetchSnapshot | ev.FetchPart):
                self.asked.append(effect)
                if effect.peer not in self.mute:
                    effects += self.answer(effect)
            else:
                self.said.append(effect)
        return self.taking.taken()

    def run(self, ticks: int) -> Taken | None:
        for _ in range(ticks):
            taken = self.tick()
            if taken is not None:
                return taken
        return None

    def takes(self, ticks: int = 400) -> None:
        """The whole state comes, and no other."""
        taken = self.run(ticks)
        assert taken is not None
        assert (taken.certificate.header, taken.entries) == (self.certificate.header, tuple(self.map.items()))

    def refused(self) -> list[tuple[Key, str]]:
        return [(one.peer, one.reason) for one in self.said if isinstance(one, ev.Refuse)]

    def parts_asked(self, peer: Key) -> int:
        return sum(isinstance(one, ev.FetchPart) and one.peer == peer for one in self.asked)


def honestly(peers: Peers, question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part:
    return peers.snapshot() if isinstance(question, ev.FetchSnapshot) else peers.part(question.prefix)


@pytest.mark.parametrize("entries", [0, 1, 2, 300])
def test_a_state_of_any_size_comes_whole(entries: int) -> None:
    Peers(A, B, entries=entries).takes()


def test_all_who_have_it_help_with_one_part_each_at_a_time() -> None:
    peers = Peers(A, B, C)
    peers.mute = {A, B, C}
    peers.tick()
    peers.mute = set()
    for question in peers.asked:
        assert peers.answer(question) == []
    peers.mute = {A, B, C}
    peers.asked.clear()
    peers.run(SLOW_TICKS)
    assert [(type(one), one.peer) for one in peers.asked] == [(ev.FetchPart, one) for one in (A, B, C)]
    assert len({one.prefix for one in peers.asked if isinstance(one, ev.FetchPart)}) == 3


def test_what_a_peer_takes_long_over_is_asked_of_another() -> None:
    peers = Peers(A, B, entries=5)
    peers.tick()
    peers.mute = {A}
    peers.takes(2 * 16 + SLOW_TICKS + 5)


def dropping(part: Part) -> Part:
    return replace(part, keys=part.keys[1:], values=part.values[1:])


def changing(part: Part) -> Part:
    return replace(part, values=(bytes(99), *part.values[1:]))


def adding(part: Part) -> Part:
    return replace(part, keys=(*part.keys, b"\xff\xff"), values=(*part.values, b""))


def emptying(part: Part) -> Part:
    return replace(part, keys=(), values=())


def missing_a_value(part: Part) -> Part:
    return replace(part, values=part.values[1:])


def with_one_value_more(part: Part) -> Part:
    return replace(part, values=(*part.values, b""))


def unproved(part: Part) -> Part:
    return replace(part, proof=())


@pytest.mark.parametrize("lie", [dropping, changing, adding, emptying, missing_a_value, with_one_value_more, unproved])
def test_a_wrong_part_is_blamed_on_its_sender_who_is_asked_no_more(lie: Callable[[Part], Part]) -> None:
    peers = Peers(A, B, C)

    def lying(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part:
        truth = honestly(peers, question)
        return lie(truth) if isinstance(truth, Part) and truth.keys else truth

    peers.lies[A] = lying
    peers.takes()
    ((who, reason),) = peers.refused()
    assert (who, reason) in {(A, "a part that is not of its state"), (A, "a part without a proof")}
    asked = peers.parts_asked(A)
    peers.takes()  # another time
    assert peers.parts_asked(A) == asked


def test_a_part_of_another_prefix_is_a_wrong_one() -> None:
    peers = Peers(A, B)
    peers.lies[A] = lambda question: (
        peers.part(Prefix(bytes([0xF0]) + bytes(31), 5))
        if isinstance(question, ev.FetchPart)
        else honestly(peers, question)
    )
    peers.takes()
    assert [who for who, _ in peers.refused()] == [A]


def test_who_says_of_small_parts_that_they_are_too_large_is_found_out() -> None:
    peers = Peers(A, B, C, entries=30)
    peers.lies[A] = lambda question: (
        Part((), (), ()) if isinstance(question, ev.FetchPart) else honestly(peers, question)
    )
    peers.takes()
    assert peers.refused() == [(A, "a part said to be too large that is not")]


def test_who_halves_for_ever_ends_refused_with_little_left_open() -> None:
    peers = Peers(A)
    peers.lies[A] = lambda question: (
        Part((), (), ()) if isinstance(question, ev.FetchPart) else honestly(peers, question)
    )
    assert peers.run(600) is None
    assert peers.refused() == [(A, "a part without a proof")]
    assert peers.parts_asked(A) == 16 + 256 - 4  # all parts once, and then one of them to its end


def test_f_plus_1_signatures_are_not_a_quorum() -> None:
    peers = Peers(A, B)
    two = replace(peers.certificate, attestations=peers.certificate.attestations[:2])
    peers.lies = {one: lambda _: Snapshot(two, (), ()) for one in (A, B)}
    assert peers.run(2 * OFFER_TICKS) is None
    reason = "a snapshot with a certificate with 2 signatures of 3"
    assert peers.refused() == [(A, reason), (B, reason)]
    assert peers.parts_asked(A) == peers.parts_asked(B) == 0


def test_the_state_that_most_have_is_taken_and_of_these_the_newest() -> None:
    peers = Peers(A, B, C, D)
    newer, older = certified(704, MerkleMap().root()), certified(576, MerkleMap().root())
    peers.lies[D] = lambda question: Snapshot(newer, (), ()) if not question.height else None
    peers.takes()
    peers = Peers(A, B, C, D)
    for one in (C, D):
        peers.lies[one] = lambda question: Snapshot(older, (), ()) if not question.height else None
    peers.takes()


def test_who_comes_later_helps_with_the_state_that_is_being_taken() -> None:
    peers = Peers(A)
    peers.run(2)
    peers.mute = {A}
    peers.taking.up(B)
    peers.takes()
    assert [one.height for one in peers.asked if isinstance(one, ev.FetchSnapshot)] == [0, 640]
    assert peers.parts_asked(B) > 0


def test_when_all_go_what_has_come_waits_for_another() -> None:
    peers = Peers(A)
    peers.run(10)
    peers.taking.down(A)
    given = peers.parts_asked(A)
    peers.run(2 * LONELY_TICKS)
    peers.taking.up(B)
    peers.takes()
    assert given > 5
    alone = Peers(C)
    alone.takes()
    assert peers.parts_asked(B) <= alone.parts_asked(C) - given + 1


def test_a_state_that_nobody_has_any_more_is_given_up_for_a_newer_one() -> None:
    peers = Peers(A, B)
    peers.run(3)
    old = peers.certificate.header
    peers.map = peers.map.set(b"more", b"")
    peers.certificate = certified(704, peers.map.root())

    def gone(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part | None:
        return None if question.height == old.height else honestly(peers, question)

    peers.lies = {A: gone, B: gone}
    peers.takes(LONELY_TICKS + 200)
    assert peers.refused() == []


@pytest.mark.parametrize("many", [False, True])
def test_those_who_have_a_state_and_give_no_part_of_it_do_not_hold_it_up_for_ever(many: bool) -> None:
    """Anybody can show a certificate. A newer one, or more of an older one, is what is tried first."""
    shown = certified(576 if many else 704, NOTHING)
    peers = Peers(A, B, C, D) if many else Peers(A, B)

    def boast(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | None:
        wanted = isinstance(question, ev.FetchSnapshot) and question.height in (0, shown.header.height)
        return Snapshot(shown, (), ()) if wanted else None

    peers.lies = dict.fromkeys((B, C, D), boast)
    peers.takes(3 * PAUSE_TICKS + LONELY_TICKS + 50)
    assert peers.refused() == [], "one that has lost it meanwhile may be honest"


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    peers = Peers(A)
    peers.mute = {A}
    busy = []
    for _ in range(OFFER_TICKS + 2):
        peers.tick()
        busy.append(peers.taking.busy)
    assert busy == [True] * OFFER_TICKS + [False] * 2  # then by blocks, meanwhile
    peers.mute = set()
    peers.takes(RETRY_TICKS + PATIENCE_TICKS)


def test_a_part_that_never_comes_is_asked_for_again() -> None:
    peers = Peers(A)
    peers.run(3)
    peers.mute = {A}
    peers.run(3)
    peers.mute = set()
    assert peers.run(PATIENCE_TICKS - 10) is None
    peers.takes(200)


def test_a_part_that_two_have_taken_away_with_them_is_asked_of_a_third() -> None:
    peers = Peers(A, B, entries=1)
    peers.tick()
    peers.mute = {A}
    assert peers.run(SLOW_TICKS - 10) is None
    peers.mute = {A, B}
    peers.run(20)
    assert [one.peer for one in peers.asked[-2:]] == [B, B]
    peers.taking.up(C)
    for one in (A, B):
        peers.taking.down(one)
    peers.takes(SLOW_TICKS)


def test_nothing_is_asked_unless_it_is_wanted_and_nothing_is_taken_that_is_not_worth_it() -> None:
    peers = Peers(A)
    peers.gain_min = None
    assert (peers.run(100), peers.asked) == (None, [])
    peers = Peers(A)
    peers.gain_min = 641
    assert peers.run(100) is None
    assert peers.parts_asked(A) == 0


def test_a_state_that_has_been_overtaken_by_blocks_is_not_taken() -> None:
    peers = Peers(A)
    peers.run(3)
    peers.taking.tick(640, None, LINE)
    assert not peers.taking.busy
    assert peers.run(3) is None or peers.parts_asked(A) > 3


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    peers = Peers(A, B)
    peers.tick()
    strange = [
        ev.PartFetched(C, 640, EVERYTHING, Part((b"x",), (b"y",), ())),
        ev.PartFetched(A, 640, EVERYTHING, Part((b"x",), (b"y",), ())),
        ev.PartFetched(A, 576, EVERYTHING, None),
    ]
    assert [peers.taking.on_part(one) for one in strange] == [[], [], []]
    assert peers.taking.on_snapshot(ev.SnapshotFetched(C, 0, peers.snapshot())) == []
    assert peers.taking.on_snapshot(ev.SnapshotFetched(A, 0, Snapshot(certified(1, NOTHING, by=(0,)), (), ()))) == []
    peers.takes()


# Across changes of the validators

LATER = Group(NETWORK, tuple(one.key for one in SIGNERS[1:5]))
LAST = Group(NETWORK, tuple(one.key for one in SIGNERS[2:6]))
HANDOVERS = (
    Handover(certified(100, NOTHING, LATER), LATER.keys),
    Handover(certified(200, NOTHING, LAST, by=(1, 2, 3)), LAST.keys),
)


def test_a_snapshot_is_believed_by_the_handovers_that_lead_to_it() -> None:
    peers = Peers(A, B)
    peers.certificate = certified(640, peers.map.root(), LAST, by=(3, 4, 5))
    ends, sets = tuple(one.certificate for one in HANDOVERS), tuple(one.keys for one in HANDOVERS)

    def led(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part:
        if isinstance(question, ev.FetchPart):
            return peers.part(question.prefix)
        return Snapshot(peers.certificate, ends, sets)

    def led_less(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part:
        shown = led(question)
        return replace(shown, ends=ends[:1], sets=sets[:1]) if isinstance(shown, Snapshot) else shown

    peers.lies = {A: led, B: led_less}
    taken = peers.run(100)
    assert taken is not None
    assert taken.handovers == HANDOVERS
    # Who shows too few of them proves nothing by itself; what another has shown may fill the gap.
    alone = Peers(B)
    alone.lies = {B: led_less}
    assert alone.run(100) is None
    assert alone.refused() == [(B, "a snapshot with a certificate signed by a stranger")]
    for fewer in (sets[:1], (*sets, LATER.keys), sets[::-1]):
        alone = Peers(B)
        alone.lies = {B: lambda _, fewer=fewer: Snapshot(peers.certificate, ends, fewer)}  # type: ignore[misc]  # binds the loop's value
        assert alone.run(100) is None
        assert [who for who, _ in alone.refused()] == [B]


def test_handovers_behind_the_state_that_is_taken_are_not_its_own() -> None:
    peers = Peers(A, B, C)
    peers.certificate = certified(150, peers.map.root(), LATER, by=(1, 2, 3))
    newest = certified(640, NOTHING, LAST, by=(3, 4, 5))

    def led(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part:
        if isinstance(question, ev.FetchPart):
            return peers.part(question.prefix)
        known = HANDOVERS if question.peer == A else HANDOVERS[:1]
        certificate = newest if question.peer == A else peers.certificate
        return Snapshot(certificate, tuple(one.certificate for one in known), tuple(one.keys for one in known))

    peers.lies = {A: led, B: led, C: led}
    taken = peers.run(200)
    assert taken is not None
    assert (taken.certificate, taken.handovers) == (peers.certificate, HANDOVERS[:1])


def test_who_shows_the_same_handover_for_ever_is_not_asked_for_ever() -> None:
    peers = Peers(A)
    end = HANDOVERS[0]
    peers.lies[A] = lambda _: Snapshot(end.certificate, (end.certificate,), (end.keys,))
    assert peers.run(OFFER_TICKS) is None
    assert [one.base for one in peers.asked if isinstance(one, ev.FetchSnapshot)] == [0, 100]


def ledger_of(height: int) -> tuple[Ledger, Certificate]:
    """A state that only says of which height it is."""
    entries = MerkleMap.of([(GLOBALS, encode(Globals(NETWORK, 1, height, 0, 0, NOTHING, 0, ())))])
    certificate = certified(height, entries.root(), LAST, by=(3, 4, 5))
    return Ledger(entries, certificate.header), certificate


def test_handovers_are_kept_over_restarts_and_given_from_the_askers_on() -> None:
    shelf = Shelf({})
    notes = dict(shelf.hand_over(one) for one in HANDOVERS)
    assert sorted(notes) == ["handover/100", "handover/200"]
    for again in (shelf, Shelf(notes)):
        again.keep(*ledger_of(640))
        shown = [again.snapshot(WantSnapshot(0, base)) for base in (0, 99, 100, 200, 640)]
        heights = [[end.header.height for end in one.ends] if one is not None else None for one in shown]
        assert heights == [[100, 200], [100, 200], [200], [], []]
        assert shown[0] == Snapshot(
            ledger_of(640)[1], tuple(one.certificate for one in HANDOVERS), tuple(one.keys for one in HANDOVERS)
        )
    early = Shelf(notes)
    early.keep(*ledger_of(200))
    found = early.snapshot(WantSnapshot(200, 0))
    assert found is not None and [end.header.height for end in found.ends] == [100]


def test_more_handovers_than_an_answer_holds_are_asked_for_one_answer_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("potd.node.shelf.HANDOVERS_MAX", 1)
    peers = Peers(A)
    peers.certificate = certified(640, peers.map.root(), LAST, by=(3, 4, 5))
    shelf = Shelf(dict(Shelf({}).hand_over(one) for one in HANDOVERS))
    shelf.keep(ledger_of(640)[0], ledger_of(640)[1])

    def led(question: ev.FetchSnapshot | ev.FetchPart) -> Snapshot | Part | None:
        if isinstance(question, ev.FetchPart):
            return peers.part(question.prefix)
        shown = shelf.snapshot(WantSnapshot(question.height, question.base))
        assert shown is not None and len(shown.ends) <= 1
        return shown if shown.certificate.header.height < 640 else replace(shown, certificate=peers.certificate)

    peers.lies[A] = led
    taken = peers.run(100)
    assert taken is not None and taken.handovers == HANDOVERS
    assert [one.base for one in peers.asked if isinstance(one, ev.FetchSnapshot)] == [0, 100, 200]


def test_the_two_newest_certified_multiples_are_kept() -> None:
    shelf = Shelf({})
    for height in range(1, 300):
        ledger, certificate = ledger_of(height)
        shelf.executed(ledger)
        if height != 192:
            shelf.certified(certificate)
    kept = [height for height in range(1, 300) if shelf.snapshot(WantSnapshot(height, 0)) is not None]
    assert kept == [128, 256]
    newest = shelf.snapshot(WantSnapshot(0, 0))
    assert newest is not None and newest.certificate.header.height == 256
    shelf.certified(ledger_of(192)[1])  # overtaken, and certified after all
    assert shelf.snapshot(WantSnapshot(192, 0)) is not None
    assert shelf.snapshot(WantSnapshot(128, 0)) is None
