"""A validator's part in a round: report what is held, draft, aggregate, and say what record follows."""

from __future__ import annotations

from collections import deque

from potd.rounds.aggregation import Aggregation
from potd.rounds.events import (
    Await,
    Effect,
    Fetch,
    Ignore,
    Note,
    Phase,
    Propose,
    Retire,
    Seat,
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
)
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Digest, Key, TaskId, short
from potd.wire.jobs import Answer
from potd.wire.rounds import Commitment, Draft, Named, Report, Seal, Step, Update, report_fault
from potd.wire.tasks import payload_bytes

SAY_AGAIN_TICKS = 20  # an unanswered report or draft is said again every second


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
        noted: dict[Step, bytes],
        drafted: bytes,
    ) -> None:
        self._signer = signer
        self._electorate = electorate
        self._desk = desk
        self._keeper = keeper
        self._reveal_ticks = reveal_ticks
        self._work_ticks_max = work_ticks_max
        self._view: View | None = None
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
        self._sums = Aggregation(desk, keeper)
        self._choices: dict[tuple[Signed, ...], Choice] = {}
        self._awaited: set[str] = set()
        self._proposed: Seal | Update | None = None
        self._past: deque[tuple[BlobRef, ...]] = deque()  # payloads of rounds before
        for step, data in sorted(noted.items()):
            note = decode(data, Seal)
            own = verify(note.reports[0], signer.network, Report)
            self._own[step] = own
            self._reports[(own.body.round, step)] = {own.sender: own}
            for signed in note.commitments:
                shown = verify(signed, signer.network, Commitment)
                self._heard.setdefault(shown.body.round, {})[shown.body.miner] = (shown, 0)
        if drafted:
            draft = verify(decode(drafted, Signed), signer.network, Draft)
            self._drafts[draft.sender] = draft, 0

    # What is told

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
        if before is not None and before.phase == Phase.REVEAL:
            effects += [Unfetch(one.payload) for one in self._sealed if not self._desk.holds(one.payload)]
            effects += self._retire()
        if before is None or before.round != view.round:
            for old in [number for number in self._heard if number < view.round]:
                del self._heard[old]
            for key in [key for key in self._reports if key[0] < view.round]:
                del self._reports[key]
            self._names.clear()
            for heard, _ in self._heard.get(view.round, {}).values():
                self._names[commitment_name(heard.signed.payload)] = heard.signed
        self._sealed = tuple(decode(one.payload, Commitment) for one in view.sealed)
        self._seal_certified = False
        self._arrived.clear()
        self._sums.begin_round()
        self._choices.clear()
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
            return [Ignore("commitment to a task that is not open")], ""
        if not view.round <= body.round <= view.round + 1:
            return [Ignore("commitment to another round")], ""
        seat = view.seat(body.miner)
        if seat is None or seat.key != message.sender:
            return [Ignore("commitment by somebody who is not enrolled")], ""
        heard = self._heard.setdefault(body.round, {})
        if body.miner in heard:
            return self._on_heard_again(message, heard[body.miner][0], view), ""
        if body.round == view.round:
            if view.phase != Phase.TRAIN:
                return [], ""
            if not _matches(body, view, seat):
                return [], "commitment to another model, batch or size"
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
        if view is None or body.step not in (Step.SEAL, Step.UPDATE):
            return [], "report on a step that is not known"
        if not view.round <= body.round <= view.round + 1:
            return [Ignore("report on a round that is past, or far to come")], ""
        step = Step(body.step)
        fault = report_fault(body)
        if fault or len(body.held) > len(view.seats) or body.measured:
            return [], fault or "report on more than there is"
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
            return [Ignore("draft of a view that is past")], ""
        if body.step != Step.UPDATE:
            return [], "draft of a step that has none"
        if view is None or not view.round <= body.round <= view.round + 1:
            return [Ignore("draft for another round")], ""
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
        return self._fetch_payloads(view) + self._arrive() + self.advance()

    def _fetch_payloads(self, view: View) -> list[Effect]:
        effects: list[Effect] = []
        for one in self._finite():
            if not self._desk.holds(one.payload):
                seat = view.seat(one.miner)
                holders = (seat.key,) if seat is not None else ()
                effects.append(Fetch(one.payload, (*holders, *self._electorate.keys)))
        return effects

    def payloads(self) -> tuple[BlobRef, ...]:
        """What this round's update may still have to add up."""
        return tuple(one.payload for one in self._finite())

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
        return self._sums.on_answer(answer) + self.advance()

    def on_tick(self) -> list[Effect]:
        self._ticks += 1
        self._sums.on_tick()
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
        effects: list[Effect] = []
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
        """A report is final: write it down with the commitments that it names, then say it.

        Whoever has named a commitment must be able to show it, also after a restart: nobody else may."""
        message = self._signer.verified(body)
        step = Step(body.step)
        self._own[step] = message
        self._reports.setdefault((body.round, step), {})[message.sender] = message
        shown = tuple(self._names[one.digest] for one in body.held) if step == Step.SEAL else ()
        return [
            Note(report_note(body.task, step), encode(Seal(body.task, body.round, (message.signed,), shown))),
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
        return _matches(body, view, seat)

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
            effects += self._sums.want(view, tuple(finite))  # most often what the draft will ask for
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
        done = self._sums.get(payloads)
        if done is None:
            return None, self._sums.want(view, choice.counted)
        results = (done.aggregate, done.model, done.momentum)
        return make_update(view.task, view.round, reports, choice, done.judgements, results), []

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
        if view.phase == Phase.REVEAL and self._seal_certified:
            effects += self._fetch_payloads(view)
        drafted = self._drafted(view)
        if drafted is not None and self._leads() and view.phase == Phase.REVEAL:
            effects.append(Share(drafted[0].signed))
        return effects

    # Judgement

    def judge_update(self, record: Update, final: bool) -> tuple[str | None, list[Effect]]:
        """Whether a proposed update is right: nothing if so, else why not; None while it cannot be told yet.

        `final` says that everything before the update's batch has been executed, and that nothing before it in the
        batch touches its task: a premise that does not hold then will not hold when the update is executed either, and
        the ledger will say so in its receipt. Until then a premise may yet come to hold, unless its round is past.
        """
        view = self._view
        if view is not None and (record.round < view.round or view.phase == Phase.DONE):
            return "", []
        if view is None or record.round > view.round or view.phase != Phase.REVEAL:
            return ("" if final else None), []
        try:
            expected, effects = self._expected(record.reports, view)
        except Malformed as error:
            return str(error), []
        if expected is None:
            return None, effects
        return (update_difference(record, expected), effects)


def _matches(body: Commitment, view: View, seat: Seat) -> bool:
    """Whether a commitment is to what this round asked of this miner."""
    size = payload_bytes(view.spec) if body.finite else 0
    asked = (view.model.root, seat.units * view.spec.unit_batch, size)
    return (body.model, body.samples, body.payload.size) == asked


def update_difference(record: Update, expected: Update) -> str:
    """What a proposed update says otherwise than we do, or nothing if it is ours to the bit."""
    if record.contributions != expected.contributions:
        return "its contributions are not what its reports and payloads give"
    for what in ("aggregate", "model", "momentum"):
        if getattr(record, what) != getattr(expected, what):
            return f"its {what} is {short(getattr(record, what).root)}, ours is {short(getattr(expected, what).root)}"
    assert record == expected
    return ""
