"""Our part in one task: keeper, miner, validator, evaluator, auditor, told the same things in one order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from potd.rounds.auditor import Auditor, findings_prefix
from potd.rounds.chains import Chains
from potd.rounds.evaluator import Evaluator, evaluation_fault, score_note
from potd.rounds.events import UNAUDITED, Audited, Effect, Note, Opened, Phase, Read, View
from potd.rounds.keeper import Desk, Keeper
from potd.rounds.miner import Miner, commitment_note
from potd.rounds.tally import Electorate, seal_fault
from potd.rounds.validator import Validator, draft_note, report_note
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import AccountId, BlobRef, Key, TaskId
from potd.wire.jobs import Answer
from potd.wire.rounds import Commitment, Draft, Evaluation, Link, Report, Seal, Step, Update


@dataclass(frozen=True)
class Roles:
    """What this node does in tasks. `reveal_ticks` and `work_ticks_max` are the network's."""

    signer: Signer
    account: AccountId
    electorate: Electorate
    validator: bool
    miner: bool
    trainer: bool
    reveal_ticks: int
    work_ticks_max: int


def note_names(task: TaskId, notes: Iterable[str]) -> tuple[str, ...]:
    """Everything that a part remembers over restarts; of a round's findings what there is among these notes."""
    reports = (report_note(task, Step.SEAL), report_note(task, Step.UPDATE))
    findings = (name for name in notes if name.startswith(findings_prefix(task)))
    return (commitment_note(task), *reports, draft_note(task), score_note(task), *findings)


