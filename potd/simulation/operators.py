"""What the operators of a world want of its validators, and asking for it until it is so. Each looks at its own node.

An operation that a crash or the weather takes is asked for again, as people do, and one at a time for each account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from potd.ledger.entries import Change, Seat
from potd.ledger.state import Ledger
from potd.node import events as ev
from potd.node.node import Node
from potd.simulation.network import Place
from potd.simulation.schedule import Elect, Index, Oppose, Resign, Rotate, Wish
from potd.simulation.world import World
from potd.wire import operations as ops
from potd.wire.ids import NOTHING, AccountId, Key, account_id

LOOK_MS = 300  # how often operators look whether what they want is so


class Operators:
    """`present` says where a node stands now: the second of two keys may be at work already."""

    def __init__(self, world: World, present: Callable[[Index], Place], voters: tuple[Index, ...]) -> None:
        self.wishes: list[Wish] = []  # that are not so yet
        self._world = world
        self._present = present
        self._voters = voters  # who do as they are asked, if they have a seat
        world.clock.later(LOOK_MS, self._look)

    def _look(self) -> None:
        self._world.clock.later(LOOK_MS, self._look)
        self.wishes = [wish for wish in self.wishes if not self._so(wish)]
        for wish in self.wishes:
            self._pursue(wish)

    def account(self, who: Index) -> AccountId:
        return account_id(self._world.keys[who])

    def _so(self, wish: Wish) -> bool:
        """As far as the furthest node knows."""
        seated = {seat.account: seat.key for seat in self._world.checks.ledger.validators()}
        account = self.account(wish.who)
        match wish:
            case Elect():
                return account in seated
            case Resign() | Oppose():
                return account not in seated
            case Rotate(_, who):
                return seated.get(account) == self._world.heirs[self._world.keys[who]] == self._present(who)
            case _:
                assert_never(wish)

    def _pursue(self, wish: Wish) -> None:
        node = self._world.members[self._present(wish.who)].node
        account, key = self.account(wish.who), self._world.keys[wish.who]
        match wish:
            case Elect(_, who):
                if node is not None and not _stands(node.ledger, account):
                    self._ask(who, ops.Stand(account, self._nonce(node), key, self._possession(key, account)))
                self._have_backed(account, True)
            case Resign(_, who):
                if node is not None and account not in node.ledger.council().resigning:
                    self._ask(who, ops.Resign(account, self._nonce(node)))
            case Oppose():
                self._have_backed(account, False)
            case Rotate(_, who):
                heir = self._world.heirs[key]
                if node is not None and not _turns(node.ledger, account, heir):
                    proof = self._possession(heir, account)
                    self._ask(who, ops.Rekey(account, self._nonce(node), NOTHING, heir, proof))
                elif node is not None and self._present(who) == key and _passed_on(node, account, heir):
                    self._world.succeed(key)
            case _:
                assert_never(wish)

    def _have_backed(self, subject: AccountId, seated: bool) -> None:
        """Every voter says whether the subject should have a seat, unless its ledger says that it does."""
        for who in self._voters:
            node, account = self._world.members[self._present(who)].node, self.account(who)
            if node is None or not _seat(node.ledger.validators(), account):
                continue
            council = node.ledger.council()
            if seated:
                lacking = any(one.account == subject and account not in one.backers for one in council.candidates)
            else:
                said = any(one.account == subject and account in one.opposers for one in council.opposed)
                lacking = not said and _seat(node.ledger.validators(), subject)
            if lacking:
                self._ask(who, ops.Back(account, self._nonce(node), subject, seated))

    def _possession(self, key: Key, account: AccountId) -> bytes:
        return self._world.members[key].signer.sign(ops.Possession(account)).signature

    def _nonce(self, node: Node) -> int:
        return node.ledger.nonce(node.account)

    def _ask(self, who: Index, operation: ops.Operation) -> None:
        """Unless one of this account waits already."""
        place = self._present(who)
        node = self._world.node(place)
        if node.next_nonce() == self._nonce(node):
            self._world.tell(place, ev.OperationAsked(self._world.members[place].signer.sign(operation)))


def _seat(seats: tuple[Seat, ...], account: AccountId) -> bool:
    return any(seat.account == account for seat in seats)


def _stands(ledger: Ledger, account: AccountId) -> bool:
    """For a seat, has one, or is about to have one."""
    change: Change | None = ledger.change()
    coming = change.seats if change is not None else ()
    return (
        _seat(ledger.validators(), account)
        or _seat(coming, account)
        or any(one.account == account for one in ledger.council().candidates)
    )


def _passed_on(node: Node, account: AccountId, heir: Key) -> bool:
    """Whether what its next key is to decide has begun."""
    known = node.ledger.account(account)
    return known is not None and known.node_key == heir and node.certified >= node.ledger.seats().base


def _turns(ledger: Ledger, account: AccountId, heir: Key) -> bool:
    """To its next key, or has."""
    change = ledger.change()
    seats = (*ledger.validators(), *(change.seats if change is not None else ()))
    asked = any(one.account == account and one.key == heir for one in ledger.council().rotations)
    return asked or any(seat.account == account and seat.key == heir for seat in seats)
