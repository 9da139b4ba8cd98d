"""Who has a seat among the validators: standing for one, giving it up, and how sets give way to others.

A set that has been agreed on takes over `window_heights` later. It is executed at h as `Change(h + window_heights)`.
Nobody orders anything above its stable height + window_heights, and whoever has not executed h is stable below it; so
everybody knows of a change before it could order what the change takes away from it.

Whoever gives up a seat, or the key in it, answers for what was signed with that key until `unbonding_heights` after
the set without it has taken over. Until then the bond stays locked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from potd.ledger import chains, tasks
from potd.ledger.entries import (
    CANDIDATES_MAX,
    CHANGE,
    COUNCIL,
    ERAS,
    ERAS_MAX,
    FOR_EVER,
    SEATS,
    Account,
    Candidate,
    Change,
    Council,
    Due,
    Eras,
    Holder,
    Opposed,
    Rotation,
    Seat,
    Seats,
    Unbonding,
    due_key,
    holder_key,
    unbonding_key,
)
from potd.ledger.state import Ledger
from potd.ledger.working import Working
from potd.wire.consensus import can_change_views, quorum_of
from potd.wire.envelope import Attestation, attests
from potd.wire.ids import NOTHING, AccountId, Key, account_id, short
from potd.wire.operations import Back, Possession, Rekey, Resign, Stand

VOICES_MAX = 32  # that one validator has at a time, so that what all of them say stays small
ACCUSER_PART = 4  # one part in so many of a bond is the accuser's


class _OfAccount(Protocol):
    @property
    def account(self) -> AccountId: ...


A = TypeVar("A", bound=_OfAccount)


# Operations


def stand(work: Working, operation: Stand, account: Account, by_owner: bool) -> str:
    council, bond = work.council(), work.parameters.seat_bond_micro
    if _seat(work.seats, operation.account) or _moving(work, operation.account):
        return "it has a seat, or is about to have one"
    if _of(council.candidates, operation.account):
        return "it stands for a seat already"
    if work.unbonding(operation.account):
        return "the bond of its last seat is locked yet"
    if len(council.candidates) >= CANDIDATES_MAX:
        return f"{CANDIDATES_MAX} stand for a seat already"
    if operation.key != account.node_key and not by_owner:
        return "only the owner key may replace the node key"
    reason = _key_fault(work, operation.key, operation.account, operation.proof)
    if reason:
        return reason
    if account.balance_micro < bond:
        return f"a bond of {bond} micro-units, and a balance of {account.balance_micro}"
    account = _with_node_key(work, operation.account, account, operation.key)
    work.put_account(operation.account, replace(account, balance_micro=account.balance_micro - bond))
    candidate = Candidate(operation.account, operation.key, bond, work.height, ())
    work.put(COUNCIL, replace(council, candidates=_with(council.candidates, candidate)))
    return ""


def back(work: Working, operation: Back) -> str:
    council, author = work.council(), operation.account
    if _seat(work.seats, author) is None or author in council.condemned:
        return "only who has a seat has a voice"
    voices = sum(author in one.backers for one in council.candidates)
    voices += sum(author in one.opposers for one in council.opposed)
    candidate, opposed = _of(council.candidates, operation.subject), _of(council.opposed, operation.subject)
    if candidate is not None:
        said, asks = author in candidate.backers, operation.seated
    elif any(_seat(seats, operation.subject) for seats in _sets(work)):
        said, asks = opposed is not None and author in opposed.opposers, not operation.seated
    else:
        return f"{short(operation.subject)} has no seat and does not stand for one"
    if said == asks:
        return "it says so already"
    if asks and voices >= VOICES_MAX:
        return f"it has {VOICES_MAX} voices already"
    if candidate is not None:
        changed = replace(candidate, backers=_toggled(candidate.backers, author))
        work.put(COUNCIL, replace(council, candidates=_with(council.candidates, changed)))
        return ""
    opposers = _toggled(opposed.opposers if opposed is not None else (), author)
    others = _without(council.opposed, {operation.subject})
    if opposers:
        others = _with(others, Opposed(operation.subject, opposers))
    work.put(COUNCIL, replace(council, opposed=others))
    return ""


def resign(work: Working, operation: Resign) -> str:
    council = work.council()
    candidate = _of(council.candidates, operation.account)
    if candidate is not None:  # it has voted for nothing, so there is nothing to answer for
        work.put(COUNCIL, replace(council, candidates=_without(council.candidates, {operation.account})))
        work.credit(operation.account, candidate.bond_micro)
        return ""
    if _moving(work, operation.account):
        return _about_to_change(work)
    if _seat(work.seats, operation.account) is None:
        return "it has no seat, and does not stand for one"
    if operation.account in council.resigning:
        return "it has resigned already"
    if len(work.seats) == 1:
        return "it is the only validator"
    work.put(COUNCIL, replace(council, resigning=tuple(sorted((*council.resigning, operation.account)))))
    return ""


def rekey(work: Working, operation: Rekey, account: Account) -> str:
    """The owner key at once. The node key at once as well, unless it votes: then when the seat's set gives way."""
    if operation.owner_key == NOTHING and operation.node_key == NOTHING:
        return "no key to replace"
    name, key = operation.account, operation.node_key
    if key != NOTHING:
        if _moving(work, name):
            return _about_to_change(work)
        council = work.council()
        if _of(council.candidates, name):
            return "it stands for a seat with the node key that it has"
        reason = _key_fault(work, key, name, operation.proof)
        if reason:
            return reason
        pending = _of(council.rotations, name)
        if pending is not None:
            _release(work, pending.key)
            work.put(COUNCIL, replace(council, rotations=_without(council.rotations, {name})))
        if _seat(work.seats, name) is None:
            account = _with_node_key(work, name, account, key)
        elif key != account.node_key:
            _bind(work, key, name)
            council = work.council()
            work.put(COUNCIL, replace(council, rotations=_with(council.rotations, Rotation(name, key))))
    elif operation.proof:
        return "a proof of no key"
    if operation.owner_key != NOTHING:
        account = replace(account, owner_key=operation.owner_key)
    work.put_account(name, account)
    return ""


