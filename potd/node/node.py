"""The deterministic machine of one node: routes between the cores until only effects for the outside are left.

Consensus orders batches, the ledger executes them, each task's rounds see what the ledger made of them and bring
new records, and the agenda holds these until the primary, if that is us, gives them a sequence number.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from potd.consensus import events as pbft
from potd.consensus.quorum import blocks_fault, certificate_fault, certified_runs
from potd.consensus.replica import Replica
from potd.consensus.succession import Handover, Line
from potd.gossip.admit import (
    Ordered,
    Screening,
    admit_certificate,
    admit_commitment,
    admit_frame,
    admit_operation,
)
from potd.ledger.apply import execute
from potd.ledger.entries import Task, task_about
from potd.ledger.state import Ledger, genesis_ledger
from potd.node import events as out
from potd.node.accuser import Accuser
from potd.node.agenda import AGAIN_TICKS, Agenda, operation_key
from potd.node.audits import audited_of
from potd.node.court import Court
from potd.node.eras import ERA_NOTE, era_of, key_of, watch_of
from potd.node.events import Effect, Input
from potd.node.follow import GRACE_TICKS, Follower
from potd.node.operations import Operations
from potd.node.shelf import Shelf
from potd.node.snapshot import SNAPSHOT_LAG, WORTH_HEIGHTS, Taken, Taking
from potd.node.tasks import Desks, tips_of
from potd.rounds import events as rounds
from potd.rounds.keeper import Desk
from potd.rounds.part import Roles
from potd.rounds.tally import Electorate
from potd.wire.audits import Audit, Chain, Promise, Ruling, Verdict
from potd.wire.blocks import (
    NULL,
    Batch,
    Block,
    Certificate,
    Header,
    batch_digest,
    record_digest,
    validators_digest,
)
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import (
    REPORTS_SHOWN,
    Prepared,
    Proposal,
    Recollect,
    Recollected,
    Status,
    report_name,
)
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.genesis import Genesis, Parameters, genesis_digest
from potd.wire.ids import NO_BLOB, AccountId, BlobRef, Digest, Key, TaskId, account_id, short
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
from potd.wire.rounds import Commitment, Draft, Link, Report, Update
from potd.wire.transfer import Part, Snapshot, WantPart, WantSnapshot

CERTIFICATE_TICKS = 20  # how long a backup leaves it to the primary to gossip a certificate
SILENT_NOTE = "silent"  # the height that must be stable before a restored home votes again, remembered over restarts
ECHOES_MAX = 8 * REPORTS_SHOWN  # reports and drafts of ours that others show us
IN_FLIGHT_MAX = 4  # sequence numbers given out at once: enough to overlap agreement with agreement
OPERATIONS_TOGETHER = 64  # while a batch is in flight: then agreement, for all together, costs less than they do
GATHERED_MIN = 4  # operations that are worth waiting for; for fewer, agreement on each costs what it costs
GATHERED_TICKS = 2  # how long at most
IDLE_TICKS = 10  # between two heights that nobody needs but a task that is done and has yet to settle


@dataclass(frozen=True)
class Settings:
    """What the operator has chosen of this node's behaviour."""

    validator: bool
    miner: bool
    units: int
    tasks: tuple[TaskId, ...] | None  # to mine for; None for all
    trainer: bool  # whether a trainer child is run


@dataclass(frozen=True)
class Restored:
    """What the journal and the blob store held at the start."""

    header: Header | None
    certificate: Certificate | None
    entries: tuple[tuple[bytes, bytes], ...]
    records: tuple[Signed | Prepared | Batch, ...]  # oldest first
    notes: Mapping[str, bytes]
    held: tuple[BlobRef, ...]
    boot: Digest  # 32 bytes of chance, drawn at this start
    begins: int = 0  # the height of the snapshot that the blocks follow on; 0 for genesis


NOTHING_RESTORED = Restored(None, None, (), (), {}, (), bytes(32))


