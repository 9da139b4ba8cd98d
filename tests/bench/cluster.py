"""Validators of one network in one process, as fast as the processor turns them: the real machine, no sockets.

Every node has an inbox that is drained as the daemon drains its own: step by step, then one write of all that is to be
kept, then what follows. Frames are the bytes that would travel, gossip is screened before it is taken, and nothing
waits for anything but its turn.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from potd.arithmetic.selftest import GOLDEN
from potd.consensus.quorum import Group
from potd.gossip.admit import Screening, screen
from potd.node import events as ev
from potd.node.node import Node, Settings
from potd.runtime.journal import Journal, Write, open_journal
from potd.wire import envelope
from potd.wire.blocks import Certificate
from potd.wire.codec import decode
from potd.wire.envelope import Signed, Signer
from potd.wire.genesis import PROTOCOL, TICK_MS, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import Key

DRAINED_MAX = 512  # inputs between two writes, as in the daemon
PATIENCE_TICKS = 72_000  # all nodes share one processor: that it is slow is no reason to change the primary
VALIDATOR = Settings(validator=True, miner=False, units=1, tasks=None, trainer=False)


class Member:
    """One validator, its inbox, and what it has made of the operations."""

    def __init__(self, node: Node, journal: Journal | None) -> None:
        self.node = node
        self.journal = journal
        self.inbox: deque[ev.Input] = deque()
        self.certified = 0
        self._held = envelope.Held()

    def takes_its_turn(self) -> None:
        """Nobody but itself has checked a signature for it, though all are in one process."""
        envelope._held = self._held


class Cluster:
    """`size` validators; `clients` accounts that own something. `accepted` is called for every operation once a quorum
    of the validators has executed it and holds the certificate of that height, or of a later one."""

    def __init__(self, size: int, clients: int, accepted: Callable[[Signed], None], folder: Path | None = None) -> None:
        seeds = [index.to_bytes(4, "big") * 8 for index in range(1, size + clients + 1)]
        keys = [Signer(seed, bytes(32)).key for seed in seeds]
        parameters = Parameters(patience_ticks=PATIENCE_TICKS)
        balances = tuple(sorted(Allotment(key, 10**12) for key in keys))
        genesis = Genesis("bench", PROTOCOL, 0, tuple(sorted(keys[:size])), balances, parameters)
        self.network = genesis_digest(genesis)
        self.clients = [Signer(seed, self.network) for seed in seeds[size:]]
        self.group = Group(self.network, genesis.validators)
        self.counts: Counter[str] = Counter()  # frames, bytes, batches, syncs
        self._accepted = accepted
        self._stack = ExitStack()
        self.members: dict[Key, Member] = {}
        for seed in sorted(seeds[:size], key=lambda one: Signer(one, self.network).key):
            signer = Signer(seed, self.network)
            journal = None
            if folder is not None:
                path = folder / f"{signer.key.hex()[:8]}.journal"
                journal = self._stack.enter_context(open_journal(path, self.network, signer.key))
            self.members[signer.key] = Member(Node(VALIDATOR, genesis, signer, GOLDEN), journal)
        self._ordered: dict[int, tuple[Signed, ...]] = {}  # operations by height, until they are accepted
        self._settled = 0  # the height up to which they are
        self._ticked = perf_counter()

    def __enter__(self) -> Cluster:
        for key, member in self.members.items():
            self._carry_out(key, member, member.node.start())
            member.inbox.extend(ev.PeerUp(other, 0) for other in self.members if other != key)
        self._turn()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, number: int, signed: Signed) -> None:
        """Offer an operation at one of the validators, by its seat."""
        self.members[self.group.keys[number % len(self.group.keys)]].inbox.append(ev.OperationAsked(signed))

    def run(self, until: Callable[[], bool]) -> None:
        """Turn the nodes, one after another, until the condition holds."""
        while not until():
            if perf_counter() - self._ticked >= TICK_MS / 1000:
                self._ticked = perf_counter()
                for member in self.members.values():
                    member.inbox.append(ev.Ticked())
            self._turn()

    def _turn(self) -> None:
        for key, member in self.members.items():
            effects: list[ev.Effect] = []
            member.takes_its_turn()
            for _ in range(min(len(member.inbox), DRAINED_MAX)):
                effects += member.node.step(member.inbox.popleft())
            if effects:
                self._carry_out(key, member, effects)

    def _carry_out(self, key: Key, member: Member, effects: Sequence[ev.Effect]) -> None:
        writes: list[Write] = [
            one for one in effects if isinstance(one, ev.Keep | ev.Forget | ev.Store | ev.StoreCertificate | ev.Note)
        ]
        if writes and member.journal is not None:
            member.journal.commit(writes)
            self.counts["syncs"] += 1
        for effect in effects:
            match effect:
                case ev.Send(to, data):
                    self.counts["frames"] += 1
                    self.counts["bytes"] += len(data)
                    self.members[to].inbox.append(ev.Framed(key, data))
                case ev.Publish(topic, data):
                    self._publish(key, topic, data)
                case ev.Store(header, batch, _) if header.height not in self._ordered and header.height > self._settled:
                    self.counts["batches"] += 1
                    self._ordered[header.height] = tuple(one for one in batch.records if isinstance(one, Signed))
                case ev.StoreCertificate(certificate):
                    member.certified = max(member.certified, certificate.header.height)
                    self._settle()
                case ev.Refuse(_, reason):
                    raise AssertionError(f"honest validators refuse each other: {reason}")
                case _:
                    pass

    def _publish(self, key: Key, topic: str, data: bytes) -> None:
        for other, member in self.members.items():
            if other == key:
                continue
            self.counts["frames"] += 1
            self.counts["bytes"] += len(data)
            # As the daemon screens what comes by gossip, on the network's thread.
            member.takes_its_turn()
            screened = screen(topic, data, self.network)
            if screened is Screening.ACCEPT and topic == "certificates":
                screened = member.node.screen(decode(data, Certificate))
            if screened is not Screening.ACCEPT:
                continue
            member.inbox.append(ev.Gossiped(topic, data))
        self.members[key].takes_its_turn()

    def _settle(self) -> None:
        """What a quorum has certified is accepted."""
        heights = sorted((member.certified for member in self.members.values()), reverse=True)
        reached = heights[self.group.quorum - 1]
        while self._settled < reached:
            self._settled += 1
            for signed in self._ordered.pop(self._settled):
                self._accepted(signed)
