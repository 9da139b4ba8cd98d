"""Consensus of real daemons over libp2p on loopback: what an operation costs, how long it takes, what a death costs.

Clients sign their operations and hand them to the daemons over the control sockets; an operation is accepted when the
daemon that was asked has executed it and says so.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from potd.cli.control import ask
from potd.cli.exits import Failure
from potd.cli.fleet import Fleet, free_ports
from potd.cli.homes import make_home
from potd.config.addresses import peer_id
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_key
from potd.runtime.workers import process_cpu_s
from potd.wire.codec import encode
from potd.wire.envelope import Signer
from potd.wire.genesis import PROTOCOL, TICK_MS, Allotment, Genesis, Parameters, genesis_digest
from tests.bench.load import Client, clients, enough, percentile

START_S = 120.0
ANSWER_S = 120.0
LEVEL_S = 60.0
SEED = b"bench"


def write_homes(folder: Path, size: int, accounts: int) -> tuple[Home, ...]:
    """Homes of `size` validators on loopback, in the order in which they become primary, and a genesis in which
    clients own something."""
    seeds = sorted((_seed(number) for number in range(size)), key=public_key)
    keys = [public_key(seed) for seed in (*seeds, *map(_seed, range(size, size + accounts)))]
    balances = tuple(sorted(Allotment(key, 10**12) for key in keys))
    validators = tuple(sorted(keys[:size]))
    genesis = Genesis("bench", PROTOCOL, int(time.time()), validators, balances, Parameters())
    port = free_ports(size)
    addresses = [f"/ip4/127.0.0.1/tcp/{port + number}" for number in range(size)]
    homes = []
    for number, seed in enumerate(seeds):
        others = [f"{addresses[one]}/p2p/{peer_id(keys[one])}" for one in range(size) if one != number]
        home = Home(folder / f"node{number + 1}")
        chosen = {"roles": ("validator",), "listen": (addresses[number],), "bootstrap": tuple(others), "device": "cpu"}
        make_home(home, chosen, genesis, seed)
        homes.append(home)
    return tuple(homes)


def start(fleet: Fleet) -> None:
    """All of them, until each knows each other and their workers have loaded what they load."""
    for home in fleet.homes:
        fleet.start(home)
    fleet.await_all(lambda one: one["peers"] == len(fleet.homes) - 1, START_S, "the daemons to know each other")
    end = time.monotonic() + START_S
    while not all("trainer worker ready" in home.log.read_text() for home in fleet.homes):
        fleet.check()
        assert time.monotonic() < end, "the workers do not start"
        time.sleep(0.2)


class Load:
    """A closed loop of clients, spread over the daemons that they ask."""

    def __init__(self, asked: Sequence[Home], size: int, outstanding: int, payload_bytes: int) -> None:
        network = genesis_digest(read_genesis(asked[0].genesis))
        signers = [Signer(_seed(size + number), network) for number in range(outstanding)]
        self.clients = clients(signers, payload_bytes)
        self._asked = asked
        self.accepted: list[tuple[float, float]] = []  # when each was offered and when it was accepted
        self._offering = True
        self._changed = asyncio.Event()

    async def run(self, script: Callable[[], Any]) -> None:
        """Offer for as long as the script runs, then wait for what was offered."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for number, client in enumerate(self.clients):
                home = self._asked[number % len(self._asked)]
                reader, writer = await asyncio.open_unix_connection(home.socket)
                stack.callback(writer.close)
                group.create_task(self._serve(home, client, reader, writer))
            await script()
            self._offering = False

    async def until(self, count: int) -> None:
        """Until so many operations have been accepted."""
        while len(self.accepted) < count:
            self._changed.clear()
            async with asyncio.timeout(ANSWER_S):
                await self._changed.wait()

    async def _serve(
        self, home: Home, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A network that has been used before knows the account: its nonce goes on from there.
        balance = await _asked(reader, writer, {"command": "balance", "account": client.account.hex()})
        client.nonce = balance["nonce"]
        while self._offering:
            offered = time.monotonic()
            signed = base64.b64encode(encode(client.next())).decode()
            await _asked(reader, writer, {"command": "operation", "signed": signed, "patience_s": ANSWER_S})
            self.accepted.append((offered, time.monotonic()))
            self._changed.set()


def measure(fleet: Fleet, outstanding: int, payload_bytes: int, seconds: float) -> dict[str, Any]:
    """One closed loop. Times in milliseconds, everything else per accepted operation.

    CPU is that of the daemons, their threads included, and of the clients. A single client asks a backup."""
    size = len(fleet.homes)
    primary = _primary(fleet)
    asked = [home for home in fleet.homes if home != primary] + [primary]
    load = Load(asked, size, outstanding, payload_bytes)
    told: dict[str, Any] = {}

    async def script() -> None:
        await load.until(outstanding)  # one generation to warm up
        first = len(load.accepted)
        since, before, own = time.monotonic(), _cpu_s(fleet), time.process_time()
        await asyncio.sleep(seconds)
        await load.until(first + enough(outstanding))
        wall = time.monotonic() - since
        daemons_s, clients_s = _cpu_s(fleet) - before, time.process_time() - own
        taken = [1000 * (accepted - offered) for offered, accepted in load.accepted[first:]]
        told.update(
            validators=size,
            outstanding=outstanding,
            payload_bytes=payload_bytes,
            operations=len(taken),
            operations_per_s=round(len(taken) / wall, 1),
            commit_ms_p50=round(percentile(taken, 0.5), 2),
            commit_ms_p99=round(percentile(taken, 0.99), 2),
            cpu_ms=round(1000 * (daemons_s + clients_s) / len(taken), 3),
            cpu_clients_ms=round(1000 * clients_s / len(taken), 3),
        )

    _level(fleet.homes)
    before = _traffic(fleet)
    asyncio.run(load.run(script))
    after = _traffic(fleet)
    count = len(load.accepted)
    for name, was in before.items():
        told[name] = round((after[name] - was) / count, 2)
    told["batch"] = round(count / max(1, after["heights"] - before["heights"]), 2)
    del told["heights"]
    return told


def recover(fleet: Fleet, outstanding: int) -> dict[str, Any]:
    """SIGKILL to the primary under load: the time to the next commit at those who survive, and whether every operation
    that was accepted, before or after, has been executed, once. One timeout is the patience that genesis gives."""
    primary = _primary(fleet)
    survivors = [home for home in fleet.homes if home != primary]
    load = Load(survivors, len(fleet.homes), outstanding, 0)
    views = [status["view"] for status in _statuses(fleet)]
    killed = 0.0
    _level(fleet.homes)

    async def script() -> None:
        nonlocal killed
        await load.until(4 * outstanding)
        killed = time.monotonic()
        await asyncio.to_thread(fleet.kill, primary)
        count = len(load.accepted)
        # What was under way when it died may still come; everybody's next operation needs the next primary.
        await load.until(count + 3 * outstanding)

    asyncio.run(load.run(script))
    moments = sorted(accepted for _, accepted in load.accepted if accepted > killed)
    gaps = [(later - earlier, later) for earlier, later in zip([killed, *moments], moments, strict=False)]
    silent_s, resumed = max(gaps)
    timeout_s = Parameters().patience_ticks * TICK_MS / 1000
    lost = _lost(survivors, load.clients)
    return {
        "outstanding": outstanding,
        "timeout_s": timeout_s,
        "recovery_s": round(resumed - killed, 3),
        "recovery_timeouts": round((resumed - killed) / timeout_s, 2),
        "silent_s": round(silent_s, 3),
        "view_changes": max(status["view"] for status in _statuses(fleet)) - max(views),
        "accepted": len(load.accepted),
        "lost": lost,
    }


def _lost(homes: Sequence[Home], offered: Sequence[Client]) -> int:
    """Operations that were accepted and that some of these nodes has not executed, once it has caught up. All that
    were offered have been accepted by now: an account's nonce counts them."""
    _level(homes)
    return sum(
        abs(client.nonce - ask(home.path, "balance", account=client.account.hex())["nonce"])
        for home in homes
        for client in offered
    )


def median_fsync_ms(folder: Path, times: int = 200) -> float:
    """Of appending a page to a file in this folder and having it on disk."""
    taken = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - began))
    path.unlink()
    return statistics.median(taken)


