"""A validator's part in a round: report what is held, draft, aggregate, and say what record follows."""

from __future__ import annotations

from collections import deque

from potd.rounds.events import (
    Await,
    Effect,
    Fetch,
    Note,
    Opened,
    Phase,
    Propose,
    Retire,
    Run,
    Settle,
    Share,
    Told,
    Unfetch,
    View,
)
from potd.rounds.keeper import KEEP_ROUNDS, Desk, Keeper
from potd.rounds.tally import (
    Choice,
    Electorate,
    choose,
    commitment_name,
    make_seal,
    make_update,
    read_reports,
    seal_fault,
)
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Digest, Key, TaskId, short
from potd.wire.jobs import Aggregate, Aggregated, Answer, Evaluate, Evaluated, Failed, Payload
from potd.wire.rounds import Commitment, Draft, Evaluation, Measured, Named, Report, Seal, Step, Update

SAY_AGAIN_TICKS = 20  # an unanswered report or draft is said again every second
RETRY_TICKS = 20  # after a failed job


def report_note(task: TaskId, step: Step) -> str:
    """The name under which a validator remembers its newest report of a step: a report is final."""
    return f"report/{task.hex()}/{step.name.lower()}"


def draft_note(task: TaskId) -> str:
    """The name under which a primary remembers its newest draft: to propose other than one's draft is to lie."""
    return f"draft/{task.hex()}"


