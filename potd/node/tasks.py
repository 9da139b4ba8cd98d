"""The tasks that this node has a part in, by name: opened, fed and closed as the ledger's state moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import compress

from potd.ledger.entries import Phase as LedgerPhase
from potd.ledger.entries import Task
from potd.ledger.entries import Window as LedgerWindow
from potd.ledger.state import Ledger
from potd.rounds.chains import Chained
from potd.rounds.events import UNAUDITED, Audited, Effect, Note, Opened, Phase, Seat, Tip, Told, View
from potd.rounds.keeper import Desk
from potd.rounds.part import Part, Roles, note_names, record_fault
from potd.rounds.plan import Window
from potd.rounds.tally import Electorate
from potd.wire.codec import Malformed, decode
from potd.wire.envelope import Signed, Verified
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Key, TaskId
from potd.wire.jobs import Aggregated, Answer, Applied, Trained
from potd.wire.rounds import Commitment, Draft, Evaluation, Link, Report, Seal, Update, flags_of
from potd.wire.tasks import Manifest, TaskSpec

Marked = tuple[TaskId, Effect]

ENROL_TICKS = 40  # between two attempts to enrol for one task
WAKE_TICKS = 400  # between the first two attempts to wake a task that has fallen asleep; doubled with each
WAKE_DOUBLINGS_MAX = 12  # then about once a day


@dataclass(frozen=True)
class Tried:
    """When we last asked to enrol for a task, and how often."""

    tick: int
    times: int


class Desks:
    """Only tasks that are open, or done and not yet scored or audited, have a part here."""

    def __init__(self, roles: Roles, desk: Desk, notes: dict[str, bytes]) -> None:
        self._roles = roles
        self._desk = desk
        self._notes = notes  # as they are on disk: what a part has said before, also in a seat that it had once
        self._lead: tuple[int, Key | None] = (0, None)
        self._hushed = False
        self._moved: dict[TaskId, int] = {}  # the height at which a task's view last moved
        self._last: dict[TaskId, Task] = {}  # the entry that a part's view was made from
        self._replayed: TaskId = b""  # the task of the newest replay
        self.parts: dict[TaskId, Part] = {}

    # From the ledger

    @property
    def validates(self) -> bool:
        return self._roles.validator

    def audited(self, task: TaskId) -> Audited:
        """What a task's part knows of its audits."""
        return self.parts[task].audited if task in self.parts else UNAUDITED

    def resting(self) -> list[TaskId]:
        """Tasks that are done and have a part here: their audits go on by heights."""
        return [task for task, part in self.parts.items() if part.view is not None and part.view.phase == Phase.DONE]

    def changed(
        self, task: Task, spec: TaskSpec | None, height: int, audited: Audited, tips: tuple[Tip, ...] = ()
    ) -> list[Marked]:
        """The state of a task that a height has touched, of its audits, and of the chains of those who have a seat;
        nothing happens unless it has moved."""
        assert spec is not None
        if not (self._roles.validator or self._roles.miner):
            return self._tidied(task.id) if task.phase == LedgerPhase.DONE else []
        part, last = self.parts.get(task.id), self._last.get(task.id)
        view = (
            view_of(task, spec, tips) if part is None or part.view is None else _moved_on(part.view, last, task, tips)
        )
        if part is None:
            scored = view.evaluated >= view.round or spec.evaluate_every == 0
            if view.phase == Phase.DONE and scored and not audited.pasts:
                return []
            part = Part(self._roles, self._desk, task.id, self._notes)
            self.parts[task.id], self._moved[task.id], self._last[task.id] = part, height, task
            effects = self._mark(task.id, part.start(view, self._lead, self._hushed, audited))
            return [*effects, (task.id, _told(view, task.loss_micro)), *self._close(task.id)]
        self._last[task.id] = task
        view = part.view if view == part.view and part.view is not None else view
        if view is part.view:
            if audited == part.audited:
                return []
            return self._mark(task.id, part.on_changed(view, audited)) + self._close(task.id)
        self._moved[task.id] = height
        effects = self._mark(task.id, [*part.on_changed(view, audited), _told(view, task.loss_micro)])
        return effects + self._close(task.id)

    def _close(self, task: TaskId) -> list[Marked]:
        """Give up a part of which nothing more can come."""
        part = self.parts[task]
        if not part.over():
            return []
        del self.parts[task], self._moved[task], self._last[task]
        return self._mark(task, part.close(self._notes))

    def _tidied(self, task: TaskId) -> list[Marked]:
        """What we said about a task in a seat that we have no more; it is over."""
        return self._mark(task, [Note(name, b"") for name in note_names(task, self._notes) if name in self._notes])

    def reseated(self, electorate: Electorate, validator: bool) -> list[Marked]:
        """Another set of validators decides from here on; `validator` says whether we are among them. The state of
        every task, `entered` and `certified` follow."""
        self._roles = replace(self._roles, electorate=electorate, validator=validator)
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            effects += self._mark(task, part.reseated(self._roles, self._notes, self._hushed))
            if not (validator or self._roles.miner):
                del self.parts[task], self._moved[task], self._last[task]  # its notes stay: we may have a seat again
        return effects

    def noted(self, name: str, data: bytes) -> None:
        """A part has written this down."""
        if data:
            self._notes[name] = data
        else:
            self._notes.pop(name, None)

    def vanished(self, known: frozenset[TaskId]) -> list[Marked]:
        """After heights that were not executed here: tasks that have ended and are forgotten. Others are `changed`."""
        effects: list[Marked] = []
        for task in sorted(self.parts.keys() - known):
            part = self.parts.pop(task)
            del self._moved[task], self._last[task]
            assert part.view is not None, "a part that was never started"
            ended = part.on_changed(replace(part.view, phase=Phase.DONE), UNAUDITED)
            effects += self._mark(task, [*ended, *part.close(self._notes)])
        return effects

    # From outside

    def read(self, ref: BlobRef, data: bytes) -> list[Marked]:
        """A manifest has come."""
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            if part.view is None or part.view.spec.manifest != ref or part.opened is not None:
                continue
            opened = _opened(data, part.view.spec)
            if isinstance(opened, Opened):
                effects += self._mark(task, part.on_opened(opened)) + self._close(task)
            else:
                effects.append((task, Told("manifest refused", (("reason", opened),))))
        return effects

    def fetched(self, ref: BlobRef) -> list[Marked]:
        return self._each(lambda part: part.on_fetched(ref))

    def produced(self, answer: Answer) -> tuple[BlobRef, ...]:
        """The blobs that a worker's answer says it has written."""
        match answer:
            case Trained():
                refs: tuple[BlobRef, ...] = (answer.payload,)
            case Aggregated():
                refs = (answer.aggregate, answer.model, answer.momentum)
            case Applied():
                refs = (answer.model, answer.momentum)
            case _:
                refs = ()
        return tuple(ref for ref in refs if ref != NO_BLOB)

    def answered(self, answer: Answer) -> list[Marked]:
        return self._each(lambda part: part.on_answer(answer)) + self._replay()

    def heard(self, message: Verified[Commitment]) -> tuple[list[Marked], str]:
        """A miner's word, and why it is refused if it is false; likewise below."""
        return self._said(message.body.task, lambda part: part.on_heard(message))

    def reported(self, message: Verified[Report]) -> tuple[list[Marked], str]:
        return self._said(message.body.task, lambda part: part.on_report(message))

    def said_by(self, key: Key) -> list[Signed]:
        """A validator's reports and drafts on rounds that are not past, as far as they were heard here."""
        return [one for _, part in sorted(self.parts.items()) for one in part.said_by(key)]

    def drafted(self, message: Verified[Draft]) -> tuple[list[Marked], str]:
        return self._said(message.body.task, lambda part: part.on_draft(message))

    def released(self, message: Verified[Link]) -> tuple[list[Marked], str]:
        return self._said(message.body.task, lambda part: part.on_link(message))

    def _said(self, task: TaskId, act: Callable[[Part], tuple[list[Effect], str]]) -> tuple[list[Marked], str]:
        part = self.parts.get(task)
        if part is None:
            return [], ""
        effects, reason = act(part)
        return self._mark(task, effects), reason

    def entered(self, view: int, primary: Key | None) -> list[Marked]:
        self._lead = (view, primary)
        return self._each(lambda part: part.on_entered(view, primary))

    def hush(self) -> None:
        """Whoever validates here may say nothing until `speak`."""
        self._hushed = True
        for _, part in sorted(self.parts.items()):
            part.hush()

    def speak(self, restored: bool) -> list[Marked]:
        """Whoever validates here may speak; `restored` if this home has forgotten what it said."""
        self._hushed = False
        return self._each(lambda part: part.speak(restored))

    def certified(self, height: int) -> list[Marked]:
        """Every height up to this one is certified."""
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            if self._moved[task] <= height:
                effects += self._mark(task, part.on_certified())
        return effects

    def tick(self) -> list[Marked]:
        return self._each(lambda part: part.on_tick()) + self._replay()

    def _replay(self) -> list[Marked]:
        """Have the trainer make one replay, of the tasks in turn, if it has nothing better to do."""
        if not (self._roles.trainer and self._roles.validator) or any(one.occupied() for one in self.parts.values()):
            return []
        for task in sorted(self.parts, key=lambda one: (one <= self._replayed, one)):
            effects = self.parts[task].replay()
            if effects:
                self._replayed = task
                return self._mark(task, effects)
        return []

    def judge(
        self, record: Seal | Update | Evaluation, number: int, final: bool, trusted: bool
    ) -> tuple[str | None, list[Marked]]:
        """As `Validator.judge`; an update is judged only by arithmetic that has passed its self-test."""
        part = self.parts.get(record.task)
        if part is None:
            # No task that is open here: what follows from its reports may stand, and an update has nothing to add up.
            if isinstance(record, Update):
                return ("" if final else None), []  # the receipt will say that its premise does not hold
            return record_fault(record, self._roles.electorate), []
        if isinstance(record, Update) and not trusted:
            return None, []
        verdict, effects = part.judge(record, number, final)
        return verdict, self._mark(record.task, effects)

    # For the operator

    def to_enrol(self, wanted: tuple[TaskId, ...] | None, tick: int, tried: dict[TaskId, Tried]) -> list[TaskId]:
        """The tasks to enrol for now. One that pays nothing is mined only by who asks for it, and one that has fallen
        asleep is woken less and less often: each try costs a fee."""
        due: list[TaskId] = []
        for task, part in sorted(self.parts.items()):
            view = part.view
            if view is None or view.phase == Phase.DONE or part.opened is None:
                continue
            if task not in wanted if wanted is not None else view.spec.pay_micro == 0:
                continue
            seat = view.seat(self._roles.account)
            ours = seat is not None and seat.key == self._roles.signer.key  # not so after a change of keys
            if seat is not None and ours and not seat.suspended and not view.asleep:
                continue
            before = tried.get(task, Tried(0, 0))
            pause = WAKE_TICKS << min(before.times, WAKE_DOUBLINGS_MAX) if view.asleep else ENROL_TICKS
            if before.times == 0 or tick - before.tick >= pause:
                due.append(task)
        return due

    def needed(self) -> tuple[BlobRef, ...]:
        """What must not be deleted to make room."""
        refs: dict[BlobRef, None] = {}
        for _, part in sorted(self.parts.items()):
            view = part.view
            if view is not None:
                spec = view.spec
                refs |= dict.fromkeys((view.model, view.momentum, view.aggregate, spec.weights, spec.manifest))
            if part.opened is not None:
                refs |= dict.fromkeys((*part.opened.training, *part.opened.held_out))
            refs |= dict.fromkeys(part.needed())
        refs.pop(NO_BLOB, None)
        return tuple(refs)

    def _each(self, act: Callable[[Part], list[Effect]]) -> list[Marked]:
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            effects += self._mark(task, act(part))
        return effects

    def _mark(self, task: TaskId, effects: Iterable[Effect]) -> list[Marked]:
        return [(task, effect) for effect in effects]