class Node:
    """One node. Its state is a function of what it was made from and of its inputs."""

    def __init__(
        self,
        settings: Settings,
        genesis: Genesis,
        signer: Signer,
        golden: Digest,
        restored: Restored = NOTHING_RESTORED,
    ) -> None:
        self.settings = settings
        self.signer = signer
        self.network = genesis_digest(genesis)
        self._golden = golden
        if restored.header is None:
            self.ledger: Ledger = genesis_ledger(genesis)
        else:
            self.ledger = Ledger.from_entries(restored.entries, restored.header)
        self.account: AccountId = self.ledger.account_of(signer.key)
        self.parameters: Parameters = self.ledger.parameters()
        self.certified = restored.certificate.header.height if restored.certificate is not None else 0
        self._certificate = restored.certificate  # of that height
        self.group, self._ends = era_of(self.ledger, self.certified, restored.notes.get(ERA_NOTE, b""))
        self._watch = watch_of(self.ledger, self.group, self._ends)
        self._boot = restored.boot
        self._by_blocks = True  # whether the newest height was taken from others, or none was executed yet
        silent_until = int.from_bytes(restored.notes.get(SILENT_NOTE, b""), "big")
        self.replica = self._new_replica(restored.records, self._boot, silent_until)
        # The height that the primary owes, on the way to the end of an era or to where a task settles.
        self._owed: int | None = None
        self._held: set[BlobRef] = set(restored.held)
        roles = Roles(
            signer,
            self.account,
            self._electorate(),
            validator=self.replica is not None,
            miner=settings.miner,
            trainer=settings.trainer,
            reveal_ticks=self.parameters.reveal_ticks,
            work_ticks_max=self.parameters.work_ticks_max,
        )
        self._desks = Desks(
            roles, Desk(self._held, itertools.count(1), self.parameters.audit_rounds), dict(restored.notes)
        )
        if self.replica is not None and self.replica.silent:
            self._desks.hush()
        # What only others have heard must reach the primary while they have patience with it.
        self._agenda = Agenda(min(AGAIN_TICKS, self.parameters.patience_ticks // 2))
        self._follower = Follower(GRACE_TICKS if self.replica is not None else 0)
        self._taking = Taking()
        self._shelf = Shelf(restored.notes)
        self.begins = restored.begins  # blocks up to this height were never executed here, or are gone
        if restored.header is not None and restored.certificate is not None and self.certified == self.height:
            self._shelf.keep(self.ledger, restored.certificate)
        self._court = Court(self.network, self.parameters, self._desks, self._agenda)
        self._operations = Operations(signer, self.account, self._agenda)
        self._accuser = Accuser(self.account, restored.notes)
        self._moved: dict[TaskId, None] = {}  # tasks that have been executed upon, for `_after`
        self._unpublished: tuple[Certificate, int] | None = None
        self._noted_era = restored.notes.get(ERA_NOTE, b"")
        self._expected = (0, 0)  # how many operations may come together after the newest batch, and its tick
        self._echoes: dict[Digest, None] = {}  # our own reports and drafts that others have shown us since we started
        self._trusted = False  # whether our arithmetic has passed its self-test
        self._workers: set[str] = set()
        self._wanted: dict[BlobRef, set[TaskId]] = {}  # blobs being fetched, and for which tasks
        self._peers: set[Key] = set()
        self._ticks = 0
        self._executed_at = 0  # the tick of the newest height

    # What others may ask

    @property
    def height(self) -> int:
        return self.ledger.height

    @property
    def desks(self) -> Desks:
        return self._desks

    def is_public_key(self, name: bytes) -> bool:
        """Whether a name is a node's public key, as far as we have met it, and so nobody's account."""
        if name in self.group or name in self._peers:
            return True
        return self.ledger.account(name) is None and self.ledger.account(account_id(name)) is not None

    def seat(self) -> str:
        """Our place among the validators, or that we have none."""
        if self.replica is None:
            return f"ended at height {self.group.base}" if self.signer.key in self.group.before else "none"
        return f"{self.group.keys.index(self.signer.key) + 1} of {len(self.group.keys)}"

    def successor(self) -> Key | None:
        """The key that speaks for our account instead of ours, which has nothing left to sign; None while ours does."""
        key = key_of(self.ledger, self.certified, self.account)
        return key if key != self.signer.key else None

    @property
    def certificate(self) -> Certificate | None:
        """That of the newest height that is certified, as far as it is known here."""
        return self._certificate

    def connected(self) -> int:
        """How many other validators are connected."""
        return len(self._peers.intersection(self.group.keys))

    def screen(self, certificate: Certificate) -> Screening:
        """Whether to forward a certificate that was heard by gossip. May be called from any thread."""
        return self._watch.screen(certificate)

    def batch(self, digest: Digest) -> Batch | None:
        """A batch in flight, for a peer that lacks it."""
        return self.replica.batch(digest) if self.replica is not None else None

    def snapshot(self, want: WantSnapshot) -> Snapshot | None:
        """The state that a peer may have of us. May be called from any thread, like `part`."""
        return self._shelf.snapshot(want)

    def part(self, want: WantPart) -> Part | None:
        """A part of it; None if that state is not kept here."""
        return self._shelf.part(want)

    @property
    def waiting(self) -> int:
        """How many operations wait to be executed."""
        return len(self._agenda.operations)

    def receipt(self, operation: Digest) -> str | None:
        """The reason why an operation was not applied, nothing if it was; None while it has not been executed."""
        return self._operations.receipt(operation)

    @property
    def trouble(self) -> str:
        """Why this node cannot enrol, if it cannot."""
        return self._operations.trouble

    def next_nonce(self) -> int:
        """The nonce for our account's next operation, after those that wait."""
        return self._operations.next_nonce(self.ledger)

    # The machine

    def start(self) -> list[Effect]:
        """Once, before the first input."""
        effects: list[Effect] = self._note_era()
        if self.replica is None and self._ends == self.height:
            self._follower.seen(self.height)  # executed, therefore certified: the journal was cut between the two
        if self.replica is not None:
            effects.append(self._log(f"validator {self.seat()}, {self.replica.describe()}"))
        return effects + self._resume()

    def _resume(self) -> list[Effect]:
        """Tell the rounds where the ledger and consensus stand, and consensus what is due: at the start, and when an
        era begins."""
        effects: list[Effect] = []
        for task in self.ledger.tasks():
            effects += self._from_rounds(self._changed(task))
        if self.replica is not None:
            primary = self.replica.primary if self.replica.active else None
            effects += self._from_rounds(self._desks.entered(self.replica.view, primary))
        # If the newest seal was certified before a restart, no later certificate would come to say so.
        effects += self._from_rounds(self._desks.certified(self.certified))
        return effects + self._owe_heights()

    def step(self, event: Input) -> list[Effect]:
        """Take one input. Never raises on what a peer said."""
        effects = self._dispatch(event)
        return effects + self._turn() + self._propose()

    def _dispatch(self, event: Input) -> list[Effect]:
        match event:
            case out.Ticked():
                return self._on_tick()
            case out.PeerUp(peer, height):
                self._peers.add(peer)
                self._follower.up(peer, height)
                self._taking.up(peer)
                return []
            case out.PeerDown(peer):
                self._peers.discard(peer)
                self._follower.down(peer)
                self._taking.down(peer)
                return []
            case out.Framed(peer, data):
                return self._on_frame(peer, data)
            case out.Gossiped(topic, data):
                return self._on_gossip(topic, data)
            case out.Fetched(ref):
                self._held.add(ref)
                self._wanted.pop(ref, None)
                return self._from_rounds(self._desks.fetched(ref)) + self._judge_again()
            case out.BlobRead(ref, data):
                self._held.add(ref)
                return self._from_rounds(self._desks.read(ref, data))
            case out.BatchFetched(digest, data):
                return self._on_batch(digest, data)
            case out.BlocksFetched(peer, blocks):
                return self._on_blocks(peer, blocks)
            case out.SnapshotFetched():
                return self._taking.on_snapshot(event)
            case out.PartFetched():
                effects = self._taking.on_part(event)
                taken = self._taking.taken()
                if taken is None or taken.certificate.header.height <= self.height:
                    return effects  # the latter if blocks have come as far meanwhile
                return effects + self._take_over(taken)
            case out.WorkerReady():
                return self._on_worker(event)
            case out.WorkerLost(kind, reason):
                self._workers.discard(kind)
                return [self._log(f"{kind} worker lost: {reason}", logging.WARNING)]
            case out.JobDone(answer):
                self._held.update(self._desks.produced(answer))
                return self._from_rounds(self._desks.answered(answer)) + self._judge_again()
            case out.OperationAsked(signed):
                return self._on_asked(signed)
            case _:
                assert_never(event)

    # Time

    def _on_tick(self) -> list[Effect]:
        self._ticks += 1
        effects: list[Effect] = []
        if self.replica is not None:
            effects += self._from_consensus(self.replica.step(pbft.Ticked(self.connected() + 1 >= self.group.quorum)))
        effects += self._from_rounds(self._desks.tick())
        effects += self._catch_up()
        forward = self.replica is not None and self.replica.active and not self.replica.is_primary
        primary = self.replica.primary if self.replica is not None and forward else None
        again, due = self._operations.again(self.ledger, self._ticks, primary)
        effects += again + self._due(due)
        if self._unpublished is not None and self._ticks - self._unpublished[1] >= CERTIFICATE_TICKS:
            effects.append(out.Publish("certificates", encode(self._unpublished[0])))
            self._unpublished = None
        if self.settings.miner:
            effects += self._enrol()
        return effects + self._accuse()

    def _catch_up(self) -> list[Effect]:
        """By a snapshot if we are far behind, or if nobody has the blocks that we lack; by blocks otherwise."""
        gain_min = 1 if self._follower.stuck(self.height) else None
        if self._follower.target() - self.height > SNAPSHOT_LAG:
            gain_min = WORTH_HEIGHTS
        effects = self._taking.tick(self.height, gain_min, Line.begin(self.group))
        peer = None if self._taking.busy else self._follower.tick(self._proved())
        return effects if peer is None else [*effects, out.FetchBlocks(peer, self._proved() + 1)]

    # Peers

    def _on_frame(self, peer: Key, data: bytes) -> list[Effect]:
        try:
            message = admit_frame(data, self.network)
        except Malformed as error:
            return [out.Refuse(peer, str(error))]
        match message:
            case Certificate():
                return self._on_certificate(peer, message)
            case Ordered(pre_prepare, digest, batch):
                if self.replica is None:
                    return []
                wanted = pbft.FetchBatch(digest)  # it came along
                effects = [one for one in self.replica.step(pbft.Received(pre_prepare)) if one != wanted]
                return self._from_consensus([*effects, *self.replica.step(pbft.Held(digest, batch))])
            case Verified():
                return self._on_said(peer, message)
            case _:
                assert_never(message)

    def _on_said(self, peer: Key, message: Verified[Any]) -> list[Effect]:
        body = message.body
        match body:
            case Commitment():
                return self._rounds_said(peer, self._desks.heard(message))
            case Report():
                self._echo(message)
                return self._rounds_said(peer, self._desks.reported(message))
            case Draft():
                self._echo(message)
                return self._rounds_said(peer, self._desks.drafted(message))
            case Link():
                return self._rounds_said(peer, self._desks.released(message))
            case Transfer() | Submit() | Enrol() | Leave() | Stand() | Back() | Resign() | Rekey() | Accuse():
                return self._on_operation(message, ours=False)
            case Chain() | Promise() | Verdict() | Ruling():
                return self._on_operation(message, ours=False)
            case Recollect() | Status() if peer != message.sender:
                # Each asks for itself: an old question that others repeat would use up the answer to a new one.
                return [out.Refuse(peer, f"another's {'recollection' if isinstance(body, Recollect) else 'status'}")]
            case Recollect() if self.replica is not None:
                return self._recollect(message)
            case Recollected() if not self._echoes.keys() >= set(body.reports):
                return [out.Ignore("answer to a recollection that came before what it names")]
            case _:
                if self.replica is not None:
                    return self._from_consensus(self.replica.step(pbft.Received(message)))
                return self._show_behind(peer, body) if isinstance(body, Status) else []

    def _recollect(self, message: Verified[Recollect]) -> list[Effect]:
        """Show a validator that has started its reports and drafts again, then answer: a home that has forgotten them
        must not make others."""
        assert self.replica is not None
        said = self._desks.said_by(message.sender)[:REPORTS_SHOWN]
        answer = self.replica.step(pbft.Recollecting(message, tuple(report_name(one) for one in said)))
        answers = any(isinstance(one, pbft.Send) for one in answer)
        shown: list[Effect] = [out.Send(message.sender, encode(one)) for one in said] if answers else []
        return shown + self._from_consensus(answer)

    def _echo(self, message: Verified[Report] | Verified[Draft]) -> None:
        """Others show us what we said ourselves: remembered until we may speak."""
        if message.sender != self.signer.key or self.replica is None or not self.replica.silent:
            return
        self._echoes[report_name(message.signed)] = None
        if len(self._echoes) > ECHOES_MAX:  # a liar repeats those of long ago: the newest came with their answer
            del self._echoes[next(iter(self._echoes))]

    def _show_behind(self, peer: Key, theirs: Status) -> list[Effect]:
        """A validator that is behind asks those whom it takes for validators, and they may all have given up their
        seats: what they have proves, or hints, that there is more."""
        if self._certificate is None or theirs.stable >= self.certified:
            return []
        return [out.Send(peer, encode(self._certificate))]

    def _rounds_said(self, peer: Key, said: tuple[list[tuple[TaskId, rounds.Effect]], str]) -> list[Effect]:
        effects, reason = said
        refused: list[Effect] = [out.Refuse(peer, reason)] if reason else []
        return refused + self._from_rounds(effects) + self._judge_again()

    def _on_gossip(self, topic: str, data: bytes) -> list[Effect]:
        try:
            match topic:
                case "commitments":
                    if self.replica is None:
                        return []  # only validators report what they have heard
                    commitment = admit_commitment(data, self.network)
                    return self._rounds_said(commitment.sender, self._desks.heard(commitment))
                case "certificates":
                    certificate = admit_certificate(data, self.network)
                    return self._on_certificate(None, certificate)
                case "operations":
                    operation = admit_operation(data, self.network)
                    return self._on_operation(operation, ours=False)
                case _:
                    return []
        except Malformed as error:
            return [out.Ignore(f"{topic}: {error}")]

    def _on_certificate(self, peer: Key | None, certificate: Certificate) -> list[Effect]:
        """`peer` is who sent it to us; None for gossip, whose author is not known and whose bearer may be honest."""
        height = certificate.header.height
        if self._unpublished is not None and self._unpublished[0].header.height <= height:
            self._unpublished = None
        if height <= self.certified:
            return []
        fault = certificate_fault(certificate, self.group)
        if fault and height > self._watch.horizon:
            self._follower.hinted(peer, height)
            return [out.Ignore("certificate from far ahead, perhaps of later validators")]
        if fault:
            return [out.Refuse(peer, fault) if peer is not None else out.Ignore(f"certificates: {fault}")]
        if height > self.height:
            self._follower.seen(height)
        if self.replica is not None:
            return self._from_consensus(self.replica.step(pbft.Certificated(certificate)))
        if height == self.height:
            assert certificate.header == self.ledger.header, "the network has certified another state than ours"
            return self._on_certified(certificate)
        return []

    # Operations

    def _on_asked(self, signed: Signed) -> list[Effect]:
        try:
            message = verify(signed, self.network, *OPERATIONS)
        except Malformed as error:
            return [self._log(f"own operation: {error}", logging.ERROR)]
        return self._on_operation(message, ours=True)

    def _on_operation(self, message: Verified[Operation], ours: bool) -> list[Effect]:
        # Validators know each other: a frame costs a fraction of gossip. What is lost so is gossiped when it waits.
        others = [key for key in self.group.keys if key != self.signer.key] if self.replica is not None else []
        effects, due = self._operations.take(self.ledger, message, self._ticks, ours, others)
        return effects + self._due(due)

    def _due(self, due: Sequence[pbft.Awaited | pbft.Settled]) -> list[Effect]:
        """What the primary owes, or owes no more, from now on."""
        if self.replica is None:
            return []
        return [effect for one in due for effect in self._from_consensus(self.replica.step(one))]

    def _ask(self, operation: Audit) -> list[Effect]:
        """An operation of our account, unless the same waits already, or another key speaks for it now."""
        if self.successor() is not None:
            return []
        waiting = (self._agenda.operations[name].message.body for _, name in self._agenda.waiting_of(self.account))
        if any(isinstance(one, Audit) and replace(one, nonce=operation.nonce) == operation for one in waiting):
            return []
        return self._on_asked(self.signer.sign(replace(operation, nonce=self.next_nonce())))

    def _enrol(self) -> list[Effect]:
        """Enrol for the tasks that the operator wants to mine for, and come back when suspended."""
        if out.TRAINER not in self._workers or self.successor() is not None:  # it would be the other key's enrolment
            return []
        wanted, units = self.settings.tasks, self.settings.units
        effects, signed = self._operations.enrolments(self.ledger, self._desks, wanted, units, self._ticks)
        for one in signed:
            effects += self._on_asked(one)
        return effects

    def _caught(self, key: Key, reason: str, evidence: tuple[Signed, ...]) -> list[Effect]:
        """These signatures prove a validator or a miner guilty: keep them until it has nothing left to lose."""
        note = self._accuser.hold(key, evidence, self._ticks)
        return [note, self._log(f"{short(key)} is guilty: {reason}", logging.ERROR)] if note is not None else []

    def _accuse(self) -> list[Effect]:
        """Bring what proves somebody guilty before the ledger, unless another was quicker."""
        if self.replica is None or self.replica.silent:
            return []
        effects: list[Effect] = []
        for case, name in self._accuser.made():
            reason = self._operations.receipt(name)
            if reason is None:
                continue
            case.made, case.since = None, self._ticks
            if reason:
                text = f"the accusation of {short(case.key)} was not taken: {reason}"
                effects.append(self._log(text, logging.WARNING))
        for what, case in self._accuser.due(self.group.keys.index(self.signer.key), self._ticks):
            closed = self._accuser.closed(what, self.ledger)
            if not closed:
                signed = self.signer.sign(Accuse(self.account, self.next_nonce(), case.evidence))
                case.made, case.tries = record_digest(signed), case.tries + 1
                effects += self._on_asked(signed)
            effects += closed
        return effects

    # Consensus

    def _from_consensus(self, effects: Sequence[pbft.Effect]) -> list[Effect]:
        done: list[Effect] = []
        for effect in effects:
            done += self._consensus_effect(effect)
        return done

    def _consensus_effect(self, effect: pbft.Effect) -> list[Effect]:
        match effect:
            case pbft.Persist(seq, record):
                return [out.Keep(seq, record)]
            case pbft.Forget(seq):
                return [out.Forget(seq)]
            case pbft.Broadcast(signed, batch):
                data = self._frame(signed, batch)
                return [out.Send(key, data) for key in self.group.keys if key != self.signer.key]
            case pbft.Send(to, message, batch):
                return [out.Send(to, self._frame(message, batch))]
            case pbft.Judge():
                self._court.open(effect)
                return self._judge_again()
            case pbft.Deliver(_, _, batch):
                return self._deliver(batch)
            case pbft.Certify(certificate):
                return self._on_certified(certificate)
            case pbft.Enter(view, primary, reason):
                self._agenda.view_changed()
                self._court.entered(view)
                text = f"entered view {view}: primary {short(primary)}, {reason}"
                return [self._log(text), *self._from_rounds(self._desks.entered(view, primary))]
            case pbft.Suspect(view, primary, reason):
                text = f"gave up view {view} of primary {short(primary)}: {reason}"
                return [self._log(text, logging.WARNING), *self._from_rounds(self._desks.entered(view, None))]
            case pbft.FetchBatch(digest):
                return [out.FetchBatch(digest, tuple(key for key in self.group.keys if key != self.signer.key))]
            case pbft.Follow(height):
                self._follower.seen(height)
                return []
            case pbft.Hush(height):
                note = out.Note(SILENT_NOTE, height.to_bytes(8, "big"))
                return [note, self._log(silence_text(height), logging.WARNING)]
            case pbft.Speak(restored):
                self._echoes.clear()
                text = "votes again" if restored else "a quorum holds no vote of ours that this home lacks"
                effects: list[Effect] = [out.Note(SILENT_NOTE, b"")] if restored else []
                return [*effects, self._log(text), *self._from_rounds(self._desks.speak(restored))]
            case pbft.Accuse(key, reason, evidence):
                return self._caught(key, reason, evidence)
            case pbft.Ignore(_, reason):
                return [out.Ignore(reason)]
            case pbft.Reject(sender, reason):
                return [out.Refuse(sender, reason)]
            case _:
                assert_never(effect)

    def _frame(self, message: Signed | Certificate, batch: Batch | None) -> bytes:
        if batch is not None:
            assert isinstance(message, Signed)
            return encode(Proposal(message, batch))
        return encode(message)

    def _propose(self) -> list[Effect]:
        """Give out what is waiting, if we are primary and there is room."""
        effects: list[Effect] = []
        while self.replica is not None and self.replica.may_propose() and self.replica.in_flight() < IN_FLIGHT_MAX:
            # What comes while others are agreed on shares the batch after them; a round's record waits for nobody.
            # [Castro 2001, 5.1.4]
            fewest = self._gathered() if self.replica.in_flight() == 0 else OPERATIONS_TOGETHER
            fewest = 1 if self._ends is not None else min(fewest, self.parameters.batch_records_max)
            batch = self._agenda.take(self.parameters.batch_records_max, self.ledger.nonce, fewest)
            if batch is None and self._ends is None and not self._idles():
                break
            batch = batch or NULL  # an idle network comes to the end of an era, too
            effects += self._from_consensus(self.replica.step(pbft.Proposed(batch_digest(batch), batch)))
            effects += self._turn()  # who is alone has come to the end by that
        return effects

    def _idles(self) -> bool:
        """Whether the next height is owed and nothing else will bring it: not at once, for audits need their time."""
        if self._owed is None or self.replica is None or self.replica.in_flight() > 0:
            return False
        return self._ticks - self._executed_at >= min(IDLE_TICKS, self.parameters.patience_ticks // 4)

    def _gathered(self) -> int:
        """How many operations the next batch waits for, when nothing is in flight."""
        expected, since = self._expected
        if expected < GATHERED_MIN or self._ticks - since >= GATHERED_TICKS:
            return 1
        return min(expected, OPERATIONS_TOGETHER)

    def _judge_again(self) -> list[Effect]:
        """Judge what has been proposed, as far as it can be told by now."""
        if self.replica is None:
            return []
        more, judged = self._court.sit(self.height, self._trusted)
        effects = self._from_rounds(more)
        for one in judged:
            effects += self._from_consensus(self.replica.step(one))
        return effects

    # Execution

    def _deliver(self, batch: Batch) -> list[Effect]:
        assert self.replica is not None
        self._by_blocks = False
        effects = self._execute(batch)
        header = self.ledger.header
        assert header is not None
        effects += self._from_consensus(self.replica.step(pbft.Executed(header)))
        effects += self._after(batch)
        # Whoever had an operation in this batch may have its next one at once. If those who wait already did not wait
        # for these, the two would take turns for ever, in batches half as large.
        self._expected = (self._agenda.ready + len(batch.records), self._ticks)
        return effects

    def _execute(self, batch: Batch) -> list[Effect]:
        """The ledger takes the next height."""
        executed = execute(self.ledger, batch)
        # The first height stores the genesis state with it: before that there is nothing that a genesis file lacks.
        changes = executed.changes if self.height else executed.ledger.entries.items()
        self.ledger = executed.ledger
        self._shelf.executed(self.ledger)
        self._end_era()
        self._follower.progressed()
        self._executed_at = self._ticks
        self._operations.executed(executed.receipts, executed.changes)
        self._moved.update((task, None) for key, _ in executed.changes if (task := task_about(key)) is not None)
        effects: list[Effect] = [out.Store(executed.header, batch, tuple(changes))]
        for receipt in executed.receipts:
            if receipt.reason:
                effects.append(self._log(f"height {self.height}: record {short(receipt.record)}: {receipt.reason}"))
        return effects

    def _after(self, batch: Batch) -> list[Effect]:
        """What follows from the new state: for the agenda, for the rounds, for what is being judged."""
        effects: list[Effect] = []
        names = [record_digest(record) for record in batch.records]
        asked = [name for name, one in zip(names, batch.records, strict=True) if isinstance(one, Signed)]
        effects += self._due([pbft.Settled(operation_key(name)) for name in asked])
        self._agenda.executed(names)
        effects += self._due(self._operations.clear(self.ledger)) + self._owe_heights()
        self._moved.update(dict.fromkeys(self._desks.resting()))
        moved = [self.ledger.task(name) for name in self._moved]
        self._moved.clear()
        for task in [one for one in moved if one is not None]:
            self._agenda.drop_stale(task.id, task.round)
            effects += self._from_rounds(self._changed(task))
        if self.certified >= self.height:
            effects += self._from_rounds(self._desks.certified(self.certified))
        return effects + self._judge_again()

    def _on_certified(self, certificate: Certificate) -> list[Effect]:
        height = certificate.header.height
        if height > self.certified:
            self.certified, self._certificate = height, certificate
        self._shelf.certified(certificate)
        effects: list[Effect] = [out.StoreCertificate(certificate)] if height > self.begins else []
        if self.replica is not None and self.replica.is_primary:
            effects.append(out.Publish("certificates", encode(certificate)))
        elif self.replica is not None:
            self._unpublished = (certificate, self._ticks)
        return effects + self._from_rounds(self._desks.certified(height))

    def _on_batch(self, digest: Digest, data: bytes) -> list[Effect]:
        try:
            batch = decode(data, Batch)
        except Malformed as error:
            return [self._log(f"fetched batch: {error}", logging.WARNING)]
        if batch_digest(batch) != digest or self.replica is None:
            return []
        return self._from_consensus(self.replica.step(pbft.Held(digest, batch)))

    def _on_blocks(self, peer: Key, blocks: tuple[Block, ...]) -> list[Effect]:
        """Blocks from a peer: executed as far as certificates vouch for them."""
        effects: list[Effect] = []
        before, proved = self.height, self._proved()
        certificate = blocks[0].certificate() if blocks and blocks[0].header.height == proved + 1 == before else None
        if certificate is not None:  # of the last height of an era
            effects += self._on_certificate(peer, certificate) + self._turn()
        for run in certified_runs(block for block in blocks if block.header.height > before):
            vouching = run[-1].certificate()
            if vouching is not None and run[-1].header.height <= self.height:
                # Consensus has come as far by what the run before told it: of this one the proof counts.
                effects += self._on_certificate(peer, vouching) + self._turn()
                continue
            expected = list(range(self._proved() + 1, self._proved() + 1 + len(run)))
            if run[0].header.height <= self.height or [block.header.height for block in run] != expected:
                break
            fault = blocks_fault(run, self.group)
            if run[-1].header.height > self._watch.horizon:
                fault = "blocks beyond the end of an era without the certificate of its last height"
            if fault:
                effects.append(out.Refuse(peer, fault))
                break
            effects += self._follow(run) + self._turn()
        self._follower.answered(peer, self._proved() - proved)
        if self.height > before:
            effects.append(self._log(f"followed {self.height - before} certified heights to {self.height}"))
        return effects

    def _follow(self, run: tuple[Block, ...]) -> list[Effect]:
        """Execute blocks that have been proved."""
        self._by_blocks = True
        effects: list[Effect] = []
        for block in run:
            effects += self._execute(block.batch)
            assert self.ledger.header == block.header, "our state is not the one that the network has certified"
        certificate = run[-1].certificate()
        assert certificate is not None
        self.certified, self._certificate = self.height, certificate
        self._shelf.certified(certificate)
        effects.append(out.StoreCertificate(certificate))
        if self.replica is not None:
            effects += self._from_consensus(self.replica.followed(certificate))
        for block in run:
            effects += self._after(block.batch)
        return effects

    # Eras

    def _new_replica(
        self, records: Sequence[Signed | Prepared | Batch], boot: Digest | None, silent_until: int
    ) -> Replica | None:
        """Our replica for the era, if we have a seat in it: it takes up where `records`, our own of this era, end."""
        if not self.settings.validator or self.signer.key not in self.group:
            return None
        replica = Replica(
            self.signer,
            self.group,
            patience_ticks=self.parameters.patience_ticks,
            window=self.parameters.window_heights,
        )
        replica.restore(self.ledger.header, self._certificate, records, boot, silent_until)
        if self._ends is not None:
            replica.step(pbft.Ending(self._ends))
        return replica

    def _electorate(self) -> Electorate:
        group = self.group
        return Electorate(self.network, group.keys, group.quorum, group.some_honest, group.base)

    def _proved(self) -> int:
        """Our height, or one less while it is the last of an era and waits for its certificate: nothing that comes
        after it counts before."""
        return self.height - 1 if self._ends == self.height else self.height

    def _owe_heights(self) -> list[Effect]:
        """The primary owes each height up to the end of the era, and up to that at which the last of the tasks that are
        done settles: nobody else would bring an idle network there."""
        due: list[pbft.Awaited | pbft.Settled] = []
        if self._owed is not None and self._owed <= self.height:
            due.append(pbft.Settled(f"height {self._owed}"))
            self._owed = None
        until = self._ends if self._ends is not None else self.ledger.settles()
        if self._owed is None and until is not None and self.height < until:
            self._owed = self.height + 1
            due.append(pbft.Awaited(f"height {self._owed}"))
        return self._due(due)

    def _turn(self) -> list[Effect]:
        """Once the last height of an era is permanent, those who come next begin, in a view 0 of their own.

        What waits to be ordered goes on waiting; what was given out and has not been executed is given out afresh."""
        if self._ends is None or self.certified < self._ends:
            return []
        header = self.ledger.header
        assert header is not None
        assert self.height == self.certified == self._ends, "executed beyond the end of an era"
        assert self._certificate is not None
        self._agenda.view_changed()
        effects = self._begin_era()
        assert header.validators == validators_digest(self.group.keys), "the header names other validators"
        effects += self._handed_over(Handover(self._certificate, self.group.keys))
        effects += self._due(self._operations.all_due(self.ledger))
        return effects + self._resume()

    def _begin_era(self) -> list[Effect]:
        """Other validators decide what comes after our height, which is permanent.

        Who was there when the era before ended has said nothing in this one. Anybody else asks what it has said, as
        after a start: its home may be one that was restored, and the era not new to it."""
        before, seated = self.replica, self.replica is not None
        self.group, self._ends = era_of(self.ledger, self.certified, b"")
        self._watch = watch_of(self.ledger, self.group, self._ends)
        self._owed = None
        asks = before is None or before.silent or self._by_blocks
        silent_until = before.silent_until if before is not None else 0
        self.replica = self._new_replica((), self._boot if asks else None, silent_until)
        if self.replica is not None and self.replica.silent:
            self._desks.hush()
        self._follower.grace_ticks = GRACE_TICKS if self.replica is not None else 0
        effects: list[Effect] = [*self._note_era(), self._log(self._era_text(seated))]
        return effects + self._from_rounds(self._desks.reseated(self._electorate(), self.replica is not None))

    def _end_era(self) -> None:
        """As soon as a change is agreed on we know the last height of the era. To be asked at each height."""
        change = self.ledger.change()
        if change is not None and self._ends is None:
            self._ends = change.height
            if self.replica is not None:
                self.replica.step(pbft.Ending(change.height))
        self._watch = watch_of(self.ledger, self.group, self._ends)

    def _note_era(self) -> list[Effect]:
        """Who is at work, and who was before, for a restart between the execution of their last height and its
        certificate."""
        seats = self.ledger.seats()
        if seats.base != self.group.base:
            return []  # the ledger is ahead; what is noted still holds
        noted, self._noted_era = self._noted_era, encode(seats)
        return [out.Note(ERA_NOTE, self._noted_era)] if noted != self._noted_era else []

    def _era_text(self, seated: bool) -> str:
        base, size = self.group.base, len(self.group.keys)
        if self.replica is not None:
            return f"from height {base + 1}: validator {self.seat()}" + ("" if seated else ", our seat is new")
        if self.successor() is not None:
            return f"from height {base + 1}: {size} validators; our key has given way to another"
        if seated:
            return f"our seat has ended at height {base}: we go on as a follower of {size} validators"
        return f"from height {base + 1}: {size} validators, others than before"

    def _take_over(self, taken: Taken) -> list[Effect]:
        """Go on from a state that was not executed here. Its parts have been proved, and so has its certificate."""
        header = taken.certificate.header
        assert header.height > self.height
        skipped = header.height - self.height
        self.ledger = Ledger.from_entries(taken.entries, header)
        self._by_blocks = True
        self.certified = self.begins = header.height
        self._certificate = taken.certificate
        self._moved.clear()
        self._unpublished = None
        self._follower.progressed()
        effects: list[Effect] = []
        for handover in taken.handovers:
            effects += self._handed_over(handover)
        seats = self.ledger.seats()
        if seats.base == header.height:
            effects += self._handed_over(Handover(taken.certificate, tuple(seat.key for seat in seats.seats)))
        self._shelf.keep(self.ledger, taken.certificate)
        effects.append(out.StoreSnapshot(taken.certificate, taken.entries))
        text = (
            f"took over the state of height {header.height}, of {len(taken.entries)} entries: {skipped} heights skipped"
        )
        effects.append(self._log(text))
        self._agenda.view_changed()  # nothing that was in flight is sure to come through
        if seats.base > self.group.base:
            effects += [out.Forget(header.height), *self._begin_era()]
        else:
            self._end_era()
            if self.replica is not None:
                effects += self._from_consensus(self.replica.followed(taken.certificate))
        effects += self._due(self._operations.skipped(self.ledger))
        effects += self._from_rounds(self._desks.vanished(frozenset(self.ledger.task_ids())))
        return effects + self._resume() + self._judge_again()

    def _handed_over(self, handover: Handover) -> list[Effect]:
        """Others have decided up to this height than decide from now on: newcomers will have to be shown."""
        return [out.Note(*self._shelf.hand_over(handover))]

    # Rounds

    def _changed(self, task: Task) -> list[tuple[TaskId, rounds.Effect]]:
        """Tell the rounds how a task stands."""
        before, audited = self._desks.audited(task.id), rounds.UNAUDITED
        tips: tuple[rounds.Tip, ...] = ()
        if self._desks.validates:
            audited = audited_of(self.ledger, task, self.account, self.settings.trainer, before)
            tips = tips_of(self.ledger, task.id)
        return self._desks.changed(task, self.ledger.spec(task.id), self.height, audited, tips)

    def _from_rounds(self, effects: Iterable[tuple[TaskId, rounds.Effect]]) -> list[Effect]:
        done: list[Effect] = []
        for task, effect in effects:
            done += self._rounds_effect(task, effect)
        return done

    def _rounds_effect(self, task: TaskId, effect: rounds.Effect) -> list[Effect]:
        match effect:
            case rounds.Run(worker, job):
                return [out.Run(worker, job)]
            case rounds.Announce(signed):
                effects: list[Effect] = [out.Publish("commitments", encode(signed))]
                message = verify(signed, self.network, Commitment)
                return effects + self._rounds_said(self.signer.key, self._desks.heard(message))
            case rounds.Share(signed):
                data = encode(signed)
                return [out.Send(key, data) for key in self.group.keys if key != self.signer.key]
            case rounds.Fetch(ref, holders):
                self._wanted.setdefault(ref, set()).add(task)
                return [out.Fetch(ref, tuple(key for key in holders if key != self.signer.key))]
            case rounds.Unfetch(ref):
                others = self._wanted.get(ref, set())
                others.discard(task)
                if others:
                    return []  # another task still wants it
                self._wanted.pop(ref, None)
                return [out.Unfetch(ref)]
            case rounds.Read(ref):
                return [out.Read(ref)]
            case rounds.Hide(ref):
                return [out.Hide(ref)]
            case rounds.Reveal(ref):
                return [out.Reveal(ref)]
            case rounds.Retire(refs):
                needed = self._desks.needed()  # another task may begin with what this one needs no more
                gone = tuple(ref for ref in refs if ref in self._held and ref not in needed)
                self._held.difference_update(gone)
                return [out.Retain(needed, gone)]
            case rounds.Note(name, data):
                self._desks.noted(name, data)
                return [out.Note(name, data)]
            case rounds.Propose(record):
                if isinstance(record, Update) and record.aggregate != NO_BLOB and not self._trusted:
                    return []  # a sum that we do not vouch for; the primary after us will
                self._agenda.add_record(record)
                return []
            case rounds.Ask(operation):
                return self._ask(operation)
            case rounds.Await(key):
                return self._due([pbft.Awaited(key)])
            case rounds.Settle(key):
                return self._due([pbft.Settled(key)])
            case rounds.Ignore(reason):
                return [out.Ignore(reason)]
            case rounds.Accuse(key, reason, evidence):
                return self._caught(key, reason, evidence)
            case rounds.Told(kind, values):
                return [out.Tell(kind, task, values)]
            case _:
                assert_never(effect)

    # Workers

    def _on_worker(self, ready: out.WorkerReady) -> list[Effect]:
        self._workers.add(ready.kind)
        effects: list[Effect] = [self._log(f"{ready.kind} worker ready on {ready.device}")]
        if ready.kind != out.ARITHMETIC:
            return effects
        self._trusted = ready.self_test == self._golden
        if not self._trusted:
            text = "the arithmetic self-test failed on this machine: it will prepare no update"
            return [*effects, self._log(text, logging.CRITICAL)]
        return effects + self._judge_again()

    def _log(self, text: str, level: int = logging.INFO) -> out.Log:
        return out.Log(level, text)


def silence_text(height: int) -> str:
    """What a restored home says of itself."""
    return f"silent until height {height}: this home was restored from a backup"
