"""The daemon as its operator meets it: a process that starts, says what is wrong in one sentence, reloads and stops."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from potd.cli.control import ask
from potd.cli.exits import Failure
from potd.config.genesis import write_genesis
from potd.config.home import Home, public_key, read_key, write_key
from potd.wire.codec import encode
from potd.wire.envelope import Signer
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, account_id
from potd.wire.operations import Possession, Rekey

pytestmark = pytest.mark.slow

# A daemon that tells at its end whether torch was imported, by its exit status.
RUN = """
import sys
from pathlib import Path
from potd.config import load_config
from potd.runtime import daemon
status = daemon.run(load_config(Path(sys.argv[1])))
sys.exit(99 if "torch" in sys.modules or "numpy" in sys.modules else status)
"""
FILE_BYTES_MAX = 300_000  # of any file, for a daemon on a disk that is full from there on
RUN_ON_A_SMALL_DISK = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES_MAX}, {FILE_BYTES_MAX}))
{RUN}
"""
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def home(folder: Path, number: int = 1, *, roles: str = "[]", genesis: Genesis | None = None, more: str = "") -> Home:
    """A ready home. Node 1 is the only validator, and a client unless told otherwise, so that it starts quickly."""
    place = Home(folder / f"node{number}")
    place.path.mkdir(mode=0o700)
    port = free_port()
    place.config.write_text(f'roles = {roles}\nlisten = ["/ip4/127.0.0.1/tcp/{port}"]\ndevice = "cpu"\n{more}')
    write_key(place.key, bytes([number]) * 32)
    write_genesis(place.genesis, genesis or network())
    return place


def network(name: str = "tests") -> Genesis:
    owner = public_key(b"\x01" * 32)
    return Genesis(name, PROTOCOL, 1, (owner,), (Allotment(owner, 10**12),), Parameters())


