"""Nodes in one process on virtual time: their lives, what they are told, and carrying out what they order.

A node takes what waits in its inbox, and all that it wrote is synced before anything behind a write leaves, as in the
daemon's pump. It can be stopped at any moment and started again from its disk. What no run may ever show is checked at
every step.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from random import Random

from potd.arithmetic.selftest import GOLDEN
from potd.ledger.entries import Task
from potd.ledger.state import Ledger
from potd.node import events as ev
from potd.node.node import Node, Settings
from potd.simulation.checks import Checks, Violation
from potd.simulation.clock import Clock
from potd.simulation.disk import Disk, Write
from potd.simulation.network import Network, Place
from potd.simulation.trainer import Workers, blobs_of, toy_task
from potd.simulation.transcript import trace_of
from potd.simulation.words import kind_of
from potd.wire.blobs import read_blob
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer
from potd.wire.genesis import TICK_MS, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import BlobRef, Digest, Key, account_id, digest, short
from potd.wire.jobs import Aggregate, Aggregated, Answer, Job, Replayed, Trained
from potd.wire.operations import Submit, Transfer
from potd.wire.transfer import Part, Snapshot, WantPart, WantSnapshot

DRAINED_MAX = 512  # inputs between two syncs, as in the pump
OWED_MS = 1_000  # so long at most a write waits for others, as in the pump
AGAIN_MS = 100  # between two attempts at getting a blob
LATENCY_MS = 50  # of an answer to a question on a stream
MICRO = 10**12  # that every account begins with


class Member:
    """One node with its disk; `node` is None while it is stopped."""

    def __init__(self, place: Place, signer: Signer, abroad: Signer, customer: Signer, settings: Settings) -> None:
        self.place = place
        self.signer = signer
        self.abroad = abroad  # the same key on another network
        self.customer = customer  # who has its transfers done by this node
        self.settings = settings
        self.disk = Disk()
        self.disk_ms = (1, 3)  # that a sync takes
        self.tick_ms = TICK_MS
        self.node: Node | None = None
        self.life = 0  # how often it was started or stopped
        self.inbox: deque[ev.Input] = deque()
        self.tick_waits = False  # one that the node has not taken yet is not doubled
        self.busy = False  # with a sync: what it orders waits
        self.unsynced: list[ev.Effect] = []  # from the first write on
        self.owed_since = 0  # when the oldest write that waits for others was made
        self.hidden: set[BlobRef] = set()
        self.wanted: set[BlobRef] = set()
        self.offered: list[Signed] = []  # by its customer, ever
        self.log: list[str] = []
        self.told: list[ev.Tell] = []
        self.refused: list[str] = []
        self.sent: dict[bytes, None] = {}  # every frame and message that left, over all lives, once
        self.lie: Callable[[Aggregate, Aggregated], Aggregated] | None = None  # what its arithmetic makes of a sum
        self.noise: Callable[[Trained], Trained] | None = None  # what its trainer makes of a gradient
        self.slander: Callable[[Replayed], Replayed] | None = None  # what its trainer makes of a replay
        self.assassin: Callable[[ev.Effect], bool] | None = None  # whether to kill it after this effect


class World:
    """`size` nodes that validate and mine, then `candidates` that will validate once they are given a seat, then
    `miners` that only mine, then `clients` that do neither."""

    def __init__(
        self,
        folder: Path,
        size: int = 4,
        seed: int = 0,
        patience_ticks: int = 60,
        *,
        candidates: int = 0,
        miners: int = 0,
        clients: int = 0,
        idle: int = 0,  # of the validators, the last so many, that do not mine
        absent: int = 0,  # the last so many nodes, that are not there at first
        twins: Collection[int] = (),  # the nodes whose key a second machine has too
        heirs: Collection[int] = (),  # the nodes that have a next key for when the present one gives way
        **parameters: int,
    ) -> None:
        self.folder = folder
        self.random = Random(seed)
        self.clock = Clock()
        seeds = [_seed(index) for index in range(size + candidates + miners + clients)]
        self.keys: tuple[Key, ...] = tuple(Signer(one, bytes(32)).key for one in seeds)
        self.validators = self.keys[:size]
        hired = [digest("customer", one) for one in seeds]
        rich = (*self.keys, *(Signer(one, bytes(32)).key for one in hired))
        self.genesis = Genesis(
            "test",
            1,
            0,
            self.validators,
            tuple(Allotment(key, MICRO) for key in rich),
            Parameters(patience_ticks=patience_ticks, **({"reveal_ticks": 40} | parameters)),
        )
        self.network: Digest = genesis_digest(self.genesis)
        both = Settings(validator=True, miner=True, units=1, tasks=None, trainer=True)
        roles = [both] * (size - idle) + [replace(both, miner=False)] * idle
        roles += [replace(both, miner=False)] * candidates
        roles += [replace(both, validator=False)] * miners
        roles += [replace(both, validator=False, miner=False, trainer=False)] * clients
        elsewhere = digest("another network")
        self.members: dict[Place, Member] = {}
        for key, one, customer, role in zip(self.keys, seeds, hired, roles, strict=True):
            self.members[key] = Member(
                key, Signer(one, self.network), Signer(one, elsewhere), Signer(customer, self.network), role
            )
        self.twins = {self.keys[index]: digest("twin", self.keys[index]) for index in sorted(twins)}
        for key, place in self.twins.items():
            first = self.members[key]
            self.members[place] = Member(place, first.signer, first.abroad, first.customer, first.settings)
        self.heirs: dict[Key, Key] = {}
        for key in (self.keys[index] for index in sorted(heirs)):
            first, seed_of_next = self.members[key], digest("heir", key)
            signer = Signer(seed_of_next, self.network)
            self.heirs[key] = signer.key
            next_one = Member(signer.key, signer, Signer(seed_of_next, elsewhere), first.customer, first.settings)
            next_one.offered = first.offered
            self.members[signer.key] = next_one
        self.places: tuple[Place, ...] = tuple(self.members)
        self.hearers = self.keys  # to whom liars tell one thing or another
        self._side = {place: index % 2 for index, place in enumerate(self.places)}  # of two twins, whose friend it is
        self.links = Network(self.places, self.clock, self.random)
        self.checks = Checks(self.genesis, (*self.keys, *self.heirs.values()))
        self.tamper: Callable[[Place, ev.Effect], ev.Effect | None] | None = None  # a liar at the wire
        self.corrupt: Callable[[Place, Snapshot | Part], Snapshot | Part | None] | None = (
            None  # what a peer makes of it
        )
        self.watchers: list[Callable[[Place, ev.Effect], None]] = [self.checks.carried_out]
        self.chronicle: Callable[[str], None] = _unheard  # told what befalls the world
        self._trace = hashlib.sha256()
        self.steps = 0
        self._workers = Workers(folder)
        for place in (*self.keys[: len(self.keys) - absent], *self.twins.values()):
            self.start(place)

    @property
    def now(self) -> int:
        """Milliseconds since the beginning."""
        return self.clock.now

    def trace(self) -> str:
        """Names all that the nodes have ordered so far, and when."""
        return self._trace.hexdigest()

    # Life and death

    def start(self, place: Place) -> None:
        member = self.members[place]
        assert member.node is None
        member.life += 1
        member.hidden.clear()
        member.wanted.clear()
        boot = digest("boot", place, member.life.to_bytes(8, "big"))
        member.node = Node(member.settings, self.genesis, member.signer, GOLDEN, member.disk.restored(boot))
        self._carry_out(member, member.node.start())
        life = member.life
        for other in self.neighbours(place):
            if self.members[other].node is not None:
                self.clock.later(self._latency(), lambda other=other: self._meet(place, other))  # type: ignore[misc]  # binds the loop's value
        self.tell(place, ev.WorkerReady(ev.ARITHMETIC, "cpu", GOLDEN), 2, life)
        if member.settings.trainer:
            self.tell(place, ev.WorkerReady(ev.TRAINER, "cpu", bytes(32)), 3, life)
        answered = member.node.ledger.nonce(account_id(member.customer.key))
        for signed in member.offered[answered:]:  # whoever has had no answer asks again
            self.tell(place, ev.OperationAsked(signed), 4, life)
        self.clock.later(self.random.randint(1, member.tick_ms), lambda: self._tick(member, life))

    def stop(self, place: Place) -> None:
        """kill -9, or a power cut: of what was being written, any first part is on the disk."""
        member = self.members[place]
        assert member.node is not None
        writes = [one for one in member.unsynced if isinstance(one, Write)]
        owed = len(member.disk.owed)
        done = self.random.randint(0, owed + len(writes))
        member.disk.lose(min(done, owed))
        for write in writes[: max(0, done - owed)]:
            self._written(member, write)
        member.node = None
        member.life += 1
        member.inbox.clear()
        member.unsynced = []
        member.busy = member.tick_waits = False
        for other in self.neighbours(place):
            self.input(other, ev.PeerDown(member.signer.key))

    def succeed(self, key: Key) -> bool:
        """Stop a node, and start it with its next key, if the ledger on its disk says that it is the account's now, and
        who decides since then is certified; with the present one otherwise. Whether it has the next one."""
        member, heir = self.members[key], self.members[self.heirs[key]]
        self.stop(key)
        found = member.disk.restored(bytes(32))
        certified = found.certificate.header.height if found.certificate is not None else 0
        ledger = Ledger.from_entries(found.entries, found.header) if found.header is not None else None
        account = ledger.account(ledger.account_of(heir.signer.key)) if ledger is not None else None
        passed_on = account is not None and account.node_key == heir.signer.key
        if ledger is None or not passed_on or certified < ledger.seats().base:
            self.start(key)
            return False
        heir.disk, heir.disk_ms, heir.tick_ms = member.disk, member.disk_ms, member.tick_ms
        heir.disk.pass_on()
        self.start(heir.place)
        return True

    def doom(self, place: Place, effects: int) -> None:
        """Kill it when so many more of its effects have been carried out."""
        left = effects

        def due(_: ev.Effect) -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        self.members[place].assassin = due

    def node(self, place: Place) -> Node:
        """A node that runs."""
        node = self.members[place].node
        assert node is not None, f"{short(place)} is stopped"
        return node

    def neighbours(self, place: Place) -> list[Place]:
        """Whom it meets: everybody."""
        return [other for other in self.places if other != place]

    def running(self) -> list[Place]:
        return [place for place in self.places if self.members[place].node is not None]

    def distrust(self, *liars: Key) -> None:
        """These lie from now on: nothing is asked of them any more."""
        self.checks.distrust(*liars)

    def _meet(self, one: Place, other: Place) -> None:
        for mine, theirs in ((one, other), (other, one)):
            node = self.members[theirs].node
            if node is not None:
                self.input(mine, ev.PeerUp(self.members[theirs].signer.key, node.height))

    def _tick(self, member: Member, life: int) -> None:
        if member.life != life:
            return
        self.clock.later(member.tick_ms, lambda: self._tick(member, life))
        if not member.tick_waits:
            member.tick_waits = True
            self.input(member.place, ev.Ticked(), life)

    # Time

    def run(self, until: Callable[[], bool], ticks: int) -> None:
        """Go on until the condition holds; fails after so many ticks."""
        end = self.now + ticks * TICK_MS
        while not until():
            due = self.clock.next()
            assert due is not None, "nothing is left to happen"
            assert due <= end, self.describe()
            while self.clock.next() == due:
                self.clock.step()

    def pass_time(self, ticks: int) -> None:
        end = self.now + ticks * TICK_MS
        self.clock.later(ticks * TICK_MS, lambda: None)
        self.run(lambda: self.now >= end, ticks)

    def reach(self, number: int, ticks: int, *places: Place) -> None:
        """Until these nodes, or all that run, know the first task to be in this round."""
        self.run(lambda: min(map(self.round, places or self.running())) >= number, ticks)

    def agree(self, ticks: int = 600) -> None:
        """Until all that run stand at one height, and this is certified at all of them."""

        def agreed() -> bool:
            nodes = [self.node(place) for place in self.running()]
            level = {(node.height, node.certified) for node in nodes}
            return len(level) == 1 and all(height == certified for height, certified in level)

        self.run(agreed, ticks)

    def describe(self) -> str:
        lines = [f"at {self.now} ms"]
        for place, member in self.members.items():
            lines.append(f"{short(place)}:")
            if member.node is not None:
                replica = member.node.replica
                lines.append(f"  height {member.node.height}, {replica.describe() if replica else 'no replica'}")
                for task in member.node.ledger.tasks():
                    lines.append(f"  round {task.round}, phase {task.phase}, lapses {task.lapses}")
            lines += [f"  {line}" for line in member.log[-6:]]
        return "\n".join(lines)

    # Inputs

    def tell(self, place: Place, event: ev.Input, ms: int = 0, life: int | None = None) -> None:
        """Give a node an input from outside this world, now or later; in this life, or whenever it runs."""
        self.clock.later(ms, lambda: self.input(place, event, life))

    def input(self, place: Place, event: ev.Input, life: int | None = None) -> None:
        member = self.members[place]
        if member.node is None or (life is not None and member.life != life):
            return
        member.inbox.append(event)
        if not member.busy:
            self._turn(member)

    def _turn(self, member: Member) -> None:
        """What waits is stepped, input by input; then all that it brought is carried out."""
        assert member.node is not None
        effects: list[ev.Effect] = []
        for _ in range(min(DRAINED_MAX, len(member.inbox))):
            event = member.inbox.popleft()
            member.tick_waits = member.tick_waits and not isinstance(event, ev.Ticked)
            self.steps += 1
            try:
                effects += self._step(member.node, event)
            except AssertionError as error:
                self._failed(member, error)
                return
            self.checks.stepped(member.place, member.node)
        self._carry_out(member, effects)

    def _step(self, node: Node, event: ev.Input) -> list[ev.Effect]:
        return node.step(event)

    def _failed(self, member: Member, error: AssertionError) -> None:
        """A broken invariant ends a node. That of a liar may be the fault of its lies."""
        if member.place in self.checks.honest:
            raise Violation(f"{short(member.place)} ended: {error}") from error
        self.stop(member.place)

    # Effects

    def _carry_out(self, member: Member, effects: list[ev.Effect]) -> None:
        """In order; from the first write on, all wait until what was written is durable, unless nothing waits for any
        of it."""
        if not effects and not member.disk.owed:
            return
        if all(isinstance(one, ev.OWED) for one in effects if isinstance(one, Write)):
            first = len(effects)
        else:
            first = next(index for index, one in enumerate(effects) if isinstance(one, Write))
        life = member.life
        for effect in effects[:first]:
            if member.life == life:
                self._do(member, effect)
        overdue = bool(member.disk.owed) and self.now - member.owed_since > OWED_MS
        if member.life != life or (first == len(effects) and not overdue):
            return
        member.busy = True
        member.unsynced = effects[first:]
        self.clock.later(self.random.randint(*member.disk_ms), lambda: self._synced(member, life))

    def _synced(self, member: Member, life: int) -> None:
        if member.life != life:
            return
        effects, member.unsynced = member.unsynced, []
        member.disk.settle()
        for effect in effects:
            if isinstance(effect, Write) and member.life == life:
                self._written(member, effect)
                self._may_die(member, effect)
        for effect in effects:
            if not isinstance(effect, Write) and member.life == life:
                self._do(member, effect)
        if member.life == life:
            member.busy = False
            if member.inbox:
                self._turn(member)

    def _written(self, member: Member, effect: Write) -> None:
        member.disk.write(effect)
        self._seen(member, effect)

    def _seen(self, member: Member, effect: ev.Effect) -> None:
        self._trace.update(b"%d %s %s" % (self.now, member.place, trace_of(effect)))
        for watch in self.watchers:
            watch(member.place, effect)

    def _may_die(self, member: Member, effect: ev.Effect) -> None:
        if member.assassin is not None and member.assassin(effect):
            member.assassin = None
            self.stop(member.place)

    def _do(self, member: Member, effect: ev.Effect) -> None:
        if isinstance(effect, ev.OWED):
            if not member.disk.owed:
                member.owed_since = self.now
            member.disk.owe(effect)
            self._seen(member, effect)
            self._may_die(member, effect)
            return
        changed = self.tamper(member.place, effect) if self.tamper is not None else effect
        if changed is not None:
            self._seen(member, changed)
            self._effect(member, changed)
        self._may_die(member, effect)

    def _effect(self, member: Member, effect: ev.Effect) -> None:
        place, life = member.place, member.life
        match effect:
            case ev.Send(to, data):
                self.send(place, to, data)
            case ev.Publish(topic, data):
                self.publish(place, topic, data)
            case ev.Fetch(ref, _):
                member.wanted.add(ref)
                self.clock.later(self._latency(), lambda: self._fetch(member, ref, life, ev.Fetched(ref)))
            case ev.Unfetch(ref):
                member.wanted.discard(ref)
            case ev.Read(ref):
                member.wanted.add(ref)
                self.clock.later(self._latency(), lambda: self._read(member, ref, life))
            case ev.FetchBatch(name, peers):
                self.clock.later(2 * self._latency(), lambda: self._fetch_batch(member, name, peers, life))
            case ev.FetchBlocks(peer, first):
                self.clock.later(2 * self._latency(), lambda: self._fetch_blocks(member, peer, first, life))
            case ev.FetchSnapshot(peer, height, base):
                want = WantSnapshot(height, base)
                nothing = ev.SnapshotFetched(peer, height, None)
                self.clock.later(2 * self._latency(), lambda: self._fetch_state(member, peer, nothing, want, life))
            case ev.FetchPart(peer, height, prefix):
                wanted = WantPart(height, prefix.bits, prefix.length)
                unanswered = ev.PartFetched(peer, height, prefix, None)
                self.clock.later(2 * self._latency(), lambda: self._fetch_state(member, peer, unanswered, wanted, life))
            case ev.Hide(ref):
                member.hidden.add(ref)
            case ev.Reveal(ref):
                member.hidden.discard(ref)
            case ev.Retain(_, surplus):
                member.disk.held.difference_update(surplus)
            case ev.Run(_, job):
                self.clock.later(self.random.randint(20, 200), lambda: self._work(member, job, life))
            case ev.Refuse(_, reason) | ev.Ignore(reason):
                member.refused.append(reason)
            case ev.Log(_, text):
                member.log.append(f"{self.now}: {text}")
            case ev.Tell():
                member.told.append(effect)
            case _:
                assert isinstance(effect, Write)  # durable before we came here

    def send(self, place: Place, to: Key, data: bytes) -> None:
        """A frame leaves."""
        sender = self.members[place]
        sender.sent[data] = None
        there = self.place_of(to, place)
        if there is not None:
            event = ev.Framed(sender.signer.key, data)
            kind = kind_of(data) if self.links.losing else ""
            self.links.send(place, there, len(data), lambda: self.input(there, event), kind)

    def publish(self, place: Place, topic: str, data: bytes) -> None:
        """Gossip leaves."""
        self.members[place].sent[data] = None
        event = ev.Gossiped(topic, data)
        kind = kind_of(data) if self.links.losing else ""
        for other in self.places:
            if other != place:
                self.links.gossip(place, other, len(data), lambda other=other: self.input(other, event), kind)  # type: ignore[misc]  # binds the loop's value

    def place_of(self, key: Key, seen_from: Place) -> Place | None:
        """Where whoever has this key stands: of two twins, the one that this place knows; None where it knows neither,
        for twins do not meet the friends of the other."""
        mine = self.members[seen_from].signer.key
        if key not in self.members or key == mine:
            return None
        if key in self.twins:
            return self.twins[key] if self._side[seen_from] else key
        stranger = mine in self.twins and self._side[key] != (seen_from != mine)
        return None if stranger else key

    def _latency(self) -> int:
        return self.random.randint(1, LATENCY_MS)

    # Answers

    def _holder(self, member: Member, ref: BlobRef) -> bool:
        if ref in member.disk.held:
            return True
        return any(
            ref in other.disk.held
            and ref not in other.hidden
            and other.node is not None
            and self.links.linked(other.place, member.place)
            for other in self.members.values()
        )

    def _fetch(self, member: Member, ref: BlobRef, life: int, answer: ev.Input) -> None:
        if member.life != life or ref not in member.wanted:
            return
        if not self._holder(member, ref):
            self.clock.later(AGAIN_MS, lambda: self._fetch(member, ref, life, answer))
            return
        member.disk.held.add(ref)
        member.wanted.discard(ref)
        self.input(member.place, answer, life)

    def _read(self, member: Member, ref: BlobRef, life: int) -> None:
        if self._holder(member, ref):
            self._fetch(member, ref, life, ev.BlobRead(ref, read_blob(self.folder, ref)))
        elif member.life == life:
            self.clock.later(AGAIN_MS, lambda: self._read(member, ref, life))

    def _fetch_batch(self, member: Member, name: Digest, peers: tuple[Key, ...], life: int) -> None:
        for key in peers:
            peer = self.place_of(key, member.place)
            node = self.members[peer].node if peer is not None else None
            if peer is None or node is None or not self.links.linked(peer, member.place):
                continue
            batch = node.batch(name)
            if batch is not None:
                self.input(member.place, ev.BatchFetched(name, encode(batch)), life)
                return

    def _fetch_blocks(self, member: Member, key: Key, first: int, life: int) -> None:
        peer = self.place_of(key, member.place)
        answers = peer is not None and self.members[peer].node is not None and self.links.linked(peer, member.place)
        blocks = self.members[peer].disk.answer(first) if peer is not None and answers else ()
        self.input(member.place, ev.BlocksFetched(key, blocks), life)

    def _fetch_state(
        self,
        member: Member,
        key: Key,
        unanswered: ev.SnapshotFetched | ev.PartFetched,
        want: WantSnapshot | WantPart,
        life: int,
    ) -> None:
        peer = self.place_of(key, member.place)
        node = self.members[peer].node if peer is not None and self.links.linked(peer, member.place) else None
        answer: Snapshot | Part | None = None
        if node is not None:
            answer = node.snapshot(want) if isinstance(want, WantSnapshot) else node.part(want)
        if answer is not None and peer is not None and self.corrupt is not None:
            answer = self.corrupt(peer, answer)
        answered: ev.SnapshotFetched | ev.PartFetched = unanswered
        if isinstance(answer, Snapshot) and isinstance(unanswered, ev.SnapshotFetched):
            answered = replace(unanswered, snapshot=answer)
        elif isinstance(answer, Part) and isinstance(unanswered, ev.PartFetched):
            answered = replace(unanswered, part=answer)
        self.input(member.place, answered, life)

    def _work(self, member: Member, job: Job, life: int) -> None:
        if member.life != life:
            return
        done: Answer = self._workers.do(job)
        if member.lie is not None and isinstance(job, Aggregate) and isinstance(done, Aggregated):
            done = member.lie(job, done)
        if member.noise is not None and isinstance(done, Trained):
            done = member.noise(done)
        if member.slander is not None and isinstance(done, Replayed):
            done = member.slander(done)
        self._produced(member, done)
        self.input(member.place, ev.JobDone(done), life)

    def _produced(self, member: Member, done: Answer) -> None:
        """Its workers have written what the answer names."""
        member.disk.held.update(blobs_of(done))

    # A task, and operations

    def submit(self, rounds: int = 10, by: Place | None = None, **changes: object) -> bytes:
        """Have a node, or the first, open a task; returns its name once it is known to it."""
        place = self.keys[0] if by is None else by
        member, node = self.members[place], self.node(place)
        spec, blobs = toy_task(self.folder, rounds, **changes)
        member.disk.held.update(blobs)
        signed = member.signer.sign(Submit(node.account, node.next_nonce(), spec, 10**9))
        count = len(node.ledger.task_ids())
        self.input(place, ev.OperationAsked(signed))
        self.run(lambda: len(node.ledger.task_ids()) > count, 100)
        return node.ledger.task_ids()[-1]

    def offer(self, place: Place) -> None:
        """The node's customer has it pay somebody. Whoever gets no answer asks again when the node has restarted."""
        member = self.members[place]
        account = account_id(member.customer.key)
        signed = member.customer.sign(Transfer(account, len(member.offered), digest("somebody"), 1, ""))
        member.offered.append(signed)
        self.input(place, ev.OperationAsked(signed))

    def task(self, place: Place, index: int = 0) -> Task:
        """A task as this node knows it."""
        node = self.node(place)
        task = node.ledger.task(node.ledger.task_ids()[index])
        assert task is not None
        return task

    def round(self, place: Place) -> int:
        """The round of the first task, as this node knows it; -1 if it is stopped or knows none."""
        node = self.members[place].node
        if node is None or not node.ledger.task_ids():
            return -1
        return next(iter(node.ledger.tasks())).round

    def check(self) -> None:
        """What was checked at every step holds, and every height can be proved by somebody."""
        self.checks.finish()


def _seed(index: int) -> bytes:
    """The secret of a node's key."""
    return bytes([index + 1]) * 32 if index < 255 else digest("seed", index.to_bytes(4, "big"))


def _unheard(_: str) -> None:
    pass
