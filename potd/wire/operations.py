"""Operations: what an account may ask of the ledger. Signed by the account's key, executed once by their nonce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U63, Range, Size, message
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.ids import AccountId, TaskId
from potd.wire.tasks import TaskSpec

Amount = Annotated[int, Range(0, SUPPLY_MAX)]
Units = Annotated[int, Range(1, 255)]


@message(30)
@dataclass(frozen=True)
class Transfer:
    """Pay another account, which comes into being if it is new."""

    account: AccountId
    nonce: U63
    to: AccountId
    amount_micro: Amount
    memo: Annotated[str, Size(0, 64)]


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


Operation = Transfer | Submit | Enrol | Leave
OPERATIONS: tuple[type[Transfer] | type[Submit] | type[Enrol] | type[Leave], ...] = (Transfer, Submit, Enrol, Leave)
