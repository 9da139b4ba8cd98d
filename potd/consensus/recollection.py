"""What a quorum holds of our words, against what our journal holds: whether this home forgot what it said. Votes on
nothing.

A home that was wiped, or put back from a backup, knows nothing of the votes that it cast since. If it voted again it
could contradict them. So before it votes each start asks all others for the newest words that they hold under its key.

Why a quorum with ourselves is enough. A restored home counts among the f, so at most f - 1 others lie. What a word of
ours helped to decide, a quorum has acted on; that quorum and the one that answers share f + 1 members; without us and
f - 1 liars there is an honest one, which held the word, or a proof with our signature in it, and shows it. And a quorum
can always be had: n - f replicas make one. What nobody in it ever heard decided nothing; there we are a faulty replica
like any other, of which PBFT bears f.

What nobody has to show. An answer covers what lies above the answerer's stable checkpoint. What lies below is past
once this checkpoint is ours too, so we do not vote before that, restored or not. A liar cannot keep us from it: a
checkpoint counts only with its certificate.

How long a restored home is silent. A vote that we lack is past once its seq is stable here. But where one is lacking
there may be others that nobody has heard: they lie below the high watermark of that life, a window above the newest
height of which the answers tell, so all of these must be past. A view change tells more:
whoever left a view said what it had prepared, and may have entered the next one and voted for anything between its
watermarks; all of that is past once the high watermark of that view change, its stable + window, is stable here. The
same of a new view. Until then neither a vote for these seqs nor a view change that should prove one of them is ours to
give. The view that was left stays left: who has sent a view change must not vote below its view, or a quorum could
commit there what the next view does not carry over. [4.4]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from potd.consensus.checkpoint import Checkpoints
from potd.consensus.quorum import Group, certificate_fault
from potd.consensus.slots import Log, Slot
from potd.consensus.view_change import era_fault, new_view_fault, stables_of, view_change_fault
from potd.wire.blocks import Certificate, Header
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import (
    NEWEST_SHOWN,
    VOTES_A_SLOT,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Recollect,
    Recollected,
    Refusal,
    ViewChange,
)
from potd.wire.envelope import Signed, Verified, verify
from potd.wire.ids import Digest, Key

Shown = PrePrepare | Prepare | Commit | Refusal | Header | ViewChange | NewView
SHOWN = (PrePrepare, Prepare, Commit, Refusal, Header, ViewChange, NewView)


@dataclass(frozen=True)
class Known:
    """What the journal of this home knows of itself. All that was said after it was written down has a view that is
    not below `view`, and is for a seq above `stable`."""

    stable: int
    executed: int
    view: int
    active: bool  # whether that view had begun, or was being changed to
    said: frozenset[bytes]  # payloads under our key


@dataclass(frozen=True)
class Answer:
    """What one answer comes to."""

    certificate: Certificate | None
    height: int  # that must be stable here before we vote
    reach: int  # the newest height of which it tells
    restored: bool  # whether it shows words of ours that the journal lacks
    left: Verified[ViewChange] | None  # by which we left a view, in a life that we do not remember
    began: Verified[NewView] | None  # by which we began one


class Recollection:
    """One start of a replica, from its first question until it may vote."""

    def __init__(self, group: Group, key: Key, window: int, boot: Digest, known: Known, silent_until: int) -> None:
        self.height = silent_until  # that must be stable before we vote
        self.restored = silent_until > 0
        self._group = group
        self._key = key
        self._window = window
        self._boot = boot
        self._known = known
        self._answered: set[Key] = set()
        self._reach = 0  # the newest height that an answer tells of
        self._noticed = False  # whether an answer to this start showed what the journal lacks

    @property
    def question(self) -> Recollect:
        return Recollect(self._boot)

    def asked(self) -> list[Key]:
        """Who is still to answer; nobody once a quorum has, ourselves included."""
        if self.answered:
            return []
        return [key for key in self._group.keys if key != self._key and key not in self._answered]

    @property
    def answered(self) -> bool:
        return len(self._answered) + 1 >= self._group.quorum

    def over(self, stable: int) -> bool:
        """Whether nothing that we may have said is unknown and to come."""
        return self.answered and stable >= self.height

    def take(self, message: Verified[Recollected]) -> tuple[Answer | None, str]:
        """An answer to this start, and what follows from it; or why it is false. Neither if it is of no use."""
        if message.body.boot != self._boot or message.sender in self._answered or message.sender == self._key:
            return None, ""
        answer, fault = read_answer(message, self._group, self._key, self._window, self._known)
        if answer is not None:
            self._answered.add(message.sender)
            self.height = max(self.height, answer.height)
            self.restored = self.restored or answer.restored
            self._reach = max(self._reach, answer.reach)
            self._noticed = self._noticed or answer.restored
            if self._noticed:
                self.height = max(self.height, self._reach + self._window)
        return answer, fault


def read_answer(
    message: Verified[Recollected], group: Group, key: Key, window: int, known: Known
) -> tuple[Answer | None, str]:
    """What an answer shows that our journal lacks, or why no honest replica sends it."""
    body = message.body
    if body.asker != key:
        return None, "answer to another's recollection"
    if len(body.votes) > VOTES_A_SLOT * window + NEWEST_SHOWN:
        return None, "recollected more votes than there are between the watermarks"
    certificate = body.certificate[0] if body.certificate else None
    if certificate is None and group.base:
        return None, "recollected from before our era"
    fault = certificate_fault(certificate, group) if certificate is not None else ""
    if fault:
        return None, f"recollected a {fault}"
    votes: list[Verified[Any]] = []
    for signed in body.votes:
        if signed.key != key:
            return None, "recollected votes that are not ours"
        try:
            votes.append(verify(signed, group.network, *SHOWN))
        except Malformed as error:
            return None, f"recollected a vote with a {error}"
    height, reach, restored = 0, 0, False
    left: Verified[ViewChange] | None = None
    began: Verified[NewView] | None = None
    if certificate is not None:
        height = reach = certificate.header.height
        # We have signed what we do not know to have executed.
        restored = height > known.executed and any(one.key == key for one in certificate.attestations)
    for vote in votes:
        if not _lacks(known, vote):
            continue
        match vote.body:
            case ViewChange():
                # What we said in an era before has a number of view that means nothing in this one.
                fault = era_fault([vote.body.stable], group, None) or view_change_fault(vote, group, window)
                if left is None or left.body.view < vote.body.view:
                    left = vote
                passed = vote.body.stable + window
            case NewView():
                fault, carried, _ = new_view_fault(vote, group, window)
                fault = era_fault(stables_of(vote.body), group, None) or fault
                if began is None or began.body.view < vote.body.view:
                    began = vote
                passed = carried.stable + window if carried is not None else 0
            case Header():
                passed = vote.body.height
            case _:
                passed = vote.body.seq
        if fault:
            return None, f"recollected a {fault}"
        height, restored = max(height, passed), True
        if not isinstance(vote.body, ViewChange | NewView):
            reach = max(reach, passed)
    return Answer(certificate, height, reach, restored, left, began), ""


def _lacks(known: Known, vote: Verified[Shown]) -> bool:
    """Whether this word of ours was said in a life that our journal does not tell of.

    The journal forgets what is stable and, of view changes and new views, all but the newest; but views and heights
    only grow: what comes before the journal's own was said before it, in a life that it does tell of.
    """
    body = vote.body
    if vote.signed.payload in known.said:
        return False
    match body:
        case PrePrepare() | Prepare() | Commit() | Refusal():
            return body.seq > known.stable and body.view >= known.view
        case Header():
            return body.height > known.executed  # up to there signing again gives the same bytes
        case ViewChange():
            return body.view > known.view
        case NewView():
            return body.view > known.view or (body.view == known.view and not known.active)


# Answering


def words_of(
    asker: Key, log: Log, checkpoints: Checkpoints, stable: int, view_change: Signed | None, new_view: Signed | None
) -> tuple[Signed, ...]:
    """What we hold of a replica's words above our stable checkpoint, the newest of each kind for each seq, and the
    newest header of all.

    `view_change` is its newest that we hold, `new_view` what began our view: if its own, it is one of its words, and
    if it helped to begin it, its view change is inside.
    """
    words: list[Signed] = []
    for slot in log.slots():
        if slot.seq > stable:
            words += _words_in(slot, asker)
    headers = [one.signed for one in checkpoints.own(asker) if one.body.height > stable]
    newest = checkpoints.newest(asker)  # also a stable one: it says how far the asker has been
    words += headers if newest is None or newest.signed in headers else [newest.signed, *headers]
    if new_view is not None and view_change is None:
        shown = decode(new_view.payload, NewView).view_changes
        view_change = next((one for one in shown if one.key == asker), None)
    words += [view_change] if view_change is not None else []
    words += [new_view] if new_view is not None and new_view.key == asker else []
    return tuple(words)


def _words_in(slot: Slot, asker: Key) -> list[Signed]:
    """Its newest order, agreement, commitment and refusal. What has prepared here holds signatures, also after a
    restart that forgot the messages."""
    orders: dict[int, Signed] = {}  # by view
    prepares: dict[int, Signed] = {}
    commits: dict[int, Signed] = {}
    proof = slot.proof
    if proof is not None:
        order = Signed(asker, encode(PrePrepare(proof.view, proof.seq, proof.batch)), proof.primary.signature)
        orders |= {proof.view: order} if proof.primary.key == asker else {}
        agreement = encode(Prepare(proof.view, proof.seq, proof.batch, proof.primary.signature))
        for one in proof.backups:
            prepares |= {proof.view: Signed(asker, agreement, one.signature)} if one.key == asker else {}
    for view, ballot in slot.ballots.items():
        if ballot.order is not None and ballot.order.sender == asker:
            orders[view] = ballot.order.signed
        if asker in ballot.prepares:
            prepares[view] = ballot.prepares[asker].signed
        if asker in ballot.commits:
            commits[view] = ballot.commits[asker].signed
    newest = [said[max(said)] for said in (orders, prepares, commits) if said]
    return newest + ([slot.refusals[asker].signed] if asker in slot.refusals else [])
