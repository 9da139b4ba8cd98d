"""The ledger's state: the map, and reading it. Knows nothing of how it changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import (
    CHANGE,
    COUNCIL,
    ENTRIES,
    ERAS,
    GLOBALS,
    INDEX,
    PARAMETERS,
    SEATS,
    Account,
    Bond,
    Chains,
    Change,
    Council,
    Entry,
    Eras,
    Globals,
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
    holder_key,
    parting_key,
    past_key,
    spec_key,
    task_key,
    unbonding_key,
    window_key,
)
from potd.wire.blocks import Header
from potd.wire.codec import decode, encode
from potd.wire.genesis import SUPPLY_MAX, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, AccountId, Digest, Key, TaskId, account_id
from potd.wire.merkle_map import MerkleMap
from potd.wire.tasks import TaskSpec

E = TypeVar("E", bound=Entry)

_DECODED_MAX = 4096  # entries kept decoded, over all versions of the ledger


class _Decoded:
    """Entries once decoded, checked against the bytes they came from; the oldest goes first."""

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[bytes, Entry]] = {}

    def get(self, key: bytes, data: bytes, kind: type[E]) -> E:
        known = self._entries.get(key)
        if known is not None and known[0] == data and isinstance(known[1], kind):
            return known[1]
        entry = decode(data, kind)
        self.put(key, data, entry)
        return entry

    def put(self, key: bytes, data: bytes, entry: Entry) -> None:
        self._entries.pop(key, None)
        if len(self._entries) >= _DECODED_MAX:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (data, entry)


@dataclass(frozen=True)
class Ledger:
    """The state after one height. Its root is what `header`, the one of that height, says; at genesis there is none.

    The header itself is not in the map: the next height begins by linking it.
    """

    entries: MerkleMap = field(repr=False, compare=False)
    header: Header | None
    decoded: _Decoded = field(default_factory=_Decoded, repr=False, compare=False)
    _found: dict[bytes, Entry] = field(default_factory=dict, init=False, repr=False, compare=False)  # by `read`, here

    @staticmethod
    def from_entries(entries: Iterable[tuple[bytes, bytes]], header: Header | None) -> Ledger:
        """The ledger whose map holds just these. Raises ValueError if that is not the state that the header names."""
        state = MerkleMap.of(entries)
        if header is not None and state.root() != header.state:
            raise ValueError(f"the state does not hash to what the header of height {header.height} says")
        ledger = Ledger(state, header)
        if state.get(GLOBALS) is None:
            raise ValueError("the state has no globals")
        if ledger.height != (0 if header is None else header.height):
            raise ValueError(f"the state is of height {ledger.height}, the header is not")
        return ledger

    def root(self) -> Digest:
        return self.entries.root()

    def read(self, key: bytes, kind: type[E]) -> E | None:
        known = self._found.get(key)
        if known is None:
            data = self.entries.get(key)
            if data is None:
                return None
            known = self._found[key] = self.decoded.get(key, data, kind)
        assert isinstance(known, kind)
        return known

    def globals(self) -> Globals:
        return self._always(GLOBALS, Globals)

    def parameters(self) -> Parameters:
        return self._always(PARAMETERS, Parameters)

    def seats(self) -> Seats:
        return self._always(SEATS, Seats)

    def validators(self) -> tuple[Seat, ...]:
        """Those who decide the next height, in the order in which they become primary."""
        return self.seats().seats

    def change(self) -> Change | None:
        """The set of validators that has been agreed and is not yet in force."""
        return self.read(CHANGE, Change)

    def council(self) -> Council:
        """What has been asked for and may become a change of the set."""
        return self._always(COUNCIL, Council)

    def eras(self) -> Eras:
        return self._always(ERAS, Eras)

    def holder(self, key: Key) -> Holder | None:
        return self.read(holder_key(key), Holder)

    def account_of(self, key: Key) -> AccountId:
        """The account that this node key is of."""
        known = self.holder(key)
        return account_id(key) if known is None else known.account

    def unbonding(self, account: AccountId) -> Unbonding | None:
        """The bond of a seat that the account has given up, on its way back."""
        return self.read(unbonding_key(account), Unbonding)

    def task_ids(self) -> tuple[TaskId, ...]:
        """In the order in which they were opened."""
        return self._always(INDEX, TaskIndex).ids

    def tasks(self) -> Iterator[Task]:
        """In the order in which they were opened."""
        return (self._always(task_key(one), Task) for one in self.task_ids())

    def account(self, account: AccountId) -> Account | None:
        return self.read(account_key(account), Account)

    def nonce(self, account: AccountId) -> int:
        """Of an account's next operation."""
        known = self.account(account)
        return known.nonce if known is not None else 0

    def settling(self) -> tuple[TaskId, ...]:
        """The tasks that are done and owe pay and bonds yet, in the order in which they will settle."""
        return self._always(INDEX, TaskIndex).settling

    def settles(self) -> int | None:
        """The height at which the last of these settles; None if nothing is owed."""
        settling = self.settling()
        if not settling:
            return None
        return self._always(task_key(settling[-1]), Task).rested_height + self.parameters().settle_heights

    def past(self, task: TaskId, number: int) -> Past | None:
        """A round that counted and whose pay has not vested."""
        return self.read(past_key(task, number), Past)

    def pasts(self, task: TaskId) -> tuple[Past, ...]:
        """The rounds of a task whose audit is not over, the oldest first."""
        known, parameters = self.task(task), self.parameters()
        if known is None:
            return ()
        numbers = range(max(0, known.round - parameters.audit_rounds), known.round)
        pasts = [past for number in numbers if (past := self.past(task, number)) is not None]
        over = AuditPhase.OVER
        return tuple(one for one in pasts if audit_phase(known, one, self.height + 1, parameters) != over)

    def window(self, task: TaskId, begins: int) -> Window | None:
        """The window that began at this round, as long as a round in it can be audited."""
        return self.read(window_key(task, begins), Window)

    def bond(self, task: TaskId, account: AccountId) -> Bond | None:
        """What a miner has locked for a task."""
        return self.read(bond_key(task, account), Bond)

    def parting(self, task: TaskId) -> Parting:
        """Who has left a task, and is owed a bond or may not come back."""
        return self.read(parting_key(task), Parting) or Parting((), ())

    def chains(self, task: TaskId, account: AccountId) -> Chains | None:
        """A validator's hash chains for a task."""
        return self.read(chains_key(task, account), Chains)

    def task(self, task: TaskId) -> Task | None:
        return self.read(task_key(task), Task)

    def spec(self, task: TaskId) -> TaskSpec | None:
        return self.read(spec_key(task), TaskSpec)

    @property
    def height(self) -> int:
        return self.globals().height

    @property
    def network(self) -> Digest:
        return self.globals().network

    def names(self, key: bytes, account: AccountId) -> bool:
        """Whether an entry may say anything of an account: its bytes are somewhere in it."""
        data = self.entries.get(key)
        return data is not None and account in data

    def _always(self, key: bytes, kind: type[E]) -> E:
        entry = self.read(key, kind)
        assert entry is not None, f"no {kind.__name__} in the state"
        return entry