class Validator:
    """One validator in one task."""

    def __init__(
        self,
        signer: Signer,
        electorate: Electorate,
        desk: Desk,
        keeper: Keeper,
        *,
        reveal_ticks: int,
        work_ticks_max: int,
        trainer: bool,
        noted: dict[Step, bytes],
        drafted: bytes,
    ) -> None:
        self._signer = signer
        self._electorate = electorate
        self._desk = desk
        self._keeper = keeper
        self._reveal_ticks = reveal_ticks
        self._work_ticks_max = work_ticks_max
        self._trainer = trainer
        self._view: View | None = None
        self._opened: Opened | None = None
        self._ticks = 0  # since the phase began here
        self._lead: tuple[int, Key | None] = (0, None)  # the consensus view and its primary, if it has begun
        self._heard: dict[int, dict[AccountId, tuple[Verified[Commitment], int]]] = {}  # by round
        self._names: dict[Digest, Signed] = {}  # this round's commitments by name
        self._own: dict[Step, Verified[Report]] = {}
        self._reports: dict[tuple[int, Step], dict[Key, Verified[Report]]] = {}
        self._sealed: tuple[Commitment, ...] = ()
        self._seal_certified = False
        self._arrived: dict[AccountId, int] = {}  # payloads of this round, and when
        self._drafts: dict[Key, tuple[Verified[Draft], int]] = {}  # each validator's newest, and when it came
        self._aggregating: tuple[int, tuple[BlobRef, ...]] | None = None
        self._aggregated: dict[tuple[BlobRef, ...], Aggregated] = {}
        self._choices: dict[tuple[Signed, ...], Choice] = {}
        self._retry_at = 0
        self._awaited: set[str] = set()
        self._proposed: Seal | Update | None = None
        self._scoring: tuple[int, int] | None = None  # the job and the round of an evaluation under way
        self._scored = -1
        self._past: deque[tuple[BlobRef, ...]] = deque()  # payloads of rounds before
        self._score_proposed = (-1, -1)  # the consensus view and the round of the last evaluation we proposed
        for step, data in sorted(noted.items()):
            own = verify(decode(data, Signed), signer.network, Report)
            self._own[step] = own
            self._reports[(own.body.round, step)] = {own.sender: own}
        if drafted:
            draft = verify(decode(drafted, Signed), signer.network, Draft)
            self._drafts[draft.sender] = draft, 0

    # What is told

    def on_opened(self, opened: Opened) -> list[Effect]:
        self._opened = opened
        missing = [ref for ref in opened.held_out if self._trainer and not self._desk.holds(ref)]
        return [Fetch(ref, ()) for ref in missing]

    def on_changed(self, view: View) -> list[Effect]:
        before, self._view = self._view, view
        same = before is not None and (before.round, before.phase) == (view.round, view.phase)
        effects: list[Effect] = []
        if not same:
            effects += self._begin(before, view)
        return effects + self.advance()

    def _begin(self, before: View | None, view: View) -> list[Effect]:
        """A phase has begun: what belongs to the one before is settled."""
        effects: list[Effect] = [Settle(key) for key in sorted(self._awaited)]
        self._awaited.clear()
        self._ticks = 0
        self._proposed = None
        self._retry_at = 0
        if before is not None and before.phase == Phase.REVEAL:
            effects += [Unfetch(one.payload) for one in self._sealed if not self._desk.holds(one.payload)]
            effects += self._retire()
        if before is None or before.round != view.round:
            for old in [number for number in self._heard if number < view.round]:
                del self._heard[old]
            for key in [key for key in self._reports if key[0] < view.round and key[1] != Step.EVALUATION]:
                del self._reports[key]
            for key in [key for key in self._reports if key[0] <= view.evaluated and key[1] == Step.EVALUATION]:
                del self._reports[key]
            self._names.clear()
            for heard, _ in self._heard.get(view.round, {}).values():
                self._names[commitment_name(heard.signed.payload)] = heard.signed
        self._sealed = tuple(decode(one.payload, Commitment) for one in view.sealed)
        self._seal_certified = False
        self._arrived.clear()
        self._aggregated.clear()
        self._choices.clear()
        self._aggregating = None
        self._drafts = {key: (one, 0) for key, (one, _) in self._drafts.items() if one.body.round >= view.round}
        return effects

    def _retire(self) -> list[Effect]:
        """Payloads stay for a while after their round, for whoever has to look at them again."""
        self._past.append(tuple(one.payload for one in self._finite()))
        return [Retire(self._past.popleft())] if len(self._past) > KEEP_ROUNDS else []

    def on_heard(self, message: Verified[Commitment]) -> tuple[list[Effect], str]:
        """A commitment, and why it is not taken if it is not."""
        view, body = self._view, message.body
        if view is None or view.phase == Phase.DONE:
            return [], "commitment to a task that is not open"
        if not view.round <= body.round <= view.round + 1:
            return [], "commitment to another round"
        seat = view.seat(body.miner)
        if seat is None or seat.key != message.sender:
            return [], "commitment by somebody who is not enrolled"
        heard = self._heard.setdefault(body.round, {})
        if body.miner in heard:
            return self._on_heard_again(message, heard[body.miner][0], view), ""
        if body.round == view.round:
            if view.phase != Phase.TRAIN:
                return [], ""
            if body.model != view.model.root or body.samples != seat.units * view.spec.unit_batch:
                return [], "commitment to another model or batch"
            self._names[commitment_name(message.signed.payload)] = message.signed
        heard[body.miner] = (message, self._ticks if body.round == view.round else 0)
        return self.advance(), ""

    def _on_heard_again(self, message: Verified[Commitment], first: Verified[Commitment], view: View) -> list[Effect]:
        """A miner may say two things to two validators: what a report names is kept, or we could not show it."""
        if message.signed == first.signed or view.phase != Phase.TRAIN or message.body.round != view.round:
            return []
        name = commitment_name(message.signed.payload)
        reports = self._reports.get((view.round, Step.SEAL), {})
        if name in self._names or not any(name == one.digest for said in reports.values() for one in said.body.held):
            return []
        self._names[name] = message.signed
        return self.advance()

    def on_report(self, message: Verified[Report]) -> tuple[list[Effect], str]:
        view, body = self._view, message.body
        if message.sender not in self._electorate.keys:
            return [], "report by somebody who is not a validator"
        if view is None or body.step not in tuple(Step):
            return [], "report on a task or step that is not known"
        step = Step(body.step)
        oldest = view.evaluated + 1 if step == Step.EVALUATION else view.round
        if not oldest <= body.round <= view.round + 1:
            return [], "report on a round that is past" if body.round < oldest else "report on a round to come"
        if step == Step.EVALUATION and (body.held or body.links):
            return [], "report on an evaluation that holds something"
        by_key = self._reports.setdefault((body.round, step), {})
        if message.sender in by_key:
            return [], ""
        by_key[message.sender] = message
        return self.advance(), ""

    def on_draft(self, message: Verified[Draft]) -> tuple[list[Effect], str]:
        view, body = self._view, message.body
        number, primary = self._lead
        if message.sender not in self._electorate.keys or (
            body.view == number and primary not in (None, message.sender)
        ):
            return [], "draft by another than the primary"
        if body.view < number:
            return [], "draft of a view that is past"
        if view is None or not view.round <= body.round <= view.round + 1 or body.step != Step.UPDATE:
            return [], "draft for another round"
        known = self._drafts.get(message.sender)
        if known is not None and (known[0].body.view, known[0].body.round) >= (body.view, body.round):
            return [], ""
        try:
            read_reports(body.reports, body.task, body.round, Step.UPDATE, self._electorate)
        except Malformed as error:
            return [], f"draft of {error}"
        self._drafts[message.sender] = message, self._ticks if body.round == view.round else 0
        return self.advance(), ""

    def on_fetched(self, ref: BlobRef) -> list[Effect]:
        return self._arrive() + self.advance()

    def on_certified(self) -> list[Effect]:
        """The seal is final: fetch what was sealed."""
        view = self._view
        if view is None or view.phase != Phase.REVEAL or self._seal_certified:
            return []
        self._seal_certified = True
        effects: list[Effect] = []
        for one in self._finite():
            if not self._desk.holds(one.payload):
                seat = view.seat(one.miner)
                holders = (seat.key,) if seat is not None else ()
                effects.append(Fetch(one.payload, (*holders, *self._electorate.keys)))
        return effects + self._arrive() + self.advance()

    def on_entered(self, number: int, primary: Key | None) -> list[Effect]:
        """Another view: what the old primary owed, the new one owes afresh."""
        self._lead = (number, primary)
        effects: list[Effect] = [Settle(key) for key in sorted(self._awaited)]
        self._awaited.clear()
        self._proposed = None
        if primary is None:
            return effects
        self._drafts = {key: held for key, held in self._drafts.items() if held[0].body.view >= number}
        return effects + self.advance()

    def on_answer(self, answer: Answer) -> list[Effect]:
        if self._aggregating is not None and answer.job == self._aggregating[0]:
            _, payloads = self._aggregating
            self._aggregating = None
            if isinstance(answer, Aggregated):
                self._aggregated[payloads] = answer
                return [Told("aggregated", (("ms", answer.milliseconds),)), *self.advance()]
            if isinstance(answer, Failed):
                self._retry_at = self._ticks + RETRY_TICKS
                return [Told("aggregation failed", (("reason", answer.reason),))]
        if self._scoring is not None and answer.job == self._scoring[0]:
            _, number = self._scoring
            self._scoring = None
            if isinstance(answer, Evaluated):
                return self._report_score(number, answer)
            if isinstance(answer, Failed):
                return [Told("evaluation failed", (("round", number), ("reason", answer.reason)))]
        return []

    def on_tick(self) -> list[Effect]:
        self._ticks += 1
        effects: list[Effect] = []
        if self._ticks % SAY_AGAIN_TICKS == 0:
            effects += self._say_again()
        return effects + self.advance()

    # What follows

    def advance(self) -> list[Effect]:
        """Do whatever has become possible; called after every input."""
        view = self._view
        if view is None:
            return []
        effects = self._score()
        if view.phase == Phase.TRAIN:
            effects += self._report_seal(view) + self._propose_seal(view)
        if view.phase == Phase.REVEAL:
            effects += self._report_update(view) + self._draft_update(view) + self._propose_update(view)
        return effects

    def _leads(self) -> bool:
        return self._lead[1] == self._signer.key

    def _await(self, key: str) -> list[Effect]:
        if key in self._awaited:
            return []
        self._awaited.add(key)
        return [Await(key)]

    def _settle(self, key: str) -> list[Effect]:
        if key not in self._awaited:
            return []
        self._awaited.discard(key)
        return [Settle(key)]

    def _key(self, what: str, view: View) -> str:
        return f"{what} of round {view.round} of task {short(view.task)}"

    def _share(self, body: Report) -> list[Effect]:
        """A report is final: write it down, then say it."""
        message = self._signer.verified(body)
        step = Step(body.step)
        self._own[step] = message
        self._reports.setdefault((body.round, step), {})[message.sender] = message
        return [
            Note(report_note(body.task, step), encode(message.signed)),
            Share(message.signed),
            Told("reported", (("step", step.name.lower()), ("round", body.round), ("held", len(body.held)))),
        ]

    def _reported(self, view: View, step: Step) -> bool:
        own = self._own.get(step)
        return own is not None and own.body.round == view.round

    # Seal

    def _report_seal(self, view: View) -> list[Effect]:
        if self._reported(view, Step.SEAL):
            return []
        heard = self._heard.get(view.round, {})
        all_in = all(seat.account in heard for seat in view.expected()) and bool(view.expected())
        if not all_in and self._ticks < view.deadline_ticks:
            return []
        held = tuple(
            Named(miner, commitment_name(message.signed.payload), ticks)
            for miner, (message, ticks) in sorted(heard.items())
            if self._fits(message, view)
        )
        return self._share(Report(view.task, view.round, Step.SEAL.value, held, (), ()))

    def _fits(self, message: Verified[Commitment], view: View) -> bool:
        """A commitment that was heard early is compared with the round once this has begun."""
        body, seat = message.body, view.seat(message.body.miner)
        if seat is None or seat.suspended or seat.joined > view.round:
            return False
        return body.model == view.model.root and body.samples == seat.units * view.spec.unit_batch

    def _propose_seal(self, view: View) -> list[Effect]:
        reports = self._reports.get((view.round, Step.SEAL), {})
        if len(reports) < self._electorate.quorum:
            return []
        effects = self._await(self._key("the seal", view))
        if not self._leads() or self._proposed is not None:
            return effects
        seal = make_seal(view.task, view.round, list(reports.values()), self._names, self._electorate.some_honest)
        if not isinstance(seal, Seal):
            return effects  # whoever named what we lack sends it along when it says its report again
        self._proposed = seal
        return [*effects, Propose(seal)]

    # Update

    def _finite(self) -> list[Commitment]:
        return [one for one in self._sealed if one.finite]

    def _arrive(self) -> list[Effect]:
        for one in self._finite():
            if one.miner not in self._arrived and self._desk.holds(one.payload):
                self._arrived[one.miner] = self._ticks
        return []

    def _report_update(self, view: View) -> list[Effect]:
        if not self._seal_certified:
            return []
        self._arrive()
        # A payload is worth naming only by who can add it up: without the model nobody could, and the round must lapse.
        finite = self._finite()
        able = self._keeper.ready()
        all_in = able and all(one.miner in self._arrived for one in finite)
        effects: list[Effect] = []
        if all_in and finite:
            effects += self._aggregate(view, tuple(finite))  # most often what the draft will ask for
        if self._reported(view, Step.UPDATE) or (not all_in and self._ticks < self._reveal_ticks):
            return effects
        held = tuple(
            Named(one.miner, one.payload.root, self._arrived[one.miner])
            for one in finite
            if able and one.miner in self._arrived
        )
        return effects + self._share(Report(view.task, view.round, Step.UPDATE.value, held, (), ()))

    def _draft_update(self, view: View) -> list[Effect]:
        reports = self._reports.get((view.round, Step.UPDATE), {})
        if self._drafted(view) is not None:
            return self._settle(self._key("the draft", view))
        if len(reports) < self._electorate.quorum:
            return []
        effects = self._await(self._key("the draft", view))
        if not self._leads():
            return effects
        chosen = tuple(reports[key].signed for key in sorted(reports))
        draft = self._signer.verified(Draft(self._lead[0], view.task, view.round, Step.UPDATE.value, chosen))
        self._drafts[draft.sender] = draft, self._ticks
        effects += self._settle(self._key("the draft", view))
        return [*effects, Note(draft_note(view.task), encode(draft.signed)), Share(draft.signed)]

    def _drafted(self, view: View) -> tuple[Verified[Draft], int] | None:
        """The draft of this round by the primary that leads now, and when it came."""
        number, primary = self._lead
        held = self._drafts.get(primary) if primary is not None else None
        if held is None or (held[0].body.view, held[0].body.round) != (number, view.round):
            return None
        return held

    def _choice(self, reports: tuple[Signed, ...], view: View) -> Choice:
        if reports not in self._choices:
            read = read_reports(reports, view.task, view.round, Step.UPDATE, self._electorate)
            self._choices[reports] = choose(read, self._sealed, self._electorate.some_honest)
        return self._choices[reports]

    def _propose_update(self, view: View) -> list[Effect]:
        held = self._drafted(view)
        if held is None:
            return []
        draft, since = held
        effects: list[Effect] = []
        expected, more = self._expected(draft.body.reports, view)
        effects += more
        # The primary's time for an update counts from when we have done the same work ourselves.
        if expected is not None or self._ticks - since >= self._work_ticks_max:
            effects += self._await(self._key("the update", view))
        if expected is not None and self._leads() and self._proposed is None:
            self._proposed = expected
            effects.append(Propose(expected))
        return effects

    def _expected(self, reports: tuple[Signed, ...], view: View) -> tuple[Update | None, list[Effect]]:
        """The update that follows from these reports, once we have aggregated for ourselves."""
        choice = self._choice(reports, view)
        payloads = choice.payloads()
        if not payloads:
            nothing = (NO_BLOB, NO_BLOB, NO_BLOB)
            return make_update(view.task, view.round, reports, choice, (), nothing), []
        done = self._aggregated.get(payloads)
        if done is None:
            return None, self._aggregate(view, choice.counted)
        results = (done.aggregate, done.model, done.momentum)
        return make_update(view.task, view.round, reports, choice, done.judgements, results), []

    def _aggregate(self, view: View, counted: tuple[Commitment, ...]) -> list[Effect]:
        payloads = tuple(one.payload for one in counted)
        if payloads in self._aggregated or self._aggregating is not None or self._ticks < self._retry_at:
            return []
        if not self._keeper.ready() or not all(self._desk.holds(one) for one in payloads):
            return []
        parts = tuple(Payload(one.payload, one.samples // view.spec.unit_batch) for one in counted)
        job = self._desk.job()
        self._aggregating = (job, payloads)
        return [Run("arithmetic", Aggregate(job, view.spec, view.round, view.model, view.momentum, parts))]

    # Evaluation

    def _score(self) -> list[Effect]:
        """Score the newest model that is due, beside the round; and propose what a quorum has measured."""
        view = self._view
        assert view is not None
        effects: list[Effect] = []
        every = view.spec.evaluate_every
        due = every > 0 and (view.round % every == 0 or view.phase == Phase.DONE) and view.phase != Phase.IDLE
        if due and self._scored < view.round and view.evaluated < view.round and self._scoring is None:
            effects += self._begin_scoring(view)
        for (number, step), reports in sorted(self._reports.items()):
            if step == Step.EVALUATION and number > view.evaluated and self._leads():
                measured = [one for one in reports.values() if any(each.round == number for each in one.body.measured)]
                enough = len(reports) >= self._electorate.quorum and len(measured) >= self._electorate.some_honest
                if enough and self._score_proposed < (self._lead[0], number):
                    self._score_proposed = (self._lead[0], number)
                    chosen = tuple(reports[key].signed for key in sorted(reports))
                    effects.append(Propose(Evaluation(view.task, number, chosen)))
        return effects

    def _begin_scoring(self, view: View) -> list[Effect]:
        if not self._trainer:
            self._scored = view.round
            return self._share(Report(view.task, view.round, Step.EVALUATION.value, (), (), ()))
        opened = self._opened
        if opened is None or not opened.held_out or not self._desk.holds(view.model):
            return []
        if not all(self._desk.holds(ref) for ref in opened.held_out):
            return []
        job = self._desk.job()
        self._scoring, self._scored = (job, view.round), view.round
        return [Run("trainer", Evaluate(job, view.spec, view.model, opened.held_out))]

    def _report_score(self, number: int, scored: Evaluated) -> list[Effect]:
        assert self._view is not None
        own = self._own.get(Step.EVALUATION)
        if own is not None and own.body.round >= number:
            return []  # said before a restart; a report is final
        measured = Measured(number, scored.correct, scored.samples, scored.loss_micro)
        return self._share(Report(self._view.task, number, Step.EVALUATION.value, (), (), (measured,))) + self._score()

    # Retransmission

    def _say_again(self) -> list[Effect]:
        """Our report and draft, if what they lead to has not come; and the commitments that our report names."""
        view = self._view
        if view is None:
            return []
        effects: list[Effect] = []
        step = {Phase.TRAIN: Step.SEAL, Phase.REVEAL: Step.UPDATE}.get(view.phase)
        own = self._own.get(step) if step is not None else None
        if own is not None and own.body.round == view.round:
            effects.append(Share(own.signed))
            if step == Step.SEAL:
                named = [one.digest for one in own.body.held]
                effects += [Share(self._names[name]) for name in named if name in self._names]
        drafted = self._drafted(view)
        if drafted is not None and self._leads() and view.phase == Phase.REVEAL:
            effects.append(Share(drafted[0].signed))
        scored = self._own.get(Step.EVALUATION)
        if scored is not None and scored.body.round > view.evaluated:
            effects.append(Share(scored.signed))
        return effects

    # Judgement

    def judge(self, record: Seal | Update | Evaluation, final: bool) -> tuple[str | None, list[Effect]]:
        """Whether a proposed record is right: nothing if so, else why not; None while it cannot be told yet.

        `final` says that everything before the record has been executed: a premise that does not hold then will
        not hold when the record is executed either, and the ledger will say so in its receipt.
        """
        match record:
            case Seal():
                return seal_fault(record, self._electorate), []
            case Evaluation():
                try:
                    read_reports(record.reports, record.task, record.round, Step.EVALUATION, self._electorate)
                except Malformed as error:
                    return str(error), []
                return "", []
            case Update():
                return self._judge_update(record, final)

    def _judge_update(self, record: Update, final: bool) -> tuple[str | None, list[Effect]]:
        view = self._view
        if view is None or record.round > view.round or (record.round, view.phase) == (view.round, Phase.TRAIN):
            return ("" if final else None), []
        if record.round < view.round or view.phase != Phase.REVEAL:
            return "", []
        try:
            expected, effects = self._expected(record.reports, view)
        except Malformed as error:
            return str(error), []
        if expected is None:
            return None, effects
        return (update_difference(record, expected), effects)


def update_difference(record: Update, expected: Update) -> str:
    """What a proposed update says otherwise than we do, or nothing if it is ours to the bit."""
    if record.contributions != expected.contributions:
        return "its contributions are not what its reports and payloads give"
    for what in ("aggregate", "model", "momentum"):
        if getattr(record, what) != getattr(expected, what):
            return f"its {what} is {short(getattr(record, what).root)}, ours is {short(getattr(expected, what).root)}"
    assert record == expected
    return ""
