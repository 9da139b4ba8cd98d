"""Whatever is agreed on, in whatever order: the ledger executes it, and money neither comes nor goes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from potd.ledger.entries import Phase
from potd.ledger.state import Ledger, supply
from potd.wire.blocks import Record, record_digest
from potd.wire.consensus import Commit
from potd.wire.envelope import Signed, Signer
from potd.wire.ids import NO_BLOB, account_id, digest
from potd.wire.rounds import Measured, Named, Outcome, Step
from potd.wire.rules import CLIP
from potd.wire.tasks import RuleSpec
from tests.ledger.world import BOND, PEOPLE, VALIDATORS, World, blob, spec

people = st.integers(0, PEOPLE - 1)
amounts = st.sampled_from([0, 1, 999, 50_000, 10**6, 10**9, 10**10])
ticks = st.integers(0, 500)


class AnyHistory(RuleBasedStateMachine):
    """Records true and false, alone and together; a record's premise may have gone by the time it is executed."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.pending: list[Record] = []
        self.keys: list[Signer] = []
        self.nonces: dict[int, int] = {}

    @initialize(
        fee=st.sampled_from([0, 1, 10, 1003]),
        lapses_max=st.integers(1, 3),
        misses_max=st.integers(1, 3),
    )
    def begin(self, fee: int, lapses_max: int, misses_max: int) -> None:
        self.world = World(
            fee_per_byte_micro=fee,
            lapses_max=lapses_max,
            misses_max=misses_max,
            window_heights=2,
            unbonding_heights=5,
        )
        self.keys = [*self.world.people]
        task = self.world.opened(1, 2, escrow_micro=500_000, rounds=8, window_rounds=2)
        assert self.world.task(task).phase == Phase.TRAINING

    def tasks(self) -> tuple[bytes, ...]:
        return (*self.world.ledger.task_ids(), digest("no such task"))

    def task(self, pick: int) -> bytes:
        tasks = self.tasks()
        return tasks[pick % len(tasks)]

    def nonce(self, who: int, skew: int) -> int:
        nonce = self.nonces.get(who, self.world.account(who).nonce)
        if skew == 0:
            self.nonces[who] = nonce + 1
        return max(0, nonce + skew)

    skews = st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1])
    picks = st.sampled_from([0, 0, 0, 1, 2, 3])

    @rule(who=people, to=people, amount=amounts, skew=skews, fresh=st.booleans())
    def transfer(self, who: int, to: int, amount: int, skew: int, fresh: bool) -> None:
        name = account_id(bytes([to] * 32)) if fresh else self.world.ids[to]
        self.pending.append(self.world.transfer(who, name, amount, nonce=self.nonce(who, skew)))

    @rule(who=people, amount=amounts, skew=skews, sane=st.booleans(), pay=st.sampled_from([0, 7, 1003, 10**17]))
    def submit(self, who: int, amount: int, skew: int, sane: bool, pay: int) -> None:
        of = spec(rounds=3, pay_micro=pay, rule=CLIP if sane else RuleSpec("none", 0, 0, 0, 1), validators_ppm=999_999)
        self.pending.append(self.world.submit(who, amount, of, nonce=self.nonce(who, skew)))

    @rule(who=people, pick=picks, units=st.sampled_from([1, 1, 2, 255]), skew=skews)
    def enrol(self, who: int, pick: int, units: int, skew: int) -> None:
        self.pending.append(self.world.enrol(who, self.task(pick), units, nonce=self.nonce(who, skew)))

    @rule(who=people, pick=picks, skew=skews)
    def leave(self, who: int, pick: int, skew: int) -> None:
        self.pending.append(self.world.leave(who, self.task(pick), nonce=self.nonce(who, skew)))

    @rule(who=people, fresh=st.booleans(), skew=skews)
    def stand(self, who: int, fresh: bool, skew: int) -> None:
        self.pending.append(self.world.stand(who, self.key(fresh), nonce=self.nonce(who, skew)))

    @rule(who=people, subject=people, seated=st.booleans(), skew=skews)
    def back(self, who: int, subject: int, seated: bool, skew: int) -> None:
        self.pending.append(self.world.back(who, subject, seated, nonce=self.nonce(who, skew)))

    @rule(subject=people, seated=st.booleans())
    def everybody_backs(self, subject: int, seated: bool) -> None:
        """So that voices often make a quorum."""
        for who in self.world.seated():
            self.pending.append(self.world.back(who, subject, seated, nonce=self.nonce(who, 0)))

    @rule(who=people, skew=skews)
    def resign(self, who: int, skew: int) -> None:
        self.pending.append(self.world.resign(who, nonce=self.nonce(who, skew)))

    @rule(who=people, fresh=st.booleans(), skew=skews)
    def rekey(self, who: int, fresh: bool, skew: int) -> None:
        self.pending.append(self.world.rekey(who, node=self.key(fresh), nonce=self.nonce(who, skew)))

    @rule(who=people, pick=st.integers(0, 40), proven=st.booleans(), skew=skews)
    def accuse(self, who: int, pick: int, proven: bool, skew: int) -> None:
        """Of any key that was ever used, seated or not."""
        liar = self.keys[pick % len(self.keys)]
        evidence = [liar.sign(Commit(0 if proven else view, 1, digest("commit", bytes([view])))) for view in (0, 1)]
        self.pending.append(self.world.accuse(who, *evidence, nonce=self.nonce(who, skew)))

    def key(self, fresh: bool) -> Signer:
        if fresh:
            self.keys.append(self.world.signer(f"key {len(self.keys)}"))
        return self.keys[-1]

    @rule(count=st.integers(1, 8))
    def wait(self, count: int) -> None:
        for _ in range(count):
            self.world.execute()

    @rule(
        pick=picks,
        absent=st.sets(people, max_size=3),
        wrong=st.sampled_from([None, None, "samples", "round", "key"]),
        heard=st.lists(ticks, min_size=VALIDATORS, max_size=VALIDATORS),
        late=st.sampled_from([0, 0, 0, 1]),
    )
    def seal(self, pick: int, absent: set[int], wrong: str | None, heard: list[int], late: int) -> None:
        task = self.task(pick)
        state = self.world.ledger.task(task)
        if state is None:
            return
        present = sorted({self.world.ids.index(one.account) for one in state.miners} - absent)
        commitments: list[Signed] = []
        for who in sorted(present, key=lambda one: self.world.ids[one]):
            changes = {"samples": 3} if wrong == "samples" else {"round": 99} if wrong == "round" else {}
            signed = self.world.commitment(who, task, **changes)
            commitments.append(replace(signed, key=bytes(32)) if wrong == "key" else signed)
        seal = self.world.seal(task, commitments, heard)
        self.pending.append(replace(seal, round=seal.round + late))

    @rule(
        pick=picks,
        outcomes=st.dictionaries(people, st.sampled_from(list(Outcome)), max_size=3),
        empty=st.booleans(),
        link=st.binary(min_size=32, max_size=32),
        late=st.sampled_from([0, 0, 0, 1]),
    )
    def update(self, pick: int, outcomes: dict[int, Outcome], empty: bool, link: bytes, late: int) -> None:
        task = self.task(pick)
        if self.world.ledger.task(task) is None:
            return
        links = [(Named(link, link),)] * VALIDATORS
        update = self.world.update(task, outcomes, self.world.reports(task, Step.UPDATE, links=links))
        if empty and late:
            update = replace(update, aggregate=NO_BLOB, model=NO_BLOB, momentum=NO_BLOB)
        self.pending.append(replace(update, round=update.round + late))

    @rule(pick=picks, back=st.integers(-1, 2), correct=st.lists(ticks, min_size=VALIDATORS, max_size=VALIDATORS))
    def evaluate(self, pick: int, back: int, correct: list[int]) -> None:
        task = self.task(pick)
        state = self.world.ledger.task(task)
        if state is None:
            return
        number = max(0, state.round - back)
        measured = [(Measured(number, one, 500, -one),) for one in correct]
        self.pending.append(self.world.evaluation(task, number, measured))

    @rule(junk=st.binary(min_size=1, max_size=40), who=people)
    def junk(self, junk: bytes, who: int) -> None:
        self.pending.append(Signed(self.world.people[who].key, junk, bytes(64)))
        self.pending.append(self.world.people[who].sign(blob("no operation")))

    @rule()
    def execute(self) -> None:
        self._execute()

    @rule(pick=picks)
    def play(self, pick: int) -> None:
        """A whole round, so that histories are often long."""
        self._execute()
        task = self.task(pick)
        state = self.world.ledger.task(task)
        if state is not None and state.phase == Phase.TRAINING:
            expected = [self.world.ids.index(one.account) for one in state.expected()]
            self.world.sealed(task, *expected)
            if self.world.task(task).phase == Phase.REVEALING:
                self.world.execute(self.world.update(task))

    def _execute(self) -> None:
        records, self.pending = tuple(self.pending), []
        self.nonces.clear()
        done = self.world.execute(*records)
        spoken_of = [one.record for one in done.receipts]
        assert [one for one in spoken_of if one in {record_digest(record) for record in records}] != [] or not records
        assert len(spoken_of) >= len(records)

    @invariant()
    def money_is_conserved(self) -> None:
        assert supply(self.world.ledger) == self.world.ledger.globals().supply_micro

    @invariant()
    def fees_that_divide_are_shared(self) -> None:
        ledger = self.world.ledger
        paid = len({seat.account for seat in ledger.validators()} - set(ledger.council().condemned))
        assert ledger.globals().fees_micro < PEOPLE or not paid

    @invariant()
    def seats_accounts_and_keys_belong_together(self) -> None:
        ledger, council = self.world.ledger, self.world.ledger.council()
        seats = ledger.validators()
        assert len({seat.account for seat in seats}) == len({seat.key for seat in seats}) == len(seats) >= 1
        for seat in seats:
            account = ledger.account(seat.account)
            assert account is not None
            assert account.node_key == seat.key
            assert ledger.account_of(seat.key) == seat.account
            assert seat.bond_micro == (0 if seat.account in council.condemned else BOND)
            assert ledger.unbonding(seat.account) is None
        coming = ledger.change()
        for listed in (council.candidates, council.opposed, council.rotations):
            names = [one.account for one in listed]
            assert names == sorted(set(names))
        taken = {seat.account for seat in (*seats, *(coming.seats if coming else ()))}
        assert not taken & {one.account for one in council.candidates}
        assert taken >= {*council.condemned, *council.resigning, *(one.account for one in council.opposed)}
        assert taken >= {one.account for one in council.rotations}

    @invariant()
    def sets_change_a_little_and_late(self) -> None:
        ledger = self.world.ledger
        seats, coming = ledger.seats(), ledger.change()
        assert ledger.eras().bases[-1] == seats.base
        if coming is not None:
            assert ledger.height < coming.height <= ledger.height + 2
            old = {(seat.account, seat.key) for seat in seats.seats}
            new = {(seat.account, seat.key) for seat in coming.seats}
            changed = {account for account, _ in old ^ new}
            assert 1 <= len(changed) <= max(1, (len(old) - 1) // 3)

    @invariant()
    def a_task_is_consistent(self) -> None:
        for task in self.world.ledger.tasks():
            of = self.world.ledger.spec(task.id)
            assert of is not None
            assert [one.account for one in task.miners] == sorted({one.account for one in task.miners})
            assert bool(task.sealed) == (task.phase == Phase.REVEALING)
            assert (task.escrow_micro == 0 or task.phase != Phase.DONE) and task.round <= of.rounds
            assert all(one.suspended == (one.missed >= self.world.genesis.parameters.misses_max) for one in task.miners)
            assert of.deadline_ticks_min <= task.deadline_ticks <= of.deadline_ticks_max
            if task.phase in (Phase.TRAINING, Phase.REVEALING):
                assert task.window.begins <= task.round < task.next_window.begins
                cost = sum(one.units for one in task.expected()) * of.unit_batch * of.pay_micro
                assert cost <= task.escrow_micro

    @invariant()
    def the_root_follows_from_the_entries(self) -> None:
        ledger = self.world.ledger
        assert Ledger.from_entries(sorted(ledger.entries.items()), ledger.header).root() == ledger.root()


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyHistory = AnyHistory.TestCase
