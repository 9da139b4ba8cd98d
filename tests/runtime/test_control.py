"""The control socket, asked by the commands' own client, over a real node that is its network's only validator."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from potd.arithmetic.selftest import GOLDEN
from potd.cli.control import ask
from potd.cli.exits import Exit, Failure
from potd.config import Home
from potd.config.home import public_key, write_key
from potd.node.node import Node, Settings
from potd.runtime.blobs import BlobStore
from potd.runtime.control import CONNECTIONS_MAX, Control
from potd.runtime.fetcher import Fetcher
from potd.runtime.journal import open_journal
from potd.runtime.pump import Pump
from potd.runtime.refusals import Refusals
from potd.trainer.task import publish, read_task
from potd.wire.codec import encode
from potd.wire.envelope import Signer
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import account_id
from potd.wire.operations import Transfer
from tests.runtime.cable import Cable

SEED = bytes(32)
OWNER = Signer(SEED, bytes(32)).key
GENESIS = Genesis("alone", PROTOCOL, 1, (OWNER,), (Allotment(OWNER, 10**12),), Parameters())
ACCOUNT = account_id(OWNER)
TASK = Path(__file__).parents[2] / "docs" / "tasks" / "digits.toml"


class Bench:
    def __init__(self, home: Home, node: Node, blobs: BlobStore, pump: Pump) -> None:
        self.home = home
        self.node = node
        self.blobs = blobs
        self.pump = pump
        self.stopped = asyncio.Event()

    async def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self.home.path, command, **fields)

    async def refused(self, command: str, **fields: Any) -> tuple[Exit, str]:
        with pytest.raises(Failure) as failure:
            await self.ask(command, **fields)
        return failure.value.code, str(failure.value)

    async def submit(self, folder: Path) -> dict[str, Any]:
        prepared = read_task(TASK)
        folder.mkdir()
        return await self.ask(
            "submit",
            spec=base64.b64encode(encode(prepared.spec)).decode(),
            escrow_micro=10**9,
            blobs=[str(path) for path in publish(prepared, folder)],
        )


class _Done(Exception):
    pass


def on_bench(folder: Path, play: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        network = genesis_digest(GENESIS)
        signer, home = Signer(SEED, network), Home(folder)
        node = Node(Settings(True, False, 1, None, False), GENESIS, signer, GOLDEN)
        blobs, end = BlobStore(home.blobs, 10**9), Cable().end(signer.key)
        blobs.open()
        try:
            async with asyncio.TaskGroup() as group:
                with open_journal(home.journal, network, signer.key) as journal:
                    fetcher = Fetcher(blobs, end, lambda event: pump.put(event), lambda peer, reason: None, group)
                    pump = Pump(node, journal, blobs, end, fetcher, (), Refusals())
                    bench = Bench(home, node, blobs, pump)
                    control = Control(
                        home,
                        node,
                        pump,
                        blobs,
                        fetcher,
                        signer,
                        status=lambda: {"height": node.height},
                        peers=lambda: {"peers": []},
                        units=lambda: 3,
                        stop=bench.stopped.set,
                    )
                    turning = [group.create_task(pump.run()), group.create_task(pump.tick())]
                    async with control.serving():
                        await play(bench)
                    for task in turning:
                        task.cancel()
                    await asyncio.wait(turning)
                raise _Done
        except* _Done:
            pass

    uvloop.run(main())


def test_only_its_owner_may_open_the_socket_and_it_goes_with_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "potd.sock").touch()  # what a killed daemon leaves

    async def play(bench: Bench) -> None:
        assert stat.S_IMODE(os.stat(bench.home.socket).st_mode) == 0o600

    on_bench(tmp_path, play)
    assert not (tmp_path / "potd.sock").exists()


def test_a_transfer_is_answered_when_it_is_executed(tmp_path: Path) -> None:
    to = bytes(range(32)).hex()

    async def play(bench: Bench) -> None:
        answer = await bench.ask("transfer", to=to, amount_micro=5, memo="thanks")
        assert answer["height"] == bench.node.height == 1
        assert (await bench.ask("balance", account=to))["balance_micro"] == 5
        own = await bench.ask("balance")
        assert own["account"] == ACCOUNT.hex()
        assert own["nonce"] == 1

    on_bench(tmp_path, play)


def test_an_operation_that_somebody_else_has_signed_is_passed_on_and_answered_with_its_receipt(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        other = Signer(bytes([1]) * 32, bench.node.network)
        await bench.ask("transfer", to=account_id(other.key).hex(), amount_micro=10**6)
        signed = other.sign(Transfer(account_id(other.key), 0, ACCOUNT, 1, ""))
        text = base64.b64encode(encode(signed)).decode()
        assert (await bench.ask("operation", signed=text))["height"] == bench.node.height == 2
        assert (await bench.ask("balance", account=account_id(other.key).hex()))["nonce"] == 1
        again = await bench.ask("operation", signed=text)  # as who missed the answer does
        assert again["height"] == 2
        late = other.sign(Transfer(account_id(other.key), 0, ACCOUNT, 2, ""))
        text = base64.b64encode(encode(late)).decode()
        assert await bench.refused("operation", signed=text) == (Exit.REFUSED, "nonce 0 where 1 is due")

    on_bench(tmp_path, play)


def test_an_operation_with_a_wrong_signature_is_refused_at_once(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        signed = Signer(SEED, bytes(32)).sign(Transfer(ACCOUNT, 0, ACCOUNT, 1, ""))  # for another network
        text = base64.b64encode(encode(signed)).decode()
        reason = "the operation cannot be read: wrong signature on Transfer"
        assert await bench.refused("operation", signed=text) == (Exit.REFUSED, reason)

    on_bench(tmp_path, play)


def test_operations_asked_at_once_are_all_executed(tmp_path: Path) -> None:
    to = bytes(range(32)).hex()

    async def play(bench: Bench) -> None:
        await asyncio.gather(*(bench.ask("transfer", to=to, amount_micro=1) for _ in range(8)))
        assert (await bench.ask("balance", account=to))["balance_micro"] == 8

    on_bench(tmp_path, play)


def test_a_validator_looks_at_the_seats_and_rotates_its_key(tmp_path: Path) -> None:
    coming = public_key(b"\x07" * 32)

    async def play(bench: Bench) -> None:
        code, reason = await bench.refused("rotate")
        assert (code, reason.split(": ", 1)[1]) == (
            Exit.CONFIGURATION,
            "there is none; `potd validators rotate` makes it",
        )
        write_key(bench.home.key_next, b"\x07" * 32)
        assert (await bench.ask("rotate"))["key"] == coming.hex()
        told = await bench.ask("validators")
        (seat,) = told["validators"]  # alone, it comes to the end of the window at once
        assert (seat["account"], seat["key"], seat["mine"]) == (ACCOUNT.hex(), coming.hex(), True)
        assert seat["bond_micro"] == told["seat_bond_micro"] == Parameters().seat_bond_micro
        ends = 1 + Parameters().window_heights
        assert (bench.node.height, bench.node.seat()) == (ends, f"ended at height {ends}")
        assert (await bench.ask("rotate"))["height"] == ends, "asked once, it is not asked again"
        account = bench.node.ledger.account(ACCOUNT)
        assert account is not None
        assert (account.owner_key, account.node_key, account.nonce) == (coming, coming, 1)

    on_bench(tmp_path, play)


def test_who_wants_a_seat_asks_the_ledger(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        assert await bench.refused("stand") == (Exit.REFUSED, "it has a seat, or is about to have one")
        assert await bench.refused("resign") == (Exit.REFUSED, "it is the only validator")
        code, reason = await bench.refused("back", subject=bytes(32).hex(), seated=True)
        assert (code, reason) == (Exit.REFUSED, "00000000 has no seat and does not stand for one")
        code, reason = await bench.refused("back", subject=bytes(32).hex())
        assert (code, reason) == (Exit.REFUSED, "'seated' is None, neither true nor false")

    on_bench(tmp_path, play)


def test_what_the_ledger_refuses_ends_with_its_reason(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        code, reason = await bench.refused("transfer", to=bytes(range(32)).hex(), amount_micro=10**15)
        assert code == Exit.REFUSED
        assert reason.startswith("a transfer of 1000000000000000 micro-units, and a balance of ")

    on_bench(tmp_path, play)


def test_a_task_is_submitted_listed_watched_and_its_model_fetched(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        answer = await bench.submit(tmp_path / ".submit-1")
        task = answer["task"]
        assert os.listdir(tmp_path / ".submit-1") == [], "what was made for the daemon was moved"
        (listed,) = (await bench.ask("tasks"))["tasks"]
        assert (listed["task"], listed["name"], listed["phase"], listed["round"]) == (task, "digits", "waiting", 0)
        assert (await bench.ask("task", task=task))["enrolled"] == []
        first = await first_line(bench, task)
        assert (first["round"], first["phase"]) == (0, "waiting")
        model = (await bench.ask("fetch", task=task))["model"]
        assert model["root"] == read_task(TASK).spec.weights.root.hex()
        assert Path(model["path"]).is_file()
        assert (await bench.ask("enrol", task=task))["ok"]
        (miner,) = (await bench.ask("task", task=task))["enrolled"]
        assert (miner["account"], miner["units"]) == (ACCOUNT.hex(), 3)
        assert (await bench.ask("leave", task=task))["ok"]
        assert (await bench.ask("task", task=task))["enrolled"] == []

    on_bench(tmp_path, play)


async def first_line(bench: Bench, task: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(bench.home.socket))
    writer.write(json.dumps({"command": "watch", "task": task}).encode() + b"\n")
    line: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return line


def test_files_from_elsewhere_are_copied_and_stay(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.submit(tmp_path / "data")
        assert len(os.listdir(tmp_path / "data")) > 3

    on_bench(tmp_path, play)


def test_a_task_without_its_shards_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        prepared = read_task(TASK)
        (tmp_path / "data").mkdir()
        paths = [str(path) for path in publish(prepared, tmp_path / "data")]
        spec = base64.b64encode(encode(prepared.spec)).decode()
        code, reason = await bench.refused("submit", spec=spec, escrow_micro=10**9, blobs=paths[:-1])
        assert code == Exit.CONFIGURATION
        assert "1 of" in reason and "shards came with no file" in reason
        code, reason = await bench.refused("submit", spec=spec, escrow_micro=10**9, blobs=[*paths, "/nowhere"])
        assert (code, reason) == (Exit.CONFIGURATION, "/nowhere: No such file or directory")
        code, reason = await bench.refused("submit", spec="AAAA", escrow_micro=10**9, blobs=paths)
        assert code == Exit.REFUSED
        assert "the task cannot be read" in reason
        assert bench.node.height == 0

    on_bench(tmp_path, play)


def test_a_task_that_its_owner_cannot_pay_is_refused_and_its_files_may_go(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        prepared = read_task(TASK)
        (tmp_path / "data").mkdir()
        paths = [str(path) for path in publish(prepared, tmp_path / "data")]
        spec = base64.b64encode(encode(prepared.spec)).decode()
        code, _ = await bench.refused("submit", spec=spec, escrow_micro=10**15, blobs=paths)
        assert code == Exit.REFUSED
        bench.blobs.retain(needed=[], surplus=prepared.refs())
        assert not bench.blobs.has(prepared.spec.weights)

    on_bench(tmp_path, play)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{}", 'a question is a JSON object with a "command"'),
        (b"[1]", 'a question is a JSON object with a "command"'),
        (b"potd", "not a line of JSON"),
        (b"[" * 10_000, "not a line of JSON"),
        (b'{"command": "dance"}', "this daemon knows no command 'dance'"),
        (b'{"command": "task", "task": "digits"}', "'task' is 'digits', not 64 hexadecimal digits"),
        (b'{"command": "watch", "task": "' + b"0" * 64 + b'"}', "the ledger knows no task " + "0" * 64),
        (b'{"command": "transfer", "to": "' + b"0" * 64 + b'", "amount_micro": 1.5}', "'amount_micro' is 1.5"),
        (b'{"command": "transfer", "to": "' + b"0" * 64 + b'", "amount_micro": -1}', "Transfer.amount_micro is -1"),
    ],
)
def test_a_question_that_makes_no_sense_is_answered_with_the_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    async def play(bench: Bench) -> None:
        reader, writer = await asyncio.open_unix_connection(str(bench.home.socket))
        writer.write(line + b"\n")
        answer = json.loads(await reader.readline())
        assert not answer["ok"]
        assert answer["code"] == Exit.REFUSED
        assert reason in answer["error"]
        writer.write(b'{"command": "peers"}\n')
        assert json.loads(await reader.readline())["ok"], "the next question is answered"
        writer.close()

    on_bench(tmp_path, play)


def test_a_question_without_end_is_cut_off_and_whoever_asked_hears_why(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        code, reason = await bench.refused("submit", spec="x" * (9 << 20))
        assert code == Exit.REFUSED
        assert "a question of over" in reason

    on_bench(tmp_path, play)


@pytest.mark.parametrize("size", [0, 1 << 20])  # the larger is refused while it is still being asked, for certain
def test_so_many_commands_are_answered_at_once_and_no_more(tmp_path: Path, size: int) -> None:
    async def play(bench: Bench) -> None:
        idle = [await asyncio.open_unix_connection(str(bench.home.socket)) for _ in range(CONNECTIONS_MAX)]
        code, reason = await bench.refused("status", padding="x" * size)
        assert (code, reason) == (Exit.REFUSED, "64 commands are being answered already")
        for reader, writer in idle:
            writer.write_eof()
            assert await reader.read() == b"", "the daemon hangs up too"
            writer.close()
        assert (await bench.ask("status"))["height"] == 0

    on_bench(tmp_path, play)


def test_stop_is_answered_and_done(tmp_path: Path) -> None:
    async def play(bench: Bench) -> None:
        await bench.ask("stop")
        await asyncio.wait_for(bench.stopped.wait(), 5)

    on_bench(tmp_path, play)
