"""A small network for tests of the ledger: real keys and signatures, a short task, and rounds played to order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from potd.ledger.apply import Executed, execute
from potd.ledger.entries import Account, Past, Row, Task
from potd.ledger.state import Ledger, genesis_ledger
from potd.wire.audits import (
    Chain,
    Finding,
    Promise,
    Ruling,
    Status,
    Verdict,
    drawn,
    promised,
)
from potd.wire.blocks import Batch, Record
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer, attestation_of
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NO_BLOB, NOTHING, BlobRef, Key, account_id, digest, task_id
from potd.wire.operations import (
    Accuse,
    Back,
    Enrol,
    Leave,
    Operation,
    Possession,
    Rekey,
    Resign,
    Stand,
    Submit,
    Transfer,
)
from potd.wire.rounds import Commitment, Contribution, Evaluation, Measured, Named, Outcome, Report, Seal, Step, Update
from potd.wire.rules import MEAN
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, TaskSpec, payload_bytes
from tests.wire.chains import link_of, tip_of

VALIDATORS = 4
PEOPLE = 8  # the first four are the validators

BALANCE = 1_000_000_000  # of everybody, when a validator's bond has been taken out
BOND = 400_000_000


def _seed(name: str) -> bytes:
    return digest("test", name.encode())


def _key(index: int) -> bytes:
    return Signer(_seed(f"person {index}"), NOTHING).key


def genesis(**parameters: int) -> Genesis:
    return Genesis(
        name="test",
        protocol=1,
        created_unix=0,
        validators=tuple(_key(i) for i in range(VALIDATORS)),
        balances=tuple(Allotment(_key(i), BALANCE + (BOND if i < VALIDATORS else 0)) for i in range(PEOPLE)),
        parameters=Parameters(**{"seat_bond_micro": BOND, **parameters}),
    )


def person(index: int, of: Genesis) -> Signer:
    return Signer(_seed(f"person {index}"), genesis_digest(of))


def blob(name: str, size: int = 40) -> BlobRef:
    return BlobRef(digest("test blob", name.encode()), size)


def spec(**changes: Any) -> TaskSpec:
    fields: dict[str, Any] = {
        "name": "a small task",
        "model": ModelSpec("mlp", (3, 2), 10),
        "weights": blob("weights"),
        "manifest": blob("manifest"),
        "samples": 1000,
        "loss": "cross_entropy",
        "optimiser": OptimiserSpec("nesterov", 900_000, (500_000,)),
        "encoding": EncodingSpec("int8", 256, -20, 0),
        "rule": MEAN,
        "rig_class": "float32",
        "unit_batch": 8,
        "rounds": 12,
        "window_rounds": 4,
        "miners_min": 2,
        "pay_micro": 1003,
        "validators_ppm": 150_000,
        "deadline_ticks_min": 10,
        "deadline_ticks_max": 200,
        "evaluate_every": 2,
        "tolerance_nano": 400,
    }
    return TaskSpec(**{**fields, **changes})


class World:
    """One ledger, moved on by batches; every step is checked for what must always hold."""

    def __init__(self, **parameters: int) -> None:
        self.genesis = genesis(**parameters)
        self.people = [person(i, self.genesis) for i in range(PEOPLE)]
        self.ids = [account_id(one.key) for one in self.people]
        self.ledger: Ledger = genesis_ledger(self.genesis)

    def execute(self, *records: Record) -> Executed:
        done = execute(self.ledger, Batch(records))
        self.ledger = done.ledger
        return done

    def reasons(self, *records: Record) -> list[str]:
        return [one.reason for one in self.execute(*records).receipts]

    def account(self, who: int) -> Account:
        account = self.ledger.account(self.ids[who])
        assert account is not None
        return account

    def task(self, task: bytes) -> Task:
        found = self.ledger.task(task)
        assert found is not None
        return found

    # Operations

    def sign(self, who: int, operation: Operation) -> Signed:
        return self.people[who].sign(operation)

    def transfer(self, who: int, to: bytes, amount_micro: int, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Transfer(self.ids[who], self._nonce(who, nonce), to, amount_micro, ""))

    def submit(self, who: int, escrow_micro: int, of: TaskSpec, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Submit(self.ids[who], self._nonce(who, nonce), of, escrow_micro))

    def enrol(self, who: int, task: bytes, units: int = 1, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Enrol(self.ids[who], self._nonce(who, nonce), task, units))

    def leave(self, who: int, task: bytes, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Leave(self.ids[who], self._nonce(who, nonce), task))

    def stand(self, who: int, by: Signer | None = None, *, nonce: int | None = None) -> Signed:
        """Stand with one's own key, or with that of `by`."""
        voter = by or self.people[who]
        return self.sign(who, Stand(self.ids[who], self._nonce(who, nonce), voter.key, self.proof(voter, who)))

    def back(self, who: int, subject: int, seated: bool = True, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Back(self.ids[who], self._nonce(who, nonce), self.ids[subject], seated))

    def resign(self, who: int, *, nonce: int | None = None) -> Signed:
        return self.sign(who, Resign(self.ids[who], self._nonce(who, nonce)))

    def rekey(self, who: int, *, owner: Key = NOTHING, node: Signer | None = None, nonce: int | None = None) -> Signed:
        key, proof = (NOTHING, b"") if node is None else (node.key, self.proof(node, who))
        return self.sign(who, Rekey(self.ids[who], self._nonce(who, nonce), owner, key, proof))

    def accuse(self, who: int, *evidence: Signed, nonce: int | None = None) -> Signed:
        return self.sign(who, Accuse(self.ids[who], self._nonce(who, nonce), evidence))

    # Audits

    def chain(self, who: int, task: bytes, begins: int | None = None, *, nonce: int | None = None) -> Signed:
        """Publish a pair of chains, whose secrets follow from where they begin."""
        first = self.task(task).round + 2 if begins is None else begins
        tips = [tip_of(self._secret(who, task, first, which)) for which in ("seeds", "lots")]
        return self.sign(who, Chain(self.ids[who], self._nonce(who, nonce), task, first, tips[0], tips[1]))

    def link(self, who: int, task: bytes, number: int, which: str) -> bytes:
        """Of the chain that the ledger has."""
        chains = self.ledger.chains(task, self.ids[who])
        assert chains is not None
        return link_of(self._secret(who, task, chains.begins, which), chains.begins, number)

    def _secret(self, who: int, task: bytes, begins: int, which: str) -> bytes:
        return digest("test secret", task, bytes([who]), begins.to_bytes(8, "big"), which.encode())

    def drawn(self, who: int, task: bytes, number: int) -> tuple[bytes, ...]:
        """The miners whose contributions to a round this validator has to replay."""
        past, link = self.past(task, number), self.link(who, task, number, "lots")
        contributions = [(row.miner, row.outcome) for row in past.rows]
        ppm = self.genesis.parameters.audit_ppm
        return drawn(link, past.seed, contributions, self.ids[who], ppm, past.validators)

    def findings(self, who: int, task: bytes, number: int, bad: Collection[int] = ()) -> tuple[Finding, ...]:
        """What this validator would say of what it draws: that these miners are bad, and the others good."""
        guilty = {self.ids[one] for one in bad}
        return tuple(
            Finding(one, Status.BAD.value, 10**9) if one in guilty else Finding(one, Status.GOOD.value, 7)
            for one in self.drawn(who, task, number)
        )

    def promise(
        self, who: int, task: bytes, number: int, findings: Sequence[Finding], *, nonce: int | None = None
    ) -> Signed:
        binding = promised(self.ids[who], task, number, self._salt(who, number), findings)
        return self.sign(who, Promise(self.ids[who], self._nonce(who, nonce), task, number, binding))

    def verdict(
        self, who: int, task: bytes, number: int, findings: Sequence[Finding], *, nonce: int | None = None
    ) -> Signed:
        link, salt = self.link(who, task, number, "lots"), self._salt(who, number)
        made = Verdict(self.ids[who], self._nonce(who, nonce), task, number, link, salt, tuple(findings))
        return self.sign(who, made)

    def ruling(self, who: int, task: bytes, number: int, miner: int, bad: bool, *, nonce: int | None = None) -> Signed:
        finding = Finding(self.ids[miner], (Status.BAD if bad else Status.GOOD).value, 10**9 if bad else 7)
        return self.sign(who, Ruling(self.ids[who], self._nonce(who, nonce), task, number, finding))

    def _salt(self, who: int, number: int) -> bytes:
        return digest("test salt", bytes([who]), number.to_bytes(8, "big"))

    def past(self, task: bytes, number: int) -> Past:
        found = self.ledger.past(task, number)
        assert found is not None
        return found

    def row(self, task: bytes, number: int, who: int) -> Row:
        return next(row for row in self.past(task, number).rows if row.miner == self.ids[who])

    def proof(self, voter: Signer, who: int) -> bytes:
        return voter.sign(Possession(self.ids[who])).signature

    def backed(self, subject: int, *authors: int, seated: bool = True) -> None:
        assert self.reasons(*(self.back(who, subject, seated) for who in authors)) == [""] * len(authors)

    def signer(self, name: str) -> Signer:
        """A key of nobody."""
        return Signer(_seed(name), self.ledger.network)

    def seated(self) -> list[int]:
        """Who has a seat, in order."""
        return [self.ids.index(seat.account) for seat in self.ledger.validators()]

    def until_changed(self) -> None:
        """The change that is pending has taken over."""
        change = self.ledger.change()
        assert change is not None
        while self.ledger.height < change.height:
            self.execute()

    def opened(self, *miners: int, escrow_micro: int = 100_000_000, units: int = 1, **changes: Any) -> bytes:
        """A submitted task, and these miners enrolled for it."""
        submission = self.submit(0, escrow_micro, spec(**changes))
        assert self.reasons(submission) == [""]
        name = task_id(encode(submission))
        for who in miners:
            assert self.reasons(self.enrol(who, name, units)) == [""]
        return name

    def _nonce(self, who: int, nonce: int | None) -> int:
        return self.account(who).nonce if nonce is None else nonce

    # Rounds

    def commitment(self, who: int, task: bytes, /, **changes: Any) -> Signed:
        """What this miner would commit to in the open round; `changes` to its fields."""
        state = self.task(task)
        of = self.ledger.spec(task)
        assert of is not None
        miner = state.miner(self.ids[who])
        fields: dict[str, Any] = {
            "task": task,
            "round": state.round,
            "miner": self.ids[who],
            "model": state.model.root,
            "payload": blob(f"payload {who} {state.round}", payload_bytes(of)),
            "samples": (miner.units if miner else 1) * of.unit_batch,
            "finite": True,
            "loss_micro": 1_000_000 + who,
            "feedback": NOTHING,
            "rig_class": of.rig_class,
            "salt": NOTHING,
        }
        return self.people[who].sign(Commitment(**{**fields, **changes}))

    def reports(
        self,
        task: bytes,
        step: Step,
        *,
        number: int | None = None,
        measured: Sequence[Sequence[Measured]] = ((),) * VALIDATORS,
        links: Sequence[Sequence[Named]] = ((),) * VALIDATORS,
    ) -> tuple[Signed, ...]:
        """A report of each validator, on payloads or on an evaluation."""
        round_ = self.task(task).round if number is None else number
        made = [
            self.people[i].sign(Report(task, round_, step.value, (), tuple(links[i]), tuple(measured[i])))
            for i in range(VALIDATORS)
        ]
        return tuple(sorted(made, key=lambda one: one.key))

    def seal(self, task: bytes, commitments: Sequence[Signed], ticks: Sequence[int | None] = ()) -> Seal:
        """With the reports of all validators, each with the ticks after which the last came that it names; None for
        one that names nothing."""
        round_ = self.task(task).round
        names = tuple(sorted(digest("name", bytes([who])) for who in range(2)))
        said = list(ticks) or [0] * VALIDATORS
        held = [b"\x00" if each is None else b"\xc0" for each in said]
        made = []
        for i, (positions, each) in enumerate(zip(held, said, strict=True)):
            body = Report(task, round_, Step.SEAL.value, names if any(positions) else (), (), (), b"", each or 0)
            made.append((attestation_of(self.people[i].sign(body)), positions, each or 0))
        reports, sets, arrivals = zip(*sorted(made), strict=True)
        return Seal(task, round_, names, reports, sets, arrivals, tuple(commitments))

    def sealed(self, task: bytes, *miners: int) -> Executed:
        """The open round, sealed with these miners' commitments."""
        by_id = sorted(miners, key=lambda who: self.ids[who])
        return self.execute(self.seal(task, [self.commitment(who, task) for who in by_id]))

    def update(
        self, task: bytes, outcomes: Mapping[int, Outcome] | None = None, reports: tuple[Signed, ...] | None = None
    ) -> Update:
        """The agreed end of the sealed round; everything counts but what `outcomes` says otherwise."""
        state = self.task(task)
        by_id = {self.ids[who]: outcome for who, outcome in (outcomes or {}).items()}
        key_ids = {one.key: name for one, name in zip(self.people, self.ids, strict=True)}
        contributions = tuple(
            Contribution(name, by_id.get(name, Outcome.COUNTED).value, 65_536, 1000)
            for name in (key_ids[one.key] for one in state.sealed)
        )
        return Update(
            task=task,
            round=state.round,
            reports=reports or self.reports(task, Step.UPDATE),
            contributions=contributions,
            aggregate=blob(f"aggregate {state.round}") if contributions else NO_BLOB,
            model=blob(f"model {state.round + 1}"),
            momentum=blob(f"momentum {state.round + 1}"),
        )

    def evaluation(self, task: bytes, number: int, measured: Sequence[Sequence[Measured]]) -> Evaluation:
        return Evaluation(task, number, self.reports(task, Step.EVALUATION, number=number, measured=measured))

    def released(self, task: bytes, *validators: int) -> tuple[Signed, ...]:
        """The reports on the payloads of a round, which all name the links of these."""
        number = self.task(task).round
        links = sorted(Named(self.ids[who], self.link(who, task, number, "seeds")) for who in validators)
        return self.reports(task, Step.UPDATE, links=[tuple(links)] * VALIDATORS)

    def played(
        self, task: bytes, *miners: int, links: Sequence[int] = (), outcomes: Mapping[int, Outcome] | None = None
    ) -> None:
        """A whole round in which these miners count, but for other `outcomes`, and these validators release links."""
        self.sealed(task, *miners)
        assert self.reasons(self.update(task, outcomes, self.released(task, *links))) == [""]