# Keys


def _key_fault(work: Working, key: Key, account: AccountId, proof: bytes) -> str:
    """Why this key cannot be the account's node key, or nothing."""
    holder, origin = work.holder(key), account_id(key)
    if key == NOTHING:
        return "no key"
    if holder is not None and holder.due_height == FOR_EVER:
        return f"key {short(key)} was found guilty"
    if holder is not None and holder.due_height:
        return f"key {short(key)} has voted, and answers for it up to height {holder.due_height}"
    others = work.account(origin) if origin != account else None
    if (holder is not None and holder.account != account) or (others is not None and others.owner_key != NOTHING):
        return f"key {short(key)} is another account's"
    if not attests(Attestation(key, proof), work.network, Possession(account)):
        return f"no proof by key {short(key)} that it may be used"
    return ""


def _with_node_key(work: Working, name: AccountId, account: Account, key: Key) -> Account:
    if key == account.node_key:
        return account
    _release(work, account.node_key)
    _bind(work, key, name)
    return replace(account, node_key=key)


def _bind(work: Working, key: Key, account: AccountId) -> None:
    if account_id(key) != account:
        work.put(holder_key(key), Holder(account, 0))


def _release(work: Working, key: Key) -> None:
    """A key in use is that no more. One that answers for its votes is not let go by this."""
    holder = work.holder(key)
    if holder is not None and holder.due_height == 0:
        work.delete(holder_key(key))


# Guilt


def accused(work: Working, key: Key) -> AccountId | None:
    """The account that answers for what this key has signed, if there is anything left to take from it."""
    holder = work.holder(key)
    if holder is not None and holder.due_height == FOR_EVER:
        return None
    seats = [seat for seats in _sets(work) for seat in seats]
    name = next((seat.account for seat in seats if seat.key == key), None)
    if name is None and holder is not None and holder.due_height:
        name = holder.account
    if name is None or name in work.council().condemned:
        return None
    return name if _seat(seats, name) or work.unbonding(name) else None


def answers(ledger: Ledger, key: Key) -> bool:
    """Whether an account answers for what this key has signed, and has anything left to lose."""
    return accused(Working(ledger, ledger.height + 1, NOTHING), key) is not None