def _seed(number: int) -> bytes:
    return SEED.ljust(28, b"\x00") + number.to_bytes(4, "big")


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: dict[str, Any]
) -> dict[str, Any]:
    writer.write(json.dumps(question).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await reader.readline())
    assert answer["ok"], answer["error"]
    return answer


def _statuses(fleet: Fleet) -> list[dict[str, Any]]:
    return fleet.await_all(lambda _: True, START_S, "the daemons to answer")


def _level(homes: Sequence[Home]) -> None:
    """Until all of these have executed the same height: one that was not asked may be a little behind."""
    end = time.monotonic() + LEVEL_S
    while len({ask(home.path, "status")["height"] for home in homes}) > 1:
        assert time.monotonic() < end, "the daemons do not reach one height"
        time.sleep(0.1)


def _primary(fleet: Fleet) -> Home:
    key = _statuses(fleet)[0]["primary"]
    return next(home for home in fleet.homes if public_key(read_key(home.key)).hex() == key)


def _cpu_s(fleet: Fleet) -> float:
    return sum(process_cpu_s(fleet.pid(home)) or 0.0 for home in fleet.homes)


def _peers(home: Home) -> list[dict[str, Any]]:
    """Those of one daemon, once it has noticed that enough of its clients have hung up."""
    end = time.monotonic() + ANSWER_S
    while True:
        try:
            found: list[dict[str, Any]] = ask(home.path, "peers")["peers"]
        except Failure:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return found


def _traffic(fleet: Fleet) -> dict[str, float]:
    """Frames and their bytes on the votes streams, writes of the journals, and heights, until now."""
    peers = [one for home in fleet.homes for one in _peers(home)]
    statuses = _statuses(fleet)
    return {
        "frames": sum(one["frames_out"] for one in peers),
        "bytes": sum(one["bytes_out"] for one in peers),
        "syncs": sum(status["pump"]["syncs"] for status in statuses),
        "heights": max(status["height"] for status in statuses),
    }
