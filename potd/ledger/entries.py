"""What the state map holds, as messages, and under which keys. Knows nothing of how it changes.

g   Globals        a + account   Account
p   Parameters     t + task      Task
v   Seats          s + task      TaskSpec
n   Change         k + key       Holder
e   Eras           u + account   Unbonding
c   Council        d + height    Due
i   TaskIndex      l + task      Parting

r + task + round    Past         b + task + account  Bond
w + task + round    Window       h + task + account  Chains
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from potd.wire.codec import I64, U8, U32, U63, Range, Size, message
from potd.wire.envelope import Signed
from potd.wire.genesis import Parameters
from potd.wire.ids import AccountId, BlobRef, Digest, Key, TaskId
from potd.wire.operations import Amount, Units
from potd.wire.rounds import MINERS_MAX, VALIDATORS_MAX, Measured
from potd.wire.tasks import TaskSpec

TASKS_MAX = 4096  # that the ledger lists; beyond it the oldest finished one is forgotten
CANDIDATES_MAX = 256  # that stand for a seat at a time
ERAS_MAX = 16  # whose beginnings are remembered
FOR_EVER = 2**63 - 1  # the height until which a key answers that was found guilty

GLOBALS, PARAMETERS, SEATS, CHANGE, INDEX = b"g", b"p", b"v", b"n", b"i"
ERAS, COUNCIL = b"e", b"c"
_ACCOUNT, _TASK, _SPEC = b"a", b"t", b"s"
_HOLDER, _UNBONDING, _DUE = b"k", b"u", b"d"
_PAST, _WINDOW, _BOND, _PARTING, _CHAINS = b"r", b"w", b"b", b"l", b"h"


class Phase(IntEnum):
    """Where a task stands."""

    WAITING = 0  # for its first miners_min miners
    TRAINING = 1  # the round is open; a seal is due
    REVEALING = 2  # the round is sealed; an update is due
    ASLEEP = 3  # too many rounds have lapsed in a row; an enrolment wakes it
    DONE = 4  # trained, or out of escrow; what is left has gone back to its owner


@message(110)
@dataclass(frozen=True)
class Account:
    """Keys are NOTHING until the account, which others may pay at any time, speaks for the first time."""

    owner_key: Key
    node_key: Key
    balance_micro: Amount
    nonce: U63  # of its next operation


@message(111)
@dataclass(frozen=True)
class Seat:
    """A validator: the account that earns, the key that votes, and what it loses if that key is proved guilty."""

    account: AccountId
    key: Key
    bond_micro: Amount
    since_height: U63 = 0  # the last height that it did not decide


@message(112)
@dataclass(frozen=True)
class Seats:
    """The validators that decide the next height, in the order in which they become primary."""

    base: U63  # the last height that others decided; 0 for those of genesis
    seats: Annotated[tuple[Seat, ...], Size(1, VALIDATORS_MAX)]
    before: Annotated[tuple[Key, ...], Size(0, VALIDATORS_MAX)]  # who decided `base`; nobody at genesis


@message(119)
@dataclass(frozen=True)
class Change:
    """Another set of validators, agreed and not yet in force: it decides what comes after `height`.

    Nothing above that height is ordered before it is stable under the present set."""

    height: U63
    seats: Annotated[tuple[Seat, ...], Size(1, VALIDATORS_MAX)]


@message(120)
@dataclass(frozen=True)
class Candidate:
    """An account that stands for a seat. Its key is the account's node key."""

    account: AccountId
    key: Key
    bond_micro: Amount
    since_height: U63
    backers: Annotated[tuple[AccountId, ...], Size(0, VALIDATORS_MAX)]  # validators, by account


@message(121)
@dataclass(frozen=True)
class Opposed:
    """A validator that others want removed."""

    account: AccountId
    opposers: Annotated[tuple[AccountId, ...], Size(1, VALIDATORS_MAX)]  # validators, by account


@message(122)
@dataclass(frozen=True)
class Rotation:
    """A validator that asks for another key in its seat."""

    account: AccountId
    key: Key


@message(123)
@dataclass(frozen=True)
class Council:
    """What has been asked for and may become a change of the set. Every list is by account, each once."""

    candidates: Annotated[tuple[Candidate, ...], Size(0, CANDIDATES_MAX)]
    opposed: Annotated[tuple[Opposed, ...], Size(0, VALIDATORS_MAX)]
    resigning: Annotated[tuple[AccountId, ...], Size(0, VALIDATORS_MAX)]
    condemned: Annotated[tuple[AccountId, ...], Size(0, VALIDATORS_MAX)]  # proved guilty, bond taken, seated yet
    rotations: Annotated[tuple[Rotation, ...], Size(0, VALIDATORS_MAX)]


@message(124)
@dataclass(frozen=True)
class Eras:
    """After which heights a set of validators began to decide, the oldest first and the present one's last."""

    bases: Annotated[tuple[U63, ...], Size(1, ERAS_MAX)]


