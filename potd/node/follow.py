"""Catching up by certified blocks: whom to ask, for what, and when again. Executes nothing."""

from __future__ import annotations

from potd.wire.ids import Key

GRACE_TICKS = 10  # a validator behind by a little is most often about to execute by itself
PATIENCE_TICKS = 60  # for one answer
STUCK_TICKS = 600  # with peers, of which none has shown the blocks that follow ours


class Follower:
    """Asks one peer at a time for the blocks from our height up to what is known to be certified."""

    def __init__(self, grace_ticks: int) -> None:
        self.grace_ticks = grace_ticks
        self._target = 0
        self._peers: dict[Key, int] = {}  # connected peers and the height that they have claimed
        self._claimed = 0  # the highest of these
        self._asked: Key | None = None
        self._asked_ticks = 0
        self._behind_ticks = 0
        self._turn = 0

    def up(self, peer: Key, height: int) -> None:
        self._claim(peer, height)

    def _claim(self, peer: Key, height: int) -> None:
        before = self._peers.get(peer, 0)
        self._peers[peer] = height
        if height >= self._claimed:
            self._claimed = height
        elif before == self._claimed:
            self._claimed = max(self._peers.values())

    def down(self, peer: Key) -> None:
        self._peers.pop(peer, None)
        self._claimed = max(self._peers.values(), default=0)
        if self._asked == peer:
            self._asked = None

    def seen(self, height: int) -> None:
        """This height is certified."""
        self._target = max(self._target, height)

    def hinted(self, peer: Key | None, height: int) -> None:
        """This height is said to be certified, by validators whom we do not know yet. Whoever sent that may show what
        leads there; if it came by gossip (None), anybody may. Worth one question to each, as any claim."""
        for one in self._peers if peer is None else [peer] if peer in self._peers else []:
            self._claim(one, max(self._peers[one], height))

    def target(self) -> int:
        """What there is to reach: certified for sure, or claimed by a peer and worth asking for."""
        return max(self._target, self._claimed)

    def answered(self, peer: Key, blocks: int) -> None:
        """An answer came. A peer that has nothing for us is not asked for its claim again."""
        if self._asked == peer:
            self._asked = None
        if blocks == 0 and peer in self._peers:
            self._claim(peer, 0)

    def tick(self, height: int) -> Key | None:
        """Whom to ask now, if anybody."""
        if height >= self.target() or not self._peers:
            self._behind_ticks = 0
            return None
        self._behind_ticks += 1
        if self._asked is not None:
            self._asked_ticks += 1
            if self._asked_ticks < PATIENCE_TICKS:
                return None
            self._claim(self._asked, 0)  # it claims what it does not show
            self._asked = None
            if height >= self.target():
                return None
        if self._behind_ticks <= self.grace_ticks:
            return None
        peers = sorted(self._peers)
        if self._target <= height:  # nothing but a claim: whoever makes it may show it
            peers = [peer for peer in peers if self._peers[peer] > height]
        self._turn += 1
        self._asked = peers[self._turn % len(peers)]
        self._asked_ticks = 0
        return self._asked

    def stuck(self, height: int) -> bool:
        """Whether what is certified above us cannot be had by blocks: those who have it may have begun after us."""
        return self._target > height and self._behind_ticks >= STUCK_TICKS

    def progressed(self) -> None:
        """We executed something: whatever is behind is not stuck."""
        self._behind_ticks = 0
