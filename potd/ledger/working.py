"""The state while one batch executes: what it has changed so far, over the ledger before it. Decides nothing.

Whoever writes here has checked every premise first: nothing is ever taken back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from potd.ledger.clock import vests_after
from potd.ledger.entries import (
    CHANGE,
    COUNCIL,
    ERAS,
    INDEX,
    SEATS,
    Account,
    Bond,
    Chains,
    Change,
    Council,
    Due,
    Entry,
    Eras,
    Holder,
    Parting,
    Past,
    Seat,
    Seats,
    Task,
    TaskIndex,
    Unbonding,
    Window,
    account_key,
    bond_key,
    chains_key,
    due_key,
    holder_key,
    parting_key,
    past_key,
    spec_key,
    task_key,
    unbonding_key,
    window_key,
)
from potd.ledger.state import Ledger
from potd.wire.codec import encode
from potd.wire.genesis import Parameters
from potd.wire.ids import NOTHING, AccountId, Digest, Key, TaskId
from potd.wire.tasks import TaskSpec

E = TypeVar("E", bound=Entry)


class Working:
    """`height` is the one being executed, `previous` the digest of the header before it."""

    def __init__(self, ledger: Ledger, height: int, previous: Digest) -> None:
        self.network: Digest = ledger.network
        self._ledger = ledger
        self._changed: dict[bytes, Entry | None] = {}
        self.height = height
        self.previous = previous
        self.parameters: Parameters = ledger.parameters()
        self.taken_micro = 0  # for the validators, by this batch

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Those who decide this height, as the height before left them; with the next one's only at its very end."""
        return self.seat_entry().seats

    @property
    def some_honest(self) -> int:
        """f + 1 of the validators: so many always have an honest one among them."""
        return (len(self.seats) - 1) // 3 + 1

    def account(self, account: AccountId) -> Account | None:
        return self._read(account_key(account), Account)

    def task(self, task: TaskId) -> Task | None:
        return self._read(task_key(task), Task)

    def spec(self, task: TaskId) -> TaskSpec:
        spec = self._read(spec_key(task), TaskSpec)
        assert spec is not None, "a task without its spec"
        return spec

    def task_ids(self) -> tuple[TaskId, ...]:
        return self._always(INDEX, TaskIndex).ids

    def settling(self) -> tuple[TaskId, ...]:
        return self._always(INDEX, TaskIndex).settling

    def seat_entry(self) -> Seats:
        return self._always(SEATS, Seats)

    def paid(self) -> tuple[AccountId, ...]:
        """The validators that have a part in what is taken for them: those who decide this height and have not lost
        their bond."""
        condemned = self.council().condemned
        return tuple(seat.account for seat in self.seats if seat.account not in condemned)

    def past(self, task: TaskId, number: int) -> Past | None:
        return self._read(past_key(task, number), Past) if number >= 0 else None

    def pasts(self, task: Task) -> list[Past]:
        """The rounds that have not vested, the oldest first."""
        first = max(0, task.round - vests_after(self.parameters))
        pasts = (self.past(task.id, number) for number in range(first, task.round))
        return [one for one in pasts if one is not None]

    def pasts_of(self, task: Task, account: AccountId) -> list[Past]:
        """Those of them that name an account; others are not even decoded, for each may have thousands of rows."""
        first = max(0, task.round - vests_after(self.parameters))
        keys = [past_key(task.id, number) for number in range(first, task.round)]
        pasts = (self._read(key, Past) for key in keys if key in self._changed or self._ledger.names(key, account))
        return [one for one in pasts if one is not None]

    def window(self, task: TaskId, begins: int) -> Window | None:
        return self._read(window_key(task, begins), Window)

    def bond(self, task: TaskId, account: AccountId) -> Bond | None:
        return self._read(bond_key(task, account), Bond)

    def parting(self, task: TaskId) -> Parting:
        return self._read(parting_key(task), Parting) or Parting((), ())

    def chains(self, task: TaskId, account: AccountId) -> Chains | None:
        return self._read(chains_key(task, account), Chains)

    def change(self) -> Change | None:
        return self._read(CHANGE, Change)

    def council(self) -> Council:
        return self._always(COUNCIL, Council)

    def eras(self) -> Eras:
        return self._always(ERAS, Eras)

    def holder(self, key: Key) -> Holder | None:
        return self._read(holder_key(key), Holder)

    def unbonding(self, account: AccountId) -> Unbonding | None:
        return self._read(unbonding_key(account), Unbonding)

    def due(self) -> Due | None:
        """Whose waiting ends at this height."""
        return self._read(due_key(self.height), Due)

    def put_account(self, account: AccountId, entry: Account) -> None:
        self._changed[account_key(account)] = entry

    def put_task(self, entry: Task) -> None:
        self._changed[task_key(entry.id)] = entry

    def put_parting(self, task: TaskId, entry: Parting) -> None:
        """An empty one is none."""
        if entry.accounts or entry.slashed:
            self._changed[parting_key(task)] = entry
        elif self._read(parting_key(task), Parting) is not None:
            self._changed[parting_key(task)] = None

    def put(self, key: bytes, entry: Entry) -> None:
        self._changed[key] = entry

    def delete(self, key: bytes) -> None:
        self._changed[key] = None

    def credit(self, account: AccountId, amount_micro: int) -> None:
        """Pay the account, which comes into being if it is new."""
        assert amount_micro >= 0
        entry = self.account(account) or Account(NOTHING, NOTHING, 0, 0)
        self.put_account(account, replace(entry, balance_micro=entry.balance_micro + amount_micro))

    def debit(self, account: AccountId, amount_micro: int) -> None:
        entry = self.account(account)
        assert entry is not None, "a debit of nobody"
        assert 0 <= amount_micro <= entry.balance_micro, "a debit that was not checked"
        self.put_account(account, replace(entry, balance_micro=entry.balance_micro - amount_micro))

    def changes(self) -> tuple[tuple[bytes, bytes | None], ...]:
        """What to store, by key: the new bytes of an entry, or None for one that is gone."""
        changes: list[tuple[bytes, bytes | None]] = []
        for key, entry in sorted(self._changed.items()):
            data = None if entry is None else encode(entry)
            if data is not None and entry is not None:
                self._ledger.decoded.put(key, data, entry)
            changes.append((key, data))
        return tuple(changes)

    def _read(self, key: bytes, kind: type[E]) -> E | None:
        if key in self._changed:
            entry = self._changed[key]
            assert entry is None or isinstance(entry, kind)
            return entry
        return self._ledger.read(key, kind)

    def _always(self, key: bytes, kind: type[E]) -> E:
        entry = self._read(key, kind)
        assert entry is not None, f"no {kind.__name__} in the state"
        return entry
