"""A long chain that was made at once, in the homes of daemons, and a newcomer that joins them by libp2p.

`python -m tests.e2e.joining HEIGHTS` prints how long a newcomer takes by a snapshot and by blocks, in milliseconds from
its first peer until it has reached the height; the better of three, since other work on the machine only adds.
"""

from __future__ import annotations

import datetime
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potd.cli.control import ask
from potd.cli.exits import Failure
from potd.config.addresses import peer_id
from potd.config.genesis import write_genesis
from potd.config.home import Home, public_key, write_key
from potd.ledger.apply import execute
from potd.ledger.state import genesis_ledger
from potd.node.events import Store, StoreCertificate
from potd.runtime.journal import Write, open_journal
from potd.wire.blocks import Batch, Certificate
from potd.wire.envelope import Signer, attestation_of
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import account_id
from potd.wire.operations import Transfer

VALIDATOR = bytes([1]) * 32
TRANSFERS = 8  # in a batch
ACCOUNTS = 500  # that they go to
PATIENCE_S = 60.0
RUN = """
import sys
from pathlib import Path
import potd.node.node
from potd.config import load_config
from potd.runtime import daemon
potd.node.node.SNAPSHOT_LAG = int(sys.argv[2])
sys.exit(daemon.run(load_config(Path(sys.argv[1]))))
"""
FAR = 256  # as it is
NEVER = 10**9  # so far behind is nobody, and blocks are taken


def network() -> Genesis:
    owner = public_key(VALIDATOR)
    return Genesis("joining", PROTOCOL, 1, (owner,), (Allotment(owner, 10**15),), Parameters())


def chain(heights: int) -> list[Write]:
    """What a node writes that executes so many batches of one validator."""
    genesis = network()
    signer = Signer(VALIDATOR, genesis_digest(genesis))
    ledger, account, nonce = genesis_ledger(genesis), account_id(signer.key), 0
    writes: list[Write] = []
    for height in range(1, heights + 1):
        records = []
        for _ in range(TRANSFERS):
            to = account_id((nonce % ACCOUNTS).to_bytes(32, "big"))
            records.append(signer.sign(Transfer(account, nonce, to, 1_000, "")))
            nonce += 1
        batch = Batch(tuple(records))
        executed = execute(ledger, batch)
        changes = executed.changes if height > 1 else tuple(executed.ledger.entries.items())
        ledger = executed.ledger
        certificate = Certificate(executed.header, (attestation_of(signer.sign(executed.header)),))
        writes += [Store(executed.header, batch, changes), StoreCertificate(certificate)]
    return writes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Node:
    """A home and, once started, its daemon. Number 1 is the validator."""

    def __init__(self, folder: Path, number: int, bootstrap: tuple[str, ...] = (), *, roles: str = "[]") -> None:
        self.home = Home(folder / f"node{number}")
        self.home.path.mkdir(mode=0o700, parents=True)
        seed, port = bytes([number]) * 32, free_port()
        self.key = public_key(seed)
        self.address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id(self.key)}"
        self.home.config.write_text(
            f'roles = {roles}\nlisten = ["/ip4/127.0.0.1/tcp/{port}"]\nbootstrap = {json.dumps(bootstrap)}\n'
            'device = "cpu"\nlog_json = true\n'
        )
        write_key(self.home.key, seed)
        write_genesis(self.home.genesis, network())
        self._process: subprocess.Popen[bytes] | None = None

    def wrote(self, writes: list[Write]) -> None:
        with open_journal(self.home.journal, genesis_digest(network()), self.key) as journal:
            journal.commit(writes)

    def start(self, lag: int = FAR) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(self.home.path), str(lag)], stderr=subprocess.DEVNULL
        )

    def until(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self._process is not None and self._process.poll() is None, self.home.log.read_text()
            try:
                status = ask(self.home.path, "status")
                if wanted(status):
                    return status
            except Failure:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not {what} within {PATIENCE_S} s: {self.home.log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def logged(self, text: str) -> list[float]:
        """When lines with this text were written, in seconds."""
        lines = [json.loads(line) for line in self.home.log.read_text().splitlines()]
        return [datetime.datetime.fromisoformat(one["time"]).timestamp() for one in lines if text in one["text"]]


def join_ms(folder: Path, number: int, old: list[Node], height: int, lag: int) -> int:
    newcomer = Node(folder, number, tuple(one.address for one in old))
    there = f"the state of height {height}, of" if lag == FAR else f"certified heights to {height}"
    newcomer.start(lag)
    try:  # it is written down when the line is
        newcomer.until(lambda _: bool(newcomer.logged(there)), f"at height {height}")
    finally:
        newcomer.stop()
    return round(1000 * (newcomer.logged(there)[0] - newcomer.logged(" is up, at ")[0]))


def main(heights: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        writes = chain(heights)
        old: list[Node] = []
        try:
            for number in (2, 3, 4):
                old.append(Node(folder, number, tuple(one.address for one in old)))
                old[-1].wrote(writes)
                old[-1].start()
                old[-1].until(lambda status: status["height"] == heights, "up")
            tries = {
                lag: min(join_ms(folder, 10 * turn + at, old, heights, lag) for turn in (1, 2, 3))
                for at, lag in enumerate((FAR, NEVER))
            }
        finally:
            for node in old:
                node.stop()
    figures = {"heights": heights, "snapshot_ms": tries[FAR], "blocks_ms": tries[NEVER]}
    print(json.dumps(figures | {"ratio": round(tries[NEVER] / max(1, tries[FAR]), 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
