"""What proves that a key lied: words that no correct one ever signs both of. Pure; takes nothing from anybody.

A correct validator writes every vote down before it sends it and knows it again after a restart, so that it has one
answer to each of these questions for ever:

    PrePrepare           which batch has this sequence number in this view? (of its primary)
    Prepare, Refusal     does it agree to what the primary ordered there, and to which batch?
    Commit               which batch is prepared there?
    Header               what is the state at this height?
    ViewChange, NewView  what does it bring into this view, or begin it with?
    Report               what did it hold at the end of this step of this round?
    Draft                from which reports does it, as primary of this view, make the update of this round?

and a correct miner to this one:

    Commitment           what does it bind itself to in this round?

Sequence numbers and heights are never used twice, so the first four need no more than the signatures. Views begin
afresh with every set of validators, so the fifth is one question only within an era; a correct replica never leaves a
view once the last height of its era is stable, so the stable height that a view change states tells the era. A Draft
names its era itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from potd.wire.blocks import Header
from potd.wire.codec import Malformed, decode
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Refusal, ViewChange, quorum_of
from potd.wire.envelope import Signed, verify
from potd.wire.ids import Digest, Key, short
from potd.wire.rounds import Commitment, Draft, Report

Word = PrePrepare | Prepare | Commit | Header | ViewChange | NewView | Refusal | Report | Draft | Commitment
_WORDS: tuple[type[Word], ...] = (
    PrePrepare,
    Prepare,
    Commit,
    Header,
    ViewChange,
    NewView,
    Refusal,
    Report,
    Draft,
    Commitment,
)


@dataclass(frozen=True)
class Court:
    """What must be known of the network to judge evidence. The last of `bases` is where `keys` began to decide; the
    one before, if it is known, is where `before` did."""

    network: Digest
    bases: tuple[int, ...]
    keys: tuple[Key, ...]
    before: tuple[Key, ...]

    def era(self, stable: int) -> int | None:
        """Which era a replica is in whose stable height this is; None if that is too long ago."""
        return bisect_right(self.bases, stable) - 1 if stable >= self.bases[0] else None

    def deciders(self, height: int) -> tuple[Key, ...]:
        """The keys of those who decide a height; nobody if that is too long ago."""
        if height > self.bases[-1]:
            return self.keys
        return self.before if len(self.bases) > 1 and height > self.bases[-2] else ()


@dataclass(frozen=True)
class Guilt:
    key: Key
    reason: str


def commitment(evidence: Sequence[Signed]) -> Commitment | None:
    """What the first word commits to, if it is a miner's: then the rest is on what it has mined."""
    try:
        return decode(evidence[0].payload, Commitment)
    except Malformed:
        return None


def guilt(evidence: Sequence[Signed], court: Court) -> Guilt | str:
    """Who is proved guilty of what, or why nobody is. Signatures are checked last, one by one."""
    if len(evidence) < 2:
        return "evidence of one word"
    try:
        words = [decode(one.payload, *_WORDS) for one in evidence]
    except Malformed:  # why is for the decoder to say, and not the same in every implementation
        return "evidence that is no word of a validator"
    key = evidence[0].key
    if len(evidence) == 2 and evidence[1].key == key:
        reason, fault = _two_answers(words[0], words[1], court)
    else:
        reason, fault = _refused(words, [one.key for one in evidence], court)
    if fault:
        return fault
    try:
        for one in evidence:
            verify(one, court.network, *_WORDS)
    except Malformed as error:
        return f"evidence with a {error}"
    return Guilt(key, reason)


def _two_answers(one: Word, other: Word, court: Court) -> tuple[str, str]:
    """What is proved by two words of one key, and else why nothing is."""
    if one == other:
        return "", "the same word twice"
    question = _question(one, court)
    if question is None or question != _question(other, court) or _answer(one) == _answer(other):
        return "", "a correct validator may have said both"
    return f"a {type(one).__name__} that contradicts its {type(other).__name__}", ""


def _question(word: Word, court: Court) -> tuple[object, ...] | None:
    """What a word is the answer to; None if that cannot be told."""
    kind = type(word).__name__
    match word:
        case PrePrepare() | Commit():
            return kind, word.view, word.seq
        case Prepare() | Refusal():
            return "Prepare", word.view, word.seq  # who refuses does not agree
        case Header():
            return kind, word.height
        case Report():
            return kind, word.task, word.round, word.step
        case Commitment():
            return kind, word.task, word.round, word.miner
        case Draft():
            return kind, word.base, word.view, word.task, word.round, word.step
        case ViewChange():
            era = court.era(word.stable)
            return None if era is None else (kind, word.view, era)
        case NewView():
            try:
                eras = {court.era(decode(one.payload, ViewChange).stable) for one in word.view_changes}
            except Malformed:
                return None
            return None if len(eras) > 1 or None in eras else (kind, word.view, *eras)
        case _:
            assert_never(word)


def _answer(word: Word) -> object:
    """One order may be signed by its primary in two ways, and agreements to both are agreements to the same."""
    return word.batch if isinstance(word, PrePrepare | Prepare | Commit) else word


def _refused(words: Sequence[Word], keys: Sequence[Key], court: Court) -> tuple[str, str]:
    """An order, and a quorum's refusals of just that order, by key. Some of a quorum are honest, and they judge by work
    that gives each of them the same bits as a correct primary."""
    order, *others = words
    if not isinstance(order, PrePrepare):
        return "", "neither two words of one key nor an order that was refused"
    refusers = list(keys[1:])
    deciders = court.deciders(order.seq)
    if not deciders:
        return "", f"height {order.seq} is too long ago to tell who decided it"
    quorum = quorum_of(len(deciders))
    if refusers != sorted(set(refusers)) or keys[0] in refusers:
        return "", "refusals out of order, twice, or by the accused"
    strangers = [key for key in refusers if key not in deciders]
    if strangers:
        return "", f"a refusal by {short(strangers[0])}, who does not decide height {order.seq}"
    if len(refusers) < quorum:
        return "", f"{len(refusers)} refusals of {quorum}"
    for one in others:
        if not isinstance(one, Refusal) or (one.view, one.seq, one.batch) != (order.view, order.seq, order.batch):
            return "", "a refusal of something else"
    return f"its batch at {order.seq} in view {order.view} was refused by a quorum", ""
