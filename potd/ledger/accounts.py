"""Operations as such: keys, nonces, fees and transfers. What tasks make of theirs is `tasks`, seats `seats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from potd.ledger import audits, bonds, evidence, seats, tasks
from potd.ledger.entries import Account, Task
from potd.ledger.reasons import receipt
from potd.ledger.state import Ledger
from potd.ledger.working import Working
from potd.wire.audits import Audit, Chain, Promise, Ruling, Verdict
from potd.wire.blocks import Receipt, record_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed
from potd.wire.genesis import Parameters
from potd.wire.ids import NOTHING, Key, account_id, short
from potd.wire.operations import (
    OPERATIONS,
    Accuse,
    Back,
    Enrol,
    Leave,
    Operation,
    Rekey,
    Resign,
    Stand,
    Submit,
    Transfer,
)
from potd.wire.rounds import Commitment

NONCES_AHEAD = 64  # how far ahead of its turn an operation may wait outside the ledger


def operate(work: Working, signed: Signed) -> Receipt:
    """Execute an operation, once. Its signature has been checked.

    One that may not be executed at all (`_refusal`) changes nothing. Any other pays its fee and uses its nonce, also
    when what it asks for cannot be done: else it could be tried again, and fill batches, for nothing.
    """
    return receipt(record_digest(signed), _operate(work, signed))


def fee_micro(parameters: Parameters, signed: Signed) -> int:
    return len(encode(signed)) * parameters.fee_per_byte_micro


def why_not(ledger: Ledger, signed: Signed) -> str:
    """Why this operation is not worth keeping until a batch takes it, or nothing. An early nonce may wait its turn."""
    operation = _decoded(signed)
    if operation is None:
        return "not an operation"
    account = ledger.account(operation.account) or _new()
    if operation.nonce > account.nonce + NONCES_AHEAD:
        return f"nonce {operation.nonce} is far ahead of {account.nonce}"
    if operation.nonce > account.nonce:
        account = replace(account, nonce=operation.nonce)
    fee = fee_micro(ledger.parameters(), signed)
    work = Working(ledger, ledger.height + 1, NOTHING)
    if isinstance(operation, Accuse) and not _at_stake(work, operation):
        return _nothing_left(operation)
    # Only who could not pay if it were wrong must be right now: to look into it is work.
    if account.balance_micro < fee and _is_free(work, operation):
        fee = 0
    return _refusal(account, operation, signed.key, fee)


def _is_free(work: Working, operation: Operation) -> bool:
    """Whether it would be taken for nothing, but for its turn."""
    match operation:
        case Accuse():
            return isinstance(_guilt(work, operation), evidence.Guilt)
        case Chain() | Promise() | Verdict() | Ruling():
            return audits.operate(work, operation) == ""
        case _:
            return False


def _operate(work: Working, signed: Signed) -> str:
    operation = _decoded(signed)
    if operation is None:
        return "not an operation"
    account = work.account(operation.account) or _new()
    fee = fee_micro(work.parameters, signed)
    found: evidence.Guilt | str = ""
    if isinstance(operation, Accuse):
        if not _at_stake(work, operation):
            return _nothing_left(operation)
        found = _guilt(work, operation)
        if isinstance(found, evidence.Guilt):
            return _condemn(work, operation, account, signed, found)
    if isinstance(operation, Audit):
        return _audit(work, operation, account, signed, fee)
    reason = _refusal(account, operation, signed.key, fee)
    if reason:
        return reason
    account = _spoken(account, signed.key)
    account = replace(account, nonce=account.nonce + 1, balance_micro=account.balance_micro - fee)
    work.put_account(operation.account, account)
    work.taken_micro += fee
    match operation:
        case Transfer():
            return _transfer(work, operation, account)
        case Submit():
            return tasks.submit(work, operation, account, signed)
        case Enrol():
            return tasks.enrol(work, operation, account)
        case Leave():
            return tasks.leave(work, operation)
        case Stand():
            return seats.stand(work, operation, account, by_owner=signed.key == account.owner_key)
        case Back():
            return seats.back(work, operation)
        case Resign():
            return seats.resign(work, operation)
        case Rekey():
            return seats.rekey(work, operation, account)
        case Accuse():
            assert isinstance(found, str)
            return found
        case _:
            assert_never(operation)


def _refusal(account: Account, operation: Operation, key: Key, fee: int) -> str:
    """Why this account does not execute this operation now, or nothing."""
    reason = _stranger(account, operation, key)
    if reason:
        return reason
    if operation.nonce != account.nonce:
        return f"nonce {operation.nonce} where {account.nonce} is due"
    if account.balance_micro < fee:
        return f"a fee of {fee} micro-units, and a balance of {account.balance_micro}"
    return ""


def _stranger(account: Account, operation: Operation, key: Key) -> str:
    """Why this key does not speak for the account, or nothing."""
    if account.owner_key == NOTHING:
        if account_id(key) != operation.account:
            return f"key {short(key)} is not the one that account {short(operation.account)} is made from"
    elif key not in (account.owner_key, account.node_key):
        return f"key {short(key)} is not one of account {short(operation.account)}"
    elif isinstance(operation, Transfer | Resign | Rekey) and key != account.owner_key:
        return f"only the owner key of account {short(operation.account)} may do that"
    return ""


def _spoken(account: Account, key: Key) -> Account:
    """An account that speaks for the first time has the key that it speaks with."""
    return replace(account, owner_key=key, node_key=key) if account.owner_key == NOTHING else account


def _audit(work: Working, operation: Audit, account: Account, signed: Signed, fee: int) -> str:
    """What an auditor asks is free if it is taken; it uses its nonce either way, like any other operation."""
    reason = _refusal(account, operation, signed.key, 0)
    if reason:
        return reason
    fault = audits.operate(work, operation)
    if fault:
        reason = _refusal(account, operation, signed.key, fee)
        if reason:
            return reason
        work.debit(operation.account, fee)
        work.taken_micro += fee
    held = work.account(operation.account)
    assert held is not None, "a seat without an account"
    work.put_account(operation.account, replace(held, nonce=held.nonce + 1))
    return fault


def at_stake(ledger: Ledger, operation: Accuse) -> bool:
    """Whether whoever is accused has anything left to lose by it."""
    return _at_stake(Working(ledger, ledger.height + 1, NOTHING), operation)


def _at_stake(work: Working, operation: Accuse) -> bool:
    word = evidence.commitment(operation.evidence)
    if word is None:
        return seats.accused(work, operation.evidence[0].key) is not None
    return _miner(work, word, operation.evidence) is not None


def _miner(work: Working, word: Commitment, words: Sequence[Signed]) -> Task | None:
    """The task of a miner that answers for what this key has committed to, if there is anything to take from it.

    It may have another key by now: what was sealed of it tells whose this one was."""
    task, account, key = work.task(word.task), work.account(word.miner), words[0].key
    if task is None or account is None:
        return None
    miner = task.miner(word.miner)
    known = (account.node_key, miner.key if miner is not None else account.node_key)
    if key not in known and not _was_sealed(work, task, word, words):
        return None
    return task if bonds.at_stake(work, task, word.miner) else None


def _was_sealed(work: Working, task: Task, word: Commitment, words: Sequence[Signed]) -> bool:
    """Whether a round took one of these for the word of its miner."""
    if word.round == task.round:
        return any(one in task.sealed for one in words)
    past = work.past(task.id, word.round)
    at = bonds.row_of(past, word.miner) if past is not None else None
    return past is not None and at is not None and past.rows[at].commitment in map(record_digest, words)


def _guilt(work: Working, operation: Accuse) -> evidence.Guilt | str:
    entry = work.seat_entry()
    keys = tuple(seat.key for seat in entry.seats)
    return evidence.guilt(operation.evidence, evidence.Court(work.network, work.eras().bases, keys, entry.before))


def _condemn(work: Working, operation: Accuse, account: Account, signed: Signed, found: evidence.Guilt) -> str:
    """A proven accusation is free, and waits for no nonce; it uses its own up if that is the next one."""
    reason = _stranger(account, operation, signed.key)
    if reason:
        return reason
    due = operation.nonce == account.nonce
    account = _spoken(account, signed.key)
    work.put_account(operation.account, replace(account, nonce=account.nonce + 1) if due else account)
    word = evidence.commitment(operation.evidence)
    if word is None:
        seats.condemn(work, found.key, operation.account)
        return ""
    task = _miner(work, word, operation.evidence)
    assert task is not None, "nothing left to take"
    # Nobody buys itself out of an audit by accusing itself.
    late = bonds.is_contested(work, task, word.miner)
    bonds.slash(work, task, word.miner, () if late else (operation.account,))
    return ""


def _nothing_left(operation: Accuse) -> str:
    return f"nothing is left to take from key {short(operation.evidence[0].key)}"


def _transfer(work: Working, operation: Transfer, account: Account) -> str:
    if operation.amount_micro == 0:
        return "nothing to transfer"
    if operation.to == NOTHING:
        return "a transfer to nobody"
    if account.balance_micro < operation.amount_micro:
        return f"a transfer of {operation.amount_micro} micro-units, and a balance of {account.balance_micro}"
    work.debit(operation.account, operation.amount_micro)
    work.credit(operation.to, operation.amount_micro)
    return ""


def _decoded(signed: Signed) -> Operation | None:
    try:
        return decode(signed.payload, *OPERATIONS)
    except Malformed:
        return None


def _new() -> Account:
    return Account(NOTHING, NOTHING, 0, 0)
