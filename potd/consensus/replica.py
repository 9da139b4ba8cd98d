"""One PBFT replica as a pure state machine: inputs in, effects out. Reads no clock, draws no chance, does no I/O.

Sections in brackets are those of Castro & Liskov 1999. Where this departs from the paper it says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, assert_never

from potd.consensus.checkpoint import Checkpoints
from potd.consensus.events import (
    Accuse,
    Awaited,
    Broadcast,
    Certificated,
    Certify,
    Deliver,
    Effect,
    Ending,
    Enter,
    Executed,
    FetchBatch,
    Follow,
    Forget,
    Held,
    Hush,
    Ignore,
    Input,
    Judge,
    Judged,
    Persist,
    Proposed,
    Received,
    Recollecting,
    Reject,
    Send,
    Settled,
    Speak,
    Suspect,
    Ticked,
)
from potd.consensus.patience import Patience, slot_key
from potd.consensus.quorum import Group, certificate_fault, least
from potd.consensus.recollection import Known, Recollection, words_of
from potd.consensus.restart import recall
from potd.consensus.retransmission import refusals_again, votes_again
from potd.consensus.slots import Ballot, Log, Slot, order_in
from potd.consensus.view_change import (
    NULL_DIGEST,
    Carried,
    carry_over,
    era_fault,
    new_view_fault,
    stables_of,
    view_change_fault,
)
from potd.wire.blocks import NULL, Batch, Certificate, Header
from potd.wire.consensus import (
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Recollect,
    Recollected,
    Refusal,
    Status,
    ViewChange,
)
from potd.wire.envelope import Attestation, Signed, Signer, Verified, attests
from potd.wire.ids import Digest, Key, short

STATUS_TICKS = 20  # how often a replica says where it stands: one second


class Extent(NamedTuple):
    """What a replica's memory comes to. All of it lies between the watermarks, or a window below."""

    slots: tuple[int, ...]  # sequence numbers, ascending
    ballots: int  # of these slots, in whatever view
    headers: tuple[int, ...]  # heights with signatures that are no certificate yet, ascending
    batches: int
    view_changes: int