@message(125)
@dataclass(frozen=True)
class Holder:
    """Whose a key is, or was. Where there is none, a key is of the account that is made from it."""

    account: AccountId
    due_height: U63  # until which it can be accused though it votes no more; 0 while in use, FOR_EVER if found guilty


@message(126)
@dataclass(frozen=True)
class Unbonding:
    """The bond of a seat that was given up, until `due_height`, when it goes back to the account."""

    amount_micro: Amount
    due_height: U63


@message(127)
@dataclass(frozen=True)
class Due:
    """Whose waiting ends at a height."""

    accounts: Annotated[tuple[AccountId, ...], Size(0, VALIDATORS_MAX)]  # with an Unbonding
    keys: Annotated[tuple[Key, ...], Size(0, VALIDATORS_MAX)]  # with a Holder


@message(113)
@dataclass(frozen=True)
class Globals:
    """What every height changes. `previous` and the history stop one header short of `height`'s own, which does not
    exist before this state has its root."""

    network: Digest
    protocol: U32
    height: U63
    supply_micro: Amount
    fees_micro: Amount  # what was taken for the validators and does not yet divide among them
    previous: Digest  # header digest of height - 1; NOTHING up to height 1
    history_count: U63  # headers in the history: those of heights 1 to height - 1
    history_peaks: Annotated[tuple[Digest, ...], Size(0, 63)]  # the mountain range over their digests


@message(114)
@dataclass(frozen=True)
class TaskIndex:
    """The tasks there are, in the order in which they were opened."""

    ids: Annotated[tuple[TaskId, ...], Size(0, TASKS_MAX)]
    settling: Annotated[tuple[TaskId, ...], Size(0, TASKS_MAX)]  # done and owing yet, in the order in which they rested


@message(115)
@dataclass(frozen=True)
class Miner:
    """An account enrolled for a task."""

    account: AccountId
    key: Key  # its node key when it enrolled
    units: Units  # in force
    units_next: Units  # what it last asked for; in the next window that is fixed
    missed: Annotated[int, Range(0, 255)]  # rounds in a row
    suspended: bool
    joined_round: U63  # the first round that it may commit to
    earned_micro: Amount  # since it enrolled, vested or not
    probation: bool  # its bond is not made up yet


@message(116)
@dataclass(frozen=True)
class Member:
    """A miner's place in a window."""

    miner: AccountId
    units: Units


@message(117)
@dataclass(frozen=True)
class Window:
    """Who trains in a stretch of rounds, and the seed that deals out its shards. Fixed one window ahead."""

    begins: U63  # its first round
    seed: Digest
    members: Annotated[tuple[Member, ...], Size(0, MINERS_MAX)]  # by miner


