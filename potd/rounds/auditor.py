"""A validator's audits of one task: replay what its chain of lots draws, promise, tell, and rule. Judges no round.

All follows from the ledger, from our key, and from findings that are written down before they are promised: a restart
goes on where it was, at worst with some replays made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from potd.rounds.chains import Chains
from potd.rounds.events import (
    UNAUDITED,
    Ask,
    Audited,
    Contested,
    Effect,
    Fetch,
    Hour,
    Note,
    Opened,
    PastRound,
    PastRow,
    Phase,
    Run,
    Told,
    Unfetch,
    View,
)
from potd.rounds.keeper import Desk
from potd.rounds.plan import assign, shards_of
from potd.wire.audits import Finding, Promise, Ruling, Status, Verdict, drawn, promised
from potd.wire.codec import decode, encode
from potd.wire.envelope import Signer
from potd.wire.ids import AccountId, BlobRef, Key, TaskId
from potd.wire.jobs import Answer, Failed, Replay, Replayed
from potd.wire.rounds import payload_binding

LOOK_TICKS = 10  # between two looks at what is to be asked: beside the rounds, never in their way
ASK_TICKS = 100  # until what was asked and has not come about is asked again
RETRY_TICKS = 20  # after a replay that failed
TRIES = 2  # of a replay, until it is given up
TAKEN_TOGETHER = 4  # contributions whose shards are looked up at a time
SURE_FACTOR = 2  # beyond so many tolerances a verdict is that it is bad: other rigs, within one of ours, find so, too
RULINGS_WAITING = 2  # contested contributions of a round, for each who contests, that are replayed at a time


def findings_prefix(task: TaskId) -> str:
    return f"findings/{task.hex()}/"


def findings_note(task: TaskId, number: int) -> str:
    """The name under which an auditor remembers what it has found in a round: it has promised just that."""
    return f"{findings_prefix(task)}{number}"


@dataclass
class Case:
    """A round that is audited: what was drawn of it, and what has been found in it so far."""

    drawn: tuple[PastRow, ...]
    verdict: Verdict | None = None  # as it is written down, once all is found
    found: dict[AccountId, Finding] = field(default_factory=dict)  # also of what others contest
    near: set[AccountId] = field(default_factory=set)  # bad, but so near that others may find it good
    failures: dict[AccountId, int] = field(default_factory=dict)
    blobs: dict[AccountId, tuple[BlobRef, ...]] = field(default_factory=dict)  # that the replay of each takes
    fetched: dict[BlobRef, None] = field(default_factory=dict)  # what was sent for, to be called off


class Auditor:
    """One validator's audits in one task."""

    def __init__(
        self,
        signer: Signer,
        account: AccountId,
        desk: Desk,
        chains: Chains,
        holders: tuple[Key, ...],
        *,
        trainer: bool,
        notes: Mapping[str, bytes],
    ) -> None:
        self._signer = signer
        self._account = account
        self._desk = desk
        self._chains = chains
        self._holders = holders
        self._trainer = trainer
        self._noted = {name: decode(data, Verdict) for name, data in notes.items()}
        self._view: View | None = None
        self._opened: Opened | None = None
        self._audited = UNAUDITED
        self._cases: dict[int, Case] = {}  # by round
        self._job: tuple[int, int, AccountId] | None = None  # the replay under way: number, round, miner
        self._ticks = 0
        self._retry_at = 0
        self._asked: dict[tuple[type, int, AccountId], int] = {}  # when something was asked last

    def reseated(self, holders: tuple[Key, ...]) -> None:
        """Others are validators now, and hold what there is."""
        self._holders = holders

    def left(self) -> list[Effect]:
        """We have no seat any more: what we fetched for it is wanted no more."""
        return [one for _, case in sorted(self._cases.items()) for one in self._called_off(case)]

    def on_changed(self, view: View, audited: Audited) -> list[Effect]:
        """The task, or one of its rounds that are past, has moved."""
        self._view, self._audited = view, audited
        if not self._trainer:
            return []
        effects: list[Effect] = []
        present = {past.round for past in audited.pasts}
        for number in [number for number in self._cases if number not in present]:
            effects += self._called_off(self._cases.pop(number))
        self._asked = {key: tick for key, tick in self._asked.items() if key[1] in present}
        for name, verdict in list(self._noted.items()):
            if verdict.round not in present:
                del self._noted[name]
                effects.append(Note(name, b""))
        for past in audited.pasts:
            if past.round not in self._cases:
                self._cases[past.round] = self._taken_up(past)
        if any(past.closing and past.promised is None for past in audited.pasts):
            return effects + self._look()  # at once: the update is on its way, and behind it a promise costs a fee
        return effects + self._fetch()

    def _taken_up(self, past: PastRound) -> Case:
        """What our chain draws of a round, and what we know of it from before."""
        case = Case(self._drawn(past))
        verdict = self._noted.get(findings_note(self._task(), past.round))
        if verdict is not None and [one.miner for one in verdict.findings] == [row.miner for row in case.drawn]:
            case.verdict = verdict
            case.found = {one.miner: one for one in verdict.findings if one.status != Status.UNABLE}
        return case

    def _drawn(self, past: PastRound) -> tuple[PastRow, ...]:
        link = self._chains.lot(self._audited.chained, past.round)
        if link is None or not self._can_measure():
            return ()
        entry = past.entry
        outcomes = ((row.miner, row.outcome) for row in entry.rows)
        lots = set(drawn(link, entry.seed, outcomes, self._account, past.audit_ppm, entry.validators))
        return tuple(row for row in entry.rows if row.miner in lots)

    def _can_measure(self) -> bool:
        """Whether the task says how far a replay may be off, in a unit that is known."""
        return self._view is not None and self._view.spec.tolerance_nano > 0

    def on_opened(self, opened: Opened) -> list[Effect]:
        self._opened = opened
        return self._fetch()

    def on_tick(self) -> list[Effect]:
        self._ticks += 1
        return self._look() if self._ticks % LOOK_TICKS == 0 else []

    def waits(self) -> bool:
        """Whether a round of the task may yet be audited."""
        return self._trainer and bool(self._audited.pasts)

    def needed(self) -> Iterator[BlobRef]:
        """What must not be deleted: without it there would be no replay."""
        for past in self._audited.pasts:
            if past.round in self._cases:
                yield past.entry.model
                for row in self._cases[past.round].drawn:
                    yield row.payload
                for one in past.contested:
                    yield one.row.payload

    # What is to be replayed

    def _to_replay(self) -> Iterator[tuple[PastRound, PastRow]]:
        """What others contest first, for it has the least time; then what we have drawn, the oldest round first."""
        pasts = [past for past in self._audited.pasts if past.round in self._cases]
        for past in pasts:
            yield from ((past, one.row) for one in self._to_rule(past) if self._open(past.round, one.row))
        for past in pasts:
            case = self._cases[past.round]
            if case.verdict is None and self._may_tell(past):
                yield from ((past, row) for row in case.drawn if self._open(past.round, row))

    def _open(self, number: int, row: PastRow) -> bool:
        case = self._cases[number]
        return row.miner not in case.found and case.failures.get(row.miner, 0) < TRIES

    def _may_tell(self, past: PastRound) -> bool:
        """Whether findings are worth making: they may be promised yet, or have been and are not told."""
        return past.hour == Hour.PROMISE or (past.hour == Hour.TELL and past.promised is not None and not past.kept)

    def _to_rule(self, past: PastRound) -> Iterator[Contested]:
        """What others contest and we have said nothing of: of each who contests so much at a time, so that a liar who
        contests everything does not keep us from the others'. What we have promised to tell we tell first."""
        if past.hour not in (Hour.TELL, Hour.RULE) or not self._can_measure():
            return
        case, waiting = self._cases[past.round], dict[AccountId, int]()
        ours = {row.miner for row in case.drawn} if self._may_tell(past) else set()
        for one in past.contested:
            if one.row.miner == self._account or one.row.miner in ours:
                continue
            if one.row.miner not in case.found:
                if case.failures.get(one.row.miner, 0) >= TRIES or waiting.get(one.by, 0) >= RULINGS_WAITING:
                    continue
                waiting[one.by] = waiting.get(one.by, 0) + 1
            yield one

    def _fetch(self) -> list[Effect]:
        """Find out what the next few replays take, and send for what is lacking."""
        view, opened = self._view, self._opened
        if view is None or opened is None:
            return []
        effects: list[Effect] = []
        fresh = ((past, row) for past, row in self._to_replay() if row.miner not in self._cases[past.round].blobs)
        for past, row in islice(fresh, TAKEN_TOGETHER):
            case, need = self._cases[past.round], row.units * view.spec.unit_batch
            shards = shards_of(past.window, opened.sizes, row.miner, row.units, need)
            case.blobs[row.miner] = *(opened.training[index] for index in shards), past.entry.model, row.payload
            seat = view.seat(row.miner)
            holders = (*self._holders, seat.key) if seat is not None else self._holders
            for ref in case.blobs[row.miner]:
                if not self._desk.holds(ref) and ref not in case.fetched:
                    case.fetched[ref] = None
                    effects.append(Fetch(ref, holders))
        return effects

    def _called_off(self, case: Case) -> list[Effect]:
        elsewhere = {ref for other in self._cases.values() if other is not case for ref in other.fetched}
        return [Unfetch(ref) for ref in case.fetched if ref not in elsewhere and not self._desk.holds(ref)]

    def replaying(self) -> bool:
        return self._job is not None

    def replay(self) -> list[Effect]:
        """Begin the next replay, if what it needs is here. Whether the trainer has nothing better to do is the
        caller's to know."""
        view, opened = self._view, self._opened
        if view is None or opened is None or self._job is not None or self._ticks < self._retry_at:
            return []
        for past, row in self._to_replay():
            blobs = self._cases[past.round].blobs.get(row.miner, ())
            if not blobs or not all(self._desk.holds(ref) for ref in blobs):
                continue
            given = assign(past.window, opened.sizes, past.entry.seed, row.miner, row.units, view.spec.unit_batch)
            job = self._desk.job()
            self._job = job, past.round, row.miner
            replay = Replay(
                job,
                view.spec,
                past.round,
                past.entry.model,
                tuple(opened.training[index] for index in given.shards),
                given.samples,
                row.payload,
                payload_binding(view.task, past.round, row.miner, past.entry.model.root),
                self._audited.norm,
            )
            return [Run("trainer", replay)]
        return []

    def on_answer(self, answer: Answer) -> list[Effect]:
        if self._job is None or answer.job != self._job[0]:
            return []
        _, number, miner = self._job
        self._job = None
        case, view = self._cases.get(number), self._view
        if case is None or view is None:
            return []
        match answer:
            case Replayed(_, distance, exponents):
                good = distance <= view.spec.tolerance_nano and exponents == 0
                status = Status.GOOD if good else Status.BAD
                case.found[miner] = Finding(miner, status.value, distance)
                if not good and exponents == 0 and distance <= SURE_FACTOR * view.spec.tolerance_nano:
                    case.near.add(miner)
                told: list[Effect] = []
                if not good:
                    values = (("round", number), ("miner", miner.hex()), ("distance_nano", distance))
                    told.append(Told("replay differs", (*values, ("exponents", exponents))))
                return told + self._look()
            case Failed(_, reason):
                case.failures[miner] = case.failures.get(miner, 0) + 1
                self._retry_at = self._ticks + RETRY_TICKS
                return [Told("replay failed", (("round", number), ("reason", reason)))]
            case _:
                return []

    # What is asked

    def _look(self) -> list[Effect]:
        """Ask for what has become possible."""
        view = self._view
        if view is None:
            return []
        effects: list[Effect] = []
        if view.phase != Phase.DONE and not view.asleep:
            chain = self._chains.due(view.round, self._audited.chained)
            effects += [Ask(chain)] if chain is not None else []
        for past in self._audited.pasts:
            if past.round in self._cases:
                effects += self._conclude(past) + self._tell(past) + self._rule(past)
        return effects + self._fetch()

    def _conclude(self, past: PastRound) -> list[Effect]:
        """Write down what we have found, once it is all there, or there is no more time for the rest."""
        case = self._cases[past.round]
        if case.verdict is not None or not case.drawn or not self._may_tell(past):
            return []
        waits = [row for row in case.drawn if self._open(past.round, row)]
        if waits and not (past.closing and past.promised is None):
            return []
        link = self._chains.lot(self._audited.chained, past.round)
        if link is None:
            return []  # of a chain that is no more ours: nobody could check it
        salt = self._signer.derive("salt of findings", self._task(), past.round.to_bytes(8, "big"))
        unable = (Finding(row.miner, Status.UNABLE.value, 0) for row in case.drawn)
        # A verdict that a quorum contradicts costs a bond, and who sends what is just beyond the tolerance knows that.
        findings = tuple(one if one.miner in case.near else case.found.get(one.miner, one) for one in unable)
        case.verdict = Verdict(self._account, 0, self._task(), past.round, link, salt, findings)
        name = findings_note(self._task(), past.round)
        self._noted[name] = case.verdict
        bad, missing = (sum(one.status == status for one in findings) for status in (Status.BAD, Status.UNABLE))
        values = (("round", past.round), ("drawn", len(findings)), ("bad", bad), ("unable", missing))
        return [Note(name, encode(case.verdict)), Told("audited", values)]

    def _tell(self, past: PastRound) -> list[Effect]:
        """Promise what is written down, and in its time tell it."""
        verdict = self._cases[past.round].verdict
        if verdict is None:
            return []
        binding = promised(self._account, verdict.task, verdict.round, verdict.salt, verdict.findings)
        if past.hour == Hour.PROMISE and past.promised is None:
            return self._ask(Promise(self._account, 0, verdict.task, verdict.round, binding), past.round)
        holds = self._chains.lot(self._audited.chained, past.round) == verdict.link  # not so after another pair
        if past.hour == Hour.TELL and past.promised == binding and not past.kept and holds:
            return self._ask(verdict, past.round)
        return []

    def _rule(self, past: PastRound) -> list[Effect]:
        effects: list[Effect] = []
        for one in self._to_rule(past):
            finding = self._cases[past.round].found.get(one.row.miner)
            if finding is not None:
                ruling = Ruling(self._account, 0, self._task(), past.round, finding)
                effects += self._ask(ruling, past.round, one.row.miner)
        return effects

    def _ask(self, operation: Promise | Verdict | Ruling, number: int, miner: AccountId = b"") -> list[Effect]:
        """What does not come about is asked again, but not at once: a refusal costs a fee."""
        key = (type(operation), number, miner)
        before = self._asked.get(key)
        if before is not None and self._ticks - before < ASK_TICKS:
            return []
        self._asked[key] = self._ticks
        return [Ask(operation)]

    def _task(self) -> TaskId:
        assert self._view is not None
        return self._view.task
