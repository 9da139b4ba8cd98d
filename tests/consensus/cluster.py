"""A cluster of replicas in memory: a seeded network, journals that outlive crashes, and liars at the wire.

Every vote that a correct member sends and every batch that it executes is checked at once; whatever fails says the
seed. The application is trivial: the state is the digest of the history, and an operation may name other validators.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

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
from potd.consensus.quorum import Group, certificate_fault
from potd.consensus.replica import Replica
from potd.wire.blocks import NULL, Batch, Certificate, Header, batch_digest, header_digest
from potd.wire.codec import Malformed, decode
from potd.wire.consensus import WORDS, Commit, NewView, Prepare, PrePrepare, Recollect, Refusal, Status, ViewChange
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import NOTHING, Digest, Key, digest

NETWORK = digest("test", b"network")
ELSEWHERE = digest("test", b"another network")
BAD = b"bad"  # an operation that no correct member agrees to
SEATS = b"seats "  # an operation that names the members who decide from a window above it on, by index
IN_FLIGHT_MAX = 4
VIEW_SEQ = 2**62  # of ViewChange and NewView in the journal: only the newest is kept


def signer(index: int, network: Digest = NETWORK) -> Signer:
    return Signer(digest("test key", bytes([index])), network)


def group(size: int) -> Group:
    return Group(NETWORK, tuple(signer(index).key for index in range(size)))


def heard(message: Verified[Any]) -> Received | Recollecting:
    """As the node tells it: a question of a start comes with what goes before the answer."""
    return Recollecting(message, ()) if isinstance(message.body, Recollect) else Received(message)


def batch_of(*operations: bytes) -> Batch:
    return Batch(tuple(Signed(NOTHING, one, bytes(64)) for one in operations))


def seats(*indices: int) -> bytes:
    """The operation that gives the seats to these members, in this order."""
    return SEATS + b",".join(b"%d" % index for index in indices)


def operations_of(batch: Batch) -> list[bytes]:
    return [one.payload for one in batch.records if isinstance(one, Signed)]


def next_header(previous: Header | None, batch: Batch) -> Header:
    """The header after one more batch: the trivial application."""
    before = header_digest(previous) if previous else NOTHING
    state = digest("state", previous.state if previous else NOTHING, batch_digest(batch))
    height = previous.height + 1 if previous else 1
    return Header(NETWORK, 1, height, before, batch_digest(batch), NOTHING, state, NOTHING, NOTHING)


def headers(*batches: Batch) -> list[Header]:
    chain: list[Header] = []
    for batch in batches:
        chain.append(next_header(chain[-1] if chain else None, batch))
    return chain


# What travels


@dataclass(frozen=True)
class Said:
    signed: Signed
    batch: Batch | None


@dataclass(frozen=True)
class AskBatch:
    digest: Digest


@dataclass(frozen=True)
class GiveBatch:
    batch: Batch


@dataclass(frozen=True)
class AskBlocks:
    above: int


@dataclass(frozen=True)
class GiveBlocks:
    batches: tuple[Batch, ...]
    certificate: Certificate  # of the last


@dataclass(frozen=True)
class Answer:
    """A judgement that its own node has finished, unless it has crashed since."""

    life: int
    judged: Judged


Thing = Said | Certificate | AskBatch | GiveBatch | AskBlocks | GiveBlocks | Answer
Lie = Callable[["Cluster", "Member", int, Said], Iterable[Said]]  # what a liar sends instead, to whom


class Crashed(Exception):
    """The power went."""


class Journal:
    """What a member has written down, in order."""

    def __init__(self) -> None:
        self.records: list[tuple[int, object]] = []
        self.ever: set[Signed] = set()
        self.silent_until = 0

    def keep(self, seq: int, record: object) -> None:
        if seq == VIEW_SEQ:
            self.records = [one for one in self.records if one[0] != VIEW_SEQ]
        self.records.append((seq, record))
        if isinstance(record, Signed):
            self.ever.add(record)
            body = decode(record.payload, *WORDS)
            self.ever.update(body.pre_prepares if isinstance(body, NewView) else ())

    def hush(self, height: int) -> None:
        self.silent_until = height

    def forget(self, seq: int) -> None:
        self.records = [one for one in self.records if one[0] > seq]


@dataclass(frozen=True)
class Change:
    """Other validators, agreed on at `agreed`, decide what comes after `height`."""

    agreed: int
    height: int
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Backup:
    """A copy of a member's disk."""

    records: tuple[tuple[int, object], ...]
    silent_until: int
    headers: tuple[Header, ...]
    batches: tuple[Batch, ...]
    executed: frozenset[bytes]
    certificates: tuple[tuple[int, Certificate], ...]


