"""Rounds, enrolments, verdicts good, bad and lying, rulings, slashes and settling in any order: what holds after each
height, whatever was agreed on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import FOR_EVER, Past, Phase, Row, Standing, Task
from potd.ledger.state import Ledger, supply
from potd.wire.audits import Finding, Ruling, Status, Verdict
from potd.wire.blocks import Record
from potd.wire.codec import decode, encode
from potd.wire.consensus import quorum_of
from potd.wire.envelope import Signed
from potd.wire.ids import digest, task_id
from potd.wire.operations import OPERATIONS
from potd.wire.rounds import Outcome, flags_of
from tests.ledger.world import VALIDATORS, World, spec

MINERS = (4, 5, 6, 7)  # who never votes, so that all that it gets is for mining
Promises = dict[tuple[bytes, int, int], tuple[Finding, ...]]  # by task, round and validator


class Life:
    """A small network with two tasks, in which anything may happen; one record a height."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        quick = self.random.choice((4, 5, 8))
        self.world = World(
            fee_per_byte_micro=0,
            audit_rounds=quick,
            vest_rounds=self.random.randrange(1, 14),
            settle_heights=self.random.randrange(4, 30),
            bond_rounds=self.random.randrange(1, 6),
            audit_ppm=1_000_000,
            audit_pay_ppm=self.random.choice((0, 333_333, 1_000_000)),
            misses_max=2,
            window_heights=2,
            unbonding_heights=5,
        )
        self.seen: Counter[str] = Counter()
        self.promises: Promises = {}
        self.slashed: set[tuple[bytes, bytes]] = set()
        for who in MINERS:
            held = self.world.account(who).balance_micro
            self.world.execute(self.world.transfer(who, self.world.ids[0], self.random.choice((0, held, held - 9000))))
        self.tasks = [self.opened(rounds) for rounds in (self.random.randrange(8, 16), self.random.randrange(16, 40))]
        for task in self.tasks:
            self.chain(task)
            for who in MINERS:
                self.step(self.world.enrol(who, task, 1))

    def opened(self, rounds: int) -> bytes:
        submission = self.world.submit(0, 10_000_000, spec(rounds=rounds, miners_min=1))
        assert self.world.reasons(submission) == [""]
        return task_id(encode(submission))

    # What may happen

    def live(self, steps: int) -> None:
        acts = (
            *[self.play] * 9,
            *[self.enrol] * 3,
            self.leave,
            *[self.chain] * 2,
            *[self.promise] * 2,
            *[self.tell] * 2,
            *[self.rule] * 3,
            self.accuse,
            self.wait,
            self.reseat,
        )
        for _ in range(steps):
            self.random.choice(acts)(self.random.choice(self.tasks))
        for _ in range(60):  # what is done by then settles
            self.step()
        for task in self.tasks:
            if self.world.task(task).phase == Phase.DONE:
                self.nothing_left(task)

    def play(self, task: bytes) -> None:
        state = self.world.task(task)
        if state.phase != Phase.TRAINING:
            return
        present = [one.account for one in state.expected() if self.random.random() < 0.95]
        who = [self.world.ids.index(one) for one in sorted(present)]
        self.step(self.world.seal(task, [self.world.commitment(one, task) for one in who]))
        self.random.choice((self.enrol, self.leave, self.promise, self.tell, self.rule, self.rule))(task)
        state = self.world.task(task)
        if state.phase != Phase.REVEALING:
            return
        trial = flags_of(state.probation, len(who)) if state.probation else (False,) * len(who)
        outcomes = {one: Outcome.PROBATION for one, flag in zip(who, trial, strict=True) if flag}
        outcomes |= {one: Outcome.WITHHELD for one in who if self.random.random() < 0.03}
        begun = [
            one
            for one in self.world.seated()
            if one < VALIDATORS
            and (chains := self.world.ledger.chains(task, self.world.ids[one])) is not None
            and chains.begins <= state.round
        ]
        links = [one for one in begun if self.random.random() < 0.8]
        self.step(self.world.update(task, outcomes, self.world.released(task, *links)))
        self.seen["rounds"] += 1
        for act in (self.promise, self.tell, self.rule):
            if self.random.random() < 0.8:
                act(task)

    def enrol(self, task: bytes) -> None:
        self.step(self.world.enrol(self.random.choice(MINERS), task, self.random.choice((1, 1, 2, 3))))

    def leave(self, task: bytes) -> None:
        self.step(self.world.leave(self.random.choice(MINERS), task))

    def chain(self, task: bytes) -> None:
        for who in range(VALIDATORS):
            if self.world.ledger.chains(task, self.world.ids[who]) is None or self.random.random() < 0.02:
                self.step(self.world.chain(who, task))

    def promise(self, task: bytes) -> None:
        for past in self.world.ledger.pasts(task)[-2:]:
            for who in range(VALIDATORS):
                if self.random.random() < 0.5:
                    self.promise_one(task, past, who)

    def promise_one(self, task: bytes, past: Past, who: int) -> None:
        chains = self.world.ledger.chains(task, self.world.ids[who])
        if chains is None or chains.begins > past.round:
            return
        guilty = [one for one in MINERS if self.random.random() < 0.5]
        findings = self.world.findings(who, task, past.round, guilty)
        if self.random.random() < 0.1:
            findings = findings[1:]  # a liar
        if self.random.random() < 0.1:
            findings = tuple(replace(one, status=Status.UNABLE.value, distance_nano=0) for one in findings)
        if self.step(self.world.promise(who, task, past.round, findings)) == [""]:
            self.promises[task, past.round, who] = findings

    def tell(self, task: bytes) -> None:
        ripe = [(name, number, who) for name, number, who in self.promises if name == task]
        now = self.world.task(task)
        for name, number, who in ripe:
            past, findings = self.world.ledger.past(name, number), self.promises[name, number, who]
            chains = self.world.ledger.chains(task, self.world.ids[who])
            if past is None or not findings or chains is None or not chains.begins <= number:
                continue
            phase = audit_phase(now, past, self.world.ledger.height + 1, self.world.genesis.parameters)
            if phase == AuditPhase.TELL and self.random.random() < 0.7:
                self.seen["verdicts"] += self.step(self.world.verdict(who, task, number, findings)) == [""]

    def rule(self, task: bytes) -> None:
        contested = [
            (past.round, row.miner)
            for past in self.world.ledger.pasts(task)
            for row in past.rows
            if row.standing == Standing.CONTESTED
        ]
        for number, miner in self.random.sample(contested, min(2, len(contested))):
            bad = digest("guilty", miner, number.to_bytes(8, "big"))[0] % 2 == 0  # the honest agree
            accused = self.world.ids.index(miner)
            for who in self.random.sample(range(VALIDATORS), self.random.randrange(1, 5)):
                said = bad if self.random.random() < 0.9 else not bad
                self.seen["rulings"] += self.step(self.world.ruling(who, task, number, accused, said)) == [""]

    def accuse(self, task: bytes) -> None:
        if self.random.random() < 0.05:
            who = self.random.choice(MINERS)
            words = [self.world.commitment(who, task, salt=digest(salt)) for salt in ("one", "two")]
            if self.step(self.world.accuse(self.random.randrange(VALIDATORS), *words), proven=who) == [""]:
                self.seen["accused"] += 1

    def wait(self, task: bytes) -> None:
        for _ in range(self.random.randrange(1, 5)):
            self.step()

    def reseat(self, task: bytes) -> None:
        """Now and then a validator gives its seat up, and comes back."""
        who = self.random.randrange(1, VALIDATORS)
        if who in self.world.seated():
            if self.random.random() < 0.1:
                self.step(self.world.resign(who))
        elif self.step(self.world.stand(who)) == [""]:
            for other in self.world.seated():
                self.step(self.world.back(other, who))

    # What must hold

    def step(self, *records: Record, proven: int | None = None) -> list[str]:
        before = self.world.ledger
        reasons = self.world.reasons(*records)
        after = self.world.ledger
        assert supply(after) == after.globals().supply_micro
        self.judged_by_a_quorum(before, after, None if proven is None else self.world.ids[proven])
        bodies = [decode(one.payload, *OPERATIONS) for one in records if isinstance(one, Signed)]
        self.paid_once(before, after, any(isinstance(one, Verdict | Ruling) for one in bodies))
        for task in after.tasks():
            self.consistent(after, task)
        return reasons

    def judged_by_a_quorum(self, before: Ledger, after: Ledger, proven: bytes | None) -> None:
        """Who is slashed now has a row that a quorum has called bad, or was proved to have committed twice."""
        for task in self.tasks:
            for miner in after.parting(task).slashed:
                if (task, miner) in self.slashed:
                    continue
                self.slashed.add((task, miner))
                self.seen["slashed"] += 1
                rows = [row for past in pasts_of(after, task) for row in past.rows if row.miner == miner]
                seated = {seat.account for seat in before.validators()}
                quorum = quorum_of(len(seated))
                assert proven == miner or any(len(said_bad(row) & seated) >= quorum for row in rows)

    def paid_once(self, before: Ledger, after: Ledger, audit: bool) -> None:
        """What each miner has gained is what has vested, what went into its bonds, and fines; nothing else."""
        gains: dict[bytes, int] = {self.world.ids[who]: 0 for who in MINERS}
        for task in self.tasks:
            guilty = set(after.parting(task).slashed) | (self.guilty(task) & set(gains))
            old, new = pasts_of(before, task), pasts_of(after, task)
            numbers = {past.round for past in new}
            for past in old:
                for row in past.rows if past.round not in numbers else ():
                    gains[row.miner] += row.pay_micro if row.miner not in guilty else 0
            for past in new:
                if past.height == after.height:
                    for row in past.rows:
                        gains[row.miner] += self.earned(row, row.miner in guilty) - row.pay_micro
            for miner in guilty:
                bond = before.bond(task, miner)
                gains[miner] -= bond.amount_micro if bond is not None else 0
        fines = self.fines(before, after) if audit else 0
        changed = {one: wealth(after, one, self.tasks) - wealth(before, one, self.tasks) for one in gains}
        if fines == 0:
            assert changed == gains
        elif fines is not None:
            assert sum(changed.values()) == sum(gains.values()) + fines
            self.seen["fined"] += 1

    def fines(self, before: Ledger, after: Ledger) -> int | None:
        """What validators have lost of their bonds; None where one comes or goes at this height."""
        lost = 0
        for account in self.world.ids[:VALIDATORS]:
            kinds = []
            for ledger in (before, after):
                seats = [seat.bond_micro for seat in ledger.validators() if seat.account == account]
                unbonding = ledger.unbonding(account)
                kinds.append((seats, [] if unbonding is None else [unbonding.amount_micro]))
            if [len(one) for one in kinds[0]] != [len(one) for one in kinds[1]]:
                return None
            lost += sum(map(sum, kinds[0])) - sum(map(sum, kinds[1]))
        return lost

    def guilty(self, task: bytes) -> set[bytes]:
        return {miner for name, miner in self.slashed if name == task}

    def earned(self, row: Row, guilty: bool) -> int:
        if guilty or row.outcome not in (Outcome.COUNTED, Outcome.PROBATION):
            return 0
        gross = row.units * 8 * 1003
        return gross - gross * 150_000 // 1_000_000

    def consistent(self, ledger: Ledger, task: Task) -> None:
        parting, parameters = ledger.parting(task.id), ledger.parameters()
        bonded = {one.account for one in task.miners} | set(parting.accounts)
        for account in self.world.ids:
            bond = ledger.bond(task.id, account)
            assert bond is None or account in bonded
            assert (bond is not None and bond.until_round != FOR_EVER) == (account in parting.accounts)
        for miner in task.miners:
            bond = ledger.bond(task.id, miner.account)
            if task.phase != Phase.DONE:
                assert miner.probation == (bond is not None and bond.amount_micro < bond.required_micro)
        assert not {one.account for one in task.miners} & set(parting.slashed)
        pasts = pasts_of(ledger, task.id)
        needed = {past.window for past in ledger.pasts(task.id)}
        if task.phase != Phase.DONE:
            kept = {begins for begins in range(task.round + 1) if ledger.window(task.id, begins) is not None}
            assert kept == needed
        for past in pasts:
            phase = audit_phase(task, past, ledger.height + 1, parameters)
            for row in past.rows:
                assert row.miner not in parting.slashed or row.pay_micro == 0
                assert row.standing != Standing.CONTESTED or phase in (AuditPhase.TELL, AuditPhase.RULE)
            if task.phase != Phase.DONE and phase in (AuditPhase.RULE, AuditPhase.OVER):
                assert past.pot_micro == 0
        if task.phase == Phase.DONE and task.id not in ledger.settling():
            assert pasts == []

    def nothing_left(self, task: bytes) -> None:
        assert task not in self.world.ledger.settling()
        ledger = self.world.ledger
        assert ledger.parting(task).accounts == ledger.parting(task).slashed == ()
        for account in self.world.ids:
            assert (ledger.bond(task, account), ledger.chains(task, account)) == (None, None)
        for number in range(self.world.task(task).round + 1):
            assert (ledger.past(task, number), ledger.window(task, number)) == (None, None)
        self.seen["settled"] += 1


def pasts_of(ledger: Ledger, task: bytes) -> list[Past]:
    state = ledger.task(task)
    assert state is not None
    return [past for number in range(state.round + 1) if (past := ledger.past(task, number)) is not None]


def said_bad(row: Row) -> set[bytes]:
    first: dict[bytes, int] = {}
    for voice in row.voices:
        if voice.status != Status.UNABLE:
            first.setdefault(voice.validator, voice.status)
    return {one for one, status in first.items() if status == Status.BAD}


def wealth(ledger: Ledger, account: bytes, tasks: list[bytes]) -> int:
    held = ledger.account(account)
    bonds = [ledger.bond(task, account) for task in tasks]
    return (held.balance_micro if held else 0) + sum(one.amount_micro for one in bonds if one is not None)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_said_nobody_is_slashed_without_a_quorum_nor_paid_twice(seed: int) -> None:
    Life(seed).live(80)


def test_such_lives_are_full() -> None:
    """Or what they show would be little."""
    seen: Counter[str] = Counter()
    for seed in range(1, 13):
        life = Life(seed)
        life.live(90)
        seen += life.seen
    assert {"rounds", "verdicts", "slashed", "fined", "settled", "accused"} <= set(seen), seen
