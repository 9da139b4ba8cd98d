"""Operations: what an account may ask of the ledger. Signed by the account's key, executed once by their nonce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.audits import Audit, Chain, Promise, Ruling, Verdict
from potd.wire.codec import U63, Range, Size, message
from potd.wire.envelope import Signature, Signed
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.ids import AccountId, Key, TaskId
from potd.wire.rounds import VALIDATORS_MAX
from potd.wire.tasks import TaskSpec

Amount = Annotated[int, Range(0, SUPPLY_MAX)]
Units = Annotated[int, Range(1, 255)]
MEMO_BYTES_MAX = 1024  # paid for by the byte, and kept in blocks only


@message(30)
@dataclass(frozen=True)
class Transfer:
    """Pay another account, which comes into being if it is new."""

    account: AccountId
    nonce: U63
    to: AccountId
    amount_micro: Amount
    memo: Annotated[str, Size(0, MEMO_BYTES_MAX)]


@message(31)
@dataclass(frozen=True)
class Submit:
    """Open a task and put its pay in escrow."""

    account: AccountId
    nonce: U63
    spec: TaskSpec
    escrow_micro: Amount


@message(32)
@dataclass(frozen=True)
class Enrol:
    """Mine for a task with so many units; for a suspended miner, the announcement that it is back."""

    account: AccountId
    nonce: U63
    task: TaskId
    units: Units


@message(33)
@dataclass(frozen=True)
class Leave:
    """Stop mining for a task."""

    account: AccountId
    nonce: U63
    task: TaskId


@message(34)
@dataclass(frozen=True)
class Stand:
    """Ask for a seat among the validators, and lock its bond. `key` is the account's node key from now on."""

    account: AccountId
    nonce: U63
    key: Key  # what it would vote with
    proof: Signature  # by `key`, over Possession(account)


@message(35)
@dataclass(frozen=True)
class Back:
    """A validator's voice on whether an account should have a seat; its newest one counts, while it has a seat itself.

    Only one that asks for a change is kept: a yes to a candidate, a no to a validator. The other takes it back."""

    account: AccountId
    nonce: U63
    subject: AccountId
    seated: bool


@message(36)
@dataclass(frozen=True)
class Resign:
    """Give the seat up; of a candidate, stand no longer."""

    account: AccountId
    nonce: U63


@message(37)
@dataclass(frozen=True)
class Rekey:
    """Replace keys of the account; NOTHING leaves one as it is."""

    account: AccountId
    nonce: U63
    owner_key: Key
    node_key: Key
    proof: Annotated[bytes, Size(0, 64)]  # by `node_key`, over Possession(account); empty without one


@message(38)
@dataclass(frozen=True)
class Accuse:
    """Show what no correct validator ever signs. It costs the guilty its bond."""

    account: AccountId
    nonce: U63
    evidence: Annotated[tuple[Signed, ...], Size(2, VALIDATORS_MAX + 1)]


@message(39)
@dataclass(frozen=True)
class Possession:
    """What a node key signs to become an account's, so that nobody can claim a key that is not theirs to use."""

    account: AccountId


Operation = Transfer | Submit | Enrol | Leave | Stand | Back | Resign | Rekey | Accuse | Audit
OPERATIONS: tuple[type[Operation], ...] = (
    Transfer,
    Submit,
    Enrol,
    Leave,
    Stand,
    Back,
    Resign,
    Rekey,
    Accuse,
    Chain,
    Promise,
    Verdict,
    Ruling,
)
