"""What is waiting to be ordered: operations of accounts, and records of rounds. Orders nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from potd.ledger.evidence import commitment
from potd.wire.audits import Ruling, Verdict
from potd.wire.blocks import BATCH_BYTES_MAX, Batch, Record, record_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Verified
from potd.wire.ids import AccountId, Digest, TaskId, task_id
from potd.wire.operations import OPERATIONS, Accuse, Enrol, Leave, Operation, Submit
from potd.wire.rounds import Evaluation, Seal, Update

OPERATIONS_MAX = 4096
OPERATION_BYTES_MAX = BATCH_BYTES_MAX // 4  # evidence is the longest; one that fits no batch would hold up all others
OPERATIONS_BYTES_MAX = 16 * BATCH_BYTES_MAX  # of all that wait
AGAIN_TICKS = 40  # an operation that is not executed yet is said again, or forwarded to the primary


@dataclass
class Waiting:
    """One operation, and since which tick it waits."""

    message: Verified[Operation]
    since: int
    ours: bool
    length: int  # in a batch


class Agenda:
    """Bounded. A record or an operation leaves it by being executed, or by becoming impossible.

    What a height or a tick costs goes with what it touches, not with all that waits."""

    def __init__(self, again_ticks: int = AGAIN_TICKS) -> None:
        self._again_ticks = again_ticks
        self.operations: dict[Digest, Waiting] = {}
        self._of: dict[AccountId, dict[int, Digest]] = {}  # the operations of an account, by nonce
        self._again: dict[int, dict[Digest, None]] = {}  # by the tick since which they wait, modulo `again_ticks`
        self._ready: set[AccountId] = set()  # of which something may be in turn that is not given out
        self._records: dict[tuple[str, bytes, int], tuple[Digest, int, Seal | Update | Evaluation]] = {}
        self._in_flight: set[Digest] = set()
        self._bytes = 0  # of the operations that wait

    def add_operation(
        self, message: Verified[Operation], tick: int, ours: bool, turns: Callable[[AccountId], int] | None = None
    ) -> str:
        """Keep an operation for the next batch. The reason if there is no room.

        An account has one place for each nonce, and nonces reach only so far ahead: no account can crowd out the
        operation whose turn it is. Nor can many: `turns` are the next nonces of all accounts if it is its turn, which
        costs a fee; then what waits for nothing, as it is ahead of its own, gives way to it.
        """
        name = record_digest(message.signed)
        if name in self.operations:
            return ""
        account, nonce = message.body.account, message.body.nonce
        if nonce in self._of.get(account, ()):
            return f"another operation with nonce {nonce} is waiting already"
        length = _length(message.signed)
        if length > OPERATION_BYTES_MAX:
            return f"an operation of {length} bytes, at most {OPERATION_BYTES_MAX}"
        if turns is not None and self._full(length):
            self._make_room(length, turns)
        if self._full(length):
            return self._full(length)
        self._bytes += length
        self.operations[name] = Waiting(message, tick, ours, length)
        self._of.setdefault(account, {})[nonce] = name
        self._again.setdefault(tick % self._again_ticks, {})[name] = None
        self._ready.add(account)
        return ""

    def _full(self, length: int) -> str:
        """Why there is no room for so many bytes more, or nothing."""
        if len(self.operations) >= OPERATIONS_MAX:
            return f"{len(self.operations)} operations are waiting already"
        if self._bytes + length > OPERATIONS_BYTES_MAX:
            return f"{self._bytes} bytes of operations are waiting already"
        return ""

    def _make_room(self, length: int, turns: Callable[[AccountId], int]) -> None:
        """Drop what is farthest ahead of its turn, of others and not given out."""
        ahead: list[tuple[int, Digest]] = []
        for account, names in self._of.items():
            due = turns(account)
            ahead += [(nonce - due, name) for nonce, name in names.items() if nonce > due]
        for _, name in sorted(ahead, reverse=True):
            if not self._full(length):
                break
            if not self.operations[name].ours and name not in self._in_flight:
                self.drop_operation(name)

    def add_record(self, record: Seal | Update | Evaluation) -> None:
        """The newest record of a kind for a round replaces the one before."""
        key = (type(record).__name__, record.task, record.round)
        self._records[key] = (record_digest(record), _length(record), record)

    def waiting_of(self, account: AccountId) -> list[tuple[int, Digest]]:
        """The operations of an account that wait, by nonce."""
        return sorted(self._of.get(account, {}).items())

    def waiting_enrolments(self, account: AccountId) -> set[TaskId]:
        """The tasks for which this account has asked to enrol, and not been heard."""
        bodies = [self.operations[name].message.body for _, name in self.waiting_of(account)]
        return {one.task for one in bodies if isinstance(one, Enrol)}

    def to_say_again(self, tick: int) -> list[tuple[Digest, Waiting]]:
        """Those that have waited `again_ticks` by the end of this tick, or a multiple of it."""
        return [(name, self.operations[name]) for name in sorted(self._again.get((tick + 1) % self._again_ticks, ()))]

    def moved(self, account: AccountId) -> None:
        """The ledger has changed the account: another operation of it may be in turn."""
        if account in self._of:
            self._ready.add(account)

    @property
    def ready(self) -> int:
        """Of how many accounts an operation waits whose turn it may be."""
        return len(self._ready)

    def take(self, records_max: int, nonce_of: Callable[[AccountId], int], fewest: int = 1) -> Batch | None:
        """The next batch: records first, for rounds wait on them, then operations whose turn it is, by account.

        Operations by themselves wait until they are `fewest`. An operation ahead of its turn, by the ledger's
        `nonce_of`, would fail for nothing; a round's record is never put behind another record of its task, since
        nobody could judge it there.
        """
        if not self._records and len(self.operations) < fewest:
            return None
        chosen: dict[Digest, Record] = {}
        touched: set[TaskId] = set()
        size = 0
        for name, length, record in self._records.values():
            if name in self._in_flight or (isinstance(record, Seal | Update) and record.task in touched):
                continue
            if len(chosen) >= records_max or size + length > BATCH_BYTES_MAX:
                continue
            chosen[name] = record
            touched |= touches(record)
            size += length
        records = len(chosen)
        served: list[AccountId] = []
        full = False
        for account in sorted(self._ready):
            for name in self._in_turn(account, nonce_of(account)):
                waiting = self.operations[name]
                full = len(chosen) >= records_max or size + waiting.length > BATCH_BYTES_MAX
                if full:
                    break  # the account stays ready
                chosen[name] = waiting.message.signed
                size += waiting.length
            if full:
                break
            served.append(account)
        if chosen and not records and not full and len(chosen) < fewest:
            return None
        self._ready.difference_update(served)
        self._in_flight.update(chosen)
        return Batch(tuple(chosen.values())) if chosen else None

    def _in_turn(self, account: AccountId, nonce: int) -> Iterator[Digest]:
        """The operations of an account from its next nonce on, without a gap, that are not given out yet."""
        names = self._of.get(account, {})
        while nonce in names:
            if names[nonce] not in self._in_flight:
                yield names[nonce]
            nonce += 1

    def executed(self, names: list[Digest]) -> None:
        """These have been in a batch. Operations stay until the ledger can take them no more: one that came before its
        turn has its turn yet."""
        gone = set(names)
        self._in_flight -= gone
        for name in names:
            if name in self.operations:
                self._ready.add(self.operations[name].message.body.account)
        for key in [key for key, (name, _, _) in self._records.items() if name in gone]:
            del self._records[key]

    def drop_operation(self, name: Digest) -> None:
        waiting = self.operations.pop(name, None)
        self._in_flight.discard(name)
        if waiting is None:
            return
        self._bytes -= waiting.length
        account = waiting.message.body.account
        del self._again[waiting.since % self._again_ticks][name]
        del self._of[account][waiting.message.body.nonce]
        if not self._of[account]:
            del self._of[account]
            self._ready.discard(account)

    def drop_stale(self, task: bytes, before_round: int) -> None:
        """Seals and updates of rounds that are past."""
        for key in [
            key for key in self._records if key[1] == task and key[2] < before_round and key[0] != Evaluation.__name__
        ]:
            self._in_flight.discard(self._records.pop(key)[0])

    def view_changed(self) -> None:
        """Nothing that we gave out under the old view is sure to come through; records are worked out afresh."""
        self._in_flight.clear()
        self._records.clear()
        self._ready.update(self._of)


def operation_key(name: Digest) -> str:
    """Under which name the primary owes us an operation."""
    return f"operation {name.hex()[:16]}"


def _length(record: Record) -> int:
    """What a record takes of a batch's bytes, at most."""
    return len(encode(record)) + 16


def touches(record: Record) -> set[TaskId]:
    """The tasks whose state an executed record may move."""
    if not isinstance(record, Signed):
        return set() if isinstance(record, Evaluation) else {record.task}
    try:
        body = decode(record.payload, *OPERATIONS)
    except Malformed:
        return set()
    match body:
        case Submit():
            return {task_id(encode(record))}
        case Enrol() | Leave() | Verdict() | Ruling():  # by the last two a miner may have to leave
            return {body.task}
        case Accuse():
            word = commitment(body.evidence)  # who has committed twice has to leave, too
            return {word.task} if word is not None else set()
        case _:
            return set()
