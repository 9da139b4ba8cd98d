"""Consensus in one process: what an operation costs, and how long it takes where nothing but work takes time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from time import perf_counter, process_time

from potd.wire.envelope import Signed
from tests.bench.cluster import Cluster
from tests.bench.load import clients, enough, percentile
from tests.bench.meters import counted_signatures, split_times


class Load:
    """As many clients as operations are to be outstanding, at a cluster of their own."""

    def __init__(self, size: int, outstanding: int, payload_bytes: int, folder: Path | None) -> None:
        self.cluster = Cluster(size, outstanding, self._accepted, folder)
        self.clients = clients(self.cluster.clients, payload_bytes)
        self.latencies_ms: list[float] = []
        self._owners: dict[bytes, tuple[int, float]] = {}  # by signature: the client, and when it offered
        self._offering = True

    def start(self) -> None:
        for number in range(len(self.clients)):
            self._offer(number)

    def run(self, operations: int, seconds: float) -> None:
        """Until so many more are accepted and so much time has passed, whichever is later."""
        count, end = len(self.latencies_ms) + operations, perf_counter() + seconds
        self.cluster.run(lambda: len(self.latencies_ms) >= count and perf_counter() >= end)

    def drain(self) -> None:
        """Offer no more, and go on until all that was offered is accepted. Each was executed once, and none is lost."""
        self._offering = False
        self.cluster.run(lambda: not self._owners)
        nodes = [member.node for member in self.cluster.members.values()]
        newest = max(node.height for node in nodes)
        for client in self.clients:
            nonces = {node.ledger.nonce(client.account) for node in nodes if node.height == newest}
            assert nonces == {client.nonce}, f"{client.nonce} operations were offered, and nonces are {nonces}"

    def _offer(self, number: int) -> None:
        began = perf_counter()
        signed = self.clients[number].next()
        self._owners[signed.signature] = number, began
        self.cluster.ask(number, signed)

    def _accepted(self, signed: Signed) -> None:
        number, began = self._owners.pop(signed.signature)
        self.latencies_ms.append(1000 * (perf_counter() - began))
        if self._offering:
            self._offer(number)


def measure(
    size: int, outstanding: int, payload_bytes: int, seconds: float, folder: Path | None = None
) -> dict[str, float | int]:
    """One closed loop at `size` validators. Times in milliseconds, everything else per accepted operation.

    CPU is that of the whole process: all validators and all clients. Latency is from the client's signing to the
    moment when a quorum holds the certificate, with every validator's work done in turn on one processor."""
    load = Load(size, outstanding, payload_bytes, folder)
    with counted_signatures() as signatures, load.cluster:
        load.start()
        load.run(outstanding, 0.0)  # one generation to warm up
        before = Counter(load.cluster.counts) + signatures
        since, worked = perf_counter(), process_time()
        first = len(load.latencies_ms)
        load.run(enough(outstanding), seconds)
        wall, cpu = perf_counter() - since, process_time() - worked
        latencies = load.latencies_ms[first:]
        counts = Counter(load.cluster.counts) + signatures - before
        load.drain()
    count = len(latencies)
    return {
        "validators": size,
        "outstanding": outstanding,
        "payload_bytes": payload_bytes,
        "operations": count,
        "operations_per_s": round(count / wall, 1),
        "commit_ms_p50": round(percentile(latencies, 0.5), 2),
        "commit_ms_p99": round(percentile(latencies, 0.99), 2),
        "cpu_ms": round(1000 * cpu / count, 3),
        "signed": round(counts["signed"] / count, 2),
        "checked": round(counts["checked"] / count, 2),
        "frames": round(counts["frames"] / count, 2),
        "bytes": round(counts["bytes"] / count),
        "batch": round(count / max(1, counts["batches"]), 2),
        "syncs": round(counts["syncs"] / count, 2),
    }


def split(size: int, outstanding: int, seconds: float) -> dict[str, float]:
    """Where the milliseconds of an operation go, by kind of work. Measuring this adds a little to each."""
    load = Load(size, outstanding, 0, None)
    with load.cluster:
        load.start()
        load.run(outstanding, 0.0)
        first = len(load.latencies_ms)
        worked = process_time()
        with split_times() as parts:
            load.run(enough(outstanding), seconds)
        whole = process_time() - worked
        count = len(load.latencies_ms) - first
        load.drain()
    told = {name: round(1000 * taken / count, 3) for name, taken in sorted(parts.items())}
    return {**told, "rest": round(1000 * (whole - sum(parts.values())) / count, 3)}