def condemn(work: Working, key: Key, accuser: AccountId) -> None:
    """Take the bond that answers for this key: a part for the accuser, the rest for the validators.

    A seat without its bond is neither paid nor heard any more, and is vacated at the next change."""
    name = accused(work, key)
    assert name is not None, "nothing left to take"
    work.put(holder_key(key), Holder(name, FOR_EVER))
    unbonding = work.unbonding(name)
    if unbonding is not None:
        bond = unbonding.amount_micro
        work.delete(unbonding_key(name))
    else:
        bond = next(seat.bond_micro for seats in _sets(work) for seat in seats if seat.account == name)
        _put_bond(work, name, 0)
        council = work.council()
        work.put(COUNCIL, replace(council, condemned=tuple(sorted((*council.condemned, name)))))
    reward = bond // ACCUSER_PART
    work.credit(accuser, reward)
    work.taken_micro += bond - reward


def fined(work: Working, name: AccountId, amount_micro: int) -> int:
    """Take a fine out of a seat's bond, also of one that was given up, and at most what there is. How much it is."""
    unbonding = work.unbonding(name)
    if unbonding is not None:
        fine = min(amount_micro, unbonding.amount_micro)
        work.put(unbonding_key(name), replace(unbonding, amount_micro=unbonding.amount_micro - fine))
        return fine
    bond = next((seat.bond_micro for seats in _sets(work) for seat in seats if seat.account == name), 0)
    fine = min(amount_micro, bond)
    if fine:
        _put_bond(work, name, bond - fine)
    return fine


def _put_bond(work: Working, name: AccountId, bond_micro: int) -> None:
    """In the present set and in the one that is to take over."""
    entry, change = work.seat_entry(), work.change()
    work.put(SEATS, replace(entry, seats=_bonded(entry.seats, name, bond_micro)))
    if change is not None:
        work.put(CHANGE, replace(change, seats=_bonded(change.seats, name, bond_micro)))


def _bonded(seats: Iterable[Seat], name: AccountId, bond_micro: int) -> tuple[Seat, ...]:
    return tuple(replace(seat, bond_micro=bond_micro) if seat.account == name else seat for seat in seats)


# The end of a height


def close(work: Working) -> tuple[Seat, ...]:
    """What the end of this height means for seats: who decides the next one."""
    _unlock(work)
    change = work.change()
    if change is not None and change.height == work.height:
        _enforce(work, change)
        change = None
    if change is None:
        _plan(work)
    return work.seats


def _unlock(work: Working) -> None:
    """Bonds go back, and keys are forgotten, that nobody can accuse any more."""
    due = work.due()
    if due is None:
        return
    work.delete(due_key(work.height))
    for name in due.accounts:
        unbonding = work.unbonding(name)
        if unbonding is not None and unbonding.due_height == work.height:
            work.delete(unbonding_key(name))
            work.credit(name, unbonding.amount_micro)
    for key in due.keys:
        holder = work.holder(key)
        if holder is None or holder.due_height != work.height:
            continue  # found guilty
        work.delete(holder_key(key))
        account = work.account(holder.account)
        if account is not None and account.node_key == key:
            _bind(work, key, holder.account)


def _enforce(work: Working, change: Change) -> None:
    """The set that was agreed on decides from now on."""
    before, council = work.seat_entry(), work.council()
    due_height = work.height + work.parameters.unbonding_heights
    gone: list[AccountId] = []
    accounts: list[AccountId] = []
    keys: list[Key] = []
    for seat in before.seats:
        guilty = seat.account in council.condemned
        following = _seat(change.seats, seat.account)
        rotation = _of(council.rotations, seat.account)
        if following is None:
            gone.append(seat.account)
            chains.forget(work, seat.account)
            if seat.bond_micro:
                work.put(unbonding_key(seat.account), Unbonding(seat.bond_micro, due_height))
                accounts.append(seat.account)
        if following is None or following.key != seat.key:
            work.put(holder_key(seat.key), Holder(seat.account, FOR_EVER if guilty else due_height))
            keys.append(seat.key)
        # Who leaves before its rotation was planned has the new key all the same.
        key = following.key if following is not None else rotation.key if rotation is not None else seat.key
        account = work.account(seat.account)
        assert account is not None, "a seat without an account"
        if account.node_key != key:
            work.put_account(seat.account, replace(account, node_key=key))
    if keys:
        work.put(due_key(due_height), Due(tuple(accounts), tuple(keys)))
    work.put(SEATS, Seats(work.height, change.seats, tuple(seat.key for seat in before.seats)))
    work.delete(CHANGE)
    work.put(ERAS, Eras((*work.eras().bases, work.height)[-ERAS_MAX:]))
    work.put(COUNCIL, _forgotten(council, set(gone)))
    if len(change.seats) > len(before.seats):
        tasks.make_room(work, len(change.seats))


