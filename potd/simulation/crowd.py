"""A world of many miners: the same nodes, with all that is the same for many of them kept once.

What differs from `World`. Validators know each other, and a miner knows a few of them. A tick is 160 ms for a
validator and ten seconds for a miner: the machine counts ticks and does not know their length. Gossip reaches whoever
makes something of it: commitments and operations are taken by validators alone, and what others would pass on is
counted. Bytes are those of a large model, its numbers those of a small one; they leave and arrive at the rate of a
household's line, control before payloads.
"""

from __future__ import annotations

from collections import Counter, deque
from math import exp
from pathlib import Path
from random import Random
from time import perf_counter
from typing import TypeVar

from potd.node import events as ev
from potd.node.node import Node
from potd.rounds.keeper import KEEP_ROUNDS
from potd.simulation.clock import Act, Clock
from potd.simulation.disk import Disk, Write
from potd.simulation.network import Network, Place
from potd.simulation.world import Member, World
from potd.wire.blobs import blob_path
from potd.wire.ids import BlobRef, Key
from potd.wire.jobs import Aggregate, Aggregated, Answer, Job, Train, Trained

T = TypeVar("T")

VALIDATOR_TICK_MS = 160  # what is said again every 20 ticks must come well within the patience
MINER_TICK_MS = 10_000
SPONSORS = 4  # validators that a miner is connected to
MESH = 8  # neighbours to whom each node passes on what it hears by gossip
HOPS = 4  # of gossip, at most, among a thousand
BYTES_PER_MS = 13_750  # 110 Mbit/s, up and down
PAYLOAD_BYTES = 273_469  # 112 bytes for each 4,096 of 10,000,000 parameters, and the binding
AGGREGATE_BYTES = 20_000_000  # two bytes a parameter
MODEL_BYTES = 40_000_000  # four; the momentum as many
TAIL_MS = 4  # of the delay's Pareto tail: with exponent 1.5 one of a thousand takes a hundred times as long
TAIL_MAX_MS = 5_000
TRAIN_MS = 120_000  # at the median of miners, and of their rounds
ADD_MS = (6_000, 8_000)  # a thousand payloads: who is slower than others by a patience would be replaced as primary
APPLY_MS = (1_000, 2_000)
PAYLOADS_KEPT = (KEEP_ROUNDS + 4) * 1_000
BLOCKS_KEPT = 512  # by a validator, at least; more than are executed while a miner is away


