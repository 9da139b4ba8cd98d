"""A validator's part in a round: report what is held, draft, aggregate, and say what record follows."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import compress

from potd.rounds.aggregation import Aggregation
from potd.rounds.chains import Chains
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
from potd.rounds.keeper import Desk, Keeper
from potd.rounds.links import Links
from potd.rounds.tally import (
    Choice,
    Electorate,
    choose,
    make_seal,
    make_update,
    name_of,
    read_reports,
    seal_fault,
    seal_reports,
    two_words,
    written_once,
)
from potd.wire.blocks import miners_max
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Digest, Key, TaskId, short
from potd.wire.jobs import Answer
from potd.wire.rounds import (
    MINER_BYTES,
    Commitment,
    Draft,
    Link,
    Report,
    Seal,
    Step,
    Update,
    flags_of,
    positions,
    report_fault,
)
from potd.wire.tasks import payload_bytes

SAY_AGAIN_TICKS = 20  # an unanswered report or draft is said again every second
LINK_TICKS = 4  # that a report waits for links when nothing else is lacking: a journey between any two


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
        account: AccountId,
        chains: Chains,
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
        self._account = account
        self._chains = chains
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
        self._accused: set[tuple[int, AccountId]] = set()  # who has committed twice to a round: told once
        self._unheard: set[AccountId] | None = None  # of those whom the round waits for; None while it is for nobody
        self._own: dict[Step, Verified[Report]] = {}
        self._reports: dict[tuple[int, Step], dict[Key, Verified[Report]]] = {}
        self._sealed: tuple[Commitment, ...] = ()
        self._finite: tuple[Commitment, ...] = ()  # those of the sealed that have a payload
        self._counting: tuple[Commitment, ...] = ()  # those of these that are in the sum if all are revealed
        self._all_chosen = b""  # their positions
        self._seal_certified = False
        self._absent: dict[BlobRef, list[int]] = {}  # payloads that have not come, with positions in what was sealed
        self._arrived: dict[int, int] = {}  # by position, when its payload came
        self._drafts: dict[Key, tuple[Verified[Draft], int]] = {}  # each validator's newest, and when it came
        self._links = Links()
        self._complete: int | None = None  # when nothing was lacking any more but links
        self._sums = Aggregation(desk, keeper)
        self._choices: dict[tuple[Signed, ...], Choice] = {}
        self._updates: dict[tuple[Signed, ...], Update] = {}  # what we expect, by the reports that it follows from
        self._awaited: set[str] = set()
        self._proposed: Seal | Update | None = None
        self._past: deque[tuple[BlobRef, ...]] = deque()  # payloads of rounds before
        self._hushed = False  # whether nothing may be said
        self._forgotten: tuple[int, Phase] | None = None  # a step in which we may have said what we do not remember
        for step, data in sorted(noted.items()):
            if step == Step.SEAL:
                note = decode(data, Seal)
                (own,) = seal_reports(note, signer.network)
                for signed in note.commitments:
                    shown = verify(signed, signer.network, Commitment)
                    self._heard.setdefault(shown.body.round, {})[shown.body.miner] = (shown, 0)
            else:
                own = verify(decode(data, Signed), signer.network, Report)
            self._own[step] = own
            self._reports[(own.body.round, step)] = {own.sender: own}
        if drafted:
            draft = verify(decode(drafted, Signed), signer.network, Draft)
            if draft.body.base == electorate.base:
                self._drafts[draft.sender] = draft, 0

    # What is told

    def reseated(self, electorate: Electorate) -> None:
        """Others decide from here on: what earlier ones have reported counts no more, and their drafts belong to views
        that are over. What we have said ourselves stays said, and miners are not asked again. `on_entered` follows."""
        self._electorate = electorate
        self._drafts.clear()
        self._choices.clear()
        self._updates.clear()
        for by_key in self._reports.values():
            for key in [key for key in by_key if key not in electorate.keys]:
                del by_key[key]

    def left(self) -> list[Effect]:
        """We have no seat any more: what we fetched for it is wanted no more."""
        return [Unfetch(one.payload) for one in self._finite if not self._desk.holds(one.payload)]

    def on_changed(self, view: View) -> list[Effect]:
        before, self._view = self._view, view
        if before is not None and before.phase == Phase.REVEAL != view.phase and self._seal_certified:
            self._links.end()
        self._links.on_changed(view)
        same = before is not None and (before.round, before.phase) == (view.round, view.phase)
        effects: list[Effect] = []
        if not same:
            effects += self._begin(before, view)
        expected = {seat.account for seat in view.expected()} if view.phase == Phase.TRAIN else set()
        self._unheard = expected - self._heard.get(view.round, {}).keys() if expected else None
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
            self._accused = {one for one in self._accused if one[0] >= view.round}
            for key in [key for key in self._reports if key[0] < view.round]:
                del self._reports[key]
            self._names.clear()
            for heard, _ in self._heard.get(view.round, {}).values():
                self._names[name_of(heard)] = heard.signed
        self._sealed = view.commitments
        self._finite = tuple(one for one in self._sealed if one.finite)
        counts = [one.finite and one.miner not in view.probation for one in self._sealed]
        self._counting, self._all_chosen = tuple(compress(self._sealed, counts)), positions(counts)
        self._seal_certified = False
        self._complete = None
        self._absent.clear()
        self._arrived.clear()
        for position, one in enumerate(self._sealed):
            if one.finite:
                self._absent.setdefault(one.payload, []).append(position)
        self._sums.begin_round()
        self._choices.clear()
        self._updates.clear()
        self._drafts = {key: (one, 0) for key, (one, _) in self._drafts.items() if one.body.round >= view.round}
        if view.phase == Phase.REVEAL:
            self._forget_what_does_not_fit(view)
            effects += self._two_faced(view)
        return effects

    def _forget_what_does_not_fit(self, view: View) -> None:
        """Reports and drafts that came before the seal are compared with it once it is executed."""
        early = self._reports.get((view.round, Step.UPDATE), {})
        for sender in [sender for sender, one in early.items() if self._seal_difference(one.body)]:
            del early[sender]
        for sender, (draft, _) in list(self._drafts.items()):
            if draft.body.round == view.round and self._draft_difference(draft.body, view):
                del self._drafts[sender]

    def _seal_difference(self, report: Report) -> str:
        """Why a report is none on what was sealed, or nothing."""
        try:
            flags_of(report.held, len(self._sealed))
        except Malformed as error:
            return str(error)
        return ""

    def _draft_difference(self, draft: Draft, view: View) -> str:
        try:
            self._choice(draft.reports, view)
        except Malformed as error:
            return str(error)
        return ""

    def _retire(self) -> list[Effect]:
        """Payloads stay for a while after their round, for whoever has to look at them again."""
        self._past.append(tuple(one.payload for one in self._finite))
        return [Retire(self._past.popleft())] if len(self._past) > self._desk.keep_rounds else []

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
            self._names[name_of(message)] = message.signed
            if self._unheard is not None:
                self._unheard.discard(body.miner)
        heard[body.miner] = (message, self._ticks if body.round == view.round else 0)
        return self.advance(), ""

    def _on_heard_again(self, message: Verified[Commitment], first: Verified[Commitment], view: View) -> list[Effect]:
        """A miner may say two things to two validators: what a report names is kept, or we could not show it."""
        if message.signed == first.signed:
            return []
        accused = self._committed_twice(first, message)
        if view.phase != Phase.TRAIN or message.body.round != view.round:
            return accused
        name = name_of(message)
        reports = self._reports.get((view.round, Step.SEAL), {})
        if name in self._names or not any(_names(one.body, name) for one in reports.values()):
            return accused
        self._names[name] = message.signed
        return accused + self.advance()

    def _committed_twice(self, first: Verified[Commitment], other: Verified[Commitment]) -> list[Effect]:
        """Two commitments of a miner to one round; not so if its account has changed keys between them."""
        said = other.body.round, other.body.miner
        if first.sender != other.sender or said in self._accused:
            return []
        self._accused.add(said)
        return two_words(first, other, "made two commitments to one round", self._signer.key)

    def _two_faced(self, view: View) -> list[Effect]:
        """A seal may show another commitment of a miner than the one that we heard of it."""
        effects: list[Effect] = []
        heard = self._heard.get(view.round, {})
        for signed, one in zip(view.sealed, self._sealed, strict=True):
            known = heard.get(one.miner)
            if known is not None and known[0].signed != signed:
                shown = verify(signed, self._electorate.network, Commitment)
                effects += self._committed_twice(known[0], shown)
        return effects

    def on_report(self, message: Verified[Report]) -> tuple[list[Effect], str]:
        view, body = self._view, message.body
        if message.sender not in self._electorate.keys:
            return [Ignore("report by somebody who is not a validator now")], ""
        if view is None or body.step not in (Step.SEAL, Step.UPDATE):
            return [], "report on a step that is not known"
        if not view.round <= body.round <= view.round + 1:
            return [Ignore("report on a round that is past, or far to come")], ""
        step = Step(body.step)
        fault = report_fault(body)
        validators = len(self._electorate.keys)
        if fault or len(body.names) > 2 * miners_max(validators) or len(body.links) > 2 * validators or body.measured:
            return [], fault or "report on more than there can be"
        if step == Step.UPDATE and (body.round, Phase.REVEAL) == (view.round, view.phase):
            fault = self._seal_difference(body)
            if fault:
                return [], f"report of {fault}"
        by_key = self._reports.setdefault((body.round, step), {})
        first = by_key.setdefault(message.sender, message)
        if first is not message:
            return two_words(first, message, "made two reports on one step", self._signer.key), ""
        return self.advance(), ""

    def said_by(self, key: Key) -> list[Signed]:
        """A validator's reports and newest draft that are kept here."""
        reports = [by_key[key].signed for _, by_key in sorted(self._reports.items()) if key in by_key]
        return reports + ([self._drafts[key][0].signed] if key in self._drafts else [])

    def on_draft(self, message: Verified[Draft]) -> tuple[list[Effect], str]:
        view, body = self._view, message.body
        number, primary = self._lead
        if body.base != self._electorate.base:
            return [Ignore("draft to earlier or later validators")], ""
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
            same = (known[0].body.view, known[0].body.round) == (body.view, body.round)
            return two_words(known[0], message, "made two drafts of one update", self._signer.key) if same else [], ""
        try:
            read_reports(body.reports, body.task, body.round, Step.UPDATE, self._electorate)
        except Malformed as error:
            return [], f"draft of {error}"
        if (body.round, Phase.REVEAL) == (view.round, view.phase):
            fault = self._draft_difference(body, view)
            if fault:
                return [], f"draft with {fault}"
        self._drafts[message.sender] = message, self._ticks if body.round == view.round else 0
        return self.advance(), ""

    def on_link(self, message: Verified[Link]) -> tuple[list[Effect], str]:
        view, body = self._view, message.body
        if message.sender not in self._electorate.keys:
            return [Ignore("link by somebody who is not a validator now")], ""
        if view is None or view.phase == Phase.DONE:
            return [Ignore("link for a task that is not open")], ""
        untimely = self._links.untimely(body, view.round)
        if untimely:
            return [Ignore(untimely)], ""
        fault = self._links.take(body, view.round)
        return ([], fault) if fault else (self.advance(), "")

    def on_fetched(self, ref: BlobRef) -> list[Effect]:
        for position in self._absent.pop(ref, ()):
            self._arrived[position] = self._ticks
        return self.advance()

    def on_certified(self) -> list[Effect]:
        """The seal is final, and was chosen by nobody who knew our link: release it, and fetch what was sealed."""
        view = self._view
        if view is None or view.phase != Phase.REVEAL or self._seal_certified:
            return []
        self._seal_certified = True
        self._arrive()
        return self._release(view) + self._fetch_payloads(view) + self.advance()

    def _release(self, view: View) -> list[Effect]:
        """Our link for the seed that follows this round, if we have one."""
        chained = next((one.chained for one in view.tips if one.account == self._account), None)
        link = self._chains.seed(chained, view.round)
        if link is None or self._hushed:
            return []
        body = Link(view.task, view.round, self._account, link)
        fault = self._links.take(body, view.round)
        assert not fault, fault
        return [Share(self._signer.sign(body))]

    def _fetch_payloads(self, view: View) -> list[Effect]:
        effects: list[Effect] = []
        for one in self._absent.values():
            sealed = self._sealed[one[0]]
            seat = view.seat(sealed.miner)
            holders = (seat.key,) if seat is not None else ()
            effects.append(Fetch(sealed.payload, (*holders, *self._electorate.keys)))
        return effects

    def _arrive(self) -> None:
        """Payloads that were held already when they were sealed, as those of a miner beside this validator."""
        for ref in [ref for ref in self._absent if self._desk.holds(ref)]:
            for position in self._absent.pop(ref):
                self._arrived[position] = self._ticks

    def payloads(self) -> tuple[BlobRef, ...]:
        """What this round's update may still have to add up."""
        return tuple(one.payload for one in self._finite)

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

    def hush(self) -> None:
        """Say nothing, until `speak`."""
        self._hushed = True

    def speak(self, restored: bool) -> list[Effect]:
        """Report and draft from now on. Reports are final, so a home that has forgotten some passes over the step under
        way, in which one may have been among them."""
        self._hushed = False
        if restored and self._view is not None:
            self._forgotten = (self._view.round, self._view.phase)
        released = self._release(self._view) if self._view is not None and self._seal_certified else []
        return released + self.advance()

    def _mute(self, view: View) -> bool:
        return self._hushed or self._forgotten == (view.round, view.phase)

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
        assert not report_fault(body), report_fault(body)
        message = self._signer.verified(body)
        step = Step(body.step)
        self._own[step] = message
        self._reports.setdefault((body.round, step), {})[message.sender] = message
        note, held = encode(message.signed), len(self._arrived)
        if step == Step.SEAL:
            shown = tuple(self._names[name] for name in body.names)
            note, held = encode(written_once(body.task, body.round, [message], shown)), len(body.names)
        return [
            Note(report_note(body.task, step), note),
            Share(message.signed),
            Told("reported", (("step", step.name.lower()), ("round", body.round), ("held", held))),
        ]

    def _reported(self, view: View, step: Step) -> bool:
        """Whether we have, as we remember it or as others show us: then it is said, and no other will be."""
        return self._signer.key in self._reports.get((view.round, step), {})

    # Seal

    def _report_seal(self, view: View) -> list[Effect]:
        if self._reported(view, Step.SEAL) or self._mute(view):
            return []
        # Where a quorum has ended its patience a seal is due, and what we lack for it is seen by our report.
        ended = len(self._reports.get((view.round, Step.SEAL), {})) >= self._electorate.quorum
        all_in = self._unheard is not None and not self._unheard
        if not all_in and not ended and self._ticks < view.deadline_ticks:
            return []
        arrivals: dict[bytes, tuple[Digest, int]] = {}  # by what stands in a name for its miner
        for _, (message, ticks) in sorted(self._heard.get(view.round, {}).items()):
            name = name_of(message)
            if self._fits(message, view):
                arrivals.setdefault(name[:MINER_BYTES], (name, ticks))
        names = tuple(name for name, _ in arrivals.values())
        slowest = max((ticks for _, ticks in arrivals.values()), default=0)
        return self._share(Report(view.task, view.round, Step.SEAL.value, names, (), (), b"", slowest))

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

    def _report_update(self, view: View) -> list[Effect]:
        if not self._seal_certified:
            return []
        # A payload is worth naming only by who can add it up: without the model nobody could, and the round must lapse.
        able = self._keeper.ready()
        all_in = able and not self._absent
        effects: list[Effect] = []
        if all_in and self._counting:
            effects += self._sums.want(view, self._all_chosen, self._counting)  # most often what the draft will ask for
        if self._reported(view, Step.UPDATE) or self._mute(view) or (not all_in and self._ticks < self._reveal_ticks):
            return effects
        self._complete = self._ticks if self._complete is None else self._complete
        if not self._links.all_in() and self._ticks - self._complete < LINK_TICKS:
            return effects
        held = positions([able and position in self._arrived for position in range(len(self._sealed))])
        slowest = max(self._arrived.values(), default=0) if able else 0
        links = self._links.of(view.round)
        return effects + self._share(Report(view.task, view.round, Step.UPDATE.value, (), links, (), held, slowest))

    def _draft_update(self, view: View) -> list[Effect]:
        reports = self._reports.get((view.round, Step.UPDATE), {})
        if self._drafted(view) is not None:
            return self._settle(self._key("the draft", view))
        if len(reports) < self._electorate.quorum:
            return []
        effects = self._await(self._key("the draft", view))
        if not self._leads() or self._mute(view):
            return effects
        chosen = tuple(reports[key].signed for key in sorted(reports))
        draft = self._signer.verified(
            Draft(self._electorate.base, self._lead[0], view.task, view.round, Step.UPDATE.value, chosen)
        )
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
            self._choices[reports] = choose(read, self._sealed, self._electorate.some_honest, view.probation)
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
        if reports in self._updates:
            return self._updates[reports], []
        choice = self._choice(reports, view)
        if not choice.counted:
            nothing = (NO_BLOB, NO_BLOB, NO_BLOB)
            self._updates[reports] = make_update(view.task, view.round, reports, choice, (), nothing)
            return self._updates[reports], []
        done = self._sums.get(choice.chosen)
        if done is None:
            return None, self._sums.want(view, choice.chosen, choice.counted)
        results = (done.aggregate, done.model, done.momentum)
        self._updates[reports] = make_update(view.task, view.round, reports, choice, done.judgements, results)
        return self._updates[reports], []

    # Retransmission

    def _say_again(self) -> list[Effect]:
        """Our report, link and draft, if what they lead to has not come; and the commitments that our report names and
        the primary's does not: it cannot make the seal without them."""
        view = self._view
        if view is None:
            return []
        effects: list[Effect] = []
        step = {Phase.TRAIN: Step.SEAL, Phase.REVEAL: Step.UPDATE}.get(view.phase)
        own = self._own.get(step) if step is not None and not self._hushed else None
        if own is not None and own.body.round == view.round:
            effects.append(Share(own.signed))
            if step == Step.SEAL:
                effects += self._shown(own.body, view)
        if view.phase == Phase.REVEAL and self._seal_certified:
            self._arrive()
            effects += self._release(view) + self._fetch_payloads(view)
        drafted = self._drafted(view)
        if drafted is not None and self._leads() and view.phase == Phase.REVEAL and not self._hushed:
            effects.append(Share(drafted[0].signed))
        return effects

    def _shown(self, own: Report, view: View) -> list[Effect]:
        primary = self._lead[1]
        said = self._reports.get((view.round, Step.SEAL), {}).get(primary) if primary is not None else None
        if said is None:
            return []  # it says what it has when a quorum has, at the latest
        lacking = set(own.names) - set(said.body.names)
        return [Share(self._names[name]) for name in own.names if name in lacking and name in self._names]

    # Judgement

    def judge_seal(self, record: Seal) -> str:
        """Why a proposed seal does not follow from its reports, or nothing, whatever the state of the task."""
        current = self._view is not None and self._view.round == record.round
        known = self._reports.get((record.round, Step.SEAL))
        return seal_fault(record, self._electorate, known, self._names if current else None)

    def judge_update(self, record: Update, number: int, final: bool) -> tuple[str | None, list[Effect]]:
        """Whether an update that was proposed in this view is right: nothing if so, else why not; None while it cannot
        be told yet. A primary that has drafted is held to its draft: it is what everybody has worked for.

        `final` says that everything before the update's batch has been executed, and that nothing before it in the
        batch touches its task: a premise that does not hold then will not hold when the update is executed either, and
        the ledger will say so in its receipt. Until then a premise may yet come to hold, unless its round is past.
        """
        view = self._view
        if view is not None and (record.round < view.round or view.phase == Phase.DONE):
            return "", []
        if view is None or record.round > view.round or view.phase != Phase.REVEAL:
            return ("" if final else None), []
        drafted = self._drafted(view) if number == self._lead[0] else None
        if drafted is not None and drafted[0].body.reports != record.reports:
            return "its reports are not those of its primary's draft", []
        try:
            expected, effects = self._expected(record.reports, view)
        except Malformed as error:
            return str(error), []
        if expected is None:
            return None, effects
        return (update_difference(record, expected), effects)


def _names(report: Report, name: Digest) -> bool:
    at = bisect_left(report.names, name)
    return at < len(report.names) and report.names[at] == name


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