class Replica:
    """A member of `group`, for the heights that this group decides: each set of validators has replicas of its own,
    which begin in view 0 above its base, with the base's certificate given by `restore`, and say nothing any more once
    the last height of the set is permanent. Between calls of `step` its state is a function of its inputs alone."""

    def __init__(self, signer: Signer, group: Group, *, patience_ticks: int, window: int) -> None:
        self.signer = signer
        self.group = group
        self.view = 0
        self.active = True  # false between leaving a view and entering the next
        self.stable = group.base
        self.certificate: Certificate | None = None
        self.executed = group.base
        self._patience = Patience(patience_ticks, len(group.keys))
        self._window = window
        self._log = Log(window)
        self._checkpoints = Checkpoints()
        self._batches: dict[Digest, Batch] = {NULL_DIGEST: NULL}
        self._assigned = 0  # the highest seq that we, as primary, have given out
        self._view_changes: dict[Key, Verified[ViewChange]] = {}  # each replica's newest, so that it is bounded
        self._own_view_change: Verified[ViewChange] | None = None
        self._new_view: Signed | None = None  # what began our view; nothing in view 0
        self._carried: tuple[Verified[PrePrepare], ...] = ()  # its orders above our high watermark, for later
        self._ticks = 0
        self._answered: set[Key] = set()  # whose Status we answered since the last tick
        self._recollection: Recollection | None = None  # after a start, until we may vote
        self._unsigned: dict[int, Header] = {}  # executed above the stable height while we may not vote
        self._told: set[Key] = set()  # whose Recollect we answered since the last tick

    # What others may ask

    @property
    def key(self) -> Key:
        return self.signer.key

    @property
    def primary(self) -> Key:
        return self.group.primary(self.view)

    @property
    def is_primary(self) -> bool:
        return self.active and self.primary == self.key

    @property
    def ends(self) -> int | None:
        """The last height of our group, once that is known."""
        return self._log.ends

    @property
    def done(self) -> bool:
        """Whether the last height of our group is permanent: others decide from here on."""
        return self.ends is not None and self.stable >= self.ends

    @property
    def silent(self) -> bool:
        """Whether we may not vote: while a quorum is asked what we said last, or after that showed a restored home."""
        return self._recollection is not None

    @property
    def silent_until(self) -> int:
        """The height that must be stable before this home, which was restored, votes again; 0 if it was not."""
        return self._recollection.height if self._recollection is not None and self._recollection.restored else 0

    def next_seq(self) -> int:
        """The sequence number that we, as primary, would give out next."""
        return max(self._assigned, self.stable, self.executed) + 1

    def may_propose(self) -> bool:
        """Whether there is a free sequence number between the watermarks for us to give out."""
        return self.is_primary and not self.silent and self._log.between(self.stable, self.next_seq())

    def in_flight(self) -> int:
        """Sequence numbers that we, as primary, have given out and not executed; what earlier views began and ours does
        not carry over is nobody's any more."""
        return max(0, self._assigned - self.executed)

    def batch(self, digest: Digest) -> Batch | None:
        """A batch of the log, for whoever asks for it by digest."""
        return self._batches.get(digest)

    def extent(self) -> Extent:
        """How much this replica remembers."""
        slots = self._log.slots()
        return Extent(
            tuple(slot.seq for slot in slots),
            sum(len(slot.ballots) for slot in slots),
            tuple(self._checkpoints.heights()),
            len(self._batches),
            len(self._view_changes),
        )

    # The machine

    def step(self, event: Input) -> list[Effect]:
        """Take one input. Never raises on what a peer said."""
        if self.done:
            return []
        match event:
            case Ticked(timed):
                return self._on_tick(timed)
            case Received(message):
                return self._on_message(message)
            case Recollecting(message, reports):
                known = message.sender in self.group
                return self._on_recollect(message, reports) if known else self._on_stranger(message)
            case Held(digest, batch):
                return self._on_batch(digest, batch)
            case Proposed(digest, batch):
                return self._propose(digest, batch)
            case Awaited(key):
                self._patience.owe(key)
                return []
            case Settled(key):
                self._patience.settle(key)
                return []
            case Judged():
                return self._on_judged(event)
            case Executed(header):
                return self._on_executed(header)
            case Ending(height):
                assert self.executed <= height, "told of the end behind it"
                self._log.ends = height
                return []
            case Certificated(certificate):
                return self._on_certificate(certificate)
            case _:
                assert_never(event)

    def _on_message(self, message: Verified[Any]) -> list[Effect]:
        if message.sender not in self.group:
            return self._on_stranger(message)
        body = message.body
        match body:
            case PrePrepare():
                return self._on_pre_prepare(message)
            case Prepare():
                return self._on_prepare(message)
            case Commit():
                return self._on_commit(message)
            case Header():
                return self._on_header(message)
            case ViewChange():
                return self._on_view_change(message)
            case NewView():
                return self._on_new_view(message)
            case Status():
                return self._on_status(message)
            case Recollected():
                return self._on_recollected(message)
            case Refusal():
                return self._on_refusal(message)
            case _:
                return [Reject(message.sender, f"{type(body).__name__} is not for consensus")]

    def _on_stranger(self, message: Verified[Any]) -> list[Effect]:
        """Validators before us may still be behind, and those after us ahead: only who speaks of heights that are ours
        for sure is false."""
        body = message.body
        if isinstance(body, Status) and body.stable < self.group.base:
            return self._on_status(message)
        if isinstance(body, NewView):
            due = [one + 1 for one in stables_of(body)]
        elif isinstance(body, Status | ViewChange):
            due = [body.stable + 1]
        elif isinstance(body, Header):
            due = [body.height]
        elif isinstance(body, PrePrepare | Prepare | Commit | Refusal):
            due = [body.seq]
        else:
            due = []  # of no height
        if any(self.group.base < one <= self._horizon() for one in due):
            return [Reject(message.sender, "not a validator")]
        return [Ignore(message.sender, "not a validator of this era")]

    def _horizon(self) -> int:
        """Up to which height our group decides for sure: a change that we do not know of is agreed on above `executed`,
        and takes force a window later."""
        return self.executed + self._window if self.ends is None else self.ends

    # Normal case [4.2]

    def _propose(self, digest: Digest, batch: Batch) -> list[Effect]:
        assert self.may_propose(), "proposed without a free sequence number"
        seq = self.next_seq()
        self._assigned = seq
        self._batches[digest] = batch
        order = self.signer.verified(PrePrepare(self.view, seq, digest))
        ballot = self._log.slot(seq).ballot(self.view)
        assert ballot.order is None, "two orders for one sequence number"
        ballot.order, ballot.judged = order, True
        self._patience.owe(slot_key(seq))
        return [*self._keep_batch(seq, digest), *self._cast(seq, order.signed, batch), *self._advance(ballot)]

    def _cast(self, seq: int, vote: Signed, batch: Batch | None = None) -> list[Effect]:
        """The one door through which votes leave: written first, and never while we may not vote. [4.2, 4.4]"""
        assert not self.silent, "a vote by whom may not vote"
        return [Persist(seq, vote), Broadcast(vote, batch)]

    def _keep_batch(self, seq: int, digest: Digest) -> list[Effect]:
        """What we vote for must outlive a power cut, or a proof could name a batch that no honest replica has."""
        slot = self._log.slot(seq)
        if digest == NULL_DIGEST or digest in slot.kept:
            return []
        slot.kept.add(digest)
        return [Persist(seq, self._batches[digest])]

    def _on_pre_prepare(self, message: Verified[PrePrepare]) -> list[Effect]:
        body = message.body
        if not self._log.between(self.stable, body.seq):  # first: other validators have other primaries
            return [Ignore(message.sender, "pre-prepare outside the view or the watermarks")]
        if message.sender != self.group.primary(body.view):
            return [Reject(message.sender, "pre-prepare by another than the primary")]
        if not self._current(body.view, body.seq):
            return [Ignore(message.sender, "pre-prepare outside the view or the watermarks")]
        ballot = self._log.slot(body.seq).ballot(body.view)
        if ballot.order is not None:
            return self._compare_orders(ballot.order, message)
        ballot.order = message
        return self._consider(ballot)

    def _compare_orders(self, first: Verified[PrePrepare], other: Verified[PrePrepare]) -> list[Effect]:
        """Two batches for one slot, both signed by the primary, prove its guilt."""
        if first.signed == other.signed:
            return []
        if first.body.batch == other.body.batch:
            # Honest Ed25519 is deterministic. Agreements to the one signature and to the other make no proof.
            return self._suspect("the primary signed one order in two ways")
        guilt = Accuse(first.sender, "two batches for one slot", (first.signed, other.signed))
        return [guilt, *self._suspect("the primary signed two batches for one slot")]

    def _consider(self, ballot: Ballot) -> list[Effect]:
        """An order has arrived: have its batch, then a judgement, then prepare."""
        assert ballot.order is not None
        digest = ballot.order.body.batch
        if ballot.order.sender == self.key:  # also one that we hear of from others, our journal being older
            self._assigned = max(self._assigned, ballot.seq)
        batch = self._batches.get(digest)
        if batch is None:
            return [FetchBatch(digest)]
        if ballot.judged or ballot.view != self.view or not self.active or self.silent:
            return self._advance(ballot)
        if ballot.carried or ballot.seq <= self.executed:
            return self._prepare(ballot)
        return [Judge(ballot.view, ballot.seq, digest, batch), *self._advance(ballot)]

    def _on_batch(self, digest: Digest, batch: Batch) -> list[Effect]:
        if digest in self._batches or not self._wanted(digest):
            return []
        self._batches[digest] = batch
        effects: list[Effect] = []
        for slot in self._log.slots():
            for _, ballot in sorted(slot.ballots.items()):
                if ballot.order is not None and ballot.order.body.batch == digest:
                    effects += self._consider(ballot)
        return effects + self._deliver()

    def _wanted(self, digest: Digest) -> bool:
        """Whether some slot names this batch."""
        for slot in self._log.slots():
            if slot.chosen == digest:
                return True
            if any(one.order is not None and one.order.body.batch == digest for one in slot.ballots.values()):
                return True
        return False

    def _on_judged(self, event: Judged) -> list[Effect]:
        slot = self._log.get(event.seq)
        ballot = slot.ballots.get(event.view) if slot else None
        if slot is None or ballot is None or ballot.order is None:
            return []  # the checkpoint has moved on meanwhile
        if ballot.judged or ballot.order.body.batch != event.digest or self.silent:
            return []
        if event.digest not in self._batches:
            return []  # not asked in this life, whose batch is still to come
        if event.reason:
            return self._refuse(slot, ballot, event.reason)
        return self._prepare(ballot) if self._current(event.view, event.seq) else []

    def _refuse(self, slot: Slot, ballot: Ballot, why: str) -> list[Effect]:
        """Leave the view of a primary that orders what is wrong, and say so under our signature.

        Also in a view that others have made us leave meanwhile: one judgement is a word, a quorum of them is a proof.
        """
        assert ballot.order is not None
        if self.key in ballot.commits or slot.chosen is not None:
            return []  # a quorum has agreed meanwhile; the judgement came too late to count
        said = slot.refusals.get(self.key)
        if said is not None and said.body.view == ballot.view:
            return []  # before a restart
        # The view change is written first: a restart between the two must not find us able to agree after all.
        here = ballot.view == self.view and self.active
        effects = self._suspect(f"refused its batch at {ballot.seq}: {why}") if here else []
        ballot.judged = True
        order = ballot.order.body
        reason = why.encode()[:256].decode(errors="ignore")
        word = self.signer.verified(Refusal(order.view, order.seq, order.batch, ballot.order.signed.signature, reason))
        return [*effects, *self._cast(ballot.seq, word.signed), *self._count_refusal(slot, word)]

    def _on_refusal(self, message: Verified[Refusal]) -> list[Effect]:
        """A judgement against an order moves no vote; but it may show us an order, and a quorum of them convicts."""
        body = message.body
        if body.view > self.view or not self._log.between(self.stable, body.seq):
            return [Ignore(message.sender, "refusal outside the view or the watermarks")]
        primary = self.group.primary(body.view)
        if message.sender == primary:
            return [Reject(message.sender, "refusal by the primary")]
        slot = self._log.slot(body.seq)
        known = slot.refusals.get(message.sender)
        if known is not None and known.body.view >= body.view:
            return []
        order = order_in(body, primary)
        if not attests(Attestation(primary, body.primary), self.signer.network, order.body):
            return [Reject(message.sender, "refusal without the primary's signature")]
        effects = self._count_refusal(slot, message)
        if not self._current(body.view, body.seq):
            return effects
        ballot = slot.ballot(body.view)
        if ballot.order is None:
            ballot.order = order
            return effects + self._consider(ballot)
        return effects + self._compare_orders(ballot.order, order)

    def _count_refusal(self, slot: Slot, message: Verified[Refusal]) -> list[Effect]:
        """A quorum of refusals holds f + 1 honest ones: no correct primary's order meets with so many."""
        slot.refusals[message.sender] = message
        refused = slot.refused(message.body)
        if len(refused) != self.group.quorum:
            return []
        order = order_in(message.body, self.group.primary(message.body.view))
        evidence = (order.signed, *(one.signed for one in refused))
        return [Accuse(order.sender, "a quorum refused its batch", evidence)]

    def _prepare(self, ballot: Ballot) -> list[Effect]:
        """Agree to the order. The primary's order is its agreement. [4.2]"""
        assert ballot.order is not None
        ballot.judged = True
        effects: list[Effect] = []
        self._patience.owe(slot_key(ballot.seq))
        if ballot.order.sender != self.key and self.key not in ballot.prepares:
            body = Prepare(ballot.view, ballot.seq, ballot.order.body.batch, ballot.order.signed.signature)
            vote = self.signer.verified(body)
            ballot.prepares[self.key] = vote
            effects = self._keep_batch(ballot.seq, body.batch)
            effects += self._cast(ballot.seq, vote.signed)
        return effects + self._advance(ballot)

    def _on_prepare(self, message: Verified[Prepare]) -> list[Effect]:
        body = message.body
        if not self._current(body.view, body.seq):
            return [Ignore(message.sender, "prepare outside the view or the watermarks")]
        primary = self.group.primary(body.view)
        if message.sender == primary:
            return [Reject(message.sender, "prepare by the primary")]
        ballot = self._log.slot(body.seq).ballot(body.view)
        first = ballot.prepares.get(message.sender)
        if first is not None and first.body.batch == body.batch:
            return []
        order = order_in(body, primary)
        known = ballot.order is not None and ballot.order.signed == order.signed
        if not known and not attests(Attestation(primary, body.primary), self.signer.network, order.body):
            return [Reject(message.sender, "prepare without the primary's signature")]
        guilt = self._two_words(first, message, "agreed to two batches for one slot") if first is not None else []
        ballot.prepares.setdefault(message.sender, message)
        if ballot.order is None:  # the order reached us inside a backup's agreement
            ballot.order = order
            return guilt + self._consider(ballot)
        return guilt + (self._compare_orders(ballot.order, order) or self._advance(ballot))

    def _two_words(self, first: Verified[Any], other: Verified[Any], what: str) -> list[Effect]:
        """Two answers of one key to a question to which a correct replica has one: proof, though we count the first."""
        if first.sender == self.key:
            return []  # a second machine has our key; it is for others to say so
        return [Accuse(first.sender, what, (first.signed, other.signed))]

    def _on_commit(self, message: Verified[Commit]) -> list[Effect]:
        body = message.body
        if not self._current(body.view, body.seq):
            return [Ignore(message.sender, "commit outside the view or the watermarks")]
        ballot = self._log.slot(body.seq).ballot(body.view)
        first = ballot.commits.setdefault(message.sender, message)
        guilt: list[Effect] = []
        if first.body.batch != body.batch:
            guilt = self._two_words(first, message, "committed to two batches for one slot")
        return guilt + self._advance(ballot)

    def _advance(self, ballot: Ballot) -> list[Effect]:
        """Commit once prepared; deliver once a quorum has committed. [4.2]

        A quorum of agreements holds f + 1 honest judgements, so a replica whose own judgement is late may commit
        on it; it prepares only on its own.
        """
        if ballot.view != self.view or not self.active:
            return []
        effects: list[Effect] = []
        slot = self._log.slot(ballot.seq)
        proof = None if self.key in ballot.commits or self.silent else ballot.prepared(self.group)
        if proof is not None and proof.batch in self._batches:
            slot.proof = proof
            vote = self.signer.verified(Commit(ballot.view, ballot.seq, proof.batch))
            ballot.commits[self.key] = vote
            effects += [
                *self._keep_batch(ballot.seq, proof.batch),
                Persist(ballot.seq, proof),
                *self._cast(ballot.seq, vote.signed),
            ]
        chosen = ballot.committed(self.group.quorum)
        if chosen is not None and slot.chosen is None:
            slot.chosen = chosen
        return effects + self._deliver()

    def _deliver(self) -> list[Effect]:
        """Execute in order, one at a time: the next follows Executed. [4.2]"""
        slot = self._log.get(self.executed + 1)
        if slot is None or slot.chosen is None or slot.delivered:
            return []
        batch = self._batches.get(slot.chosen)
        if batch is None:
            return [FetchBatch(slot.chosen)]
        slot.delivered = True
        return [Deliver(slot.seq, slot.chosen, batch)]

    def _current(self, view: int, seq: int) -> bool:
        return self.active and view == self.view and self._log.between(self.stable, seq)

    # Checkpoints [4.3]

    def _on_executed(self, header: Header) -> list[Effect]:
        assert header.height == self.executed + 1, "executed out of order"
        signed = self._checkpoints.of(self.key, header.height)
        assert signed is None or signed.body == header, "executed to another result than before the restart"
        self.executed = header.height
        self._patience.progressed(1)
        return [*self._sign_header(header), *self._stabilise(header.height), *self._deliver()]

    def _sign_header(self, header: Header) -> list[Effect]:
        if self.silent:
            self._unsigned[header.height] = header
            return []
        vote = self.signer.verified(header)
        self._checkpoints.add(vote)
        return self._cast(header.height, vote.signed)

    def _on_header(self, message: Verified[Header]) -> list[Effect]:
        height = message.body.height
        first = self._checkpoints.of(message.sender, height)
        if first is not None and first.body != message.body:
            return self._two_words(first, message, "signed two results of one height")
        self._checkpoints.heard(message)
        if self._checkpoints.overtaken(height, self.stable):
            self._checkpoints.add(message)
            return self._certify_overtaken(height)
        if not self._log.between(self.stable, height):
            return [Ignore(message.sender, "header outside the watermarks")]
        self._checkpoints.add(message)
        return self._stabilise(height)

    def _certify_overtaken(self, height: int) -> list[Effect]:
        """A later height became permanent first. Followers get runs that end with a certificate: keep them short."""
        certificate = self._checkpoints.certificate(height, self.group)
        if certificate is None:
            return []
        self._checkpoints.forget(height)
        return [Certify(certificate)]

    def _stabilise(self, height: int) -> list[Effect]:
        """A quorum's signatures make a height permanent. [4.3]"""
        certificate = self._checkpoints.certificate(height, self.group)
        if certificate is None:
            return []
        if height > self.executed:
            return [Follow(height)] if height > self.executed + 1 or not self._will_deliver(height) else []
        return self._forget_up_to(certificate)

    def _will_deliver(self, height: int) -> bool:
        """Whether the normal case is about to execute this height here."""
        slot = self._log.get(height)
        return slot is not None and any(one.order is not None for one in slot.ballots.values())

    def _on_certificate(self, certificate: Certificate) -> list[Effect]:
        height = certificate.header.height
        if height <= self.stable:
            return []
        if height > self.executed:
            return [Follow(height)]
        return self._forget_up_to(certificate)

    def _forget_up_to(self, certificate: Certificate) -> list[Effect]:
        height = certificate.header.height
        if height <= self.stable:
            return []
        own = self._checkpoints.of(self.key, height)
        mine = own.body if own is not None else self._unsigned.get(height)
        assert mine is not None or height < self.executed, "executed without signing the result"
        assert mine is None or mine == certificate.header, "the network has certified another state than ours"
        self._move_to(certificate)
        return [Certify(certificate), Forget(height), *self._install_carried()]

    def followed(self, certificate: Certificate) -> list[Effect]:
        """The node has executed certified blocks up to this height by another road."""
        height = certificate.header.height
        assert height > self.executed, "followed backwards"
        self._patience.progressed(height - self.executed)
        self.executed = height
        self._move_to(certificate)
        return [Forget(height), *self._install_carried(), *self._deliver()]

    def _move_to(self, certificate: Certificate) -> None:
        """Move the watermarks, and drop all that lies below them. [4.3]"""
        height = certificate.header.height
        self.stable = height
        self.certificate = certificate
        self._log.forget_up_to(height)
        self._checkpoints.forget(height)
        self._checkpoints.forget_up_to(height - self._window)
        self._unsigned = {above: header for above, header in self._unsigned.items() if above > height}
        self._patience.settle_slots(height)
        kept = {NULL_DIGEST}
        for slot in self._log.slots():
            kept |= {one.order.body.batch for one in slot.ballots.values() if one.order is not None}
            kept |= {slot.proof.batch} if slot.proof else set()
            kept |= {slot.chosen} if slot.chosen else set()
        self._batches = {digest: batch for digest, batch in self._batches.items() if digest in kept}

    # View changes [4.4]

    def patience(self) -> int:
        """How many ticks the primary has for what is due."""
        return self._patience.ticks()

    def _on_tick(self, timed: bool) -> list[Effect]:
        self._ticks += 1
        self._answered.clear()
        self._told.clear()
        effects = self._speak()
        if not timed or self.silent:
            pass
        elif self.active:
            late = self._patience.late()
            if late:
                effects += self._suspect(late)
        elif self._patience.late_view():
            ticks = self.patience()
            self._patience.failed()
            effects += self._leave_for(self.view + 1, f"no new view in {ticks} ticks")
        if self._ticks % STATUS_TICKS == 1:  # the first tick after a start is one
            effects += self._stir()
            effects += self._ask()
            effects.append(Broadcast(self.signer.sign(self._status())))
        return effects

    def _stir(self) -> list[Effect]:
        """Take up what a restart interrupted, and ask again for batches and blocks that have not come."""
        effects: list[Effect] = []
        for height in self._checkpoints.heights():
            effects += self._stabilise(height) if height > self.stable else self._certify_overtaken(height)
        for slot in self._log.slots() if self.active else ():
            ballot = slot.ballots.get(self.view)
            if ballot is None or ballot.order is None:
                continue
            under_judgement = ballot.order.body.batch in self._batches and not ballot.judged and not ballot.carried
            if not under_judgement:
                effects += self._consider(ballot)
        return effects + self._deliver()

    def _status(self) -> Status:
        return Status(self.view, not self.active, self.stable, self.executed)

    def _suspect(self, reason: str) -> list[Effect]:
        if not self.active or self.silent:
            return []
        self._patience.failed()
        return self._leave_for(self.view + 1, reason)

    def _leave_for(self, view: int, reason: str) -> list[Effect]:
        """Stop accepting in this view, and say what may have been committed. [4.4]"""
        assert not self.done, "a view change from the end of our era would count in the next one"
        assert view > self.view or not self.active
        proofs = tuple(slot.proof for slot in self._log.slots() if slot.proof is not None)
        certificate = (least(self.certificate, self.group),) if self.certificate else ()
        own = self.signer.verified(ViewChange(view, self.stable, certificate, proofs))
        return [*self._leave(own, reason), *self._cast(2**62, own.signed), *self._gather(view)]

    def _leave(self, own: Verified[ViewChange], reason: str) -> list[Effect]:
        effects: list[Effect] = [Suspect(self.view, self.primary, reason)]
        self.view = own.body.view
        self.active = False
        self._new_view = None
        self._carried = ()
        self._patience.left()
        self._own_view_change = own
        self._view_changes[self.key] = own
        return effects

    def _on_view_change(self, message: Verified[ViewChange]) -> list[Effect]:
        view = message.body.view
        if message.sender == self.key:
            return [Ignore(message.sender, "own view change")]  # ours is the one that we remember
        if view < self.view or (view == self.view and self.active):
            return [Ignore(message.sender, "view change to a view that is past")]
        known = self._view_changes.get(message.sender)
        if known is not None and (known.body.view > view or known.signed == message.signed):
            return []  # a replica's newest view change is the one that counts
        elsewhere = era_fault([message.body.stable], self.group, self.ends)
        if elsewhere:
            return [Ignore(message.sender, elsewhere), *self._learn(message.body.certificate)]
        if known is not None and known.body.view == view:
            other = known.body != message.body
            return self._two_words(known, message, "left for one view in two ways") if other else []
        fault = view_change_fault(message, self.group, self._window)
        if fault and message.body.stable > self._horizon():
            return [Ignore(message.sender, "view change from far ahead, perhaps of later validators")]
        if fault:
            return [Reject(message.sender, fault)]
        self._view_changes[message.sender] = message
        effects: list[Effect] = []
        if message.body.certificate:
            effects += self._on_certificate(message.body.certificate[0])
        return effects + self._join_or_gather()

    def _join_or_gather(self) -> list[Effect]:
        others = [one.body.view for one in self._view_changes.values() if one.sender != self.key]
        claims = sorted(one for one in others if one > self.view)
        if len(claims) >= self.group.some_honest and not self.silent:
            # f + 1 claim higher views: join the smallest, without waiting for our own timer. [4.5.2]
            return self._leave_for(claims[0], "f + 1 replicas have left for higher views")
        return self._gather(self.view)  # also for a view change to a later view: its sender has left ours

    def _learn(self, certificates: Sequence[Certificate]) -> list[Effect]:
        """What one who counts for nothing here can prove all the same, such as that our era has ended."""
        proved = [one for one in certificates if not certificate_fault(one, self.group)]
        return [effect for one in proved for effect in self._on_certificate(one)]

    def _gather(self, view: int) -> list[Effect]:
        """With a quorum of view changes the timer starts, and the new primary begins. [4.4, 4.5.2]"""
        if view != self.view or self.active:
            return []
        left = [one for one in self._view_changes.values() if one.body.view >= view]
        if len(left) >= self.group.quorum:
            # Those who have gone further count: their view changes to ours may be lost for good. [Castro 2001, 2.3.5]
            self._patience.begin_leaving()
        gathered = {one.sender: one for one in left if one.body.view == view}
        if len(gathered) < self.group.quorum:
            return []
        if self.group.primary(view) != self.key or self.silent:
            return []
        chosen = [gathered[key] for key in sorted(gathered)][: self.group.quorum]
        if self.key not in {one.sender for one in chosen}:
            chosen = sorted([*chosen[:-1], gathered[self.key]], key=lambda one: one.sender)
        carried = carry_over([one.body for one in chosen])
        orders = tuple(self.signer.verified(PrePrepare(view, seq, digest)) for seq, digest in carried.orders)
        body = NewView(view, tuple(one.signed for one in chosen), tuple(one.signed for one in orders))
        signed = self.signer.sign(body)
        return [*self._cast(2**62, signed), *self._enter(signed, carried, orders, "we are its primary")]

    def _on_new_view(self, message: Verified[NewView]) -> list[Effect]:
        view = message.body.view
        if view < self.view or (view == self.view and self.active):
            return [Ignore(message.sender, "new view that is past")]
        stables = stables_of(message.body)
        elsewhere = era_fault(stables, self.group, self.ends)
        if elsewhere:
            return [Ignore(message.sender, f"new view with a {elsewhere}")]
        fault, carried, orders = new_view_fault(message, self.group, self._window)
        if fault and max(stables, default=0) > self._horizon():
            return [Ignore(message.sender, "new view from far ahead, perhaps of later validators")]
        if fault:
            return [Reject(message.sender, fault)]
        assert carried is not None
        self.view = view
        effects: list[Effect] = [Persist(2**62, message.signed)]
        return effects + self._enter(message.signed, carried, orders, "its primary showed a quorum of view changes")

    def _enter(
        self, signed: Signed, carried: Carried, orders: Sequence[Verified[PrePrepare]], reason: str
    ) -> list[Effect]:
        self.active = True
        self._new_view = signed
        self._own_view_change = None
        self._patience.entered()
        for old in [key for key, one in self._view_changes.items() if one.body.view <= self.view]:
            del self._view_changes[old]
        self._assigned = max([carried.stable, *(seq for seq, _ in carried.orders)])
        self._carried = tuple(orders)
        effects: list[Effect] = [Enter(self.view, self.primary, reason)]
        if carried.certificate is not None:
            effects += self._on_certificate(carried.certificate)
        return effects + self._install_carried()

    def _install_carried(self) -> list[Effect]:
        """Take up the new view's orders as far as our watermarks reach. [4.4]

        A replica that is behind takes up the rest once it has followed: they are carried, never judged.
        """
        due = [one for one in self._carried if self._log.between(self.stable, one.body.seq)] if self.active else []
        self._carried = tuple(one for one in self._carried if one.body.seq > self.stable + self._window)
        effects: list[Effect] = []
        for order in due:
            ballot = self._log.slot(order.body.seq).ballot(self.view)
            assert ballot.order is None, "an order from before its view"
            ballot.order, ballot.carried = order, True
            effects += self._persist_own_order(order)
            effects += self._consider(ballot)
        return effects

    def _persist_own_order(self, order: Verified[PrePrepare]) -> list[Effect]:
        return [Persist(order.body.seq, order.signed)] if order.sender == self.key else []

    # Retransmission: whoever lacks something says where it stands, and is sent it again [Castro 2001, 5.2]

    def _on_status(self, message: Verified[Status]) -> list[Effect]:
        peer, theirs = message.sender, message.body
        if peer == self.key or peer in self._answered:
            return []
        self._answered.add(peer)
        effects: list[Effect] = []
        if theirs.stable < self.group.base:
            # Of the era before: its views are nothing to ours, but this certificate leads out of it, or is a hint.
            return [Send(peer, self.certificate)] if self.certificate is not None else []
        if self.ends is not None and theirs.stable >= self.ends:
            return []  # of an era after ours; it will answer ours
        if theirs.stable < self.stable and self.certificate is not None:
            effects.append(Send(peer, self.certificate))
        if self.silent:
            return effects
        if theirs.view < self.view or (theirs.view == self.view and theirs.changing):
            if self.active and self._new_view is not None:
                effects.append(Send(peer, self._new_view))
            elif self._own_view_change is not None:
                effects.append(Send(peer, self._own_view_change.signed))
        effects += [
            Send(peer, one.signed) for one in self._checkpoints.own(self.key) if one.body.height > theirs.stable
        ]
        effects += refusals_again(peer, theirs, self.key, self._log)
        if self.active and theirs.view == self.view and not theirs.changing:
            effects += votes_again(peer, theirs, self.key, self.view, self._log, self._batches)
        return effects

    # Recollection: what others hold of our words, before we say more

    def _ask(self) -> list[Effect]:
        """Ask for our last words again, until a quorum has answered."""
        past = self._recollection
        if past is None:
            return []
        question = self.signer.sign(past.question)
        return [Send(key, question) for key in past.asked()]

    def _on_recollect(self, message: Verified[Recollect], reports: tuple[Digest, ...]) -> list[Effect]:
        """Also while we ask ourselves: a whole network that starts at once would wait for ever otherwise."""
        peer, boot = message.sender, message.body.boot
        if peer == self.key or peer in self._told:
            return []
        self._told.add(peer)
        left = self._view_changes.get(peer)
        words = words_of(
            peer, self._log, self._checkpoints, self.stable, left.signed if left is not None else None, self._new_view
        )
        certificate = (least(self.certificate, self.group),) if self.certificate is not None else ()
        return [Send(peer, self.signer.sign(Recollected(boot, peer, certificate, words, reports)))]

    def _on_recollected(self, message: Verified[Recollected]) -> list[Effect]:
        past = self._recollection
        if past is None:
            return [Ignore(message.sender, "answer to a recollection that is over")]
        before = self.silent_until
        answer, fault = past.take(message)
        if fault and self._elsewhere(message.body.certificate):
            return [Ignore(message.sender, "answer to a recollection from another era, or from far ahead")]
        if fault:
            return [Reject(message.sender, fault)]
        if answer is None:
            return [Ignore(message.sender, "answer to another start, or a second one")]
        effects: list[Effect] = []
        if self.silent_until > before:
            effects.append(Hush(self.silent_until))
        if answer.certificate is not None:
            effects += self._on_certificate(answer.certificate)
        if self.done:
            return effects  # in silence: whoever decides from here on is asked afresh
        if answer.left is not None and answer.left.body.view > self.view:
            effects += self._leave(answer.left, "we have left for a later one, in a life that this home forgot")
            effects.append(Persist(2**62, answer.left.signed))
        if answer.began is not None:
            effects += self._on_new_view(answer.began)
        return effects + self._speak()

    def _elsewhere(self, shown: Sequence[Certificate]) -> bool:
        """Whether who has this for its stable checkpoint may speak of validators that we do not know."""
        height = shown[0].header.height if shown else 0
        return not self.group.base <= height <= self._horizon()

    def _speak(self) -> list[Effect]:
        """Vote again, if nothing of ours can be unknown to us and yet to come: for all that has come meanwhile."""
        past = self._recollection
        if past is None or not past.over(self.stable):
            return []
        self._recollection = None
        effects: list[Effect] = [Speak(past.restored)]
        for _, header in sorted(self._unsigned.items()):
            effects += self._sign_header(header) + self._stabilise(header.height)
        self._unsigned.clear()
        if self.done:
            return effects  # by our own signature: others decide from here on
        for slot in self._log.slots() if self.active else ():
            ballot = slot.ballots.get(self.view)
            if ballot is not None and ballot.order is not None:
                effects += self._consider(ballot)
        effects += self._deliver()
        if past.restored and not self.active and self.primary == self.key:
            # We may have begun this view, and with other orders. The next one is not ours to begin.
            return effects + self._leave_for(self.view + 1, "we may have begun this one, in a life that we forgot")
        return effects + self._join_or_gather()

    # Restart

    def restore(
        self,
        executed: Header | None,
        certificate: Certificate | None,
        records: Iterable[object],
        boot: Digest | None,
        silent_until: int = 0,
    ) -> None:
        """Take up where the journal ends: `records` are what was persisted, oldest first, and `silent_until` the
        height of the last Hush that no Speak has followed.

        Every vote that was written is known again before the first message is sent, so that no restart votes
        twice for one view, height and phase; and none is cast before a quorum was asked for those that were not.
        `boot` are 32 bytes of chance, new at every start; None for who comes from the era before as it ends, and so has
        said nothing in this one.
        """
        assert self._ticks == 0, "restored after it had started"
        if certificate is not None:
            self.stable = certificate.header.height
            self.certificate = certificate
        if executed is not None:
            self.executed = executed.height
        assert self.executed >= self.stable >= self.group.base, "restored to a state before its checkpoint"
        past = recall(records, self.stable, self.group, self._window, self.key)
        self._log, self._checkpoints, self._carried = past.log, past.checkpoints, past.carried
        self.view, self.active, self._assigned = past.view, past.active, past.assigned
        self._new_view, self._own_view_change = past.new_view, past.view_change
        if past.view_change is not None:
            self._view_changes[self.key] = past.view_change
        self._batches |= past.batches
        if boot is not None:
            known = Known(self.stable, self.executed, self.view, self.active, frozenset(past.said))
            self._recollection = Recollection(self.group, self.key, self._window, boot, known, silent_until)
        if executed is not None and executed.height > self.stable and not self._checkpoints.of(self.key, self.executed):
            self._unsigned[executed.height] = executed
        self._owe_again()

    def _owe_again(self) -> None:
        """What the primary of our view has begun is due again; what earlier views began is not."""
        for slot in self._log.slots():
            ballot = slot.ballots.get(self.view)
            if ballot is None or not self.active:
                continue
            if ballot.order is not None and ballot.order.sender == self.key:
                self._assigned = max(self._assigned, slot.seq)
            self._patience.owe(slot_key(slot.seq))

    def describe(self) -> str:
        """Where this replica stands, for a log line."""
        state = "in" if self.active else "changing to"
        silence = ", asking what it said last" if self.silent else ""
        if self.silent_until:
            silence = f", silent until {self.silent_until}"
        return (
            f"{state} view {self.view}, primary {short(self.primary)}, executed {self.executed}, "
            f"stable {self.stable}{silence}"
        )
