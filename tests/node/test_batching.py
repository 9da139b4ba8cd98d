"""Which operations share a batch: the primary lets them gather where many come, and nobody waits where few do."""

from __future__ import annotations

from collections import deque

from potd.arithmetic.selftest import GOLDEN
from potd.node import events as ev
from potd.node.node import GATHERED_MIN, GATHERED_TICKS, Node, Settings
from potd.wire.envelope import Signer
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import Key, account_id
from potd.wire.operations import Transfer

SEEDS = [bytes([index + 1]) * 32 for index in range(4 + GATHERED_MIN)]
KEYS = [Signer(seed, bytes(32)).key for seed in SEEDS]
GENESIS = Genesis(
    "test", 1, 0, tuple(sorted(KEYS[:4])), tuple(sorted(Allotment(key, 10**12) for key in KEYS)), Parameters()
)
NETWORK = genesis_digest(GENESIS)


class Council:
    """Four validators whose frames arrive when the test says so, and clients of the primary."""

    def __init__(self) -> None:
        signers = sorted((Signer(seed, NETWORK) for seed in SEEDS[:4]), key=lambda one: one.key)
        self.nodes = {one.key: Node(Settings(True, False, 1, None, False), GENESIS, one, GOLDEN) for one in signers}
        self.primary = self.nodes[GENESIS.validators[0]]
        self.clients = [Signer(seed, NETWORK) for seed in SEEDS[4:]]
        self.nonces = [0] * len(self.clients)
        self.batches: list[int] = []  # how many operations each height had
        self._sent: deque[tuple[Key, Key, bytes]] = deque()
        for key, node in self.nodes.items():
            self._take(key, node.start())
            for other in self.nodes:
                if other != key:
                    self._take(key, node.step(ev.PeerUp(other, 0)))
        self.tick()
        self.settle()

    def _take(self, key: Key, effects: list[ev.Effect]) -> None:
        for one in effects:
            if isinstance(one, ev.Send):
                self._sent.append((key, one.to, one.data))
            elif isinstance(one, ev.Store) and key == self.primary.signer.key:
                self.batches.append(len(one.batch.records))

    def ask(self, *clients: int) -> None:
        for number in clients:
            signer = self.clients[number]
            body = Transfer(account_id(signer.key), self.nonces[number], account_id(KEYS[0]), 1, "")
            self.nonces[number] += 1
            self._take(self.primary.signer.key, self.primary.step(ev.OperationAsked(signer.sign(body))))

    def settle(self) -> None:
        """Every frame arrives, and what follows from it."""
        while self._sent:
            sender, to, data = self._sent.popleft()
            self._take(to, self.nodes[to].step(ev.Framed(sender, data)))

    def tick(self) -> None:
        for key, node in self.nodes.items():
            self._take(key, node.step(ev.Ticked()))


def busy() -> Council:
    """A council that has just agreed on one operation, while all but one others waited."""
    council = Council()
    council.ask(*range(GATHERED_MIN))
    council.settle()
    assert council.batches == [1]
    return council


def test_those_who_come_back_share_a_batch_with_those_who_wait() -> None:
    council = busy()
    council.ask(0)
    council.settle()
    assert council.batches == [1, GATHERED_MIN]
    council.ask(*range(GATHERED_MIN))
    council.settle()
    assert council.batches == [1, GATHERED_MIN, GATHERED_MIN]


def test_those_who_wait_are_held_up_for_a_moment_at_most() -> None:
    council = busy()
    for _ in range(GATHERED_TICKS - 1):
        council.tick()
        council.settle()
    assert council.batches == [1]
    council.tick()
    council.settle()
    assert council.batches == [1, GATHERED_MIN - 1]


def test_where_few_are_at_work_nobody_waits() -> None:
    council = Council()
    council.ask(*range(GATHERED_MIN - 1))
    council.settle()
    assert council.batches == [1, GATHERED_MIN - 2]
    council.ask(0)
    council.settle()
    assert council.batches == [1, GATHERED_MIN - 2, 1]
