"""A validator's evaluations: score the models that are due, report, and propose what a quorum has measured.

Beside the rounds, never before them: nothing that is paid or trained waits for a score.
"""

from __future__ import annotations

from potd.rounds.events import Effect, Fetch, Ignore, Note, Opened, Phase, Propose, Run, Share, Told, Unfetch, View
from potd.rounds.keeper import Desk
from potd.rounds.tally import Electorate, read_reports, two_words
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import BlobRef, Key, TaskId
from potd.wire.jobs import Answer, Evaluate, Evaluated, Failed
from potd.wire.rounds import Evaluation, Measured, Report, Step

RETRY_TICKS = 20  # after a failed job
KEEP_EVALUATIONS = 4  # rounds whose reports wait for a quorum; a later score makes an earlier one idle
SAY_AGAIN_TICKS = 20  # a report that has led to nothing is said again every second


def score_note(task: TaskId) -> str:
    """The name under which a validator remembers its newest evaluation: a report is final."""
    return f"report/{task.hex()}/evaluation"


class Evaluator:
    """One validator's evaluations of one task."""

    def __init__(self, signer: Signer, electorate: Electorate, desk: Desk, *, trainer: bool, noted: bytes) -> None:
        self._signer = signer
        self._electorate = electorate
        self._desk = desk
        self._trainer = trainer
        self._view: View | None = None
        self._opened: Opened | None = None
        self._ticks = 0
        self._lead: tuple[int, Key | None] = (0, None)  # the consensus view and its primary, if it has begun
        self._reports: dict[int, dict[Key, Verified[Report]]] = {}  # by round
        self._scoring: tuple[int, int] | None = None  # the job and the round under way
        self._scored = -1
        self._retry_at = 0
        self._hushed = False  # whether nothing may be said
        self._proposed = (-1, -1)  # the consensus view and the round of the last that we proposed
        self._own = verify(decode(noted, Signed), signer.network, Report) if noted else None
        if self._own is not None:
            self._reports[self._own.body.round] = {self._own.sender: self._own}

    def reseated(self, electorate: Electorate) -> None:
        """Others decide from here on; what earlier ones have reported counts no more."""
        self._electorate = electorate
        self._proposed = (-1, -1)
        for by_key in self._reports.values():
            for key in [key for key in by_key if key not in electorate.keys]:
                del by_key[key]

    def left(self) -> list[Effect]:
        """We have no seat any more: what we fetched for it is wanted no more."""
        held_out = self._opened.held_out if self._opened is not None else ()
        return [Unfetch(ref) for ref in held_out if self._trainer and not self._desk.holds(ref)]

    def on_opened(self, opened: Opened) -> list[Effect]:
        self._opened = opened
        missing = [ref for ref in opened.held_out if self._trainer and not self._desk.holds(ref)]
        return [*(Fetch(ref, ()) for ref in missing), *self.advance()]

    def on_changed(self, view: View) -> list[Effect]:
        self._view = view
        for old in [number for number in self._reports if number <= view.evaluated]:
            del self._reports[old]
        return self.advance()

    def on_entered(self, number: int, primary: Key | None) -> list[Effect]:
        self._lead = (number, primary)
        return self.advance()

    def hush(self) -> None:
        """Say nothing, until `speak`."""
        self._hushed = True

    def speak(self, restored: bool) -> list[Effect]:
        """Report from now on. A home that has forgotten what it reported passes over the newest model."""
        self._hushed = False
        if restored and self._view is not None:
            self._scored = max(self._scored, self._view.round)
        return self.advance()

    def on_report(self, message: Verified[Report]) -> tuple[list[Effect], str]:
        """A validator's evaluation, and why it is not taken if it is false."""
        view, body = self._view, message.body
        if message.sender not in self._electorate.keys:
            return [Ignore("report by somebody who is not a validator now")], ""
        if body.names or body.held or body.links or len(body.measured) > 1:
            return [], "report on an evaluation that holds something else"
        if view is None or not view.evaluated < body.round <= view.round + 1:
            return [Ignore("report on an evaluation that is past, or far to come")], ""
        if not self._due(view, body.round):
            return [], "report on an evaluation that is not due"
        first = self._reports.setdefault(body.round, {}).setdefault(message.sender, message)
        if first is not message:
            return two_words(first, message, "made two reports on one step", self._signer.key), ""
        for old in sorted(self._reports)[:-KEEP_EVALUATIONS]:
            del self._reports[old]
        return self.advance(), ""

    def said_by(self, key: Key) -> list[Signed]:
        """A validator's evaluations that are kept here."""
        return [by_key[key].signed for _, by_key in sorted(self._reports.items()) if key in by_key]

    def _said(self, number: int) -> bool:
        """Whether we have reported on this model or a later one, as we remember it or as others show us: a report is
        final."""
        return any(done >= number and self._signer.key in by_key for done, by_key in self._reports.items())

    def _due(self, view: View, number: int) -> bool:
        every = view.spec.evaluate_every
        return every > 0 and (number % every == 0 or number >= view.spec.rounds or view.phase == Phase.DONE)

    def on_answer(self, answer: Answer) -> list[Effect]:
        if self._scoring is None or answer.job != self._scoring[0]:
            return []
        _, number = self._scoring
        self._scoring = None
        match answer:
            case Evaluated() if self._hushed:
                self._scored = number - 1  # silent since it began: scored again when we may say it
                return []
            case Evaluated():
                return self._report(number, answer)
            case Failed(_, reason):
                self._scored, self._retry_at = number - 1, self._ticks + RETRY_TICKS
                return [Told("evaluation failed", (("round", number), ("reason", reason)))]
            case _:
                return []

    def on_tick(self) -> list[Effect]:
        self._ticks += 1
        again = self._ticks % SAY_AGAIN_TICKS == 0 and not self._hushed
        effects: list[Effect] = []
        if again and self._own is not None and self._view is not None and self._own.body.round > self._view.evaluated:
            effects.append(Share(self._own.signed))
        return effects + self.advance()

    def advance(self) -> list[Effect]:
        """Begin what is due, and propose what is measured."""
        view = self._view
        if view is None:
            return []
        return self._begin(view) + self._propose(view)

    def waits(self) -> bool:
        """Whether a score of the task's last model may yet come."""
        view = self._view
        return view is None or (view.spec.evaluate_every > 0 and view.evaluated < view.round and self._can_score())

    def _can_score(self) -> bool:
        return self._opened is None or bool(self._opened.held_out)

    def _begin(self, view: View) -> list[Effect]:
        due = self._due(view, view.round) and view.phase != Phase.IDLE and self._ticks >= self._retry_at
        if not due or max(self._scored, view.evaluated) >= view.round or self._scoring is not None or self._hushed:
            return []
        if not self._trainer:
            self._scored = view.round
            if self._said(view.round):
                return []
            return self._share(Report(view.task, view.round, Step.EVALUATION.value, (), (), ()))
        opened = self._opened
        needed: tuple[BlobRef, ...] = (view.model, *opened.held_out) if opened is not None else ()
        if opened is None or not opened.held_out or not all(self._desk.holds(ref) for ref in needed):
            return []
        job = self._desk.job()
        self._scoring, self._scored = (job, view.round), view.round
        return [Run("trainer", Evaluate(job, view.spec, view.model, opened.held_out))]

    def _report(self, number: int, scored: Evaluated) -> list[Effect]:
        assert self._view is not None
        if self._said(number):
            return []
        measured = Measured(number, scored.correct, scored.samples, scored.loss_micro)
        body = Report(self._view.task, number, Step.EVALUATION.value, (), (), (measured,))
        return self._share(body) + self.advance()

    def _share(self, body: Report) -> list[Effect]:
        """Write it down, then say it."""
        message = self._signer.verified(body)
        self._own = message
        self._reports.setdefault(body.round, {})[message.sender] = message
        return [Note(score_note(body.task), encode(message.signed)), Share(message.signed)]

    def _propose(self, view: View) -> list[Effect]:
        effects: list[Effect] = []
        if self._lead[1] != self._signer.key:
            return effects
        for number, reports in sorted(self._reports.items()):
            if number <= view.evaluated or self._proposed >= (self._lead[0], number):
                continue
            measured = [one for one in reports.values() if any(each.round == number for each in one.body.measured)]
            if len(reports) >= self._electorate.quorum and len(measured) >= self._electorate.some_honest:
                self._proposed = (self._lead[0], number)
                chosen = tuple(reports[key].signed for key in sorted(reports))
                effects.append(Propose(Evaluation(view.task, number, chosen)))
        return effects


def evaluation_fault(record: Evaluation, electorate: Electorate) -> str:
    """Why this record does not follow from its reports, or nothing if it does."""
    try:
        read_reports(record.reports, record.task, record.round, Step.EVALUATION, electorate)
    except Malformed as error:
        return str(error)
    return ""
