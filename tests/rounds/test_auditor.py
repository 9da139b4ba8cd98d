"""An auditor replays what its link draws, writes down what it finds before it promises, tells just that, and rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from potd.rounds.auditor import ASK_TICKS, LOOK_TICKS, RETRY_TICKS, RULINGS_WAITING, Auditor, findings_note
from potd.rounds.chains import Chained, Chains
from potd.rounds.events import (
    UNAUDITED,
    Ask,
    Audited,
    Contested,
    Effect,
    Fetch,
    Hour,
    Note,
    PastRound,
    PastRow,
    Phase,
    Run,
    Unfetch,
    View,
)
from potd.rounds.keeper import Desk
from potd.rounds.plan import assign
from potd.wire.audits import PPM, Finding, Promise, Ruling, Status, Verdict, promised
from potd.wire.codec import decode, encode
from potd.wire.ids import AccountId, BlobRef, Digest, digest
from potd.wire.jobs import Failed, Job, Replay, Replayed
from potd.wire.rounds import Outcome, payload_binding
from tests.rounds.bench import KEYS, MINERS, OPENED, SHARDS, SIGNERS, SPEC, TASK, TRAIN, blob, opened_after

US = MINERS[0]
NORM = 77


@dataclass(frozen=True)
class Row:
    miner: AccountId
    payload: BlobRef
    units: int = 1
    outcome: int = Outcome.COUNTED.value


@dataclass(frozen=True)
class Entry:
    round: int
    model: BlobRef
    seed: Digest
    validators: int
    rows: tuple[Row, ...]


ROWS = tuple(sorted((Row(one, blob(f"payload of {one.hex()}")) for one in MINERS), key=lambda row: row.miner))
OTHERS = tuple(row for row in ROWS if row.miner != US)


def chained() -> Chained:
    chain = Chains(SIGNERS[0], US, TASK).due(0, None)
    assert chain is not None
    return Chained(chain.begins, chain.begins - 1, chain.seeds, chain.begins - 1, chain.lots)


FIRST = chained().begins


def past(number: int = FIRST, hour: Hour = Hour.PROMISE, rows: tuple[Row, ...] = ROWS) -> PastRound:
    """A round of which everything is drawn."""
    entry = Entry(number, blob(f"model {number}"), digest("seed", bytes([number])), 1, rows)
    return PastRound(entry, hour, False, TRAIN.window, PPM, None, False, ())


def told(*pasts: PastRound) -> Audited:
    return Audited(NORM, chained(), pasts)


NOW = opened_after(TRAIN, FIRST + 1)


class Bench:
    """One auditor, what it holds and has noted, and what it has ordered."""

    def __init__(self, *held: BlobRef, notes: dict[str, bytes] | None = None, trainer: bool = True) -> None:
        self.held = set(held)
        self.notes = notes if notes is not None else {}
        desk = Desk(self.held, itertools.count(1))
        chains = Chains(SIGNERS[0], US, TASK)
        self.auditor = Auditor(SIGNERS[0], US, desk, chains, KEYS, trainer=trainer, notes=self.notes)
        self.done: list[Effect] = []

    def take(self, effects: list[Effect]) -> list[Effect]:
        for one in effects:
            if isinstance(one, Note) and one.data:
                self.notes[one.name] = one.data
            elif isinstance(one, Note):
                self.notes.pop(one.name, None)
        self.done += effects
        return effects

    def change(self, *pasts: PastRound, view: View = NOW) -> list[Effect]:
        return self.take(self.auditor.on_changed(view, told(*pasts)))

    def look(self) -> list[Effect]:
        """What it does of itself until it has looked at its round once."""
        return [one for _ in range(LOOK_TICKS) for one in self.take(self.auditor.on_tick())]

    def replays(self, distance: int = 0, exponents: int = 0) -> list[Replay]:
        """Have it make all the replays that it can make now."""
        jobs: list[Replay] = []
        while True:
            begun = self.take(self.auditor.replay())
            if not begun:
                return jobs
            (run,) = begun
            job = replay_of(run)
            assert self.auditor.replaying()
            assert self.auditor.replay() == [], "one at a time"
            self.take(self.auditor.on_answer(Replayed(job.job, distance, exponents, 1)))
            jobs.append(job)

    def asked(self, kind: type) -> list[object]:
        return [one.operation for one in self.done if isinstance(one, Ask) and isinstance(one.operation, kind)]


def replay_of(run: Effect) -> Replay:
    assert isinstance(run, Run)
    assert run.worker == "trainer"
    job: Job = run.job
    assert isinstance(job, Replay)
    return job


def equipped(*pasts: PastRound, notes: dict[str, bytes] | None = None) -> Bench:
    """One that holds all that the replays of these rounds take."""
    blobs = [one for each in pasts for one in (each.entry.model, *(row.payload for row in each.entry.rows))]
    bench = Bench(*SHARDS, *blobs, notes=notes)
    bench.auditor.on_opened(OPENED)
    bench.change(*pasts)
    return bench


def miners(jobs: list[Replay]) -> set[BlobRef]:
    return {job.payload for job in jobs}


def findings(status: Status = Status.GOOD, distance: int = 0, rows: tuple[Row, ...] = OTHERS) -> tuple[Finding, ...]:
    return tuple(Finding(row.miner, status.value, distance) for row in rows)


def promise_in(bench: Bench) -> Promise:
    (one,) = bench.asked(Promise)
    assert isinstance(one, Promise)
    return one


def contested(row: PastRow, by: AccountId = MINERS[1]) -> Contested:
    return Contested(row, by)


# Replays


def test_it_replays_what_it_has_drawn_and_never_its_own() -> None:
    bench = equipped(past())
    jobs = bench.replays()
    assert miners(jobs) == {row.payload for row in OTHERS}
    first = next(job for job in jobs if job.payload == OTHERS[0].payload)
    entry = past().entry
    given = assign(TRAIN.window, OPENED.sizes, entry.seed, OTHERS[0].miner, 1, 8)
    binding = payload_binding(TASK, FIRST, OTHERS[0].miner, entry.model.root)
    shards = tuple(SHARDS[index] for index in given.shards)
    expected = Replay(0, SPEC, FIRST, entry.model, shards, given.samples, OTHERS[0].payload, binding, NORM)
    assert replace(first, job=0) == expected


def test_only_what_counted_or_is_on_probation_is_drawn() -> None:
    outcomes = (Outcome.WITHHELD, Outcome.PROBATION, Outcome.MALFORMED)
    rows = tuple(replace(row, outcome=outcome.value) for row, outcome in zip(OTHERS, outcomes, strict=True))
    some = equipped(*(past(FIRST + 2 * index, rows=rows) for index in range(40)))
    assert {job.payload for job in some.replays()} == {rows[1].payload}, "half of those on probation"


def test_nothing_is_drawn_of_a_round_before_its_chain_nor_without_a_tolerance() -> None:
    assert equipped(past(FIRST - 1)).replays() == []
    for tolerance, replayed in ((0, False), (100, True)):
        bench = Bench(*SHARDS, past().entry.model, *(row.payload for row in ROWS))
        bench.auditor.on_opened(OPENED)
        view = replace(NOW, spec=replace(SPEC, tolerance_nano=tolerance))
        bench.auditor.on_changed(view, replace(told(past()), norm=0))
        assert bool(bench.replays()) == replayed, "a norm of 0 is no way out"


def test_who_has_no_trainer_publishes_its_chain_and_audits_nothing() -> None:
    bench = Bench(*SHARDS, past().entry.model, *(row.payload for row in ROWS), trainer=False)
    bench.auditor.on_opened(OPENED)
    bench.change(past())
    assert bench.replays() == []
    assert not bench.auditor.waits()
    bench.take(bench.auditor.on_changed(NOW, UNAUDITED))
    (asked,) = [one for one in bench.look() if isinstance(one, Ask)]
    assert asked.operation == Chains(SIGNERS[0], US, TASK).due(NOW.round, None)


def test_it_sends_for_what_it_lacks_and_waits_for_it() -> None:
    bench = Bench()
    bench.auditor.on_opened(OPENED)
    sent = [one for one in bench.change(past()) if isinstance(one, Fetch)]
    wanted = {past().entry.model, *SHARDS, *(row.payload for row in OTHERS)}
    assert {one.ref for one in sent} <= wanted
    assert {one.ref for one in sent} >= {past().entry.model, *(row.payload for row in OTHERS)}
    assert len({one.ref for one in sent}) == len(sent), "each once"
    assert all(one.holders[:-1] == KEYS for one in sent), "then the miner's own"
    assert bench.replays() == []
    assert [one for one in bench.look() if isinstance(one, Fetch)] == [], "once"
    bench.held.update(wanted)
    assert len(bench.replays()) == len(OTHERS)


def test_what_it_sent_for_is_called_off_with_the_round() -> None:
    bench = Bench()
    bench.auditor.on_opened(OPENED)
    sent = {one.ref for one in bench.change(past()) if isinstance(one, Fetch)}
    bench.held.add(past().entry.model)
    assert {one.ref for one in bench.change() if isinstance(one, Unfetch)} == sent - {past().entry.model}


def test_what_its_replays_take_is_needed_until_the_round_is_over() -> None:
    bench = equipped(past())
    assert set(bench.auditor.needed()) == {past().entry.model, *(row.payload for row in OTHERS)}
    bench.change()
    assert set(bench.auditor.needed()) == set()


# Findings


def test_findings_are_written_down_before_they_are_promised() -> None:
    bench = equipped(past())
    bench.replays()
    kinds = [type(one) for one in bench.done if isinstance(one, Note | Ask)]
    assert kinds == [Note, Ask]
    noted = decode(bench.notes[findings_note(TASK, FIRST)], Verdict)
    assert noted.findings == findings()
    binding = promised(US, TASK, FIRST, noted.salt, noted.findings)
    assert promise_in(bench) == Promise(US, 0, TASK, FIRST, binding)
    assert noted.link == Chains(SIGNERS[0], US, TASK).lot(chained(), FIRST)


def test_nothing_is_promised_before_all_is_found() -> None:
    bench = equipped(past())
    run = replay_of(bench.auditor.replay()[0])
    bench.take(bench.auditor.on_answer(Replayed(run.job, 0, 0, 1)))
    bench.look()
    assert bench.asked(Promise) == []


def test_a_replay_is_good_within_the_tolerance_and_with_exponents_that_it_explains() -> None:
    most = SPEC.tolerance_nano
    for distance, exponents, status in (
        (most, 0, Status.GOOD),
        (2 * most + 1, 0, Status.BAD),
        (0, 1, Status.BAD),
    ):
        bench = equipped(past())
        bench.replays(distance, exponents)
        noted = decode(bench.notes[findings_note(TASK, FIRST)], Verdict)
        assert noted.findings == findings(status, distance)


def test_what_is_just_beyond_the_tolerance_is_not_contested_and_ruled_bad_if_others_do() -> None:
    """Another rig may find it just within: a verdict would be fined by whoever sends what is just so far off."""
    for distance in (SPEC.tolerance_nano + 1, 2 * SPEC.tolerance_nano):
        bench = equipped(past())
        bench.replays(distance)
        noted = decode(bench.notes[findings_note(TASK, FIRST)], Verdict)
        assert noted.findings == findings(Status.UNABLE, 0)
        told_of = replace(past(), hour=Hour.RULE, contested=(contested(OTHERS[0]),))
        bench.change(told_of)
        bench.look()
        assert ruled(bench) == {OTHERS[0].miner: Status.BAD}


def test_what_was_promised_is_told_in_its_time_and_not_before() -> None:
    bench = equipped(past())
    bench.replays()
    binding = promise_in(bench).findings
    promised_now = replace(past(), promised=binding)
    bench.change(promised_now)
    bench.look()
    assert bench.asked(Verdict) == []
    bench.change(replace(promised_now, hour=Hour.TELL))
    bench.look()
    assert bench.asked(Verdict) == [decode(bench.notes[findings_note(TASK, FIRST)], Verdict)]
    bench.change(replace(promised_now, hour=Hour.TELL, kept=True))
    for _ in range(2 * ASK_TICKS):
        bench.look()
    assert len(bench.asked(Verdict)) == 1


def test_what_nobody_could_check_any_more_is_not_told() -> None:
    """Its chains have given way to others: a verdict by the old ones would be refused, and cost its fee each time."""
    bench = equipped(past())
    bench.replays()
    telling = replace(past(), hour=Hour.TELL, promised=promise_in(bench).findings)
    renewed = Chains(SIGNERS[0], US, TASK).due(FIRST + 1, None)
    assert renewed is not None
    chained = Chained(renewed.begins, renewed.begins - 1, renewed.seeds, renewed.begins - 1, renewed.lots)
    bench.take(bench.auditor.on_changed(NOW, Audited(NORM, chained, (telling,))))
    for _ in range(2 * ASK_TICKS):
        bench.look()
    assert bench.asked(Verdict) == []


def test_what_is_promised_is_promised_once() -> None:
    bench = equipped(past())
    bench.replays()
    bench.change(replace(past(), promised=promise_in(bench).findings))
    for _ in range(2 * ASK_TICKS):
        bench.look()
    assert len(bench.asked(Promise)) == 1


def test_a_restart_tells_what_it_has_promised_without_another_replay() -> None:
    before = equipped(past())
    before.replays(distance=5)
    binding = promise_in(before).findings
    after = equipped(replace(past(), hour=Hour.TELL, promised=binding), notes=before.notes)
    assert after.replays() == []
    after.look()
    assert after.asked(Verdict) == [decode(before.notes[findings_note(TASK, FIRST)], Verdict)]


def test_a_restart_in_the_middle_makes_its_replays_again() -> None:
    before = equipped(past())
    run = replay_of(before.auditor.replay()[0])
    before.take(before.auditor.on_answer(Replayed(run.job, 0, 0, 1)))
    after = equipped(past(), notes=before.notes)
    assert len(after.replays()) == len(OTHERS)
    assert promise_in(after).round == FIRST


def test_who_has_forgotten_its_findings_tells_them_only_if_it_finds_the_same_again() -> None:
    before = equipped(past())
    before.replays(distance=5)
    told_past = replace(past(), hour=Hour.TELL, promised=promise_in(before).findings)
    same, other = equipped(told_past), equipped(told_past)
    same.replays(distance=5)
    other.replays(distance=6)
    assert same.asked(Verdict) == [decode(before.notes[findings_note(TASK, FIRST)], Verdict)]
    assert other.asked(Verdict) == []


def test_who_has_forgotten_its_findings_is_in_no_hurry_when_it_has_promised() -> None:
    bench = equipped(replace(past(), closing=True, promised=digest("findings")))
    bench.look()
    assert bench.notes == {}, "unable would not be what it has promised"
    bench.replays()
    assert decode(bench.notes[findings_note(TASK, FIRST)], Verdict).findings == findings()


def test_a_round_whose_time_to_promise_is_over_is_not_replayed() -> None:
    assert equipped(replace(past(), hour=Hour.TELL)).replays() == []


def test_what_it_does_not_get_in_time_is_found_unable() -> None:
    lacking = OTHERS[1]
    bench = Bench(*SHARDS, past().entry.model, *(row.payload for row in OTHERS if row is not lacking))
    bench.auditor.on_opened(OPENED)
    bench.change(past())
    bench.replays()
    bench.look()
    assert bench.asked(Promise) == []
    bench.change(replace(past(), closing=True))
    bench.look()
    assert len(bench.asked(Promise)) == 1
    noted = decode(bench.notes[findings_note(TASK, FIRST)], Verdict)
    assert [one.miner for one in noted.findings if one.status == Status.UNABLE] == [lacking.miner]


def test_when_its_time_ends_a_promise_is_made_at_once() -> None:
    """A sealed round ends as soon as it is revealed: behind its update a promise is refused, and costs a fee."""
    bench = equipped(past())
    bench.change(replace(past(), closing=True))
    assert len(bench.asked(Promise)) == 1


def test_a_replay_that_fails_twice_is_found_unable() -> None:
    rows = tuple(row for row in ROWS if row.miner == OTHERS[0].miner)
    bench = equipped(past(rows=rows))
    for _ in range(2):
        run = replay_of(bench.auditor.replay()[0])
        bench.take(bench.auditor.on_answer(Failed(run.job, "killed")))
        assert bench.auditor.replay() == [], "after a pause"
        for _ in range(RETRY_TICKS):
            bench.take(bench.auditor.on_tick())
    assert bench.auditor.replay() == []
    bench.look()
    assert decode(bench.notes[findings_note(TASK, FIRST)], Verdict).findings == findings(Status.UNABLE, rows=rows)


def test_findings_are_forgotten_with_the_round() -> None:
    bench = equipped(past())
    bench.replays()
    assert bench.change() == [Note(findings_note(TASK, FIRST), b"")]
    again = Bench(notes={findings_note(TASK, FIRST): encode(noted_verdict())})
    assert again.change() == [Note(findings_note(TASK, FIRST), b"")], "also those of a life before"


def noted_verdict() -> Verdict:
    return Verdict(US, 0, TASK, FIRST, digest("link"), digest("salt"), findings())


def test_what_does_not_come_about_is_asked_again_after_a_while() -> None:
    bench = equipped(past())
    bench.replays()
    assert len(bench.asked(Promise)) == 1
    for _ in range(ASK_TICKS // LOOK_TICKS - 1):
        bench.look()
    assert len(bench.asked(Promise)) == 1
    bench.look()
    assert len(bench.asked(Promise)) == 2


# Rulings


def ruled(bench: Bench) -> dict[AccountId, int]:
    rulings = [one for one in bench.asked(Ruling) if isinstance(one, Ruling)]
    return {one.finding.miner: one.finding.status for one in rulings}


def test_it_rules_on_what_others_contest() -> None:
    row = OTHERS[2]
    before = replace(past(FIRST - 1), hour=Hour.TELL, contested=(contested(row),))
    bench = equipped(before)
    assert miners(bench.replays(distance=9)) == {row.payload}
    assert bench.asked(Ruling) == [Ruling(US, 0, TASK, FIRST - 1, Finding(row.miner, Status.GOOD.value, 9))]
    bench.change(replace(before, contested=()))
    for _ in range(2 * ASK_TICKS):
        bench.look()
    assert len(bench.asked(Ruling)) == 1


def test_what_it_has_found_for_itself_is_not_replayed_again_for_a_ruling() -> None:
    bench = equipped(past())
    bench.replays(distance=SPEC.tolerance_nano + 1)
    bench.change(replace(past(), hour=Hour.RULE, contested=tuple(contested(row) for row in OTHERS)))
    assert bench.replays() == []
    bench.look()
    assert ruled(bench) == {row.miner: Status.BAD for row in OTHERS}


def test_it_does_not_rule_on_what_it_has_promised_to_tell() -> None:
    bench = equipped(past())
    bench.replays()
    now = replace(past(), hour=Hour.TELL, promised=promise_in(bench).findings)
    bench.change(replace(now, contested=tuple(contested(row) for row in OTHERS)))
    bench.look()
    assert bench.asked(Ruling) == []
    assert len(bench.asked(Verdict)) == 1


def test_what_it_was_unable_to_find_it_replays_for_a_ruling_if_it_can() -> None:
    noted = replace(noted_verdict(), findings=findings(Status.UNABLE))
    notes = {findings_note(TASK, FIRST): encode(noted)}
    bench = equipped(replace(past(), hour=Hour.RULE, contested=(contested(OTHERS[0]),)), notes=notes)
    assert miners(bench.replays()) == {OTHERS[0].payload}
    assert ruled(bench) == {OTHERS[0].miner: Status.GOOD}


def test_it_says_nothing_of_its_own() -> None:
    (own,) = (row for row in ROWS if row.miner == US)
    bench = equipped(replace(past(FIRST - 1), hour=Hour.RULE, contested=(contested(own),)))
    assert bench.replays() == []


def test_what_is_contested_comes_before_what_is_drawn() -> None:
    row = OTHERS[1]
    bench = equipped(replace(past(FIRST - 1), hour=Hour.RULE, contested=(contested(row),)), past())
    assert [job.round for job in bench.replays()] == [FIRST - 1, *[FIRST] * len(OTHERS)]


def test_a_liar_that_contests_everything_keeps_nobody_waiting() -> None:
    liar, other = MINERS[2], MINERS[3]
    rows = tuple(Row(digest("miner", bytes([index])), blob(f"payload {index}")) for index in range(9))
    rows = tuple(sorted(rows, key=lambda row: row.miner))
    claims = tuple(contested(row, other if row is rows[-1] else liar) for row in rows)
    number = FIRST - 1
    bench = Bench()
    bench.auditor.on_opened(OPENED)
    bench.change(replace(past(number, rows=rows), hour=Hour.RULE, contested=claims))
    sent = {one.ref for one in bench.done if isinstance(one, Fetch)} & {row.payload for row in rows}
    assert sent == {rows[0].payload, rows[1].payload, rows[-1].payload}
    assert RULINGS_WAITING == 2
    bench.held.update([*SHARDS, blob(f"model {number}"), *(row.payload for row in rows)])
    assert len(answered(bench)) == len(rows), "one after the other, all"


def answered(bench: Bench) -> list[Replay]:
    def jobs() -> Iterator[Replay]:
        while found := bench.replays():
            yield from found
            bench.look()

    return list(jobs())


# Chains


def test_a_chain_is_asked_for_while_a_task_runs() -> None:
    for phase, asleep, asks in (
        (Phase.IDLE, False, True),
        (Phase.TRAIN, False, True),
        (Phase.IDLE, True, False),
        (Phase.DONE, False, False),
    ):
        bench = Bench()
        bench.take(bench.auditor.on_changed(replace(NOW, phase=phase, asleep=asleep), UNAUDITED))
        assert ([one for one in bench.look() if isinstance(one, Ask)] != []) == asks