EMPTY = Backup((), 0, (), (), frozenset(), ())


class Member:
    """One node: a replica while it has a seat, its disk, and the little of a node that the replica needs."""

    def __init__(self, index: int, cluster: Cluster, lie: Lie | None) -> None:
        self.index = index
        self.signer = signer(index)
        self.lie = lie
        self.cluster = cluster
        # The disk
        self.journal = Journal()
        self.headers: list[Header] = []
        self.batches: list[Batch] = []
        self.executed: set[bytes] = set()
        self.certificates: dict[int, Certificate] = {}
        self.eras = [cluster.group]  # as executed so far
        self.change: Change | None = None
        # The process
        self.life = 0
        self.by_blocks = True  # whether the newest height was taken from others
        self.boundaries = 0
        self.backups: list[Backup] | None = None  # of every boundary, if anybody keeps them
        self.crash_at: int | None = None  # at which boundary of a write the power goes
        self.seen: list[Effect] = []  # everything but the writes, for tests
        self.start()

    @property
    def honest(self) -> bool:
        return self.lie is None

    @property
    def height(self) -> int:
        return len(self.headers)

    @property
    def certified(self) -> int:
        return max(self.certificates, default=0)

    @property
    def proved(self) -> int:
        """Its height, or one less while that is the last of an era and not certified."""
        return self.height - 1 if self.ends == self.height else self.height

    @property
    def horizon(self) -> int:
        return self.height + self.cluster.window if self.ends is None else self.ends

    def start(self) -> None:
        self.life += 1
        self.up = True
        self.follow_to = 0
        last = self.eras[-1].base
        if self.certified < last == self.height:
            self.begin(self.eras[-2], last, [record for _, record in self.journal.records], asks=True)
        else:
            ends = self.change.height if self.change is not None else None
            self.begin(self.eras[-1], ends, [record for _, record in self.journal.records], asks=True)

    def begin(self, group: Group, ends: int | None, records: list[object], asks: bool) -> None:
        """These validators are at work, this member perhaps among them; `asks` says whether it asks what it said."""
        self.group = group
        self.ends = ends
        self.proposed: set[bytes] = set()
        self.wanted: set[Digest] = set()
        self.awaited: bytes | None = None
        self.owed: int | None = None
        self.seat: Replica | None = None
        if self.signer.key in group:
            self.seat = self.cluster.replica(self, group)
            executed = self.headers[-1] if self.headers else None
            boot = digest("boot", bytes([self.index]), self.life.to_bytes(8, "big")) if asks else None
            certificate = self.certificates.get(self.certified)
            self.seat.restore(executed, certificate, records, boot, self.journal.silent_until)
            if ends is not None:
                self.seat.step(Ending(ends))
        self.wait()

    @property
    def replica(self) -> Replica:
        assert self.seat is not None, f"n{self.index} has no seat"
        return self.seat

    def wait(self) -> None:
        """Await the oldest open operation. The paper's one timer starts afresh for the next request. [4.4]"""
        if self.seat is None:
            return
        due = next((one for one in self.cluster.open if one not in self.executed), None)
        if self.awaited not in (None, due):
            self.replica.step(Settled(str(self.awaited)))
        if due is not None:
            self.replica.step(Awaited(str(due)))
        self.awaited = due
        if self.owed is not None and self.owed <= self.height:
            self.replica.step(Settled(f"height {self.owed}"))
            self.owed = None
        if self.owed is None and self.ends is not None and self.height < self.ends:
            self.owed = self.height + 1
            self.replica.step(Awaited(f"height {self.owed}"))

    def feed(self, *inputs: Input) -> None:
        """Step through inputs and all that follows from them here, until the power goes."""
        try:
            for one in inputs:
                if self.seat is not None:
                    self._carry_out(self.seat.step(one))
                    self.turn()
            while self.up and (batch := self._next()) is not None:
                self._carry_out(self.replica.step(Proposed(batch_digest(batch), batch)))
                self.turn()
        except Crashed:
            self.up = False
        except AssertionError:  # a liar's own replica may be confused by what it sent in its name
            if self.honest:
                raise
            self.up = False

    def turn(self) -> None:
        """Once the last height of an era is permanent, those who come next begin."""
        if self.ends is not None and self.certified >= self.ends:
            assert self.height == self.ends, self.cluster.say_where(f"n{self.index} went on beyond the end of an era")
            asks = self.seat is None or self.seat.silent or self.by_blocks
            self.begin(self.eras[-1], self.change.height if self.change is not None else None, [], asks)

    def _next(self) -> Batch | None:
        """What to order now; nothing to order fills the heights up to the end of an era."""
        if self.seat is None or not self.seat.may_propose():
            return None
        operation = self._due()
        if operation is not None:
            self.proposed.add(operation)
            return batch_of(operation)
        return NULL if self.ends is not None and self.seat.in_flight() < IN_FLIGHT_MAX else None

    def _due(self) -> bytes | None:
        return next((one for one in self.cluster.open if one not in self.executed | self.proposed), None)

    def follow(self, blocks: GiveBlocks) -> None:
        certificate = blocks.certificate
        if certificate.header.height == self.height:
            self.on_certificate(certificate)
            return
        if certificate.header.height <= self.height or certificate_fault(certificate, self.group):
            return
        if certificate.header.height > self.horizon or self.proved < self.height:
            return
        chain = self.headers[: certificate.header.height - len(blocks.batches)]
        if len(chain) + len(blocks.batches) != certificate.header.height:
            return
        for batch in blocks.batches:
            chain.append(next_header(chain[-1] if chain else None, batch))
        if chain[-1] != certificate.header:
            return
        try:
            self.by_blocks = True
            for batch in blocks.batches[self.height - certificate.header.height :]:
                self._execute(batch)
            self._write(lambda: self.certificates.setdefault(certificate.header.height, certificate))
            if self.seat is not None:
                self._carry_out(self.seat.followed(certificate))
            self.turn()
        except Crashed:
            self.up = False

    def on_certificate(self, certificate: Certificate) -> None:
        height = certificate.header.height
        if height <= self.certified:
            return
        if certificate_fault(certificate, self.group):
            if height > self.horizon:
                self.follow_to = max(self.follow_to, height)  # of later members, who are not known here yet
            return
        if self.seat is not None:
            self.feed(Certificated(certificate))
        elif height == self.height:
            assert certificate.header == self.headers[-1]
            try:
                self._write(lambda: self.certificates.setdefault(height, certificate))
                self.turn()
            except Crashed:
                self.up = False
        else:
            self.follow_to = max(self.follow_to, height)

    def _execute(self, batch: Batch) -> Header:
        header = next_header(self.headers[-1] if self.headers else None, batch)

        def store() -> None:
            self.headers.append(header)
            self.batches.append(batch)
            self.executed.update(operations_of(batch))
            self.reseat(header.height, batch)

        self._write(store)
        self.cluster.on_executed(self, header)
        if self.change is not None and self.ends is None:
            self.ends = self.change.height
            if self.seat is not None:
                self.seat.step(Ending(self.ends))
        self.wait()
        return header

    def reseat(self, height: int, batch: Batch) -> None:
        """The application: who decides the next height, and whether there will be others."""
        if self.change is not None and self.change.height == height:
            self.eras.append(Group(NETWORK, self.change.keys, height, self.eras[-1].keys))
            self.change = None
        for operation in operations_of(batch):
            if operation.startswith(SEATS) and self.change is None:
                named = operation.removeprefix(SEATS).split(b" ")[0].split(b",")
                keys = tuple(signer(int(index)).key for index in named)
                self.change = Change(height, height + self.cluster.window, keys)
                self.cluster.on_agreed(self.change)

    def _write(self, change: Callable[[], object]) -> None:
        self._boundary()
        change()
        self._boundary()

    def backup(self) -> Backup:
        return Backup(
            tuple(self.journal.records),
            self.journal.silent_until,
            tuple(self.headers),
            tuple(self.batches),
            frozenset(self.executed),
            tuple(self.certificates.items()),
        )

    def put_back(self, backup: Backup) -> None:
        """The disk is as it was; what it has ever held stays known to the checks."""
        assert not self.up
        self.journal.records, self.journal.silent_until = list(backup.records), backup.silent_until
        self.headers, self.batches = list(backup.headers), list(backup.batches)
        self.executed, self.certificates = set(backup.executed), dict(backup.certificates)

    def _boundary(self) -> None:
        self.boundaries += 1
        if self.backups is not None:
            self.backups.append(self.backup())
        if self.boundaries == self.crash_at:
            raise Crashed

    def _carry_out(self, effects: list[Effect]) -> None:
        due = deque(effects)
        while due:
            effect = due.popleft()
            if not isinstance(effect, Persist | Forget):
                self.seen.append(effect)
            match effect:
                case Persist(seq, record):
                    self._write(lambda seq=seq, record=record: self.journal.keep(seq, record))  # type: ignore[misc]  # lambda with defaults
                case Forget(seq):
                    self._write(lambda seq=seq: self.journal.forget(seq))  # type: ignore[misc]  # lambda with defaults
                case Broadcast(signed, batch):
                    for other in map(self.cluster.index, self.group.keys):
                        if other != self.index:
                            self.cluster.say(self, other, Said(signed, batch))
                case Send(to, message, batch):
                    other = self.cluster.index(to)
                    if isinstance(message, Signed):
                        self.cluster.say(self, other, Said(message, batch))
                    else:
                        self.cluster.post(self.index, other, message)
                case Judge(view, seq, name, batch):
                    reason = "a bad operation" if self.honest and BAD in operations_of(batch) else ""
                    self.cluster.judge(self, Judged(view, seq, name, reason))
                case Deliver(_, _, batch):
                    self.by_blocks = False
                    due.extend(self.replica.step(Executed(self._execute(batch))))
                case Certify(certificate):
                    height = certificate.header.height
                    self.cluster.on_certified(self, certificate)
                    self._write(lambda h=height, c=certificate: self.certificates.setdefault(h, c))  # type: ignore[misc]  # lambda with defaults
                case Enter():
                    self.proposed.clear()
                case FetchBatch(name):
                    self.wanted.add(name)
                case Follow(height):
                    self.follow_to = max(self.follow_to, height)
                case Hush(height):
                    self._write(lambda height=height: self.journal.hush(height))  # type: ignore[misc]  # lambda with defaults
                case Speak():
                    self._write(lambda: self.journal.hush(0))
                case Accuse(key):
                    self.cluster.on_accused(self, key, effect)
                case Suspect() | Ignore() | Reject():
                    pass

    def receive(self, sender: int, thing: Thing) -> None:
        match thing:
            case Said(signed, batch):
                message = self.cluster.verified(signed)
                if message is None:
                    return
                if self.seat is None and isinstance(message.body, Status) and message.body.stable < self.certified:
                    self.cluster.post(self.index, sender, self.certificates[self.certified])
                inputs: list[Input] = [heard(message)]
                if batch is not None and isinstance(message.body, PrePrepare):
                    inputs += [Held(message.body.batch, batch)] if batch_digest(batch) == message.body.batch else []
                self.feed(*inputs)
            case Certificate():
                self.on_certificate(thing)
            case AskBatch(name):
                held = self.seat.batch(name) if self.seat is not None else None
                if held is not None:
                    self.cluster.post(self.index, sender, GiveBatch(held))
            case GiveBatch(batch):
                name = batch_digest(batch)
                if name in self.wanted:
                    self.wanted.discard(name)
                    self.feed(Held(name, batch))
            case AskBlocks(above):
                certified = [height for height in self.certificates if height > above]
                if certified:
                    blocks = tuple(self.batches[above : min(certified)])
                    self.cluster.post(self.index, sender, GiveBlocks(blocks, self.certificates[min(certified)]))
            case GiveBlocks():
                self.follow(thing)
            case Answer(life, judged):
                if life == self.life:
                    self.feed(judged)

    def tick(self) -> None:
        self.feed(Ticked())
        peer = self.cluster.chance.randrange(len(self.cluster.members))
        if peer != self.index:
            for name in sorted(self.wanted):
                self.cluster.post(self.index, peer, AskBatch(name))
            if self.follow_to > self.proved or (self.seat is None and self.cluster.now % 4 == 0):
                self.cluster.post(self.index, peer, AskBlocks(self.proved))


