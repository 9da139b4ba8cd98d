"""What is waiting to be ordered: operations of accounts, and records of rounds. Orders nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from potd.wire.blocks import BATCH_BYTES_MAX, Batch, Record, record_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Verified
from potd.wire.ids import AccountId, Digest, TaskId, task_id
from potd.wire.operations import OPERATIONS, Enrol, Leave, Operation, Submit
from potd.wire.rounds import Evaluation, Seal, Update

OPERATIONS_MAX = 4096


@dataclass
class Waiting:
    """One operation, and since which tick it waits."""

    message: Verified[Operation]
    since: int
    ours: bool


class Agenda:
    """Bounded. A record or an operation leaves it by being executed, or by becoming impossible."""

    def __init__(self) -> None:
        self.operations: dict[Digest, Waiting] = {}
        self._records: dict[tuple[str, bytes, int], tuple[Digest, Seal | Update | Evaluation]] = {}
        self._in_flight: set[Digest] = set()

    def add_operation(self, message: Verified[Operation], tick: int, ours: bool) -> str:
        """Keep an operation for the next batch. The reason if there is no room.

        An account has one place for each nonce, and nonces reach only so far ahead: no account can crowd out the
        operation whose turn it is.
        """
        name = record_digest(message.signed)
        if name in self.operations:
            return ""
        if message.body.nonce in self.pending_nonces(message.body.account):
            return f"another operation with nonce {message.body.nonce} is waiting already"
        if len(self.operations) >= OPERATIONS_MAX:
            return f"{len(self.operations)} operations are waiting already"
        self.operations[name] = Waiting(message, tick, ours)
        return ""

    def add_record(self, record: Seal | Update | Evaluation) -> None:
        """The newest record of a kind for a round replaces the one before."""
        self._records[(type(record).__name__, record.task, record.round)] = (record_digest(record), record)

    def pending_nonces(self, account: AccountId) -> list[int]:
        return sorted(one.message.body.nonce for one in self.operations.values() if one.message.body.account == account)

    def waiting_enrolments(self, account: AccountId) -> set[TaskId]:
        """The tasks for which this account has asked to enrol, and not been heard."""
        bodies = [one.message.body for one in self.operations.values()]
        return {one.task for one in bodies if isinstance(one, Enrol) and one.account == account}

    def take(self, records_max: int, nonce_of: Callable[[AccountId], int]) -> Batch | None:
        """The next batch: records first, for rounds wait on them, then operations whose turn it is, by account.

        `nonce_of` is the ledger's. An operation ahead of its turn would fail for nothing; a round's record is never put
        behind another record of its task, since nobody could judge it there.
        """
        chosen: list[Record] = []
        touched: set[TaskId] = set()
        size = 0
        for name, record in [*self._records.values(), *self._in_turn(nonce_of)]:
            if name in self._in_flight or (isinstance(record, Seal | Update) and record.task in touched):
                continue
            length = len(encode(record)) + 16
            if len(chosen) >= records_max or size + length > BATCH_BYTES_MAX:
                if isinstance(record, Signed):
                    break  # what comes behind it may be of the same account, and would come before its turn
                continue
            chosen.append(record)
            touched |= touches(record)
            size += length
            self._in_flight.add(name)
        return Batch(tuple(chosen)) if chosen else None

    def _in_turn(self, nonce_of: Callable[[AccountId], int]) -> list[tuple[Digest, Record]]:
        """The operations of each account from its next nonce on, without a gap."""
        by_account: dict[AccountId, dict[int, Digest]] = {}
        for name, one in self.operations.items():
            by_account.setdefault(one.message.body.account, {})[one.message.body.nonce] = name
        due: list[tuple[Digest, Record]] = []
        for account, names in sorted(by_account.items()):
            nonce = nonce_of(account)
            while nonce in names:
                due.append((names[nonce], self.operations[names[nonce]].message.signed))
                nonce += 1
        return due

    def executed(self, names: list[Digest]) -> None:
        """These have been in a batch. Operations stay until the ledger can take them no more: one that came before its
        turn has its turn yet."""
        gone = set(names)
        self._in_flight -= gone
        for key in [key for key, (name, _) in self._records.items() if name in gone]:
            del self._records[key]

    def drop_operation(self, name: Digest) -> None:
        self.operations.pop(name, None)
        self._in_flight.discard(name)

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


def operation_key(signed: Signed) -> str:
    """Under which name the primary owes us an operation."""
    return f"operation {record_digest(signed).hex()[:16]}"


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
        case Enrol() | Leave():
            return {body.task}
        case _:
            return set()
