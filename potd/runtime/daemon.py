"""The daemon: opens a home, puts the parts together, runs until it is told to stop. Knows no protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import uvloop

from potd import __version__
from potd.arithmetic.selftest import GOLDEN
from potd.config import Config, ConfigError, locked, read_genesis, read_key, reread
from potd.config.addresses import peer_id
from potd.gossip.admit import Screening, screen
from potd.ledger.entries import Phase
from potd.node import events
from potd.node.node import Node, Restored, Settings
from potd.runtime import network as net
from potd.runtime.answers import Answers
from potd.runtime.blobs import BlobStore
from potd.runtime.control import Control
from potd.runtime.fetcher import Fetcher
from potd.runtime.journal import Journal, JournalError, open_journal
from potd.runtime.libp2p import Libp2pNetwork
from potd.runtime.logs import SAID, open_log, set_level
from potd.runtime.pump import Pump
from potd.runtime.refusals import Refusals
from potd.runtime.succession import has_seed, succeed
from potd.runtime.timing import Timing
from potd.runtime.views import node_view, successor_text
from potd.runtime.workers import NICE, Worker, WorkerCommand, WorkerUnfit
from potd.wire import transfer
from potd.wire.blocks import Certificate
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signer
from potd.wire.genesis import Genesis, Hello, genesis_digest
from potd.wire.ids import Digest, Key, short
from potd.wire.operations import Enrol

log = logging.getLogger(__name__)

OK, CANNOT, OUR_FAULT = 0, 1, 70  # exit statuses; 70 is EX_SOFTWARE
NETWORK_HEX = 16  # so much of the network's name stands in the names of its streams
HEIGHTS_MAX = 4096
STOP_S = 4.0  # a clean stop takes a fraction of it


def _abandon() -> None:
    """What was said is durable: whatever still hangs is not worth waiting for."""
    log.error("not stopped after %.0f s; ending without the rest", STOP_S)
    logging.shutdown()
    os._exit(CANNOT)


class _Stopped(Exception):
    """This life of the daemon is over."""


@dataclass(frozen=True)
class _Afterlife:
    """What the daemon goes on with when its next key has taken over."""

    config: Config
    peers: tuple[str, ...]  # where those are whom it knew: they know it by the key that it had


def run(config: Config) -> int:
    """Run the daemon of a home until told to stop. Returns the exit status; why it failed goes to standard error."""
    os.umask(0o077)
    try:
        open_log(config)
        genesis = read_genesis(config.home.genesis)
        with locked(config.home):
            _succeed(config, genesis)
            after = uvloop.run(_live(config, genesis, ()))
            while after is not None:
                _succeed(config, genesis)  # if somebody takes the key away just now the old one says so, and follows
                after = uvloop.run(_live(after.config, genesis, after.peers))
    except BaseException as error:
        return _said(error)
    log.info("stopped")
    return OK


def _succeed(config: Config, genesis: Genesis) -> None:
    """Put the next key in the place of ours, if it is its turn."""
    if succeed(config.home, genesis_digest(genesis)):
        log.warning("the key in node.key.next has taken over; the one before it lies in %s", config.home.key_old)


def _said(error: BaseException) -> int:
    """Say why the daemon ended, and with which status."""
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, KeyboardInterrupt):
        return OK
    if not isinstance(first, ConfigError | JournalError | WorkerUnfit | OSError | ImportError):
        log.critical("this is a fault of potd itself: %r", first, exc_info=error)
        return OUR_FAULT
    problems = first.problems if isinstance(first, ConfigError) else (_sentence(first),)
    for problem in problems:
        print(f"potd: {problem}", file=sys.stderr)
        log.error("%s", problem, extra={SAID: True})
    return CANNOT


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error) or type(error).__name__


async def _live(config: Config, genesis: Genesis, peers: tuple[str, ...]) -> _Afterlife | None:
    """One life of the daemon, under one key. Returns with what another is to follow, and None if none is.

    `peers` are addresses to try beside those of config.toml. Raises what ends it, unless it was asked to."""
    network = genesis_digest(genesis)
    seed = read_key(config.home.key)
    signer = Signer(seed, network)
    blobs = BlobStore(config.home.blobs, config.storage_bytes_max)
    with open_journal(config.home.journal, network, signer.key) as journal:
        recovered = journal.recover()
        held = blobs.open()
        restored = Restored(
            recovered.header,
            recovered.certificate,
            recovered.entries,
            recovered.records,
            recovered.notes,
            held,
            os.urandom(32),
            recovered.begins,
        )
        try:
            node = Node(_settings(config), genesis, signer, GOLDEN, restored)
        except ValueError as error:  # what sqlite and the signatures did not show
            raise journal.damaged(str(error)) from None
        if config.validates and node.replica is None:
            log.warning("this key has no seat among the validators: the node follows them until it has one")
        if not config.validates and signer.key in node.group:
            log.warning(
                "this key has a seat among the validators, but config.toml does not give it the role 'validator'"
            )
        log.info(
            "potd %s, %s, network %s (%s), height %d, %d blobs of %d bytes",
            __version__, peer_id(signer.key), genesis.name, short(network), node.height, len(held), blobs.bytes_held,
        )  # fmt: skip
        last_word = threading.Timer(STOP_S, _abandon)
        last_word.daemon = True
        after: _Afterlife | None = None
        try:
            async with asyncio.TaskGroup() as group:
                after = await Daemon(config, genesis, seed, signer, node, journal, blobs, group, last_word).live(peers)
                raise _Stopped
        except* _Stopped:
            pass
        finally:
            last_word.cancel()
    return after


def _settings(config: Config) -> Settings:
    return Settings(
        validator=config.validates,
        miner=config.mines,
        units=config.units,
        tasks=None if config.tasks == "all" else config.tasks,
        trainer=config.mines or config.validates,  # validators score models
    )


def _network_config(config: Config) -> net.NetworkConfig:
    allowances = net.Allowances(
        frames=net.Allowance(config.frames_per_s_max, 10 * config.frames_per_s_max),
        gossip=net.Allowance(config.gossip_per_s_max, 10 * config.gossip_per_s_max),
        questions=net.Allowance(config.questions_per_s_max, 5 * config.questions_per_s_max),
        answer_bytes=net.Allowance(config.answer_bytes_per_s_max, 2 * config.answer_bytes_per_s_max),
    )
    return net.NetworkConfig(
        listen=config.listen,
        announce=config.announce,
        connections_max=config.connections_max,
        allowances=allowances,
    )


class Daemon:
    """The parts of a running daemon, and what ties them: the network's callbacks, signals, status."""

    def __init__(
        self,
        config: Config,
        genesis: Genesis,
        seed: bytes,
        signer: Signer,
        node: Node,
        journal: Journal,
        blobs: BlobStore,
        group: asyncio.TaskGroup,
        last_word: threading.Timer,
    ) -> None:
        self._last_word = last_word  # started when we are asked to stop
        self._config = config
        self._genesis = genesis
        self._signer = signer
        self._network_name: Digest = signer.network
        self._node = node
        self._journal = journal
        self._blobs = blobs
        self._group = group
        self._heights: dict[Key, int] = {}  # that peers have claimed in their hello
        self._refusals = Refusals()
        self._over = asyncio.Event()
        self._asked_to_stop = False
        self._sought: tuple[Key, ...] = ()
        self._successor: Key | None = None  # the key that was last said to have our account
        self._began = time.monotonic()
        self.network = Libp2pNetwork(
            seed,
            network=self._network_name.hex()[:NETWORK_HEX],
            topics=self._topics(heard=True),
            fanout=self._topics(heard=False),
            direct=("certificates",),  # validators tell each other by votes what a certificate says
            kinds=transfer.KINDS,
            callbacks=self,
            config=_network_config(config),
        )
        self.workers = self._make_workers()
        self.fetcher = Fetcher(blobs, self.network, self._put, self._blame, group)
        self.pump = Pump(node, journal, blobs, self.network, self.fetcher, self.workers, self._refusals)
        self._timing = Timing()
        self.pump.listen(self._timing.listen)
        self.pump.listen(lambda _: self._look_round())
        self._answers = Answers(blobs, journal, node.batch, self._blame, node)
        self._control = Control(
            config.home, node, self.pump, blobs, self.fetcher, signer,
            status=self.status, peers=self.peers, units=lambda: self._config.units, stop=self._stop,
        )  # fmt: skip

    async def live(self, peers: Sequence[str] = ()) -> _Afterlife | None:
        """Until somebody asks to stop, or the next key has taken over. Raises what else ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        for worker in self.workers:
            self._group.create_task(worker.run(), name=worker.kind)
        async with self.network, self._control.serving():
            for address in self.network.addresses:
                log.info("listening on %s", address)
            self.network.dial([one for one in self._config.bootstrap if not one.endswith(peer_id(self._signer.key))])
            self.network.introduce(peers)
            self._look_round()
            turning = [
                self._group.create_task(self.pump.run(), name="pump"),
                self._group.create_task(self.pump.tick(), name="clock"),
            ]
            await self._over.wait()
            log.info("stopping")
            known = self.network.known()
            self._last_word.start()
            for task in turning:
                task.cancel()
            await asyncio.wait(turning)
        return None if self._asked_to_stop else _Afterlife(self._config, known)

    def _stop(self) -> None:
        self._asked_to_stop = True
        self._over.set()

    def _look_round(self) -> None:
        """What a height may have changed of who we are and whom we need."""
        keys = self._node.group.keys if self._node.replica is not None else ()
        if keys != self._sought:  # votes go straight from one validator to another
            self._sought = keys
            self.network.seek(keys)
        self._look_for_successor()

    def _look_for_successor(self) -> None:
        """End this life when the key in node.key.next has our account; say what to do when another one has."""
        successor = self._node.successor()
        if successor is None or successor == self._successor:
            return
        self._successor = successor
        if has_seed(self._config.home, successor):
            log.warning("key %s has taken over: going on with it", short(successor))
            self._over.set()
        elif self._config.roles:
            log.warning("%s", successor_text(successor))

    # What the network calls

    def heard(self, event: net.NetworkEvent) -> None:
        match event:
            case net.PeerUp(peer, address):
                log.info("peer %s is up, at %s", short(peer), address)
                self.pump.put(events.PeerUp(peer, self._heights.get(peer, 0)))
                self.fetcher.peer_up()
            case net.PeerDown(peer, reason):
                log.info("peer %s is gone: %s", short(peer), reason)
                self.pump.put(events.PeerDown(peer))
            case net.Framed(peer, frame):
                self.pump.put_frame(events.Framed(peer, frame))
            case net.Gossiped(topic, _, data):
                self.pump.put_gossip(events.Gossiped(topic, data))
            case net.Mismatched(peer, address, reason):
                log.warning("no business with peer %s at %s: %s", peer_id(peer), address, reason)
                self._refusals.count(peer, "hello of another network or protocol")
            case _:
                assert_never(event)

    def screen(self, topic: str, data: bytes) -> Screening:
        screened = screen(topic, data, self._network_name)
        if topic != "certificates" or screened is not Screening.ACCEPT:
            return screened
        # A certificate is passed on only if it proves something: its key would be anybody's otherwise.
        return self._node.screen(decode(data, Certificate))

    def hello(self) -> bytes:
        listening = min(len(self.network.addresses), 2**16 - 1)
        return encode(
            Hello(
                self._network_name,
                self._genesis.protocol,
                self._node.height,
                __version__,
                self._node.replica is not None,
                listening,
            )
        )

    def admit(self, peer: Key, hello: bytes) -> str | None:
        try:
            said = decode(hello, Hello)
        except Malformed as error:
            return f"its hello cannot be read: {error}"
        if said.network != self._network_name:
            return (
                f"{peer_id(peer)} is on network {short(said.network)}, ours is {short(self._network_name)}: "
                "compare genesis.toml"
            )
        if said.protocol != self._genesis.protocol:
            return f"{peer_id(peer)} speaks protocol {said.protocol}, this network's is {self._genesis.protocol}"
        if len(self._heights) >= HEIGHTS_MAX:
            self._heights.pop(next(iter(self._heights)), None)
        self._heights[peer] = said.height
        return None

    async def answer(self, peer: Key, kind: str, question: bytes) -> bytes:
        return await self._answers.answer(peer, kind, question)

    # Status

    def status(self) -> dict[str, Any]:
        """Everything that `potd status` tells."""
        running = [worker.job for worker in self.workers if worker.job is not None]
        peers = self.network.peers()
        counters = self.network.counters()
        refused = {
            name.removeprefix("refused "): times for name, times in counters.items() if name.startswith("refused ")
        }
        return {
            **node_view(self._node, running),
            "roles": list(self._config.roles),
            "network_name": self._genesis.name,
            "release": __version__,
            "peer_id": peer_id(self._signer.key),
            "addresses": list(self.network.addresses),
            "peers": sum(not one.guest for one in peers),
            "uptime_s": round(time.monotonic() - self._began, 3),
            "journal_bytes": self._journal.size(),
            "blobs_bytes": self._blobs.bytes_held,
            "blobs_bytes_max": self._blobs.bytes_max,
            "blobs_wanted": len(self.fetcher.wanted()),
            "refused": {**refused, **self._refusals.by_reason},
            "untimely": dict(self._refusals.untimely),
            "dropped": dict(self.pump.dropped),
            "traffic": {"blobs_in": self.fetcher.bytes_in, "blobs_out": self._answers.bytes_out},
            "cpu": self._cpu(),
            "round_ms": self._timing.told(),
            "pump": {
                "steps": self.pump.steps,
                "syncs": self.pump.syncs,
                "step_s": round(self.pump.step_s, 3),
                "sync_s": round(self.pump.sync_s, 3),
                "waiting": self.pump.waiting,
            },
            "workers": {
                worker.kind: {"pid": worker.pid, "starts": worker.starts, "jobs": worker.jobs_done}
                for worker in self.workers
            },
        }

    def peers(self) -> dict[str, Any]:
        """Everything that `potd peers` tells."""
        listed = [
            {
                **{key: value for key, value in dataclasses.asdict(one).items() if key != "key"},
                "peer_id": peer_id(one.key),
                "key": one.key.hex(),
                "height": self._heights.get(one.key),
            }
            for one in self.network.peers()
        ]
        return {"peers": listed, "addresses": list(self.network.addresses), "counters": dict(self.network.counters())}

    def _cpu(self) -> dict[str, float | None]:
        """CPU seconds since the start, by process, and of the daemon's own thread."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        told: dict[str, float | None] = {
            "daemon_s": round(usage.ru_utime + usage.ru_stime, 3),
            "loop_s": round(time.thread_time(), 3),
        }
        for worker in self.workers:
            seconds = worker.cpu_s()
            told[f"{worker.kind}_s"] = None if seconds is None else round(seconds, 3)
        return told

    # Parts

    def _topics(self, *, heard: bool) -> Sequence[str]:
        """Commitments are for validators; the rest is for everybody, so that it reaches everybody."""
        only_sent = () if self._config.validates else ("commitments",)  # who has no seat may be given one
        return tuple(topic for topic in events.TOPICS if (topic in only_sent) != heard)

    def _make_workers(self) -> tuple[Worker, ...]:
        commands = []
        if self._node.settings.trainer:
            arguments = ("--device", self._config.device)
            commands.append(WorkerCommand(events.TRAINER, "potd.trainer", arguments, NICE))
        if self._config.roles:
            commands.append(WorkerCommand(events.ARITHMETIC, "potd.arithmetic"))
        return tuple(Worker(one, self._blobs.folder, self._put, self._blobs.noticed) for one in commands)

    def _put(self, event: events.Input) -> None:
        self.pump.put(event)

    def _blame(self, peer: Key, reason: str) -> None:
        self.pump.blame(peer, reason)

    # SIGHUP

    def _reload(self) -> None:
        """Take over what has changed in config.toml and can change. What the command line said stays."""
        before = self._config
        try:
            self._config, later = reread(before)
        except ConfigError as error:
            for problem in error.problems:
                log.error("not reloaded: %s", problem)
            return
        names = [one.name for one in dataclasses.fields(Config)]
        changed = [name for name in names if getattr(before, name) != getattr(self._config, name)]
        log.info("reloaded config.toml; changed: %s", ", ".join(changed) or "nothing")
        if later:
            log.warning("%s: changed in config.toml, in force after a restart", ", ".join(later))
        set_level(self._config)
        self._blobs.bytes_max = self._config.storage_bytes_max
        self._blobs.trim()
        if "bootstrap" in changed:
            self.network.dial(self._config.bootstrap)
        self._node.settings = _settings(self._config)
        if "units" in changed:
            self._group.create_task(self._change_units(), name="change units")

    async def _change_units(self) -> None:
        """Enrol afresh, with other units, for every task that we are enrolled for."""
        node, units = self._node, self._config.units
        for task in list(node.ledger.tasks()):
            seat = task.miner(node.account)
            if seat is not None and seat.units_next != units and task.phase != Phase.DONE:
                signed = self._signer.sign(Enrol(node.account, node.next_nonce(), task.id, units))
                await self.pump.take(events.OperationAsked(signed))