class Cluster:
    """Members, the network between them, and what must hold at every moment."""

    def __init__(
        self,
        size: int,
        seed: int = 0,
        *,
        spare: int = 0,
        liars: Mapping[int, Lie] | None = None,
        patience: int = 60,
        window: int = 8,
        delay: tuple[int, int] = (1, 2),
        judging: tuple[int, int] = (0, 0),
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.group = group(size)
        self.patience = patience
        self.window = window
        self.delay = delay
        self.judging = judging
        self.loss = 0.0
        self.twice = 0.0
        self.cut: Callable[[int, int], bool] = lambda sender, to: False
        self.now = 0
        self.open: list[bytes] = []  # operations that clients have asked for
        self.decided: dict[int, Header] = {}
        self.accusations: list[Accuse] = []
        self.heard: list[Said] = []  # by anybody, for liars who replay
        self._votes: dict[tuple[Key, str, int, int], bytes] = {}
        self._verified: dict[Signed, Verified[Any] | None] = {}
        self._queue: list[tuple[int, float, int, int, int, Thing]] = []
        self._posted = 0
        self._indices = {signer(index).key: index for index in range(size + spare)}
        self.changes: list[Change] = []  # agreed on by anybody
        self.members: list[Member] = []
        for index in range(size + spare):
            self.members.append(Member(index, self, (liars or {}).get(index)))

    # What tests do

    def request(self, operation: bytes) -> None:
        """A client asks every member that is up."""
        self.open.append(operation)
        for member in self.members:
            if member.up:
                member.wait()
                member.feed()

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now += 1
            while self._queue and self._queue[0][0] <= self.now:
                _, _, _, sender, to, thing = heapq.heappop(self._queue)
                if self.members[to].up:
                    self.members[to].receive(sender, thing)
            for member in self.members:
                if member.up:
                    member.tick()

    def run_until(self, reached: Callable[[], bool], ticks: int, what: str) -> int:
        """Run until it is reached; the ticks that it took. Fails after `ticks`."""
        for passed in range(ticks):
            if reached():
                return passed
            self.run(1)
        states = "; ".join(
            f"n{one.index} {'up' if one.up else 'down'} "
            + (one.seat.describe() if one.seat is not None else f"without a seat at {one.height}")
            for one in self.members
        )
        raise AssertionError(self.say_where(f"not in {ticks} ticks: {what}: {states}"))

    def settle(self, ticks: int | None = None) -> int:
        """Run until every honest member that is up has executed every open operation. The ticks that it took."""
        return self.run_until(self.settled, ticks or 40 * self.patience, "every operation executed")

    def index(self, key: Key) -> int:
        return self._indices[key]

    def keys_at(self, height: int) -> tuple[Key, ...]:
        """Who decides this height."""
        return self.group_at(height).keys

    def group_at(self, height: int) -> Group:
        group = self.group
        for change in self.changes:
            if height > change.height:
                group = Group(NETWORK, change.keys, change.height, group.keys)
        return group

    def settled(self) -> bool:
        return all(set(self.open) <= member.executed for member in self.honest() if member.up)

    def honest(self) -> list[Member]:
        return [member for member in self.members if member.honest]

    def crash(self, index: int) -> None:
        self.members[index].up = False

    def restart(self, index: int) -> None:
        self.members[index].crash_at = None
        self.members[index].start()

    def heal(self) -> None:
        self.loss = self.twice = 0.0
        self.cut = lambda sender, to: False
        for member in self.members:
            member.crash_at = None
            if not member.up:
                self.restart(member.index)

    def enters(self, index: int) -> list[Enter]:
        return [one for one in self.members[index].seen if isinstance(one, Enter)]

    # What members do

    def say(self, sender: Member, to: int, said: Said) -> None:
        self.heard.append(said)
        if sender.lie is not None:
            for one in sender.lie(self, sender, to, said):
                self.post(sender.index, to, one)
            return
        self.check_vote(sender, said.signed)
        self.post(sender.index, to, said)

    def post(self, sender: int, to: int, thing: Thing) -> None:
        copies = 2 if self.chance.random() < self.twice else 1
        for _ in range(copies):
            if self.cut(sender, to) or self.chance.random() < self.loss:
                continue
            self._enqueue(self.now + self.chance.randint(*self.delay), sender, to, thing)

    def judge(self, member: Member, judged: Judged) -> None:
        due = self.now + self.chance.randint(*self.judging)
        self._enqueue(due, member.index, member.index, Answer(member.life, judged))

    def _enqueue(self, due: int, sender: int, to: int, thing: Thing) -> None:
        self._posted += 1
        heapq.heappush(self._queue, (due, self.chance.random(), self._posted, sender, to, thing))

    def verified(self, signed: Signed) -> Verified[Any] | None:
        if signed not in self._verified:
            try:
                self._verified[signed] = verify(signed, NETWORK, *WORDS)
            except Malformed:
                self._verified[signed] = None
        return self._verified[signed]

    def replica(self, member: Member, group: Group) -> Replica:
        """What a member with a seat begins an era, or a life, with."""
        return Replica(member.signer, group, patience_ticks=self.patience, window=self.window)

    # What must hold

    def on_executed(self, member: Member, header: Header) -> None:
        if member.honest:
            agreed = self.decided.setdefault(header.height, header)
            assert agreed == header, self.say_where(f"n{member.index} decided otherwise at {header.height}")

    def on_agreed(self, change: Change) -> None:
        """The first to execute it says so; that all agree follows from their headers."""
        if all(one.height < change.height for one in self.changes):
            self.changes.append(change)

    def on_certified(self, member: Member, certificate: Certificate) -> None:
        fault = certificate_fault(certificate, self.group_at(certificate.header.height))
        assert not fault, self.say_where(f"n{member.index} takes a {fault}")

    def on_accused(self, member: Member, key: Key, accusation: Accuse) -> None:
        guilty = self.index(key)
        if member.honest:
            assert not self.members[guilty].honest, self.say_where(f"n{member.index} accused the honest n{guilty}")
            self.accusations.append(accusation)

    def check_vote(self, sender: Member, signed: Signed) -> None:
        message = self.verified(signed)
        assert message is not None, self.say_where(f"n{sender.index} sent what nobody can verify")
        if message.sender != sender.signer.key:
            return  # passed on
        named = _name_of(message.body)
        if named is None:
            return
        if isinstance(message.body, PrePrepare | Prepare | Commit | Refusal):
            group = self.group_at(message.body.seq)
            assert sender.signer.key in group, self.say_where(f"n{sender.index} has no seat to say {named}")
            assert sender.certified >= group.base, self.say_where(f"n{sender.index} said {named} too early")
        if not isinstance(message.body, Header):
            assert signed in sender.journal.ever, self.say_where(f"n{sender.index} said {named} before writing it down")
        votes = [(named, signed.payload)]
        if isinstance(message.body, NewView):
            for order in message.body.pre_prepares:
                votes.append((_order_name(verify(order, NETWORK, PrePrepare).body), order.payload))
        base = self._base_of(message.body)
        for (kind, view, seq), payload in votes:
            if kind in ("view change", "new view"):
                seq = base
            first = self._votes.setdefault((message.sender, kind, view, seq), payload)
            assert first == payload, self.say_where(f"n{sender.index} signed two votes for {(kind, view, seq)}")

    def _base_of(self, body: object) -> int:
        """The base of the era to which a view change or a new view belongs."""
        if isinstance(body, NewView):
            return self.group_at(min(decode(one.payload, ViewChange).stable for one in body.view_changes) + 1).base
        return self.group_at(body.stable + 1).base if isinstance(body, ViewChange) else 0

    def say_where(self, text: str) -> str:
        return f"seed {self.seed}, n = {len(self.members)}, tick {self.now}: {text}"


def _order_name(body: PrePrepare) -> tuple[str, int, int]:
    return "order", body.view, body.seq


def _name_of(body: object) -> tuple[str, int, int] | None:
    """The (phase, view, seq) for which one vote may be signed. A refusal is a vote in the phase of preparing."""
    match body:
        case PrePrepare():
            return _order_name(body)
        case Prepare(view, seq) | Refusal(view, seq):
            return "prepare", view, seq
        case Commit(view, seq):
            return "commit", view, seq
        case Header():
            return "header", 0, body.height
        case ViewChange(view):
            return "view change", view, 0
        case NewView(view):
            return "new view", view, 0
        case _:
            return None
