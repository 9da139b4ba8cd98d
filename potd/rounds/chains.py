"""Our two hash chains for a task: their secrets, their links, and when a new pair is published. Sends nothing.

Everything follows from our key: a restart, or a home that was restored, goes on with the same chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potd.wire.audits import CHAIN_AHEAD_ROUNDS, CHAIN_RENEW_ROUNDS, CHAIN_ROUNDS, Chain, hashed
from potd.wire.envelope import Signer
from potd.wire.ids import AccountId, Digest, TaskId, digest

SPREAD_ROUNDS = 512  # over which validators renew their pairs: who changes it draws nothing, and not all may at a time
MARGIN_ROUNDS = 1  # that may pass until a pair that was asked for has been taken


@dataclass(frozen=True)
class Chained:
    """The newest links of a validator's chains that the ledger has seen, each with the round whose link it is; of the
    round before `begins` it is the tip."""

    begins: int
    seeds_round: int
    seeds: Digest
    lots_round: int
    lots: Digest


class Chains:
    """Ours for one task."""

    def __init__(self, signer: Signer, account: AccountId, task: TaskId) -> None:
        self._signer = signer
        self._account = account
        self._task = task
        self._renews = CHAIN_RENEW_ROUNDS - int.from_bytes(digest("renewal", account, task)[:8], "big") % SPREAD_ROUNDS
        self._asked = 0  # where the pair begins that was asked for last
        self._known: dict[int, tuple[Sequence[Digest], Sequence[Digest]]] = {}  # by beginning: one pair at a time

    def seed(self, chained: Chained | None, number: int) -> Digest | None:
        """The link of ours for the seed that follows this round; None if our chain in the ledger has none."""
        return self._link(chained, number, 0)

    def lot(self, chained: Chained | None, number: int) -> Digest | None:
        """The link that draws what we replay of this round; None if our chain in the ledger has none."""
        return self._link(chained, number, 1)

    def due(self, number: int, chained: Chained | None) -> Chain | None:
        """The next pair, to be published while the task is in this round; None as long as the present one will do, or
        the one that was asked for may yet be taken. Its nonce is left to the asker."""
        if chained is not None and self._ours(chained) and number + self._renews < chained.begins + CHAIN_ROUNDS:
            return None
        if number + CHAIN_AHEAD_ROUNDS <= self._asked:
            return None
        self._asked = number + CHAIN_AHEAD_ROUNDS + MARGIN_ROUNDS
        seeds, lots = self._pair(self._asked)
        return Chain(self._account, 0, self._task, self._asked, seeds[0], lots[0])

    def _link(self, chained: Chained | None, number: int, which: int) -> Digest | None:
        if chained is None or not chained.begins <= number < chained.begins + CHAIN_ROUNDS or not self._ours(chained):
            return None
        return self._pair(chained.begins)[which][number - chained.begins + 1]

    def _ours(self, chained: Chained) -> bool:
        """Whether they are by our key: not so after a change of keys."""
        seeds, lots = self._pair(chained.begins)
        first = chained.begins - 1
        return (seeds[chained.seeds_round - first], lots[chained.lots_round - first]) == (chained.seeds, chained.lots)

    def _pair(self, begins: int) -> tuple[Sequence[Digest], Sequence[Digest]]:
        """Both chains, from their tips on."""
        if begins not in self._known:
            context = self._task, begins.to_bytes(8, "big")
            seeds, lots = (self._signer.derive(name, *context) for name in ("chain of seeds", "chain of lots"))
            self._known = {begins: (_chain(seeds), _chain(lots))}
        return self._known[begins]


def _chain(secret: Digest) -> Sequence[Digest]:
    """The tip, then the link of every round, up to the secret itself."""
    links = [secret]
    for _ in range(CHAIN_ROUNDS):
        links.append(hashed(links[-1], 1))
    return links[::-1]
