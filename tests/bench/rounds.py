"""One round of many miners through real nodes in one process: its bytes, and what it costs a validator and a follower.

Nothing travels and nobody trains: what the network would bring is handed on, what workers would answer is made up, and
heights are certified without votes. Of the validators only a quorum are nodes: the primary needs no more reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import process_time

from potd.ledger.apply import execute
from potd.ledger.entries import Phase, Task
from potd.ledger.state import genesis_ledger
from potd.node import events as ev
from potd.node.node import Node, Restored, Settings
from potd.wire import envelope
from potd.wire.blocks import Batch, Block, Certificate, Record
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Proposal, quorum_of
from potd.wire.envelope import Signed, Signer, attestation_of, verify
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, BlobRef, Key, account_id, digest, task_id
from potd.wire.jobs import Aggregated, Judgement
from potd.wire.operations import Enrol, Submit, Transfer
from potd.wire.rounds import Commitment, Draft, Outcome, Report
from potd.wire.rules import MEAN
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, TaskSpec, payload_bytes

ACCOUNTS = 4096  # that own something, whether they mine or not
WRITERS_MAX = 100  # accounts whose operations wait
WAITING_EACH = 40
EARLY = 100  # so many of the first that a validator is told, and of the last, make a median
TICKS = 401
REPEATS = 5  # of what can be done again; the least counts
MODEL = ModelSpec("mlp", (8, 4), 36)

_ENVELOPES: tuple[type[Signed] | type[Proposal] | type[Certificate], ...] = (Signed, Proposal, Certificate)
Figures = dict[str, float | int]


class Member:
    """A node of the round. Nobody but itself has checked a signature for it, though all are in one process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.key: Key = node.signer.key
        self.sent_bytes = 0  # in frames
        self._held = envelope.Held()

    def step(self, event: ev.Input) -> list[ev.Effect]:
        envelope._held = self._held
        effects = self.node.step(event)
        self.sent_bytes += sum(len(one.data) for one in effects if isinstance(one, ev.Send))
        return effects


class Chain:
    """A ledger, a task in it that every miner has enrolled for, and the validators who certify each height."""

    def __init__(self, validators: int, miners: int) -> None:
        seats, accounts = _seeds("validator", validators), _seeds("miner", ACCOUNTS)
        keys = [[Signer(seed, NOTHING).key for seed in seeds] for seeds in (seats, accounts)]
        balances = tuple(Allotment(key, 10**12) for group in keys for key in group)
        self.genesis = Genesis("bench", PROTOCOL, 0, tuple(keys[0]), balances, Parameters())
        self.network = genesis_digest(self.genesis)
        self.validators = [Signer(seed, self.network) for seed in seats]
        self.miners = [Signer(seed, self.network) for seed in accounts[:miners]]
        self.quorum = quorum_of(validators)
        self.ledger = genesis_ledger(self.genesis)
        self.stored_bytes = 0  # what the newest height has written
        self.spec = _spec(miners)
        submission = self.miners[0].sign(Submit(account_id(self.miners[0].key), 0, self.spec, 10**9))
        self._task = task_id(encode(submission))
        self.newest = self.block(submission)

    @property
    def task(self) -> Task:
        task = self.ledger.task(self._task)
        assert task is not None
        return task

    def block(self, *records: Record) -> Block:
        """The next height, certified."""
        batch = Batch(records)
        done = execute(self.ledger, batch)
        reasons = [one.reason for one in done.receipts if one.reason]
        assert not reasons, reasons[0]
        self.ledger = done.ledger
        self.stored_bytes = sum(len(key) + len(value or b"") for key, value in done.changes)
        signed = sorted((one.sign(done.header) for one in self.validators[: self.quorum]), key=lambda one: one.key)
        self.newest = Block(done.header, tuple(attestation_of(one) for one in signed), batch)
        return self.newest

    def execute_ms(self, *records: Record) -> float:
        """What it costs to execute these as the next height, without doing so."""
        before, batch = self.ledger, Batch(records)
        return min(_milliseconds(lambda: execute(before, batch)) for _ in range(REPEATS))

    def enrol(self) -> float:
        """All miners; what the height of the last one costs, in milliseconds."""
        enrolments = [
            one.sign(Enrol(account_id(one.key), int(at == 0), self.task.id, 1)) for at, one in enumerate(self.miners)
        ]
        self.block(*enrolments[:-1])
        taken = self.execute_ms(enrolments[-1])
        self.block(enrolments[-1])
        self.block()  # whose seed opens the first round
        return taken

    def node(self, signer: Signer, *, validator: bool) -> Member:
        """One that starts where the chain stands, with the model and with a worker for sums."""
        newest = self.newest
        entries = tuple(self.ledger.entries.items())
        boot = digest("boot", signer.key)
        restored = Restored(newest.header, newest.certificate(), entries, (), {}, (), boot)
        settings = Settings(validator=validator, miner=not validator, units=1, tasks=None, trainer=False)
        made = Member(Node(settings, self.genesis, signer, NOTHING, restored))
        made.node.start()
        made.step(ev.Fetched(self.spec.weights))
        made.step(ev.WorkerReady(ev.ARITHMETIC, "cpu", NOTHING))
        return made