class Daemon:
    def __init__(self, place: Home, program: str = RUN) -> None:
        self.home = place
        self.errors = place.path / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen([sys.executable, "-c", program, str(place.path)], stderr=errors)

    def until(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process.poll() is None, f"it ended: {self.said()}"
            try:
                answer = ask(self.home.path, "status")
                if wanted(answer):
                    return answer
            except Failure:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not {what} within {PATIENCE_S} s: {self.said()}")

    def until_up(self) -> dict[str, Any]:
        return self.until(lambda answer: True, "up")

    def until_said(self, text: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.said():
            assert time.monotonic() < end, f"{text!r} is not in {self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        return self.errors.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(5)


@pytest.fixture
def start() -> Iterator[Callable[..., Daemon]]:
    daemons: list[Daemon] = []

    def begin(place: Home, program: str = RUN) -> Daemon:
        daemons.append(Daemon(place, program))
        return daemons[-1]

    yield begin
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


Start = Callable[..., Daemon]


def refused(place: Home) -> str:
    """What a daemon that cannot start says; it must be one plain sentence and exit status 1."""
    done = subprocess.run([sys.executable, "-c", RUN, str(place.path)], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if line.startswith("potd: ")]
    assert done.returncode == 1, done.stderr
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return said[0].removeprefix("potd: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_validator_starts_answers_and_stops_without_ever_importing_torch(
    tmp_path: Path, start: Start, number: int
) -> None:
    daemon = start(home(tmp_path, roles='["validator"]'))
    ready = daemon.until(lambda one: one["workers"]["trainer"]["pid"] and one["uptime_s"] > 0, "ready")
    assert ready["view"] == 0
    assert ready["primary"] == public_key(b"\x01" * 32).hex()
    assert (ready["roles"], ready["height"], ready["peers"]) == (["validator"], 0, 0)
    workers = [one["pid"] for one in ready["workers"].values()]
    assert daemon.stop(number) == 0
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not daemon.home.socket.exists()


def test_what_was_executed_is_there_after_kill_9_and_the_workers_are_gone(tmp_path: Path, start: Start) -> None:
    place = home(tmp_path, roles='["validator"]')
    daemon = start(place)
    before = daemon.until_up()
    to = bytes(range(32)).hex()
    assert ask(place.path, "transfer", to=to, amount_micro=7)["height"] == 1
    daemon.process.kill()
    daemon.process.wait()
    again = start(place)
    assert again.until_up()["height"] == 1
    assert ask(place.path, "balance", account=to)["balance_micro"] == 7
    end = time.monotonic() + 60  # it may be loading its libraries still, on a busy machine
    for pid in [one["pid"] for one in before["workers"].values() if one["pid"]]:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, f"worker {pid} outlived its daemon"
            time.sleep(0.05)


def test_a_full_disk_ends_the_daemon_with_a_sentence_and_costs_nothing_that_was_acknowledged(
    tmp_path: Path, start: Start
) -> None:
    place, to = home(tmp_path, roles='["validator"]'), bytes(range(32)).hex()
    place.log.write_bytes(bytes(FILE_BYTES_MAX))  # the log file has no room either, from the first line on
    daemon = start(place, RUN_ON_A_SMALL_DISK)
    daemon.until_up()
    paid = 0
    with pytest.raises(Failure, match="hung up without an answer|stopped before it answered|no daemon runs"):
        while True:
            paid += ask(place.path, "transfer", to=to, amount_micro=1)["ok"]
    assert daemon.process.wait(10) == 1
    (said,) = (line for line in daemon.said().splitlines() if line.startswith("potd: "))
    assert said == f"potd: {place.journal}: the disk failed: disk I/O error (SQLITE_IOERR_WRITE)"
    assert daemon.said().count("cannot be written") == 1
    assert "Traceback" not in daemon.said()
    assert not place.socket.exists()
    assert paid > 2
    place.log.unlink()
    again = start(place)
    height = again.until_up()["height"]
    assert height in (paid, paid + 1)  # of the last one the order may be on disk, and its answer not sent
    assert ask(place.path, "transfer", to=to, amount_micro=1)["height"] == height + 1
    assert ask(place.path, "balance", account=to)["balance_micro"] == height + 1
    assert again.stop() == 0


def test_a_home_is_used_by_one_daemon_at_a_time(tmp_path: Path, start: Start) -> None:
    daemon = start(home(tmp_path))
    daemon.until_up()
    assert refused(daemon.home) == f"{daemon.home.path}: in use by another daemon (process {daemon.process.pid})"
    assert daemon.until_up()["height"] == 0


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    place = home(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.config.write_text(f'roles = []\nlisten = ["/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"]\n')
        assert str(taken.getsockname()[1]) in refused(place)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    place = home(tmp_path)
    place.key.chmod(0o644)
    assert "others may read this key" in refused(place)


def test_a_home_without_genesis_is_refused(tmp_path: Path) -> None:
    place = home(tmp_path)
    place.genesis.unlink()
    assert "genesis.toml: no such file" in refused(place)


def test_the_journal_of_another_network_is_refused(tmp_path: Path, start: Start) -> None:
    place = home(tmp_path)
    daemon = start(place)
    daemon.until_up()
    assert daemon.stop() == 0
    write_genesis(place.genesis, network("another"))
    assert "use another home for another network" in refused(place)


def test_a_damaged_journal_is_refused_and_not_touched(tmp_path: Path) -> None:
    place = home(tmp_path)
    damaged = b"SQLite format 3\x00" + b"\xa5" * 8000
    place.journal.write_bytes(damaged)
    assert "the journal is damaged" in refused(place)
    assert place.journal.read_bytes() == damaged


def test_a_validator_without_a_seat_says_so_and_follows(tmp_path: Path, start: Start) -> None:
    daemon = start(home(tmp_path, 2, roles='["validator"]'))
    assert daemon.until_up()["seat"] == "none"
    daemon.until_said("has no seat among the validators")


NEXT = b"\x02" * 32


def test_a_daemon_goes_on_with_its_next_key_by_itself_and_stops_when_it_is_told_to(
    tmp_path: Path, start: Start
) -> None:
    place = home(tmp_path, roles='["validator"]')
    daemon = start(place)
    before = daemon.until_up()
    place.config.write_text(place.config.read_text() + "storage_bytes_max = 100_000_000\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda one: one["blobs_bytes_max"] == 100_000_000, "reloaded")
    daemon.until(lambda one: "asking" not in one["doing"], "ready to vote")
    write_key(place.key_next, NEXT)
    new = ask(place.path, "rotate", patience_s=PATIENCE_S)["key"]
    after = daemon.until(lambda one: one["key"] == new and one["seat"] == "1 of 1", "alive with the next key")
    assert (after["account"], daemon.process.poll()) == (before["account"], None)
    assert read_key(place.key) == NEXT
    assert after["blobs_bytes_max"] == 100_000_000
    paid = ask(place.path, "transfer", to="ab" * 32, amount_micro=1, patience_s=PATIENCE_S)
    assert paid["height"] > after["height"]
    ask(place.path, "stop")
    assert daemon.process.wait(5) == 0


def test_a_daemon_without_the_key_that_has_its_seat_says_what_to_do(tmp_path: Path, start: Start) -> None:
    place = home(tmp_path, roles='["validator"]')
    owner, coming = (Signer(seed, genesis_digest(network())) for seed in (read_key(place.key), NEXT))
    account = account_id(owner.key)
    proof = coming.sign(Possession(account)).signature
    signed = base64.b64encode(encode(owner.sign(Rekey(account, 0, NOTHING, coming.key, proof)))).decode()
    daemon = start(place)
    daemon.until(lambda one: "asking" not in one["doing"], "ready to vote")
    ask(place.path, "operation", signed=signed, patience_s=PATIENCE_S)
    told = daemon.until(lambda one: "successor" in one, "replaced")
    to_do = f"key {coming.key.hex()[:8]} has taken over from this node's: put it into node.key.next, and restart"
    assert (told["successor"], told["doing"], told["seat"].split()[0]) == (coming.key.hex(), to_do, "ended")
    daemon.until_said(to_do)
    daemon.stop()
    write_key(place.key_next, NEXT)
    assert start(place).until_up()["key"] == coming.key.hex()


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    place = home(tmp_path, roles='["miner"]')
    place.config.write_text(place.config.read_text().replace('"cpu"', '"cuda:77"'))
    assert "the trainer cannot work here: " in refused(place)


def test_peers_of_another_genesis_say_so_and_part(tmp_path: Path, start: Start) -> None:
    ours = start(home(tmp_path))
    address = ours.until_up()["addresses"][0]
    theirs = start(home(tmp_path, 2, genesis=network("another"), more=f'bootstrap = ["{address}"]\n'))
    theirs.until_said("compare genesis.toml")
    ours.until_said("compare genesis.toml")
    assert ours.until_up()["peers"] == 0
    assert ours.until_up()["refused"]["hello of another network or protocol"] >= 1


def test_sighup_takes_over_what_can_change_and_says_what_cannot(tmp_path: Path, start: Start) -> None:
    place = home(tmp_path)
    daemon = start(place)
    daemon.until_up()
    changed = place.config.read_text() + 'storage_bytes_max = 100_000_000\nconnections_max = 7\nlog_level = "debug"\n'
    place.config.write_text(changed)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda one: one["blobs_bytes_max"] == 100_000_000, "reloaded")
    daemon.until_said("connections_max: changed in config.toml, in force after a restart")
    place.config.write_text(changed + "colour = 1\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until_said("not reloaded: ")
    assert daemon.until_up()["blobs_bytes_max"] == 100_000_000
    assert daemon.stop() == 0


def test_the_log_is_a_file_and_json_on_request(tmp_path: Path, start: Start) -> None:
    place = home(tmp_path, more="log_json = true\n")
    daemon = start(place)
    daemon.until_up()
    assert daemon.stop() == 0
    assert all(line.startswith('{"time": ') for line in place.log.read_text().splitlines())
    assert all(line.startswith('{"time": ') for line in daemon.said().splitlines())
