"""Links that validators release for the seed that follows a round: which are held, and for whom it is worth waiting.

A link proves itself: hashed as often as its round is after the newest one that the ledger has seen, it is that one. So
nobody can release another's before that one has, or a false one at all; whoever has a chain can only keep its own back.
"""

from __future__ import annotations

from potd.rounds.chains import Chained
from potd.rounds.events import View
from potd.wire.audits import CHAIN_ROUNDS, hashed
from potd.wire.ids import AccountId, Digest
from potd.wire.rounds import Link, Named


class Links:
    """Those of one task, of the round that is open and the one after it."""

    def __init__(self) -> None:
        self._chains: dict[AccountId, Chained] = {}
        self._held: dict[int, dict[AccountId, Digest]] = {}  # by round
        self._awaited: set[AccountId] = set()  # who has a link for this round that is not held
        self._silent: frozenset[AccountId] = frozenset()  # whose link did not come in the last round that was revealed

    def on_changed(self, view: View) -> None:
        """Before the round itself is told. What is held must fit the chains that the ledger has now."""
        self._chains = {one.account: one.chained for one in view.tips}
        for old in [number for number in self._held if number < view.round]:
            del self._held[old]
        for number, held in self._held.items():
            self._held[number] = {who: link for who, link in held.items() if self._fits(who, number, link)}
        held = self._held.get(view.round, {})
        self._awaited = {who for who in self._chains if self._counts(who, view.round) and who not in held}

    def end(self) -> None:
        """A round is over in which everybody had the time to release theirs: who did not is not waited for in the next
        one. To be told before the view moves on."""
        self._silent = frozenset(self._awaited)

    def all_in(self) -> bool:
        """Whether the links have come of all who released theirs in the round before, or begin now."""
        return self._awaited <= self._silent

    def of(self, number: int) -> tuple[Named, ...]:
        """What a report names."""
        return tuple(Named(who, link) for who, link in sorted(self._held.get(number, {}).items()))

    def untimely(self, body: Link, number: int) -> str:
        """Why a link can have no effect while round `number` is open, though it may be true; or nothing."""
        if not number <= body.round <= number + 1:
            return "link of another round"
        return "" if self._counts(body.account, body.round) else "link of a chain that is not known here"

    def take(self, body: Link, number: int) -> str:
        """Keep a link that is not untimely. Why not, if it is false."""
        held = self._held.setdefault(body.round, {})
        if held.get(body.account) == body.link:
            return ""
        if not self._fits(body.account, body.round, body.link):
            return "link that does not lead to its chain's tip"
        held[body.account] = body.link
        if body.round == number:
            self._awaited.discard(body.account)
        return ""

    def _counts(self, account: AccountId, number: int) -> bool:
        chained = self._chains.get(account)
        if chained is None:
            return False
        return chained.begins <= number < chained.begins + CHAIN_ROUNDS and chained.seeds_round < number

    def _fits(self, account: AccountId, number: int, link: Digest) -> bool:
        if not self._counts(account, number):
            return False
        chained = self._chains[account]
        return hashed(link, number - chained.seeds_round) == chained.seeds