class Round:
    """The first round of the task, played from its opening to its update."""

    def __init__(self, validators: int, miners: int) -> None:
        self.figures: Figures = {"validators": validators, "miners": miners}
        self.chain = Chain(validators, miners)
        self._note("enrol_last_ms", self.chain.enrol(), 2)
        self.figures["ledger_entries"] = len(self.chain.ledger.entries)
        council = [self.chain.node(one, validator=True) for one in self.chain.validators[: self.chain.quorum]]
        _recollect(council)
        self._council = council
        self._primary, self._backup = council[:2]
        self._follower = self.chain.node(self.chain.miners[0], validator=False)
        self._payloads = [BlobRef(digest("payload", one.key), payload_bytes(self.chain.spec)) for one in self.miners]

    @property
    def miners(self) -> list[Signer]:
        return self.chain.miners

    def seal(self) -> None:
        """Every commitment is heard, reported and sealed."""
        self._note("tick_train_us", self._tick_us(self._backup), 1)
        commitments = self._commitments()
        envelope._held = envelope.Held()
        taken = _milliseconds(lambda: [verify(one, self.chain.network, Commitment) for one in commitments])
        self._note("signature_us", taken * 1000 / len(commitments), 1)
        gossip = [ev.Gossiped("commitments", encode(one)) for one in commitments]
        taken = _milliseconds(lambda: [self._follower.step(one) for one in gossip])
        self._note("follower_heard_us", taken * 1000 / len(gossip), 1)
        reports = self._tell(gossip, "heard")
        self.figures["seal_report_bytes"] = len(reports[0])
        (proposal,) = self._report(reports, "seal_made_ms", Proposal)
        self._execute(proposal, "seal")
        assert (self.chain.task.phase, len(self.chain.task.sealed)) == (Phase.REVEALING, len(self.miners))

    def update(self) -> None:
        """Every payload arrives, is reported, drafted, added up and paid for."""
        reports = self._tell([ev.Fetched(one) for one in self._payloads], "fetched")
        self.figures["update_report_bytes"] = len(reports[0])
        (draft,) = self._report(reports, "draft_made_ms", Draft)
        self.figures["draft_bytes"] = len(draft)
        self._backup.step(ev.Framed(self._primary.key, draft))
        results = (BlobRef(digest("aggregate"), 100), *_model("model"), *_model("momentum"))
        added = ev.JobDone(Aggregated(1, (Judgement(Outcome.COUNTED.value, 65_536),) * len(self.miners), *results, 1))
        assert not _said(self._backup.step(added), Proposal)
        (proposal,) = _said(self._primary.step(added), Proposal)
        self._note("tick_reveal_us", self._tick_us(self._backup), 1)
        self._execute(proposal, "update")
        self.figures["primary_sent_bytes"] = self._primary.sent_bytes
        task = self.chain.task
        assert (task.phase, task.round, task.counted_rounds) == (Phase.TRAINING, 1, 1)
        assert all(one.earned_micro for one in task.miners)

    def idle(self) -> None:
        """Heights that leave the task alone: one of an idle network, and one while operations wait."""
        self._follow(self.chain.block(), "idle")
        waiting = [
            one.sign(
                Transfer(account_id(one.key), self.chain.ledger.nonce(account_id(one.key)) + number, NOTHING, 1, "")
            )
            for number in range(WAITING_EACH)
            for one in self.miners[:WRITERS_MAX]
        ]
        for one in waiting:
            self._primary.step(ev.Gossiped("operations", encode(one)))
        self.figures["waiting_operations"] = self._primary.node.waiting
        self._note("tick_waiting_us", self._tick_us(self._primary), 1)
        height = ev.BlocksFetched(self._backup.key, (self.chain.block(),))
        self._note("height_waiting_ms", _milliseconds(lambda: self._primary.step(height)), 2)
        assert self._primary.node.height == self.chain.ledger.height

    def _commitments(self) -> list[Signed]:
        task = self.chain.task
        return [
            one.sign(
                Commitment(
                    task=task.id,
                    round=0,
                    miner=account_id(one.key),
                    model=task.model.root,
                    payload=payload,
                    samples=self.chain.spec.unit_batch,
                    finite=True,
                    loss_micro=1,
                    feedback=NOTHING,
                    rig_class=self.chain.spec.rig_class,
                    salt=digest("salt", one.key),
                )
            )
            for one, payload in zip(self.miners, self._payloads, strict=True)
        ]

    def _tell(self, events: Sequence[ev.Input], what: str) -> list[bytes]:
        """Give every validator what it waits for; their reports, which follow upon the last. The backup is timed, but
        for its report."""
        reports: list[bytes] = []
        for member in self._council:
            times = []
            for event in events:
                began = process_time()
                effects = member.step(event)
                times.append((process_time() - began) * 1e6)
                reports += _said(effects, Report)
            if member is self._backup:
                self._note(f"{what}_first_us", median(times[:-1][:EARLY]), 1)
                self._note(f"{what}_last_us", median(times[:-1][-EARLY:]), 1)
        assert len(reports) == self.chain.quorum
        return reports

    def _report(self, reports: Sequence[bytes], name: str, kind: type) -> list[bytes]:
        """What the primary says once it has a quorum's reports; the step with the last of them is timed."""
        found: list[bytes] = []
        for member, report in zip(self._council, reports, strict=True):
            if member is self._primary:
                continue
            heard = ev.Framed(member.key, report)
            began = process_time()
            effects = self._primary.step(heard)
            self._note(name, (process_time() - began) * 1000, 2)
            found += _said(effects, kind)
            if member is not self._backup:
                self._backup.step(heard)
        return found

    def _execute(self, frame: bytes, what: str) -> None:
        """The proposal judged by the backup, then its height followed by everybody."""
        batch = decode(frame, Proposal).batch
        self.figures[f"{what}_bytes"] = len(encode(batch))
        effects: list[ev.Effect] = []
        proposed = ev.Framed(self._primary.key, frame)
        self._note(f"{what}_judged_ms", _milliseconds(lambda: effects.extend(self._backup.step(proposed))), 2)
        assert any(isinstance(one, ev.Keep) for one in effects), "the backup has not agreed"
        self._note(f"{what}_executed_ms", self.chain.execute_ms(*batch.records), 2)
        made = self.chain.block(*batch.records)
        self.figures[f"{what}_stored_bytes"] = self.chain.stored_bytes
        self._follow(made, what)

    def _follow(self, made: Block, what: str) -> None:
        event = ev.BlocksFetched(self._backup.key, (made,))
        self._note(f"follower_{what}_ms", _milliseconds(lambda: self._follower.step(event)), 2)
        for member in self._council:
            member.step(event)
        assert {one.node.height for one in (*self._council, self._follower)} == {self.chain.ledger.height}

    def _tick_us(self, member: Member) -> float:
        """The median of a tick."""
        return 1000 * median(_milliseconds(lambda: member.step(ev.Ticked())) for _ in range(TICKS))

    def _note(self, name: str, value: float, digits: int) -> None:
        self.figures[name] = round(value, digits)


