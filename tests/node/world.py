"""Several nodes in one process on virtual time: the real machine, ledger and arithmetic, a cheap trainer, no sockets.

Time is ticks. Messages, fetches and jobs take a few ticks each, drawn from the seed. A node's journal keeps what was
persisted, so that a node can be stopped at any moment and started again from it. What was ever said and written is
kept beside it, and `check` holds it against what no run may ever show.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from potd.arithmetic.quantise import encode_payload
from potd.arithmetic.selftest import GOLDEN
from potd.arithmetic.work import answer as add_up
from potd.consensus.quorum import certificate_fault
from potd.ledger.entries import Task
from potd.ledger.state import supply
from potd.node import events as ev
from potd.node.node import Node, Restored, Settings
from potd.wire.blobs import read_blob, write_blob
from potd.wire.blocks import Batch, Block, Certificate, Header, batch_digest
from potd.wire.codec import decode, encode
from potd.wire.consensus import (
    WORDS,
    Commit,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    Proposal,
    Recollect,
    Recollected,
    Refusal,
    Status,
    ViewChange,
)
from potd.wire.envelope import Signed, Signer, verify
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import BlobRef, Digest, Key, digest, short
from potd.wire.jobs import Aggregate, Aggregated, Answer, Applied, Apply, Evaluate, Evaluated, Job, Train, Trained
from potd.wire.operations import OPERATIONS, Submit
from potd.wire.rounds import Commitment, Draft, Report
from potd.wire.tasks import EncodingSpec, Manifest, ModelSpec, OptimiserSpec, Shard, TaskSpec
from potd.wire.transfer import Part, Snapshot, WantPart, WantSnapshot

MODEL = ModelSpec("mlp", (8, 4), 36)
WRITES = (ev.Keep, ev.Forget, ev.Store, ev.StoreCertificate, ev.StoreSnapshot, ev.Note)


class Disk:
    """What one node has made durable, with everything after the last sync lost in a crash."""

    def __init__(self) -> None:
        self.records: list[tuple[int, Signed | Prepared | Batch]] = []
        self.ever: list[Signed] = []  # all that was ever kept, for whoever checks votes
        self.blocks: dict[int, tuple[Header, Batch]] = {}
        self.certificates: dict[int, Certificate] = {}
        self.entries: dict[bytes, bytes] = {}
        self.notes: dict[str, bytes] = {}
        self.held: set[BlobRef] = set()
        self.snapshot: Certificate | None = None  # what the blocks follow on, if that is not genesis

    def restored(self, boot: Digest) -> Restored:
        height = max(self.blocks, default=0)
        newest = max(self.certificates, default=0)
        snapshot = self.snapshot
        return Restored(
            self.blocks[height][0] if height else snapshot.header if snapshot is not None else None,
            self.certificates[newest] if newest else snapshot,
            tuple(self.entries.items()),
            tuple(record for _, record in self.records),
            dict(self.notes),
            tuple(sorted(self.held)),
            boot,
            snapshot.header.height if snapshot is not None else 0,
        )


class Member:
    """One node with its disk; `node` is None while it is stopped."""

    def __init__(self, seed: bytes, network: Digest, settings: Settings) -> None:
        self.signer = Signer(seed, network)
        self.settings = settings
        self.disk = Disk()
        self.node: Node | None = None
        self.hidden: set[BlobRef] = set()
        self.wanted: set[BlobRef] = set()
        self.life = 0
        self.log: list[str] = []
        self.told: list[ev.Tell] = []
        self.refused: list[str] = []
        self.sent: list[bytes] = []  # every frame and message that left, over all lives
        self.lie: Callable[[Aggregate, Aggregated], Aggregated] | None = None  # what its arithmetic makes of a sum


class World:
    """`size` nodes that validate and mine, then `miners` that only mine, then `clients` that do neither."""

    def __init__(
        self,
        folder: Path,
        size: int = 4,
        seed: int = 0,
        patience_ticks: int = 60,
        *,
        miners: int = 0,
        clients: int = 0,
        **parameters: int,
    ) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        seeds = [bytes([index + 1]) * 32 for index in range(size + miners + clients)]
        self.keys = tuple(Signer(one, bytes(32)).key for one in seeds)
        self.validators = self.keys[:size]
        self.genesis = Genesis(
            "test",
            1,
            0,
            self.validators,
            tuple(Allotment(key, 10**12) for key in self.keys),
            Parameters(patience_ticks=patience_ticks, **({"reveal_ticks": 40} | parameters)),
        )
        self.network = genesis_digest(self.genesis)
        both = Settings(validator=True, miner=True, units=1, tasks=None, trainer=True)
        roles = [both] * size + [replace(both, validator=False)] * miners
        roles += [replace(both, validator=False, miner=False, trainer=False)] * clients
        self.members = {
            key: Member(one, self.network, role) for key, one, role in zip(self.keys, seeds, roles, strict=True)
        }
        self.cut: set[tuple[Key, Key]] = set()  # links that carry nothing
        self.tamper: Callable[[Key, ev.Effect], ev.Effect | None] | None = None  # a liar at the wire
        self.assassin: Callable[[Key, ev.Effect], bool] | None = None  # whether to kill a node after this effect
        self.journal_ahead = False  # whether a node killed so has still written what it was to write, and sent no more
        self.corrupt: Callable[[Key, Snapshot | Part], Snapshot | Part | None] | None = None  # what a peer makes of it
        self.watch: Callable[[Key, ev.Effect], None] | None = None
        self._sums: dict[Aggregate | Apply, Aggregated | Applied] = {}  # worked out once, by whoever comes first
        for key in self.keys:
            self.start(key)

    # Life and death

    def start(self, key: Key) -> None:
        member = self.members[key]
        assert member.node is None
        member.life += 1
        member.hidden.clear()
        member.wanted.clear()
        boot = digest("boot", key, member.life.to_bytes(8, "big"))
        member.node = Node(member.settings, self.genesis, member.signer, GOLDEN, member.disk.restored(boot))
        self._carry_out(key, member.node.start())
        life = member.life
        for other in self.keys:
            if other != key and self.members[other].node is not None:
                self._later(1, lambda other=other: self._meet(key, other))  # type: ignore[misc]  # binds the loop's value
        self._later(2, lambda: self.input(key, ev.WorkerReady("arithmetic", "cpu", GOLDEN), life))
        self._later(3, lambda: self.input(key, ev.WorkerReady("trainer", "cpu", bytes(32)), life))
        self._later(1, lambda: self._tick(key, life))

    def stop(self, key: Key) -> None:
        """kill -9."""
        self.members[key].node = None
        for other in self.keys:
            if other != key:
                self.input(other, ev.PeerDown(key))

    def node(self, key: Key) -> Node:
        """A node that runs."""
        node = self.members[key].node
        assert node is not None, f"{short(key)} is stopped"
        return node

    def running(self) -> list[Key]:
        return [key for key in self.keys if self.members[key].node is not None]

    def part(self, *groups: tuple[Key, ...]) -> None:
        """Links carry within a group only, until `heal`."""
        side = {key: index for index, group in enumerate(groups) for key in group}
        self.cut = {(one, other) for one in self.keys for other in self.keys if side[one] != side[other]}

    def heal(self) -> None:
        self.cut = set()

    def _meet(self, one: Key, other: Key) -> None:
        for mine, theirs in ((one, other), (other, one)):
            node = self.members[theirs].node
            if node is not None:
                self.input(mine, ev.PeerUp(theirs, node.height))

    def _tick(self, key: Key, life: int) -> None:
        if self.members[key].node is not None and self.members[key].life == life:
            self.input(key, ev.Ticked(), life)
            self._later(1, lambda: self._tick(key, life))

    # Time

    def _later(self, ticks: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + ticks, next(self._order), act))

    def run(self, until: Callable[[], bool], ticks: int) -> None:
        """Go on until the condition holds; fails after so many ticks."""
        end = self.now + ticks
        while not until():
            assert self._queue, "nothing is left to happen"
            assert self._queue[0][0] <= end, self.describe()
            self.now = self._queue[0][0]
            while self._queue and self._queue[0][0] == self.now:
                heapq.heappop(self._queue)[2]()

    def pass_time(self, ticks: int) -> None:
        end = self.now + ticks
        self._later(ticks, lambda: None)
        self.run(lambda: self.now >= end, ticks)

    def reach(self, number: int, ticks: int, *keys: Key) -> None:
        """Until these nodes, or all that run, know the first task to be in this round."""
        self.run(lambda: min(map(self.round, keys or self.running())) >= number, ticks)

    def agree(self, ticks: int = 600) -> None:
        """Until all that run stand at one height, and this is certified at all of them."""

        def agreed() -> bool:
            nodes = [self.node(key) for key in self.running()]
            level = {(node.height, node.certified) for node in nodes}
            return len(level) == 1 and all(height == certified for height, certified in level)

        self.run(agreed, ticks)

    def describe(self) -> str:
        lines = [f"at tick {self.now}"]
        for key, member in self.members.items():
            lines.append(f"{key.hex()[:8]}:")
            if member.node is not None:
                replica = member.node.replica
                lines.append(f"  height {member.node.height}, {replica.describe() if replica else 'no replica'}")
                for task in member.node.ledger.tasks():
                    lines.append(f"  round {task.round}, phase {task.phase}, lapses {task.lapses}")
            lines += [f"  {line}" for line in member.log[-6:]]
        return "\n".join(lines)

    # Inputs and effects

    def tell(self, key: Key, event: ev.Input, ticks: int = 0) -> None:
        """Give a node an input from outside this world, now or later."""
        self._later(ticks, lambda: self.input(key, event))

    def input(self, key: Key, event: ev.Input, life: int | None = None) -> None:
        member = self.members[key]
        if member.node is None or (life is not None and member.life != life):
            return
        self._carry_out(key, member.node.step(event))

    def _carry_out(self, key: Key, effects: list[ev.Effect]) -> None:
        for index, effect in enumerate(effects):
            changed = self.tamper(key, effect) if self.tamper is not None else effect
            if changed is not None:
                if self.watch is not None:
                    self.watch(key, changed)
                self._effect(key, changed)
            if self.assassin is not None and self.assassin(key, effect):
                for write in effects[index + 1 :] if self.journal_ahead else ():
                    if isinstance(write, WRITES):
                        self._effect(key, write)
                self.stop(key)
                return

    def _effect(self, key: Key, effect: ev.Effect) -> None:
        member = self.members[key]
        life = member.life
        match effect:
            case ev.Keep(seq, record):
                self._keep(member.disk, seq, record)
            case ev.Forget(seq):
                member.disk.records = [one for one in member.disk.records if one[0] > seq]
            case ev.Store(header, batch, entries):
                member.disk.blocks[header.height] = (header, batch)
                for name, value in entries:
                    if value is None:
                        member.disk.entries.pop(name, None)
                    else:
                        member.disk.entries[name] = value
            case ev.StoreCertificate(certificate):
                member.disk.certificates[certificate.header.height] = certificate
            case ev.StoreSnapshot(certificate, entries):
                member.disk.snapshot, member.disk.entries = certificate, dict(entries)
                member.disk.blocks, member.disk.certificates = {}, {}
            case ev.Note(name, data):
                member.disk.notes[name] = data
            case ev.Send(to, data):
                member.sent.append(data)
                if (key, to) not in self.cut:
                    self._later(self._delay(), lambda: self.input(to, ev.Framed(key, data)))
            case ev.Publish(topic, data):
                member.sent.append(data)
                for other in self.keys:
                    if other != key and (key, other) not in self.cut:
                        self._later(self._delay(), lambda other=other: self.input(other, ev.Gossiped(topic, data)))  # type: ignore[misc]  # binds the loop's value
            case ev.Fetch(ref, _):
                member.wanted.add(ref)
                self._later(1, lambda: self._fetch(key, ref, life, ev.Fetched(ref)))
            case ev.Unfetch(ref):
                member.wanted.discard(ref)
            case ev.Read(ref):
                member.wanted.add(ref)
                self._later(1, lambda: self._read(key, ref, life))
            case ev.FetchBatch(name, peers):
                self._later(2, lambda: self._fetch_batch(key, name, peers, life))
            case ev.FetchBlocks(peer, first):
                self._later(2, lambda: self._fetch_blocks(key, peer, first, life))
            case ev.FetchSnapshot(peer, height, base):
                want = WantSnapshot(height, base)
                self._later(2, lambda: self._fetch_state(key, peer, ev.SnapshotFetched(peer, height, None), want, life))
            case ev.FetchPart(peer, height, prefix):
                wanted = WantPart(height, prefix.bits, prefix.length)
                unanswered = ev.PartFetched(peer, height, prefix, None)
                self._later(2, lambda: self._fetch_state(key, peer, unanswered, wanted, life))
            case ev.Hide(ref):
                member.hidden.add(ref)
            case ev.Reveal(ref):
                member.hidden.discard(ref)
            case ev.Retain(_, surplus):
                member.disk.held.difference_update(surplus)
            case ev.Run(_, job):
                self._later(self.random.randint(1, 4), lambda: self._work(key, job, life))
            case ev.Refuse(_, reason) | ev.Ignore(reason):
                member.refused.append(reason)
            case ev.Log(_, text):
                member.log.append(f"{self.now}: {text}")
            case ev.Tell():
                member.told.append(effect)

    def _delay(self) -> int:
        return self.random.choice((0, 0, 1, 1, 2))

    def _keep(self, disk: Disk, seq: int, record: Signed | Prepared | Batch) -> None:
        if seq == 2**62:
            assert isinstance(record, Signed)
            verify(record, self.network, ViewChange, NewView)
            disk.records = [one for one in disk.records if one[0] != 2**62]
        disk.records.append((seq, record))
        if isinstance(record, Signed):
            disk.ever.append(record)

    def _linked(self, one: Key, other: Key) -> bool:
        return (one, other) not in self.cut and (other, one) not in self.cut

    def _holder(self, key: Key, ref: BlobRef) -> bool:
        return any(
            other == key or (ref not in self.members[other].hidden and self.members[other].node is not None)
            for other in self.keys
            if ref in self.members[other].disk.held and (other, key) not in self.cut
        )

    def _fetch(self, key: Key, ref: BlobRef, life: int, answer: ev.Input) -> None:
        member = self.members[key]
        if member.life != life or ref not in member.wanted:
            return
        if not self._holder(key, ref):
            self._later(2, lambda: self._fetch(key, ref, life, answer))
            return
        member.disk.held.add(ref)
        member.wanted.discard(ref)
        self.input(key, answer, life)

    def _read(self, key: Key, ref: BlobRef, life: int) -> None:
        if self._holder(key, ref):
            self._fetch(key, ref, life, ev.BlobRead(ref, read_blob(self.folder, ref)))
        else:
            self._later(2, lambda: self._read(key, ref, life))

    def _fetch_batch(self, key: Key, name: Digest, peers: tuple[Key, ...], life: int) -> None:
        for peer in peers:
            node = self.members[peer].node
            batch = node.batch(name) if node is not None and self._linked(peer, key) else None
            if batch is not None:
                self.input(key, ev.BatchFetched(name, encode(batch)), life)
                return

    def _fetch_blocks(self, key: Key, peer: Key, first: int, life: int) -> None:
        blocks: list[Block] = []
        disk = self.members[peer].disk
        answers = self.members[peer].node is not None and self._linked(peer, key)
        while answers and first in disk.blocks and (len(blocks) < 8 or not blocks[-1].attestations):
            header, batch = disk.blocks[first]
            certificate = disk.certificates.get(first)
            blocks.append(Block(header, certificate.attestations if certificate is not None else (), batch))
            first += 1
        self.input(key, ev.BlocksFetched(peer, tuple(blocks)), life)

    def _fetch_state(
        self,
        key: Key,
        peer: Key,
        unanswered: ev.SnapshotFetched | ev.PartFetched,
        want: WantSnapshot | WantPart,
        life: int,
    ) -> None:
        node = self.members[peer].node if self._linked(peer, key) else None
        answer: Snapshot | Part | None = None
        if node is not None:
            answer = node.snapshot(want) if isinstance(want, WantSnapshot) else node.part(want)
        if answer is not None and self.corrupt is not None:
            answer = self.corrupt(peer, answer)
        answered: ev.SnapshotFetched | ev.PartFetched = unanswered
        if isinstance(answer, Snapshot) and isinstance(unanswered, ev.SnapshotFetched):
            answered = replace(unanswered, snapshot=answer)
        elif isinstance(answer, Part) and isinstance(unanswered, ev.PartFetched):
            answered = replace(unanswered, part=answer)
        self.input(key, answered, life)

    # Workers

    def _work(self, key: Key, job: Job, life: int) -> None:
        member = self.members[key]
        if member.node is None or member.life != life:
            return
        done: Answer
        match job:
            case Aggregate() | Apply():
                done = self._add_up(job, member)
            case Train():
                done = self._train(job)
            case Evaluate():
                done = Evaluated(job.job, 7, 10, 1_000, 1)
        for name in ("payload", "aggregate", "model", "momentum"):
            ref = getattr(done, name, None)
            if isinstance(ref, BlobRef) and ref.size:
                member.disk.held.add(ref)
        self.input(key, ev.JobDone(done), life)

    def _add_up(self, job: Aggregate | Apply, member: Member) -> Answer:
        known = replace(job, job=0)
        if known not in self._sums:
            done = add_up(known, self.folder)
            assert isinstance(done, Aggregated | Applied), done
            self._sums[known] = replace(done, milliseconds=1)  # what a clock says is no part of this world
        answer = replace(self._sums[known], job=job.job)
        if member.lie is not None and isinstance(job, Aggregate) and isinstance(answer, Aggregated):
            return member.lie(job, answer)
        return answer

    def _train(self, job: Train) -> Trained:
        """The gradient of half the squared distance to a fixed point, with noise that follows from the batch."""
        theta = np.nan_to_num(np.frombuffer(read_blob(self.folder, job.model), "<f4"))  # it commits to whatever comes
        noise = np.random.RandomState(sum(job.samples) % 2**32).standard_normal(len(theta)).astype(np.float32)
        gradient = theta - np.float32(1) + noise / np.float32(8)
        payload = write_blob(self.folder, job.binding + encode_payload(gradient, job.spec.encoding))
        return Trained(job.job, payload, len(job.samples), True, int(1e6 * float(np.square(theta - 1).mean())), 1)

    # A task

    def submit(self, rounds: int = 10, **changes: object) -> bytes:
        """Have the first node open a task; returns its name once it is known to it."""
        first, node = self.members[self.keys[0]], self.node(self.keys[0])
        weights = write_blob(self.folder, np.zeros(MODEL.parameters, "<f4").tobytes())
        shards = tuple(Shard(write_blob(self.folder, digest("shard", bytes([index]))), 16) for index in range(9))
        manifest = Manifest("toy", "", "", (8,), 4, shards[:8], shards[8:])
        named = write_blob(self.folder, encode(manifest))
        first.disk.held.update({weights, named, *(shard.blob for shard in shards)})
        values: dict[str, object] = {
            "name": "toy",
            "model": MODEL,
            "weights": weights,
            "manifest": named,
            "samples": 128,
            "loss": "cross_entropy",
            "optimiser": OptimiserSpec("nesterov", 500_000, (200_000,)),
            "encoding": EncodingSpec("int8", 16, -20, 0),
            "rule": "clip",
            "rig_class": "float32",
            "unit_batch": 8,
            "rounds": rounds,
            "window_rounds": 4,
            "miners_min": 2,
            "pay_micro": 1_000,
            "validators_ppm": 100_000,
            "deadline_ticks_min": 20,
            "deadline_ticks_max": 100,
            "evaluate_every": 5,
        }
        spec = TaskSpec(**(values | changes))  # type: ignore[arg-type]  # the values above, some of them replaced
        signed = first.signer.sign(Submit(node.account, node.next_nonce(), spec, 10**9))
        count = len(node.ledger.task_ids())
        self.input(self.keys[0], ev.OperationAsked(signed))
        self.run(lambda: len(node.ledger.task_ids()) > count, 100)
        return node.ledger.task_ids()[-1]

    def task(self, key: Key, index: int = 0) -> Task:
        """A task as this node knows it."""
        node = self.node(key)
        task = node.ledger.task(node.ledger.task_ids()[index])
        assert task is not None
        return task

    def round(self, key: Key) -> int:
        """The round of the first task, as this node knows it; -1 if it is stopped or knows none."""
        node = self.members[key].node
        if node is None or not node.ledger.task_ids():
            return -1
        return next(iter(node.ledger.tasks())).round

    # What no run may ever show

    def check(self, *liars: Key) -> None:
        """Of the honest: one answer to each question, one header a height, all the money, and nobody accused."""
        honest = [key for key in self.keys if key not in liars]
        for key in honest:
            self._check_words(key)
        self._check_chain(honest)
        for key in honest:
            if self.members[key].node is not None:
                assert supply(self.node(key).ledger) == sum(one.amount_micro for one in self.genesis.balances)
            for one in honest:
                assert not any(f"{short(one)} is guilty" in line for line in self.members[key].log)

    def _check_words(self, key: Key) -> None:
        """No vote, report, draft or commitment, said or written, contradicts another of the same key, in any life."""
        member = self.members[key]
        answers: dict[tuple[object, ...], bytes] = {}
        for signed in dict.fromkeys((*member.disk.ever, *signed_by(key, member.sent))):
            if signed.key != key:
                continue  # a new view, kept by who follows it
            message = verify(signed, self.network, *SPOKEN)
            if not isinstance(message.body, Status | Recollect | Recollected):
                question = asked(message.body)
                known = answers.setdefault(question, signed.payload)
                assert known == signed.payload, f"{short(key)} said two things: {question}"

    def _check_chain(self, honest: list[Key]) -> None:
        headers: dict[int, Header] = {}
        certificates: dict[int, Certificate] = {}
        for disk in (self.members[key].disk for key in honest):
            for height, (header, batch) in disk.blocks.items():
                assert headers.setdefault(height, header) == header, f"two headers at height {height}"
                assert header.batch == batch_digest(batch)
            for height, certificate in disk.certificates.items():
                certificates.setdefault(height, certificate)
                assert certificate.header == headers[height]
        group = self.node(self.running()[0]).group
        assert {certificate_fault(one, group) for one in certificates.values()} <= {""}
        assert sorted(certificates) == list(range(1, len(certificates) + 1)), "a height that nobody can prove"


SPOKEN = (*WORDS, Report, Draft, Commitment, *OPERATIONS)


def signed_by(key: Key, sent: list[bytes]) -> list[Signed]:
    """The messages of one key among frames and gossip, each once, in order."""
    found: dict[Signed, None] = {}
    for data in dict.fromkeys(sent):
        envelope = decode(data, Signed, Proposal, Certificate)
        signed = envelope.pre_prepare if isinstance(envelope, Proposal) else envelope
        if isinstance(signed, Signed) and signed.key == key:
            found[signed] = None
    return list(found)


def asked(body: object) -> tuple[object, ...]:
    """The question that a message answers, to which an honest node has one answer for ever."""
    kind = type(body).__name__
    match body:
        case PrePrepare() | Prepare() | Commit():
            return kind, body.view, body.seq
        case Refusal():
            return "Prepare", body.view, body.seq  # who has refused does not agree
        case Header():
            return kind, body.height
        case ViewChange() | NewView():
            return kind, body.view
        case Report():
            return kind, body.task, body.round, body.step
        case Draft():
            return kind, body.task, body.round, body.base, body.view
        case Commitment():
            return kind, body.task, body.round
        case _:
            return kind, getattr(body, "nonce", None)


def traced(world: World) -> Callable[[], str]:
    """Follow all that the nodes order from now on; the function returned names it by a digest."""
    state = hashlib.sha256()

    def watch(key: Key, effect: ev.Effect) -> None:
        state.update(f"{world.now} {short(key)} {effect!r}".encode())

    world.watch = watch
    return state.hexdigest
