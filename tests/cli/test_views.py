"""What commands that look print."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.daemon_double import daemon

DIGITS: dict[str, Any] = {
    "task": "3fa9" + "0" * 60,
    "name": "digits",
    "phase": "TRAINING",
    "round": 12,
    "rounds": 130,
    "miners": 4,
    "loss": 0.4312,
    "accuracy": None,
    "escrow_micro": 2_500_000,
}
OTHER = DIGITS | {"task": "3fb0" + "0" * 60, "name": "other"}
STATUS: dict[str, Any] = {
    "ok": True,
    "roles": ["validator", "miner"],
    "account": "aa" * 32,
    "peer_id": "12D3KooWabc",
    "network": "d8" * 32,
    "network_name": "rigs",
    "release": "0.1.0",
    "height": 99,
    "view": 2,
    "primary": "bb" * 32,
    "peers": 3,
    "tasks": [DIGITS],
    "doing": "training round 12 of digits",
    "balance_micro": 1_000_500_000,
    "earned_micro": 500_000,
    "refused": {"votes: wrong signer": 2, "ask: oversize": 7},
    "journal_bytes": 4096,
    "blobs_bytes": 5 * 1024**2,
    "blobs_bytes_max": 20 * 1024**3,
    "uptime_s": 3725.2,
}
PEERS = [
    {
        "peer_id": f"12D3KooW{way}",
        "address": f"/ip4/192.0.2.1/tcp/{port}",
        "direction": way,
        "connected_s": 61.0,
        "rtt_ms": rtt,
        "bytes_in": 2048,
        "bytes_out": 10,
        "refused": 0,
        "guest": False,
    }
    for way, port, rtt in (("in", 51234, None), ("out", 4001, 1.25))
]


def test_a_status_tells_people_what_they_ask_first(potd: Command, home: Path) -> None:
    with daemon(home, {"status": [STATUS]}):
        result = potd("status", "--home", home)
    assert result.exit_code == 0
    assert result.output == (
        "doing    training round 12 of digits\n"
        "roles    validator and miner\n"
        "network  rigs (d8d8d8d8d8d8d8d8)\n"
        "height   99\n"
        "view     2, primary bbbbbbbb\n"
        "peers    3\n"
        "pay      1,000.5 in hand, 0.5 earned\n"
        "blobs    5.0 MiB of 20.0 GiB\n"
        "journal  4.0 KiB\n"
        "running  1 h 2 min, release 0.1.0\n"
        f"account  {'aa' * 32}\n"
        "peer id  12D3KooWabc\n"
        "\n"
        "task      name    phase      round  miners    loss  accuracy  escrow\n"
        "3fa90000  digits  training  12/130       4  0.4312         -     2.5\n"
        "\n"
        "refused              times\n"
        "ask: oversize            7\n"
        "votes: wrong signer      2\n"
    )


def test_a_status_says_that_a_restored_home_is_silent(potd: Command, home: Path) -> None:
    with daemon(home, {"status": [STATUS | {"silent_until": 112}]}):
        result = potd("status", "--home", home)
    assert "silent   until height 112: this home was restored from a backup\n" in result.output


def test_a_status_for_programs_is_the_daemons_own(potd: Command, home: Path) -> None:
    with daemon(home, {"status": [STATUS]}):
        result = potd("status", "--json", "--home", home)
    assert json.loads(result.output) == {key: value for key, value in STATUS.items() if key != "ok"}


def test_a_status_that_lacks_something_is_still_told(potd: Command, home: Path) -> None:
    with daemon(home, {"status": [{"ok": True, "roles": [], "doing": "joining"}]}):
        assert potd("status", "--home", home).output == "doing  joining\nroles  client\n"


def test_without_a_daemon_the_exit_status_is_3(potd: Command, home: Path) -> None:
    result = potd("status", "--home", home)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no daemon runs" in result.stderr


def test_a_bootstrap_list_has_only_addresses_that_can_be_dialled(potd: Command, home: Path) -> None:
    own = "/ip4/192.0.2.9/tcp/4001/p2p/12D3KooWown"
    with daemon(home, {"peers": [{"ok": True, "addresses": [own], "peers": PEERS}]}):
        listed = potd("peers", "--bootstrap-list", "--home", home)
        shown = potd("peers", "--home", home)
    assert listed.output.splitlines() == [own, "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWout"]
    assert shown.output.splitlines()[1].split() == (
        ["12D3KooWin", "/ip4/192.0.2.1/tcp/51234", "in", "1", "min", "1", "s", "-", "2.0", "KiB", "10", "B", "0"]
    )


@pytest.mark.parametrize("wanted", ["digits", "3fa9", "3FA9", DIGITS["task"]])
def test_a_task_is_named_by_id_beginning_or_name(potd: Command, home: Path, wanted: str) -> None:
    lines: list[dict[str, Any]] = [
        {"ok": True, "round": 1, "rounds": 2, "loss": 2.3, "accuracy": None, "miners": 4, "view": 0},
        {"ok": True, "round": 2, "rounds": 2, "loss": 1.0, "accuracy": 0.5, "phase": "DONE", "done": True},
    ]
    with daemon(home, {"tasks": [{"ok": True, "tasks": [DIGITS, OTHER]}], "watch": lines}) as asked:
        result = potd("watch", wanted, "--home", home)
    assert asked[-1] == {"command": "watch", "task": DIGITS["task"]}
    assert result.output.splitlines() == [
        "round 1/2  loss 2.3000  4 miners  view 0",
        "done: round 2/2  loss 1.0000  accuracy 0.5000",
    ]


@pytest.mark.parametrize("lines", [b"", b'{"ok": true, "round": 1, "rounds": 2}\n', b'{"ok": true, "round": 1, "rou'])
def test_a_watch_whose_daemon_goes_away_says_so_and_exits_with_3(potd: Command, home: Path, lines: bytes) -> None:
    with daemon(home, {"watch": lines}):
        result = potd("watch", DIGITS["task"], "--home", home)
    assert result.exit_code == 3
    assert result.stdout == ("round 1/2\n" if lines.endswith(b"\n") else "")
    assert result.stderr == (
        "Error: the daemon is gone; the task goes on: "
        f"`potd start --home {home}`, then `potd watch 3fa90000 --home {home}`\n"
    )


def test_a_watch_that_is_refused_says_why(potd: Command, home: Path) -> None:
    with daemon(home, {"watch": [{"ok": False, "error": "no such task", "code": 4}]}):
        result = potd("watch", DIGITS["task"], "--home", home)
    assert (result.exit_code, result.stderr) == (4, "Error: no such task\n")


@pytest.mark.parametrize(("measured", "label"), [(120, " at round 120"), (130, "")])
def test_an_accuracy_of_an_older_model_is_labelled_with_its_round(
    potd: Command, home: Path, measured: int, label: str
) -> None:
    task = DIGITS | {"round": 130, "accuracy": 0.9861, "measured_round": measured}
    answers = {"tasks": [{"ok": True, "tasks": [task]}], "watch": [{"ok": True, **task, "done": True}]}
    with daemon(home, answers):
        listed = potd("tasks", "--home", home).output
        watched = potd("watch", "digits", "--home", home).output
    assert f"0.9861{label}     2.5\n" in listed
    assert f"  accuracy 0.9861{label}  4 miners" in watched


@pytest.mark.parametrize(
    ("wanted", "status", "reason"), [("3f", 4, "no task"), ("none", 4, "no task"), ("3fb0x", 4, "")]
)
def test_a_task_that_is_not_there_is_not_guessed(
    potd: Command, home: Path, wanted: str, status: int, reason: str
) -> None:
    with daemon(home, {"tasks": [{"ok": True, "tasks": [DIGITS, OTHER]}]}):
        result = potd("watch", wanted, "--home", home)
    assert result.exit_code == status
    assert reason in result.stderr


def test_a_name_that_two_tasks_have_is_asked_about(potd: Command, home: Path) -> None:
    with daemon(home, {"tasks": [{"ok": True, "tasks": [DIGITS, OTHER | {"name": "digits"}]}]}):
        result = potd("watch", "digits", "--home", home)
    assert result.exit_code == 2
    assert "3fa9000000000000, 3fb0000000000000" in result.stderr


def test_a_balance_is_in_whole_units(potd: Command, home: Path) -> None:
    answer = {
        "ok": True,
        "account": "aa" * 32,
        "balance_micro": 12_250_000,
        "earned_micro": 0,
        "bonds_micro": 1_500_000,
    }
    with daemon(home, {"balance": [answer]}) as asked:
        lines = potd("balance", "AA" * 32, "--home", home).output.splitlines()
    assert lines == [f"account   {'aa' * 32}", "balance   12.25", "earned    0", "in bonds  1.5"]
    assert asked == [{"command": "balance", "account": "aa" * 32, "patience_s": 9.0}]


def test_looking_loads_neither_keys_nor_numbers_nor_the_network(home: Path) -> None:
    program = (
        "import sys; from potd.cli import main\n"
        "main(['status', '--home', sys.argv[1]], prog_name='potd', standalone_mode=False)\n"
        "print([name for name in ('torch', 'numpy', 'libp2p', 'nacl', 'msgpack', 'asyncio') if name in sys.modules])\n"
    )
    with daemon(home, {"status": [STATUS]}):
        done = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


WHY: dict[str, Any] = {
    "ok": True,
    "story": ["it ended at height 40, with 1 contributions sealed"],
    "contributions": [
        {
            "miner": "cc" * 32,
            "commitment": "dd" * 32,
            "payload": {"root": "ee" * 32, "bytes": 900},
            "outcome": "counted",
            "weight": 0.5,
            "norm": 1.25,
            "voices": [{}],
            "standing": "uncontested",
            "pay_micro": 7_000,
            "story": ["sealed", "revealed and counted by 50.0 %"],
        }
    ],
}


def test_why_lists_a_rounds_contributions_and_tells_the_story_of_one(potd: Command, home: Path) -> None:
    with daemon(home, {"tasks": [{"ok": True, "tasks": [DIGITS]}], "why": [WHY]}) as asked:
        listed = potd("why", "digits", "12", "--home", home)
        told = potd("why", "digits", "12", "CC" * 32, "--home", home)
    assert [one for one in asked if one["command"] == "why"][-1]["miner"] == "cc" * 32
    assert listed.output.splitlines()[-1].split() == [
        "cccccccc",
        "counted",
        "0.500",
        "1.25",
        "1",
        "uncontested",
        "0.007",
    ]
    assert "revealed and counted by 50.0 %" in told.output.splitlines()
    assert "ee" * 32 in told.output
