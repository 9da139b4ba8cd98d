"""A network on one machine."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

from potd.config.addresses import peer_id
from potd.config.genesis import read_genesis
from potd.config.home import public_key, read_key
from potd.config.settings import load_config
from tests.cli.conftest import Command


def test_homes_of_a_devnet_know_one_network_and_each_other(potd: Command, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    result = potd("devnet", 5, folder, "--validators", 4, "--port", 5001, "--balance", 10)
    assert result.exit_code == 0, result.output
    homes = [folder / f"node{number}" for number in range(1, 6)]
    genesis = read_genesis(homes[0] / "genesis.toml")
    keys = [public_key(read_key(home / "node.key")) for home in homes]
    assert [read_genesis(home / "genesis.toml") for home in homes] == [genesis] * 5
    assert genesis.validators == tuple(sorted(keys[:4]))
    assert {one.owner_key: one.amount_micro for one in genesis.balances} == dict.fromkeys(keys, 10_000_000)
    configs = [load_config(home) for home in homes]
    assert [config.listen for config in configs] == [(f"/ip4/127.0.0.1/tcp/{5000 + n}",) for n in range(1, 6)]
    assert [config.roles for config in configs] == [("validator", "miner")] * 4 + [("miner",)]
    assert configs[0].bootstrap == tuple(f"/ip4/127.0.0.1/tcp/{5001 + n}/p2p/{peer_id(keys[n])}" for n in range(1, 5))
    assert stat.S_IMODE(homes[0].stat().st_mode) == 0o700


def test_the_compose_file_dials_containers_by_name(potd: Command, tmp_path: Path) -> None:
    assert potd("devnet", 2, tmp_path, "--image", "potd:test").exit_code == 0
    text = (tmp_path / "compose.yaml").read_text()
    other = peer_id(public_key(read_key(tmp_path / "node2" / "node.key")))
    assert text.count("image: potd:test") == 2
    assert f'- "/dns4/node2/tcp/4001/p2p/{other}"' in text
    assert re.findall(r'"127\.0\.0\.1:(\d+):4001"', text) == ["4001", "4002"]
    assert f'user: "{os.getuid()}:{os.getgid()}"' in text


def test_a_devnet_that_is_there_is_used_as_it_is(potd: Command, tmp_path: Path) -> None:
    first = potd("devnet", 2, tmp_path).output.splitlines()
    again = potd("devnet", 2, tmp_path).output.splitlines()
    assert first[1] == again[1]
    assert potd("devnet", 3, tmp_path).exit_code == 1


def test_what_cannot_be_a_devnet_is_refused(potd: Command, tmp_path: Path) -> None:
    for words in (["2", "--validators", "3"], ["0"], ["65"], ["2", "--port", "80"]):
        assert potd("devnet", words[0], tmp_path / "net", *words[1:]).exit_code == 2
    assert not (tmp_path / "net").exists()


def test_a_running_devnet_stops_with_all_its_nodes(potd: Command, tmp_path: Path) -> None:
    """The nodes are programs that say where they run and wait for the signal that the daemon stops on."""
    assert potd("devnet", 2, tmp_path).exit_code == 0
    node = tmp_path / "node.py"
    node.write_text(
        "#!" + sys.executable + "\n"
        "import json, os, pathlib, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "home = pathlib.Path(sys.argv[-1])\n"
        "os.write(1, json.dumps(sys.argv[1:]).encode() + b'\\n')\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "(home / 'stopped').touch()\n"
    )
    node.chmod(0o755)
    program = (
        "import sys; from potd.cli import main\n"
        f"sys.executable = {str(node)!r}\n"
        f"main(['devnet', '2', {str(tmp_path)!r}, '--run'], prog_name='potd')\n"
    )
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True) as devnet:
        assert devnet.stdout is not None
        started = []
        for line in devnet.stdout:
            if line.startswith("["):
                started.append(json.loads(line))
                if len(started) == 2:
                    devnet.send_signal(signal.SIGINT)
                    break
        rest = devnet.stdout.read()
        assert devnet.wait() == 0, rest
    assert sorted(words[-1] for words in started) == [str(tmp_path / "node1"), str(tmp_path / "node2")]
    assert all(words[:4] == ["-m", "potd", "start", "--home"] for words in started)
    assert all((tmp_path / name / "stopped").exists() for name in ("node1", "node2"))