class Part:
    """One node in one task."""

    def __init__(self, roles: Roles, desk: Desk, task: TaskId, notes: Mapping[str, bytes]) -> None:
        self.view: View | None = None
        self.opened: Opened | None = None
        self.audited = UNAUDITED
        self._roles = roles
        self._desk = desk
        self._task = task
        self.keeper = Keeper(desk, roles.electorate.keys)
        self.miner: Miner | None = None
        self.validator: Validator | None = None
        self.evaluator: Evaluator | None = None
        self.auditor: Auditor | None = None
        if roles.miner:
            noted = notes.get(commitment_note(task), b"")
            self.miner = Miner(roles.signer, roles.account, desk, self.keeper, roles.electorate.keys, noted)
        if roles.validator:
            self.validator, self.evaluator, self.auditor = self._seated(notes)

    def _seated(self, notes: Mapping[str, bytes]) -> tuple[Validator, Evaluator, Auditor]:
        """A validator's parts, remembering what they have said before."""
        roles, task = self._roles, self._task
        chains = Chains(roles.signer, roles.account, task)
        reports = {step: notes.get(report_note(task, step), b"") for step in (Step.SEAL, Step.UPDATE)}
        validator = Validator(
            roles.signer,
            roles.account,
            chains,
            roles.electorate,
            self._desk,
            self.keeper,
            reveal_ticks=roles.reveal_ticks,
            work_ticks_max=roles.work_ticks_max,
            noted={step: data for step, data in reports.items() if data},
            drafted=notes.get(draft_note(task), b""),
        )
        noted = notes.get(score_note(task), b"")
        evaluator = Evaluator(roles.signer, roles.electorate, self._desk, trainer=roles.trainer, noted=noted)
        auditor = Auditor(
            roles.signer,
            roles.account,
            self._desk,
            chains,
            roles.electorate.keys,
            trainer=roles.trainer,
            notes={name: data for name, data in notes.items() if name.startswith(findings_prefix(task))},
        )
        return validator, evaluator, auditor

    def hush(self) -> None:
        """A validator says nothing from now on, until `speak`."""
        if self.validator is not None and self.evaluator is not None:
            self.validator.hush()
            self.evaluator.hush()

    def reseated(self, roles: Roles, notes: Mapping[str, bytes], hushed: bool) -> list[Effect]:
        """Another set of validators decides from here on, with us among them or not. `on_entered` follows."""
        self._roles = roles
        self.keeper.reseated(roles.electorate.keys)
        if self.miner is not None:
            self.miner.reseated(roles.electorate.keys)
        if self.validator is None or self.evaluator is None or self.auditor is None:
            return self._sit_down(notes, hushed) if roles.validator else []
        if roles.validator:
            self.validator.reseated(roles.electorate)
            self.evaluator.reseated(roles.electorate)
            self.auditor.reseated(roles.electorate.keys)
            return []
        effects = self.validator.left() + self.evaluator.left() + self.auditor.left()
        self.validator, self.evaluator, self.auditor = None, None, None
        return effects

    def _sit_down(self, notes: Mapping[str, bytes], hushed: bool) -> list[Effect]:
        """We have a seat now, in the middle of a round."""
        self.validator, self.evaluator, self.auditor = self._seated(notes)
        if hushed:
            self.hush()
        effects: list[Effect] = []
        if self.opened is not None:
            effects += self.evaluator.on_opened(self.opened) + self.auditor.on_opened(self.opened)
        if self.view is not None:
            effects += self.validator.on_changed(self.view) + self.evaluator.on_changed(self.view)
            effects += self.auditor.on_changed(self.view, self.audited)
        return effects

    def over(self) -> bool:
        """Whether nothing more can come of the task here."""
        if self.view is None or self.view.phase != Phase.DONE:
            return False
        return not any(one is not None and one.waits() for one in (self.evaluator, self.auditor))

    def start(
        self, view: View, lead: tuple[int, Key | None], hushed: bool = False, audited: Audited = UNAUDITED
    ) -> list[Effect]:
        """Once, with the first view; `lead` is the consensus view and its primary; `hushed` a validator that may say
        nothing until `speak`."""
        effects: list[Effect] = [Read(view.spec.manifest)]
        if hushed:
            self.hush()
        if self.miner is not None:
            effects += self.miner.start()
        return effects + self.on_entered(*lead) + self.on_changed(view, audited)

    def close(self, notes: Iterable[str]) -> list[Effect]:
        """Forget what was remembered for a restart."""
        assert self.view is not None
        return [Note(name, b"") for name in note_names(self.view.task, notes)]

    def on_changed(self, view: View, audited: Audited) -> list[Effect]:
        """Keeper first: whether the model is held decides what the others may do."""
        moved, self.view, self.audited = view is not self.view, view, audited
        effects: list[Effect] = list(self.keeper.on_changed(view)) if moved else []
        for one in (self.miner, self.validator, self.evaluator) if moved else ():
            effects += one.on_changed(view) if one is not None else []
        return effects + (self.auditor.on_changed(view, audited) if self.auditor is not None else [])

    def on_opened(self, opened: Opened) -> list[Effect]:
        self.opened = opened
        effects: list[Effect] = list(self.miner.on_opened(opened)) if self.miner is not None else []
        effects += self.evaluator.on_opened(opened) if self.evaluator is not None else []
        return effects + (self.auditor.on_opened(opened) if self.auditor is not None else [])

    def on_fetched(self, ref: BlobRef) -> list[Effect]:
        effects: list[Effect] = list(self.keeper.advance())
        effects += self.miner.advance() if self.miner is not None else []
        effects += self.validator.on_fetched(ref) if self.validator is not None else []
        return effects + (self.evaluator.advance() if self.evaluator is not None else [])

    def on_answer(self, answer: Answer) -> list[Effect]:
        effects: list[Effect] = list(self.keeper.on_answer(answer))
        if self.miner is not None:
            effects += self.miner.on_answer(answer) + self.miner.advance()
        effects += self.validator.on_answer(answer) if self.validator is not None else []
        if self.evaluator is not None:
            effects += self.evaluator.on_answer(answer) + self.evaluator.advance()
        return effects + (self.auditor.on_answer(answer) if self.auditor is not None else [])

    def on_certified(self) -> list[Effect]:
        effects: list[Effect] = list(self.miner.on_certified()) if self.miner is not None else []
        return effects + (self.validator.on_certified() if self.validator is not None else [])

    def on_entered(self, number: int, primary: Key | None) -> list[Effect]:
        effects: list[Effect] = list(self.validator.on_entered(number, primary)) if self.validator is not None else []
        return effects + (self.evaluator.on_entered(number, primary) if self.evaluator is not None else [])

    def speak(self, restored: bool) -> list[Effect]:
        """The validator may report again; as `Validator.speak`."""
        effects: list[Effect] = list(self.validator.speak(restored)) if self.validator is not None else []
        return effects + (self.evaluator.speak(restored) if self.evaluator is not None else [])

    def on_tick(self) -> list[Effect]:
        effects: list[Effect] = []
        for one in (self.miner, self.validator, self.evaluator, self.auditor):
            effects += one.on_tick() if one is not None else []
        return effects

    def occupied(self) -> bool:
        """Whether the trainer has better to do for this task than another replay, or is at one."""
        owes = self.miner is not None and self.miner.owes()
        return owes or (self.auditor is not None and self.auditor.replaying())

    def replay(self) -> list[Effect]:
        """Begin a replay, if one is due and possible."""
        return self.auditor.replay() if self.auditor is not None else []

    def needed(self) -> Iterator[BlobRef]:
        """Blobs of rounds that are not over, or are audited."""
        if self.validator is not None:
            yield from self.validator.payloads()
        if self.auditor is not None:
            yield from self.auditor.needed()

    def on_heard(self, message: Verified[Commitment]) -> tuple[list[Effect], str]:
        """A miner's word, and why it is refused if it is false; likewise below."""
        return self.validator.on_heard(message) if self.validator is not None else ([], "")

    def on_report(self, message: Verified[Report]) -> tuple[list[Effect], str]:
        if self.validator is None or self.evaluator is None:
            return [], ""
        if message.body.step == Step.EVALUATION:
            return self.evaluator.on_report(message)
        return self.validator.on_report(message)

    def said_by(self, key: Key) -> list[Signed]:
        """What a validator has reported and drafted, as far as it matters yet."""
        if self.validator is None or self.evaluator is None:
            return []
        return self.validator.said_by(key) + self.evaluator.said_by(key)

    def on_draft(self, message: Verified[Draft]) -> tuple[list[Effect], str]:
        return self.validator.on_draft(message) if self.validator is not None else ([], "")

    def on_link(self, message: Verified[Link]) -> tuple[list[Effect], str]:
        return self.validator.on_link(message) if self.validator is not None else ([], "")

    def judge(self, record: Seal | Update | Evaluation, number: int, final: bool) -> tuple[str | None, list[Effect]]:
        """As `Validator.judge_update`, of every kind of record."""
        if isinstance(record, Seal) and self.validator is not None:
            return self.validator.judge_seal(record), []
        if not isinstance(record, Update):
            return record_fault(record, self._roles.electorate), []
        if self.validator is None:
            return None, []
        return self.validator.judge_update(record, number, final)


def record_fault(record: Seal | Evaluation, electorate: Electorate) -> str:
    """Why this record does not follow from its reports, whatever the task's state, or nothing if it does."""
    if isinstance(record, Seal):
        return seal_fault(record, electorate)
    return evaluation_fault(record, electorate)