def _told(view: View, loss_micro: int) -> Told:
    return Told(
        "moved",
        (
            ("phase", view.phase.name.lower()),
            ("round", view.round),
            ("loss_micro", loss_micro),
            ("model", view.model.root.hex()),
        ),
    )


def _opened(data: bytes, spec: TaskSpec) -> Opened | str:
    """What a manifest says, or what is wrong with it."""
    try:
        manifest = decode(data, Manifest)
    except Malformed as error:
        return f"the manifest is {error}"
    if sum(shard.samples for shard in manifest.training) != spec.samples:
        return "the manifest has another number of samples than the task says"
    return Opened(
        tuple(shard.blob for shard in manifest.training),
        tuple(shard.samples for shard in manifest.training),
        tuple(shard.blob for shard in manifest.held_out),
    )


_PHASES = {
    LedgerPhase.WAITING: Phase.IDLE,
    LedgerPhase.TRAINING: Phase.TRAIN,
    LedgerPhase.REVEALING: Phase.REVEAL,
    LedgerPhase.ASLEEP: Phase.IDLE,
    LedgerPhase.DONE: Phase.DONE,
}


def view_of(task: Task, spec: TaskSpec, tips: tuple[Tip, ...] = ()) -> View:
    """A task of the ledger as the rounds see it."""
    return _view(task, spec, _seats(task), _window(task.window), _window(task.next_window), tips)


