"""The tasks that this node has a part in: a keeper, a miner and a validator each, fed from the ledger's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from potd.ledger.entries import Phase as LedgerPhase
from potd.ledger.entries import Task
from potd.ledger.entries import Window as LedgerWindow
from potd.rounds.events import Effect, Opened, Phase, Read, Seat, Told, View
from potd.rounds.keeper import Desk, Keeper
from potd.rounds.miner import Miner, commitment_note
from potd.rounds.plan import Window
from potd.rounds.tally import Electorate
from potd.rounds.validator import Validator, draft_note, report_note
from potd.wire.codec import Malformed, decode
from potd.wire.envelope import Signer, Verified
from potd.wire.genesis import Parameters
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Key, TaskId
from potd.wire.jobs import Aggregated, Answer, Applied, Trained
from potd.wire.rounds import Commitment, Draft, Evaluation, Report, Seal, Step, Update
from potd.wire.tasks import Manifest, TaskSpec

Marked = tuple[TaskId, Effect]

ENROL_TICKS = 40  # between two attempts to enrol for one task
WAKE_TICKS = 400  # between two attempts to wake a task that has fallen asleep


@dataclass
class Part:
    """Our part in one task."""

    view: View
    keeper: Keeper
    miner: Miner | None
    validator: Validator | None
    changed_height: int  # at which the view last moved
    loss_micro: int
    opened: Opened | None = None
    trouble: str = ""


class Desks:
    """By task. Only tasks that are open, or done and not yet scored, have a part here."""

    def __init__(
        self,
        signer: Signer,
        account: AccountId,
        electorate: Electorate,
        desk: Desk,
        *,
        validator: bool,
        miner: bool,
        trainer: bool,
        parameters: Parameters,
        notes: dict[str, bytes],
    ) -> None:
        self._signer = signer
        self._account = account
        self._electorate = electorate
        self._desk = desk
        self._validator = validator
        self._miner = miner
        self._trainer = trainer
        self._parameters = parameters
        self._notes = notes
        self._lead: tuple[int, Key | None] = (0, None)
        self.parts: dict[TaskId, Part] = {}

    # From the ledger

    def changed(self, task: Task, spec: TaskSpec | None, height: int) -> list[Marked]:
        """The state of a task after a height; nothing happens unless it has moved."""
        assert spec is not None
        if not (self._validator or self._miner):
            return []
        view = view_of(task, spec)
        part = self.parts.get(task.id)
        if part is None:
            if view.phase == Phase.DONE and (view.evaluated >= view.round or spec.evaluate_every == 0):
                return []
            return self._open(view, height, task.loss_micro)
        if part.view == view:
            return []
        part.view, part.changed_height, part.loss_micro = view, height, task.loss_micro
        if view.phase == Phase.DONE and (view.evaluated >= view.round or spec.evaluate_every == 0):
            effects = self._tell(part)
            del self.parts[task.id]
            return effects
        return self._tell(part)

    def _open(self, view: View, height: int, loss_micro: int) -> list[Marked]:
        keeper = Keeper(self._desk, self._electorate.keys)
        miner = None
        if self._miner:
            noted = self._notes.get(commitment_note(view.task), b"")
            miner = Miner(self._signer, self._account, self._desk, keeper, self._electorate.keys, noted)
        validator = None
        if self._validator:
            reports = {step: self._notes.get(report_note(view.task, step), b"") for step in Step}
            validator = Validator(
                self._signer,
                self._electorate,
                self._desk,
                keeper,
                reveal_ticks=self._parameters.reveal_ticks,
                work_ticks_max=self._parameters.work_ticks_max,
                trainer=self._trainer,
                noted={step: data for step, data in reports.items() if data},
                drafted=self._notes.get(draft_note(view.task), b""),
            )
        part = Part(view, keeper, miner, validator, height, loss_micro)
        self.parts[view.task] = part
        effects: list[Marked] = [(view.task, Read(view.spec.manifest))]
        if miner is not None:
            effects += self._mark(view.task, miner.start())
        if validator is not None:
            effects += self._mark(view.task, validator.on_entered(*self._lead))
        return effects + self._tell(part)

    def _tell(self, part: Part) -> list[Marked]:
        """Keeper first: whether the model is held decides what the others may do."""
        view = part.view
        effects: list[Effect] = list(part.keeper.on_changed(view))
        if part.miner is not None:
            effects += part.miner.on_changed(view)
        if part.validator is not None:
            effects += part.validator.on_changed(view)
        values: tuple[tuple[str, int | str], ...] = (
            ("phase", view.phase.name.lower()),
            ("round", view.round),
            ("loss_micro", part.loss_micro),
            ("model", view.model.root.hex()),
        )
        return self._mark(view.task, [*effects, Told("moved", values)])

    # From outside

    def read(self, ref: BlobRef, data: bytes) -> list[Marked]:
        """A manifest has come."""
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            if part.view.spec.manifest != ref or part.opened is not None:
                continue
            try:
                manifest = decode(data, Manifest)
            except Malformed as error:
                part.trouble = f"its manifest is {error}"
                effects.append((task, Told("manifest refused", (("reason", part.trouble),))))
                continue
            if sum(shard.samples for shard in manifest.training) != part.view.spec.samples:
                part.trouble = "its manifest has another number of samples than the task says"
                effects.append((task, Told("manifest refused", (("reason", part.trouble),))))
                continue
            part.opened = Opened(
                tuple(shard.blob for shard in manifest.training),
                tuple(shard.samples for shard in manifest.training),
                tuple(shard.blob for shard in manifest.held_out),
            )
            if part.miner is not None:
                effects += self._mark(task, part.miner.on_opened(part.opened))
            if part.validator is not None:
                effects += self._mark(task, part.validator.on_opened(part.opened))
        return effects

    def fetched(self, ref: BlobRef) -> list[Marked]:
        return self._each(lambda part: self._on_fetched(part, ref))

    def _on_fetched(self, part: Part, ref: BlobRef) -> list[Effect]:
        effects = part.keeper.advance()
        if part.miner is not None:
            effects += part.miner.advance()
        if part.validator is not None:
            effects += part.validator.on_fetched(ref)
        return effects

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
        return self._each(lambda part: self._on_answer(part, answer))

    def _on_answer(self, part: Part, answer: Answer) -> list[Effect]:
        effects = part.keeper.on_answer(answer)
        if part.miner is not None:
            effects += part.miner.on_answer(answer) + part.miner.advance()
        if part.validator is not None:
            effects += part.validator.on_answer(answer) + part.validator.advance()
        return effects

    def heard(self, message: Verified[Commitment]) -> tuple[list[Marked], str]:
        part = self.parts.get(message.body.task)
        if part is None or part.validator is None:
            return [], ""
        effects, reason = part.validator.on_heard(message)
        return self._mark(message.body.task, effects), reason

    def reported(self, message: Verified[Report]) -> tuple[list[Marked], str]:
        part = self.parts.get(message.body.task)
        if part is None or part.validator is None:
            return [], ""
        effects, reason = part.validator.on_report(message)
        return self._mark(message.body.task, effects), reason

    def drafted(self, message: Verified[Draft]) -> tuple[list[Marked], str]:
        part = self.parts.get(message.body.task)
        if part is None or part.validator is None:
            return [], ""
        effects, reason = part.validator.on_draft(message)
        return self._mark(message.body.task, effects), reason

    def entered(self, view: int, primary: Key | None) -> list[Marked]:
        self._lead = (view, primary)
        return self._each(lambda part: part.validator.on_entered(view, primary) if part.validator else [])

    def certified(self, height: int) -> list[Marked]:
        """Every height up to this one is certified."""

        def on_certified(part: Part) -> list[Effect]:
            if part.changed_height > height:
                return []
            effects: list[Effect] = list(part.miner.on_certified()) if part.miner is not None else []
            return effects + (part.validator.on_certified() if part.validator is not None else [])

        return self._each(on_certified)

    def tick(self) -> list[Marked]:
        def on_tick(part: Part) -> list[Effect]:
            effects: list[Effect] = list(part.miner.on_tick()) if part.miner is not None else []
            return effects + (part.validator.on_tick() if part.validator is not None else [])

        return self._each(on_tick)

    def judge(self, record: Seal | Update | Evaluation, final: bool, trusted: bool) -> tuple[str | None, list[Marked]]:
        """As `Validator.judge`; an update is judged only by arithmetic that has passed its self-test."""
        part = self.parts.get(record.task)
        if part is None or part.validator is None:
            return ("" if final else None), []  # no such task then: the receipt will say so
        if isinstance(record, Update) and not trusted:
            return None, []
        verdict, effects = part.validator.judge(record, final)
        return verdict, self._mark(record.task, effects)

    # For the operator

    def to_enrol(self, wanted: tuple[TaskId, ...] | None, tick: int, tried: dict[TaskId, int]) -> list[TaskId]:
        """The tasks to enrol for now."""
        due: list[TaskId] = []
        for task, part in sorted(self.parts.items()):
            if (wanted is not None and task not in wanted) or part.view.phase == Phase.DONE or part.opened is None:
                continue
            seat = part.view.seat(self._account)
            if seat is not None and not seat.suspended and not part.view.asleep:
                continue
            pause = WAKE_TICKS if part.view.asleep else ENROL_TICKS
            if task not in tried or tick - tried[task] >= pause:
                due.append(task)
        return due

    def needed(self) -> tuple[BlobRef, ...]:
        """What must not be deleted to make room."""
        refs: dict[BlobRef, None] = {}
        for _, part in sorted(self.parts.items()):
            view = part.view
            refs |= dict.fromkeys((view.model, view.momentum, view.aggregate, view.spec.weights, view.spec.manifest))
            if part.opened is not None:
                refs |= dict.fromkeys((*part.opened.training, *part.opened.held_out))
        refs.pop(NO_BLOB, None)
        return tuple(refs)

    def _each(self, act: Callable[[Part], list[Effect]]) -> list[Marked]:
        effects: list[Marked] = []
        for task, part in sorted(self.parts.items()):
            effects += self._mark(task, act(part))
        return effects

    def _mark(self, task: TaskId, effects: Iterable[Effect]) -> list[Marked]:
        return [(task, effect) for effect in effects]


def view_of(task: Task, spec: TaskSpec) -> View:
    """A task of the ledger as the rounds see it."""
    phase = {
        LedgerPhase.WAITING: Phase.IDLE,
        LedgerPhase.TRAINING: Phase.TRAIN,
        LedgerPhase.REVEALING: Phase.REVEAL,
        LedgerPhase.ASLEEP: Phase.IDLE,
        LedgerPhase.DONE: Phase.DONE,
    }[LedgerPhase(task.phase)]
    seats = tuple(Seat(one.account, one.key, one.units, one.suspended, one.joined_round) for one in task.miners)
    return View(
        task.id,
        spec,
        phase,
        task.phase == LedgerPhase.ASLEEP,
        task.round,
        task.seed,
        task.model,
        task.momentum,
        task.aggregate,
        task.deadline_ticks,
        seats,
        _window(task.window),
        _window(task.next_window),
        task.sealed,
        task.measured[0].round if task.measured else -1,
    )


def _window(window: LedgerWindow) -> Window:
    return Window(window.seed, tuple((member.miner, member.units) for member in window.members))