class Lines(Network):
    """Each node has one line, up and down, for all that it sends and hears. Control goes before what is fetched."""

    def __init__(self, places: tuple[Place, ...], clock: Clock, chance: Random) -> None:
        super().__init__(places, clock, chance)
        self.messages: Counter[Place] = Counter()  # that left a place, frames only
        self.frame_bytes: Counter[Place] = Counter()
        self.fetched_bytes: Counter[Place] = Counter()  # that left it as blobs
        self._far = {place: min(150, int(12 * exp(chance.gauss(0, 0.8)))) for place in places}  # ms from the middle
        self._control: dict[Place, int] = dict.fromkeys(places, 0)  # when the line up is free, in µs
        self._bulk: dict[Place, int] = dict.fromkeys(places, 0)  # the same behind all that is fetched
        self._down: dict[Place, int] = dict.fromkeys(places, 0)

    def delay_ms(self, one: Place, other: Place) -> int:
        tail = min(TAIL_MAX_MS, int(TAIL_MS * self._chance.paretovariate(1.5)))
        return self._far[one] + self._far[other] + tail

    def gossip_ms(self, to: Place) -> int:
        """By some others."""
        hops = self._chance.randint(2, HOPS)
        return self._far[to] + hops * 30 + min(TAIL_MAX_MS, int(hops * TAIL_MS * self._chance.paretovariate(1.5)))

    def _carry(self, sender: Place, to: Place, size: int, arrive: Act) -> None:
        now = self._clock.now * 1_000
        left = max(now, self._control[sender]) + size * 1_000 // BYTES_PER_MS
        self._control[sender] = left
        self._bulk[sender] = max(self._bulk[sender], now) + size * 1_000 // BYTES_PER_MS
        self.messages[sender] += 1
        self.frame_bytes[sender] += size
        self._clock.later((left - now) // 1_000 + self.delay_ms(sender, to), arrive)

    def fetch_ms(self, holder: Place, to: Place, size: int) -> int:
        """How long it takes from now until so many bytes are there."""
        now, taken = self._clock.now * 1_000, size * 1_000 // BYTES_PER_MS
        self._bulk[holder] = max(self._bulk[holder], now) + taken
        self._down[to] = max(self._bulk[holder], self._down[to] + taken)
        self.fetched_bytes[holder] += size
        return (self._down[to] - now) // 1_000 + self.delay_ms(holder, to)


class Crowd(World):
    """`validators` nodes that validate, then `miners` that mine."""

    def __init__(
        self,
        folder: Path,
        validators: int,
        miners: int,
        seed: int,
        *,
        patience_ticks: int,
        reveal_ticks: int,
        lapses_max: int,
    ) -> None:
        super().__init__(
            folder,
            validators,
            seed,
            patience_ticks,
            miners=miners,
            idle=validators,
            absent=validators + miners,
            reveal_ticks=reveal_ticks,
            lapses_max=lapses_max,
        )
        self.hearers = self.validators
        self.lines = self.links = Lines(self.places, self.clock, self.random)
        self.gossiped: Counter[str] = Counter()  # messages, by topic
        self.gossiped_bytes: Counter[str] = Counter()
        self.cpu_seconds = 0.0  # of validators' machines, all of them together
        self._is_validator = frozenset(self.validators)
        self._sponsors = {key: self.random.sample(self.validators, SPONSORS) for key in self.keys[validators:]}
        self._speed = {key: exp(self.random.gauss(0, 0.25)) for key in self.keys}
        self._owner: dict[BlobRef, Place] = {}  # of payloads
        self._payloads: deque[BlobRef] = deque()
        self._holders: dict[BlobRef, dict[Place, None]] = {}  # validators
        self._sizes: dict[BlobRef, int] = {}
        self._waiting: dict[BlobRef, list[tuple[Member, int]]] = {}  # for what nobody shows yet
        for place in self.places:
            self.members[place].tick_ms = VALIDATOR_TICK_MS if place in self._is_validator else MINER_TICK_MS
            self.start(place)

    def neighbours(self, place: Place) -> list[Place]:
        """A miner's sponsors; of a validator the other validators."""
        return self._sponsors.get(place) or [other for other in self.validators if other != place]

    def _step(self, node: Node, event: ev.Input) -> list[ev.Effect]:
        if node.replica is None:
            return node.step(event)
        began = perf_counter()
        effects = node.step(event)
        self.cpu_seconds += perf_counter() - began
        return effects

    # What leaves

    def send(self, place: Place, to: Key, data: bytes) -> None:
        event = ev.Framed(place, data)
        self.links.send(place, to, len(data), lambda: self.input(to, event))

    def publish(self, place: Place, topic: str, data: bytes) -> None:
        """To whoever makes something of it. Each node passes it on to those of its mesh."""
        self.gossiped[topic] += 1
        self.gossiped_bytes[topic] += len(data)
        event = ev.Gossiped(topic, data)
        for other in self.keys if topic == "certificates" else self.validators:
            if other != place and self.members[other].node is not None:
                self.clock.later(self.lines.gossip_ms(other), lambda other=other: self.input(other, event))  # type: ignore[misc]  # binds the loop's value

    def _written(self, member: Member, effect: Write) -> None:
        super()._written(member, effect)
        if isinstance(effect, ev.Store | ev.StoreCertificate):
            _trim(member.disk, BLOCKS_KEPT if member.place in self._is_validator else 1)

    # Blobs

    def _effect(self, member: Member, effect: ev.Effect) -> None:
        place, life = member.place, member.life
        match effect:
            case ev.Fetch(ref, _):
                if ref not in member.wanted:
                    member.wanted.add(ref)
                    self.clock.later(self._latency(), lambda: self._look(member, ref, life))
            case ev.Reveal(ref):
                member.hidden.discard(ref)
                self._shown(ref)
            case ev.Retain(_, surplus):
                member.disk.held.difference_update(surplus)
                for ref in surplus:
                    self._holders.get(ref, {}).pop(place, None)
            case ev.Run(_, job):
                self.clock.later(self._taken_ms(place, job), lambda: self._work(member, job, life))
            case ev.Tell() | ev.Refuse() | ev.Ignore():
                pass
            case ev.Log() if place not in self._is_validator:
                pass
            case _:
                super()._effect(member, effect)

    def _taken_ms(self, place: Place, job: Job) -> int:
        match job:
            case Train():
                return int(TRAIN_MS * self._speed[place] * exp(self.random.gauss(0, 0.1)))
            case Aggregate():
                return self.random.randint(*ADD_MS)
            case _:
                return self.random.randint(*APPLY_MS)

    def _produced(self, member: Member, done: Answer) -> None:
        super()._produced(member, done)
        if isinstance(done, Trained):
            self._owner[done.payload] = member.place
            self._sizes[done.payload] = PAYLOAD_BYTES
            self._payloads.append(done.payload)
            while len(self._payloads) > PAYLOADS_KEPT:
                self._drop(self._payloads.popleft())
        if isinstance(done, Aggregated):
            self._sizes[done.aggregate] = AGGREGATE_BYTES
            self._sizes[done.model] = self._sizes[done.momentum] = MODEL_BYTES
            for ref in (done.aggregate, done.model, done.momentum):
                self.has(member.place, ref)

    def has(self, place: Place, ref: BlobRef) -> None:
        """It holds this from now on, for everybody if it is a validator."""
        self.members[place].disk.held.add(ref)
        if place in self._is_validator:
            self._holders.setdefault(ref, {})[place] = None
            self._shown(ref)

    def _drop(self, ref: BlobRef) -> None:
        """A payload that nobody will ask for again."""
        owner = self._owner.pop(ref, None)
        if owner is not None:
            self.members[owner].disk.held.discard(ref)
            blob_path(self.folder, ref).unlink(missing_ok=True)
        for table in (self._holders, self._sizes, self._waiting):
            table.pop(ref, None)

    def _shown(self, ref: BlobRef) -> None:
        for member, life in self._waiting.pop(ref, ()):
            self._look(member, ref, life)

    def _source(self, ref: BlobRef) -> Place | None:
        owner = self._owner.get(ref)
        if owner is not None and self.members[owner].node is not None and ref not in self.members[owner].hidden:
            return owner
        holders = [one for one in self._holders.get(ref, ()) if self.members[one].node is not None]
        return self.random.choice(holders) if holders else None

    def _look(self, member: Member, ref: BlobRef, life: int) -> None:
        """Find somebody who has it, or wait until somebody shows it."""
        if member.life != life or ref not in member.wanted:
            return
        if ref in member.disk.held:
            self._arrived(member, ref, life)
            return
        source = self._source(ref)
        if source is None:
            self._waiting.setdefault(ref, []).append((member, life))
            return
        taken = self.lines.fetch_ms(source, member.place, self._sizes.get(ref, ref.size))
        self.clock.later(taken, lambda: self._arrived(member, ref, life))

    def _arrived(self, member: Member, ref: BlobRef, life: int) -> None:
        if member.life != life or ref not in member.wanted:
            return
        member.wanted.discard(ref)
        self.has(member.place, ref)
        self.input(member.place, ev.Fetched(ref), life)

    def _holder(self, member: Member, ref: BlobRef) -> bool:
        return ref in member.disk.held or self._source(ref) is not None


def _trim(disk: Disk, count: int) -> None:
    """Nobody asks a miner for blocks here: it keeps what it needs to start again. Whoever has been away for long takes
    a validator's state, and not the blocks of hours."""
    disk.blocks = _newest(disk.blocks, count)
    disk.certificates = _newest(disk.certificates, count)


def _newest(kept: dict[int, T], count: int) -> dict[int, T]:
    """The newest so many, once they are twice as many."""
    return {height: kept[height] for height in sorted(kept)[-count:]} if len(kept) >= 2 * count else kept