@message(118)
@dataclass(frozen=True)
class Task:
    """One training run. Its windows are empty while it waits."""

    id: TaskId
    owner: AccountId
    spec: Digest
    opened_height: U63
    phase: U8  # Phase
    round: U63
    counted_rounds: U63
    lapses: Annotated[int, Range(0, 255)]  # in a row
    model: BlobRef
    momentum: BlobRef
    aggregate: BlobRef  # what led to this model from the one before; NO_BLOB at first
    seed: Digest  # of the round
    escrow_micro: Amount
    deadline_ticks: Annotated[int, Range(2, 2**31)]  # for commitments, since the round opened
    miners: Annotated[tuple[Miner, ...], Size(0, MINERS_MAX)]  # by account
    window: Window
    next_window: Window
    seal: Digest  # record digest of the seal while revealing, else NOTHING
    sealed: Annotated[tuple[Signed, ...], Size(0, MINERS_MAX)]  # Commitment, by miner, while revealing
    # Positions in `sealed` of the miners that were on probation then; empty if none were.
    probation: Annotated[bytes, Size(0, MINERS_MAX // 8)]
    measured: Annotated[tuple[Measured, ...], Size(0, 1)]  # the newest agreed evaluation
    loss_micro: I64  # lower median of what the miners counted last said
    norm: U63  # lower median of the norms that the first counted round had; 0 before: the unit of distances
    rested_height: U63  # since when it is done; 0 while it is not

    def miner(self, account: AccountId) -> Miner | None:
        at = bisect_left(self.miners, account, key=lambda one: one.account)
        return self.miners[at] if at < len(self.miners) and self.miners[at].account == account else None

    def active(self) -> Iterator[Miner]:
        """Those who are not suspended, by account."""
        return (one for one in self.miners if not one.suspended)

    def expected(self) -> Iterator[Miner]:
        """Those who may commit to the round that is open, by account."""
        return (one for one in self.active() if one.joined_round <= self.round)


class Standing(IntEnum):
    """Where a contribution of a past round stands."""

    UNCONTESTED = 0
    CONTESTED = 1  # a verdict calls it bad; every validator rules
    CLEARED = 2  # a quorum rules it good, or no quorum rules it bad in time
    SLASHED = 3  # a quorum rules it bad; or its miner was proved guilty otherwise


@message(128)
@dataclass(frozen=True)
class Voice:
    """What one validator has said of a contribution: by verdict, if it drew it, or by ruling, once it was contested."""

    validator: AccountId
    ruling: bool
    status: U8  # audits.Status
    distance_nano: U63


@message(129)
@dataclass(frozen=True)
class Row:
    """One contribution of a past round, and what it is owed."""

    miner: AccountId
    commitment: Digest  # record digest of what was sealed
    payload: BlobRef
    units: Units
    outcome: U8  # rounds.Outcome
    weight: U32
    norm: U63  # `rounds.Contribution`
    pay_micro: Amount  # to its miner, unless it is slashed before this vests
    standing: U8  # Standing
    voices: Annotated[tuple[Voice, ...], Size(0, 2 * VALIDATORS_MAX)]  # in the order in which they were heard


@message(136)
@dataclass(frozen=True)
class Promised:
    """A promise, and whether it has been kept."""

    validator: AccountId
    findings: Digest
    kept: bool


@message(137)
@dataclass(frozen=True)
class Past:
    """A round that counted and whose pay has not vested: all that is needed to replay and to judge it."""

    task: TaskId
    round: U63
    height: U63  # at which it ended
    model: BlobRef  # that the gradients were taken at
    seed: Digest
    window: U63  # the first round of its window
    validators: U32  # how many decided that height: by that number contributions are drawn
    pot_micro: Amount  # for those who audit it, until their time is over
    promises: Annotated[tuple[Promised, ...], Size(0, VALIDATORS_MAX)]  # in the order in which they were heard
    rows: Annotated[tuple[Row, ...], Size(0, MINERS_MAX)]  # by miner


@message(138)
@dataclass(frozen=True)
class Bond:
    """What a miner has locked for its enrolment in a task."""

    account: AccountId
    amount_micro: Amount
    required_micro: Amount  # below it the miner is on probation
    until_round: U63  # FOR_EVER while enrolled; else when it goes back to the account


@message(139)
@dataclass(frozen=True)
class Parting:
    """Who has left a task: with a bond there yet, in the order in which they left; or slashed, and not to come back."""

    accounts: Annotated[tuple[AccountId, ...], Size(0, MINERS_MAX)]
    slashed: Annotated[tuple[AccountId, ...], Size(0, MINERS_MAX)]  # in the order in which they were


@message(140)
@dataclass(frozen=True)
class Chains:
    """The newest links of a validator's two hash chains for a task that the ledger has seen: for each the round whose
    link it is, or would be, if it is the tip: one before the chain begins."""

    key: Key  # the validator's when it published them: they follow from it
    begins: U63
    seeds_round: I64
    seeds: Digest
    lots_round: I64
    lots: Digest


Entry = (
    Globals
    | Parameters
    | Seats
    | Change
    | Eras
    | Council
    | TaskIndex
    | Account
    | Task
    | TaskSpec
    | Holder
    | Unbonding
    | Due
    | Window
    | Past
    | Bond
    | Parting
    | Chains
)
ENTRIES: tuple[type[Entry], ...] = (
    Globals,
    Parameters,
    Seats,
    Change,
    Eras,
    Council,
    TaskIndex,
    Account,
    Task,
    TaskSpec,
    Holder,
    Unbonding,
    Due,
    Window,
    Past,
    Bond,
    Parting,
    Chains,
)


def account_key(account: AccountId) -> bytes:
    return _ACCOUNT + account


def account_of(key: bytes) -> AccountId | None:
    """The account whose entry stands under this key, if it is one."""
    return key[len(_ACCOUNT) :] if key.startswith(_ACCOUNT) else None


def task_key(task: TaskId) -> bytes:
    return _TASK + task


def task_of(key: bytes) -> TaskId | None:
    """The task whose entry stands under this key, if it is one."""
    return key[len(_TASK) :] if key.startswith(_TASK) else None


def task_about(key: bytes) -> TaskId | None:
    """The task that an entry is of, or about: also a round of it that is past, or somebody's hash chains for it."""
    return key[1:33] if key[:1] in (_TASK, _PAST, _CHAINS) else None


def spec_key(task: TaskId) -> bytes:
    return _SPEC + task


def holder_key(key: Key) -> bytes:
    return _HOLDER + key


def unbonding_key(account: AccountId) -> bytes:
    return _UNBONDING + account


def due_key(height: int) -> bytes:
    return _DUE + height.to_bytes(8, "big")


def past_key(task: TaskId, number: int) -> bytes:
    return _PAST + task + number.to_bytes(8, "big")


def past_of(key: bytes) -> tuple[TaskId, int] | None:
    """The task and the round whose entry stands under this key, if it is one of a past round."""
    if not key.startswith(_PAST):
        return None
    return key[1:33], int.from_bytes(key[33:], "big")


def window_key(task: TaskId, begins: int) -> bytes:
    return _WINDOW + task + begins.to_bytes(8, "big")


def bond_key(task: TaskId, account: AccountId) -> bytes:
    return _BOND + task + account


def parting_key(task: TaskId) -> bytes:
    return _PARTING + task


def chains_key(task: TaskId, account: AccountId) -> bytes:
    return _CHAINS + task + account