def _forgotten(council: Council, gone: set[AccountId]) -> Council:
    """Without what was asked by those who have no seat any more, or of them."""
    opposed = [
        Opposed(one.account, tuple(name for name in one.opposers if name not in gone))
        for one in council.opposed
        if one.account not in gone and set(one.opposers) - gone
    ]
    return Council(
        candidates=tuple(
            replace(one, backers=tuple(name for name in one.backers if name not in gone)) for one in council.candidates
        ),
        opposed=tuple(opposed),
        resigning=tuple(name for name in council.resigning if name not in gone),
        condemned=tuple(name for name in council.condemned if name not in gone),
        rotations=_without(council.rotations, gone),
    )


def _plan(work: Working) -> None:
    """Put what is approved into a change, as much as may change at once; the rest waits for the next one.

    No more than f seats, of the set that gives way, are different: so a quorum of it carries over what was agreed. A
    network too small for any f changes one at a time.
    """
    council, seats = work.council(), work.seats
    quorum, room = quorum_of(len(seats)), max(1, (len(seats) - 1) // 3)
    heard = {seat.account for seat in seats} - set(council.condemned)
    removed = [one.account for one in council.opposed if len(heard & set(one.opposers)) >= quorum]
    leaving = [name for name in (*council.resigning, *removed, *council.condemned) if _seat(seats, name)]
    planned = {seat.account: seat for seat in seats}
    for name in dict.fromkeys(leaving):
        if room and len(planned) > 1:
            del planned[name]
            room -= 1
    for rotation in council.rotations:
        if room and rotation.account in planned:
            planned[rotation.account] = replace(planned[rotation.account], key=rotation.key)
            room -= 1
            council = replace(council, rotations=_without(council.rotations, {rotation.account}))
    height = work.height + work.parameters.window_heights
    for one in council.candidates:
        fits = can_change_views(len(planned) + 1, work.parameters.window_heights)
        if room and fits and len(heard & set(one.backers)) >= quorum:
            planned[one.account] = Seat(one.account, one.key, one.bond_micro, height)
            room -= 1
            council = replace(council, candidates=_without(council.candidates, {one.account}))
    if tuple(planned.values()) != seats:
        work.put(CHANGE, Change(height, tuple(planned.values())))
        work.put(COUNCIL, council)


# Reading


def _sets(work: Working) -> tuple[tuple[Seat, ...], ...]:
    """The present set, and the one that is to take over."""
    change = work.change()
    return (work.seats,) if change is None else (work.seats, change.seats)


def _moving(work: Working, name: AccountId) -> bool:
    """Whether the account's seat is about to begin, to end, or to get another key."""
    votes = [{seat.key for seat in seats if seat.account == name} for seats in _sets(work)]
    return votes[0] != votes[-1]


def _about_to_change(work: Working) -> str:
    change = work.change()
    assert change is not None
    return f"its seat is about to change, at height {change.height}"


def _seat(seats: Sequence[Seat], name: AccountId) -> Seat | None:
    return next((seat for seat in seats if seat.account == name), None)


def _of(listed: tuple[A, ...], name: AccountId) -> A | None:
    at = bisect_left(listed, name, key=lambda one: one.account)
    return listed[at] if at < len(listed) and listed[at].account == name else None


def _with(listed: tuple[A, ...], one: A) -> tuple[A, ...]:
    """In its place by account, instead of what stood there."""
    return tuple(sorted((*_without(listed, {one.account}), one), key=lambda entry: entry.account))


def _without(listed: tuple[A, ...], names: set[AccountId]) -> tuple[A, ...]:
    return tuple(one for one in listed if one.account not in names)


def _toggled(names: tuple[AccountId, ...], name: AccountId) -> tuple[AccountId, ...]:
    return tuple(sorted(set(names) ^ {name}))
