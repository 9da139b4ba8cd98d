"""The deterministic machine of one node: routes between the cores until only effects for the outside are left.

Consensus orders batches, the ledger executes them, each task's rounds see what the ledger made of them and bring
new records, and the agenda holds these until the primary, if that is us, gives them a sequence number.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from potd.consensus import events as pbft
from potd.consensus.quorum import Group, blocks_fault, certificate_fault, certified_runs
from potd.consensus.replica import Replica
from potd.gossip.admit import Ordered, admit_certificate, admit_commitment, admit_frame, admit_operation
from potd.ledger.apply import execute
from potd.ledger.entries import task_of
from potd.ledger.state import Ledger, genesis_ledger
from potd.node import events as out
from potd.node.agenda import Agenda, operation_key
from potd.node.court import Court
from potd.node.events import Effect, Input
from potd.node.follow import GRACE_TICKS, Follower
from potd.node.operations import Operations
from potd.node.tasks import Desks
from potd.rounds import events as rounds
from potd.rounds.keeper import Desk
from potd.rounds.part import Roles
from potd.rounds.tally import Electorate
from potd.wire.blocks import Batch, Block, Certificate, Header, batch_digest, record_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Prepared, Proposal
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
from potd.wire.rounds import Commitment, Draft, Report, Update

CERTIFICATE_TICKS = 20  # how long a backup leaves it to the primary to gossip a certificate
IN_FLIGHT_MAX = 4  # sequence numbers given out at once: enough to overlap agreement with agreement
OPERATIONS_TOGETHER = 64  # while a batch is in flight: then agreement, for all together, costs less than they do


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


NOTHING_RESTORED = Restored(None, None, (), (), {}, ())


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
        keys = tuple(seat.key for seat in self.ledger.validators())
        self.group = Group(self.network, keys)
        self.certified = restored.certificate.header.height if restored.certificate is not None else 0
        self.replica: Replica | None = None
        if settings.validator and signer.key in self.group:
            self.replica = Replica(
                signer,
                self.group,
                patience_ticks=self.parameters.patience_ticks,
                window=self.parameters.window_heights,
            )
            self.replica.restore(restored.header, restored.certificate, restored.records)
        self._held: set[BlobRef] = set(restored.held)
        electorate = Electorate(self.network, keys, self.group.quorum, self.group.some_honest)
        roles = Roles(
            signer,
            self.account,
            electorate,
            validator=self.replica is not None,
            miner=settings.miner,
            trainer=settings.trainer,
            reveal_ticks=self.parameters.reveal_ticks,
            work_ticks_max=self.parameters.work_ticks_max,
        )
        self._desks = Desks(roles, Desk(self._held, itertools.count(1)), dict(restored.notes))
        self._agenda = Agenda()
        self._follower = Follower(GRACE_TICKS if self.replica is not None else 0)
        self._court = Court(self.network, self.parameters, self._desks, self._agenda)
        self._operations = Operations(signer, self.account, self._agenda)
        self._moved: dict[TaskId, None] = {}  # tasks that have been executed upon, for `_after`
        self._unpublished: tuple[Certificate, int] | None = None
        self._trusted = False  # whether our arithmetic has passed its self-test
        self._workers: set[str] = set()
        self._wanted: dict[BlobRef, set[TaskId]] = {}  # blobs being fetched, and for which tasks
        self._peers: set[Key] = set()
        self._ticks = 0

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

    def connected(self) -> int:
        """How many other validators are connected."""
        return sum(1 for key in self.group.keys if key in self._peers)

    def batch(self, digest: Digest) -> Batch | None:
        """A batch in flight, for a peer that lacks it."""
        return self.replica.batch(digest) if self.replica is not None else None

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
        effects: list[Effect] = []
        for task in self.ledger.tasks():
            effects += self._from_rounds(self._desks.changed(task, self.ledger.spec(task.id), self.height))
        if self.replica is not None:
            effects.append(self._log(f"validator {self._seat()}, {self.replica.describe()}"))
            primary = self.replica.primary if self.replica.active else None
            effects += self._from_rounds(self._desks.entered(self.replica.view, primary))
        # If the newest seal was certified before a restart, no later certificate would come to say so.
        return effects + self._from_rounds(self._desks.certified(self.certified))

    def step(self, event: Input) -> list[Effect]:
        """Take one input. Never raises on what a peer said."""
        effects = self._dispatch(event)
        return effects + self._propose()

    def _dispatch(self, event: Input) -> list[Effect]:
        match event:
            case out.Ticked():
                return self._on_tick()
            case out.PeerUp(peer, height):
                self._peers.add(peer)
                self._follower.up(peer, height)
                return []
            case out.PeerDown(peer):
                self._peers.discard(peer)
                self._follower.down(peer)
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
        peer = self._follower.tick(self.height)
        if peer is not None:
            effects.append(out.FetchBlocks(peer, self.height + 1))
        forward = self.replica is not None and self.replica.active and not self.replica.is_primary
        primary = self.replica.primary if self.replica is not None and forward else None
        again, due = self._operations.again(self.ledger, self._ticks, primary)
        effects += again + self._due(due)
        if self._unpublished is not None and self._ticks - self._unpublished[1] >= CERTIFICATE_TICKS:
            effects.append(out.Publish("certificates", encode(self._unpublished[0])))
            self._unpublished = None
        if self.settings.miner:
            effects += self._enrol()
        return effects

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
                return self._rounds_said(peer, self._desks.reported(message))
            case Draft():
                return self._rounds_said(peer, self._desks.drafted(message))
            case Transfer() | Submit() | Enrol() | Leave() | Stand() | Back() | Resign() | Rekey() | Accuse():
                return self._on_operation(message, ours=False)
            case _:
                if self.replica is None:
                    return []
                return self._from_consensus(self.replica.step(pbft.Received(message)))

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
        if fault:
            return [out.Refuse(peer, fault) if peer is not None else out.Ignore(f"certificates: {fault}")]
        if height > self.height:
            self._follower.seen(height)
        if self.replica is not None:
            return self._from_consensus(self.replica.step(pbft.Certificated(certificate)))
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

    def _enrol(self) -> list[Effect]:
        """Enrol for the tasks that the operator wants to mine for, and come back when suspended."""
        if out.TRAINER not in self._workers:
            return []
        wanted, units = self.settings.tasks, self.settings.units
        effects, signed = self._operations.enrolments(self.ledger, self._desks, wanted, units, self._ticks)
        for one in signed:
            effects += self._on_asked(one)
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
            case pbft.Accuse(key, reason, evidence):
                name = f"evidence/{key.hex()}"
                text = f"{short(key)} is guilty: {reason}"
                return [out.Note(name, b"".join(encode(one) for one in evidence)), self._log(text, logging.ERROR)]
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
            fewest = min(OPERATIONS_TOGETHER, self.parameters.batch_records_max) if self.replica.in_flight() else 1
            batch = self._agenda.take(self.parameters.batch_records_max, self.ledger.nonce, fewest)
            if batch is None:
                break
            effects += self._from_consensus(self.replica.step(pbft.Proposed(batch_digest(batch), batch)))
        return effects

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
        effects = self._execute(batch)
        header = self.ledger.header
        assert header is not None
        effects += self._from_consensus(self.replica.step(pbft.Executed(header)))
        return effects + self._after(batch)

    def _execute(self, batch: Batch) -> list[Effect]:
        """The ledger takes the next height."""
        executed = execute(self.ledger, batch)
        # The first height stores the genesis state with it: before that there is nothing that a genesis file lacks.
        changes = executed.changes if self.height else executed.ledger.entries.items()
        self.ledger = executed.ledger
        self._follower.progressed()
        self._operations.executed(executed.receipts, executed.changes)
        self._moved.update((task, None) for key, _ in executed.changes if (task := task_of(key)) is not None)
        effects: list[Effect] = [out.Store(executed.header, batch, tuple(changes))]
        for receipt in executed.receipts:
            if receipt.reason:
                effects.append(self._log(f"height {self.height}: record {short(receipt.record)}: {receipt.reason}"))
        return effects

    def _after(self, batch: Batch) -> list[Effect]:
        """What follows from the new state: for the agenda, for the rounds, for what is being judged."""
        effects: list[Effect] = []
        names = [record_digest(record) for record in batch.records]
        effects += self._due([pbft.Settled(operation_key(one)) for one in batch.records if isinstance(one, Signed)])
        self._agenda.executed(names)
        effects += self._due(self._operations.clear(self.ledger))
        moved = [self.ledger.task(name) for name in self._moved]
        self._moved.clear()
        for task in [one for one in moved if one is not None]:
            self._agenda.drop_stale(task.id, task.round)
            effects += self._from_rounds(self._desks.changed(task, self.ledger.spec(task.id), self.height))
        if self.certified >= self.height:
            effects += self._from_rounds(self._desks.certified(self.certified))
        return effects + self._judge_again()

    def _on_certified(self, certificate: Certificate) -> list[Effect]:
        height = certificate.header.height
        self.certified = max(self.certified, height)
        effects: list[Effect] = [out.StoreCertificate(certificate)]
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
        before = self.height
        for run in certified_runs(block for block in blocks if block.header.height > before):
            if [block.header.height for block in run] != list(range(self.height + 1, self.height + 1 + len(run))):
                break
            fault = blocks_fault(run, self.group)
            if fault:
                effects.append(out.Refuse(peer, fault))
                break
            effects += self._follow(run)
        self._follower.answered(peer, self.height - before)
        if self.height > before:
            effects.append(self._log(f"followed {self.height - before} certified heights to {self.height}"))
        return effects

    def _follow(self, run: tuple[Block, ...]) -> list[Effect]:
        """Execute blocks that have been proved."""
        effects: list[Effect] = []
        for block in run:
            effects += self._execute(block.batch)
            assert self.ledger.header == block.header, "our state is not the one that the network has certified"
        certificate = run[-1].certificate()
        assert certificate is not None
        self.certified = self.height
        effects.append(out.StoreCertificate(certificate))
        if self.replica is not None:
            effects += self._from_consensus(self.replica.followed(certificate))
        for block in run:
            effects += self._after(block.batch)
        return effects

    # Rounds

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
                return [out.Note(name, data)]
            case rounds.Propose(record):
                if isinstance(record, Update) and record.aggregate != NO_BLOB and not self._trusted:
                    return []  # a sum that we do not vouch for; the primary after us will
                self._agenda.add_record(record)
                return []
            case rounds.Await(key):
                return self._due([pbft.Awaited(key)])
            case rounds.Settle(key):
                return self._due([pbft.Settled(key)])
            case rounds.Ignore(reason):
                return [out.Ignore(reason)]
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

    def _seat(self) -> str:
        return f"{self.group.keys.index(self.signer.key) + 1} of {len(self.group.keys)}"

    def _log(self, text: str, level: int = logging.INFO) -> out.Log:
        return out.Log(level, text)
