"""The log of one replica: for each sequence number, the order, the agreement and the commitment. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from potd.consensus.quorum import Group
from potd.wire.codec import encode
from potd.wire.consensus import Commit, Prepare, Prepared, PrePrepare, Refusal
from potd.wire.envelope import Signed, Verified, attestation_of
from potd.wire.ids import Digest, Key


@dataclass
class Ballot:
    """One sequence number in one view."""

    view: int
    seq: int
    order: Verified[PrePrepare] | None = None
    carried: bool = False  # by a new view, with proof: it is not judged again [4.4]
    judged: bool = False
    prepares: dict[Key, Verified[Prepare]] = field(default_factory=dict)
    commits: dict[Key, Verified[Commit]] = field(default_factory=dict)

    def agreed(self, order: Verified[PrePrepare]) -> list[Verified[Prepare]]:
        """The backups' agreements to this very order, by key.

        A lying primary can sign one order in two ways; agreements to both would not add up to one proof.
        """
        prepares = [self.prepares[key] for key in sorted(self.prepares)]
        return [
            one for one in prepares if (one.body.batch, one.body.primary) == (order.body.batch, order.signed.signature)
        ]

    def committed(self, quorum: int) -> Digest | None:
        """The digest that a quorum says it has prepared, if there is one."""
        counts: dict[Digest, int] = {}
        for key in sorted(self.commits):
            digest = self.commits[key].body.batch
            counts[digest] = counts.get(digest, 0) + 1
        for digest, count in counts.items():
            if count >= quorum:
                return digest
        return None

    def prepared(self, group: Group) -> Prepared | None:
        """The order and the agreement of a quorum, the primary's order counting as its own. [4.2]"""
        if self.order is None:
            return None
        digest = self.order.body.batch
        agreed = self.agreed(self.order)
        if len(agreed) + 1 < group.quorum:
            return None
        backups = tuple(attestation_of(one.signed) for one in agreed[: group.quorum - 1])
        return Prepared(self.view, self.seq, digest, attestation_of(self.order.signed), backups)


@dataclass
class Slot:
    """One sequence number over all views."""

    seq: int
    ballots: dict[int, Ballot] = field(default_factory=dict)
    proof: Prepared | None = None  # of the highest view in which it was prepared here [P]
    chosen: Digest | None = None  # what a quorum has committed
    delivered: bool = False
    kept: set[Digest] = field(default_factory=set)  # batches that were written down for this slot
    refusals: dict[Key, Verified[Refusal]] = field(default_factory=dict)  # each replica's newest, so that it is bounded

    def ballot(self, view: int) -> Ballot:
        if view not in self.ballots:
            self.ballots[view] = Ballot(view, self.seq)
        return self.ballots[view]

    def refused(self, one: Refusal) -> list[Verified[Refusal]]:
        """The judgements against this very order, by key."""
        refusals = [self.refusals[key] for key in sorted(self.refusals)]
        order = (one.view, one.batch, one.primary)
        return [other for other in refusals if (other.body.view, other.body.batch, other.body.primary) == order]


class Log:
    """The slots between the watermarks. [4.2, 4.3]"""

    def __init__(self, window: int) -> None:
        self.ends: int | None = None  # the last height of these validators, once that is known
        self._window = window
        self._slots: dict[int, Slot] = {}

    def between(self, stable: int, seq: int) -> bool:
        """Whether `seq` lies between the watermarks, and is these validators' to decide.

        A change of the validators takes force a window above the height that agrees on it. So the watermarks of a
        replica that has not executed that height do not reach beyond the end, and one that has executed it knows.
        """
        return stable < seq <= stable + self._window and (self.ends is None or seq <= self.ends)

    def slot(self, seq: int) -> Slot:
        if seq not in self._slots:
            self._slots[seq] = Slot(seq)
        return self._slots[seq]

    def get(self, seq: int) -> Slot | None:
        return self._slots.get(seq)

    def slots(self) -> list[Slot]:
        return [self._slots[seq] for seq in sorted(self._slots)]

    def forget_up_to(self, seq: int) -> None:
        for old in [one for one in self._slots if one <= seq]:
            del self._slots[old]


def order_in(judgement: Prepare | Refusal, primary: Key) -> Verified[PrePrepare]:
    """The primary's order as a backup's agreement or refusal carries it; its signature is yet to be checked."""
    body = PrePrepare(judgement.view, judgement.seq, judgement.batch)
    return Verified(primary, body, Signed(primary, encode(body), judgement.primary))