def measure(validators: int, miners: int) -> Figures:
    """Times are processor time of one node, in what unit a name says; `_first` and `_last` are medians of a hundred."""
    played = Round(validators, miners)
    played.seal()
    played.update()
    played.idle()
    return played.figures


def _recollect(council: Sequence[Member]) -> None:
    """Everybody asks the others what it said last, as after any start, and may vote once they have answered."""
    members = {one.key: one for one in council}
    sent = [(one.key, effect) for one in council for effect in one.step(ev.Ticked())]
    for sender, effect in sent:  # which grows by what is answered
        if isinstance(effect, ev.Send) and effect.to in members:
            answers = members[effect.to].step(ev.Framed(sender, effect.data))
            sent += [(effect.to, answer) for answer in answers]
    for one in council:
        assert one.node.replica is not None and not one.node.replica.silent, "a validator that may not vote"
        one.sent_bytes = 0


def _said(effects: Sequence[ev.Effect], kind: type) -> list[bytes]:
    """The frames of this kind that a node sends, each once."""
    found: dict[bytes, None] = {}
    for effect in effects:
        if isinstance(effect, ev.Send) and _is(effect.data, kind):
            found[effect.data] = None
    return list(found)


def _is(frame: bytes, kind: type) -> bool:
    """Whether the frame, or what is signed in it, is of this kind."""
    framed = decode(frame, *_ENVELOPES)
    if not isinstance(framed, Signed):
        return isinstance(framed, kind)
    try:
        decode(framed.payload, kind)
    except Malformed:
        return False
    return True


def _seeds(what: str, count: int) -> list[bytes]:
    """In the order of the keys that they make."""
    seeds = [digest("bench", what.encode(), number.to_bytes(2, "big")) for number in range(count)]
    return sorted(seeds, key=lambda seed: Signer(seed, NOTHING).key)


def _model(name: str) -> tuple[BlobRef]:
    return (BlobRef(digest(name), 4 * MODEL.parameters),)


def _spec(miners: int) -> TaskSpec:
    return TaskSpec(
        name="bench",
        model=MODEL,
        weights=BlobRef(digest("weights"), 4 * MODEL.parameters),
        manifest=BlobRef(digest("manifest"), 100),
        samples=1 << 20,
        loss="cross_entropy",
        optimiser=OptimiserSpec("sgd", 0, (1,)),
        encoding=EncodingSpec("int8", 16, -20, 0),
        rule=MEAN,
        rig_class="float32",
        unit_batch=8,
        rounds=100,
        window_rounds=4,
        miners_min=miners,
        pay_micro=1,
        validators_ppm=100_000,
        deadline_ticks_min=6_000,
        deadline_ticks_max=6_000,
        evaluate_every=0,
        tolerance_nano=400,
    )


def _milliseconds(work: Callable[[], object]) -> float:
    """Of processor time, which others on the machine do not lengthen."""
    began = process_time()
    work()
    return (process_time() - began) * 1000