def genesis_ledger(genesis: Genesis) -> Ledger:
    """Height 0. Raises ValueError for a genesis that cannot be: a validator listed twice, or too much money.

    A validator's account is the one made from its key, which is owner and node key in one. Its bond is taken out of
    its balance, as much of the parameter as there is.
    """
    if len(set(genesis.validators)) < len(genesis.validators):
        raise ValueError("a validator is listed twice")
    balances: dict[bytes, int] = dict.fromkeys(genesis.validators, 0)
    for one in genesis.balances:
        balances[one.owner_key] = balances.get(one.owner_key, 0) + one.amount_micro
    supply = sum(balances.values())
    if supply > SUPPLY_MAX:
        raise ValueError(f"balances of {supply} micro-units, at most {SUPPLY_MAX}")
    bonds = {key: min(balances[key], genesis.parameters.seat_bond_micro) for key in genesis.validators}
    seats = tuple(Seat(account_id(key), key, bonds[key]) for key in genesis.validators)
    entries: list[tuple[bytes, Entry]] = [
        (GLOBALS, Globals(genesis_digest(genesis), genesis.protocol, 0, supply, 0, NOTHING, 0, ())),
        (PARAMETERS, genesis.parameters),
        (SEATS, Seats(0, seats, ())),
        (ERAS, Eras((0,))),
        (COUNCIL, Council((), (), (), (), ())),
        (INDEX, TaskIndex((), ())),
    ]
    for key, amount in balances.items():
        entries.append((account_key(account_id(key)), Account(key, key, amount - bonds.get(key, 0), 0)))
    return Ledger(MerkleMap().updated((key, encode(entry)) for key, entry in entries), None)


def entries_of(ledger: Ledger) -> Iterator[tuple[bytes, Entry]]:
    """Every entry, decoded, by position in the map."""
    for key, data in ledger.entries.items():
        yield key, decode(data, *ENTRIES)


def supply(ledger: Ledger) -> int:
    """All there is, added up, in micro-units: balances, escrows, bonds, pay not vested, fees and pots not shared. The
    same at every height."""
    seated = _seated(ledger)
    return sum(_amount(entry, seated) for _, entry in entries_of(ledger))


def supply_moved(before: Ledger, after: Ledger) -> int:
    """By how much the supply differs between two states: by nothing, if all is well. What they share is not read."""
    seated = _seated(before)
    if seated != _seated(after):  # it decides what counts of an entry that is the same in both
        return supply(after) - supply(before)
    new, old = after.entries.apart(before.entries)
    gained, lost = (sum(_amount(decode(data, *ENTRIES), seated) for _, data in each) for each in (new, old))
    return gained - lost


def _seated(ledger: Ledger) -> set[AccountId]:
    return {seat.account for seat in ledger.validators()}


def _amount(entry: Entry, seated: set[AccountId]) -> int:
    """What an entry adds to the supply."""
    match entry:
        case Account():
            return entry.balance_micro
        case Task():
            return entry.escrow_micro
        case Globals():
            return entry.fees_micro
        case Seats():
            return sum(seat.bond_micro for seat in entry.seats)
        case Change():  # it repeats those who stay
            return sum(seat.bond_micro for seat in entry.seats if seat.account not in seated)
        case Council():
            return sum(one.bond_micro for one in entry.candidates)
        case Unbonding() | Bond():
            return entry.amount_micro
        case Past():
            return entry.pot_micro + sum(row.pay_micro for row in entry.rows)
        case _:
            return 0