def _moved_on(view: View, last: Task | None, task: Task, tips: tuple[Tip, ...]) -> View:
    """The same, where the view of the entry before is known: what an entry leaves alone is not made again."""
    if last is None:
        return view_of(task, view.spec, tips)
    known = ((last.window, view.window), (last.next_window, view.next_window))
    window, next_window = (
        next((ours for theirs, ours in known if theirs is one), None) or _window(one)
        for one in (task.window, task.next_window)
    )
    seats = view.seats if task.miners is last.miners else _kept(view.seats, _seats(task))
    moved = _view(task, view.spec, seats, window, next_window, tips)
    return view if moved == view else moved


def _view(
    task: Task, spec: TaskSpec, seats: tuple[Seat, ...], window: Window, next_window: Window, tips: tuple[Tip, ...]
) -> View:
    return View(
        task.id,
        spec,
        _PHASES[LedgerPhase(task.phase)],
        task.phase == LedgerPhase.ASLEEP,
        task.round,
        task.seed,
        task.model,
        task.momentum,
        task.aggregate,
        task.deadline_ticks,
        seats,
        window,
        next_window,
        task.sealed,
        task.measured[0].round if task.measured else -1,
        tips,
        _probation(task),
    )


def tips_of(ledger: Ledger, task: TaskId) -> tuple[Tip, ...]:
    """The chains of those who have a seat and have published some for a task, by account."""
    entries = ((seat.account, ledger.chains(task, seat.account)) for seat in ledger.validators())
    known = [(account, one) for account, one in entries if one is not None]
    return tuple(
        Tip(account, Chained(one.begins, one.seeds_round, one.seeds, one.lots_round, one.lots))
        for account, one in sorted(known, key=lambda pair: pair[0])
    )


def _probation(task: Task) -> frozenset[AccountId]:
    if not task.probation:
        return frozenset()
    sealed = (decode(one.payload, Commitment).miner for one in task.sealed)
    return frozenset(compress(sealed, flags_of(task.probation, len(task.sealed))))


def _seats(task: Task) -> tuple[Seat, ...]:
    return tuple([Seat(one.account, one.key, one.units, one.suspended, one.joined_round) for one in task.miners])


def _kept(before: tuple[Seat, ...], seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """The same seats; those that have not changed are those of before, so that to compare them costs nothing."""
    known = {seat.account: seat for seat in before}
    pairs = [(known.get(seat.account, seat), seat) for seat in seats]
    return tuple([old if old == seat else seat for old, seat in pairs])


def _window(window: LedgerWindow) -> Window:
    return Window(window.seed, tuple((member.miner, member.units) for member in window.members))
