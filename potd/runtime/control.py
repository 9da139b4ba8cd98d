"""Answering the operator's commands: JSON lines over the control socket, which only its owner may open.

A question is `{"command": NAME, ...}`; an answer `{"ok": true, ...}` or `{"ok": false, "error": SENTENCE, "code": N}`,
where N is the exit status that the command ends with. `watch` answers again and again until `"done": true`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from potd.config import ConfigError, Home, read_key
from potd.ledger.entries import Task
from potd.ledger.tasks import escrow_min_micro
from potd.node.events import OperationAsked, Tell
from potd.node.node import Node
from potd.runtime.blobs import BlobStore
from potd.runtime.fetcher import Fetcher
from potd.runtime.pump import News, Pump
from potd.runtime.views import balance_view, task_detail, task_view, tasks_view, validators_view
from potd.runtime.why import why_view
from potd.wire.blobs import read_blob
from potd.wire.blocks import header_digest, record_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed, Signer, verify
from potd.wire.ids import NOTHING, BlobRef, Digest, account_id, task_id
from potd.wire.operations import (
    OPERATIONS,
    Back,
    Enrol,
    Leave,
    Operation,
    Possession,
    Rekey,
    Resign,
    Stand,
    Submit,
    Transfer,
)
from potd.wire.tasks import Manifest, TaskSpec

log = logging.getLogger(__name__)

CONFIGURATION, REFUSED, TIMEOUT = 1, 4, 5  # exit statuses of the commands
QUESTION_BYTES_MAX = 4 << 20
CONNECTIONS_MAX = 64
MADE_PREFIX = ".submit-"  # of the folder in our home in which a command leaves files for us
PATIENCE_S = 300.0  # whoever asked waits less, and hangs up
MODEL_STAYS_S = 120.0  # how long a fetched model is kept for whoever asked, beyond the node's own need
PROOF_PATIENCE_S = 2.0  # for the certificate of the newest height
EVENTS_MAX = 64  # that one line of `watch` carries

Answer = dict[str, Any]


class _No(Exception):
    """The answer is no, for this reason, and the command ends with this status."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Control:
    """The control socket of one daemon."""

    def __init__(
        self,
        home: Home,
        node: Node,
        pump: Pump,
        blobs: BlobStore,
        fetcher: Fetcher,
        signer: Signer,
        *,
        status: Callable[[], Answer],
        peers: Callable[[], Answer],
        units: Callable[[], int],
        stop: Callable[[], None],
    ) -> None:
        self._home = home
        self._node = node
        self._pump = pump
        self._blobs = blobs
        self._fetcher = fetcher
        self._signer = signer
        self._status = status
        self._peers = peers
        self._units = units
        self._stop = stop
        self._operating = asyncio.Lock()
        self._connections: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer until the block ends. Raises OSError if the socket cannot be had."""
        server = await asyncio.start_unix_server(
            self._connected, sock=_bound(self._home.socket), limit=QUESTION_BYTES_MAX
        )
        try:
            yield
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            self._home.socket.unlink(missing_ok=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: of one that asyncio makes for us it reports the cancelling as an error.
        task = asyncio.create_task(self._attend(reader, writer), name="command")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One command, from its connecting to its hanging up."""
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                await _write(writer, _refusal(REFUSED, f"{CONNECTIONS_MAX} commands are being answered already"))
            else:
                await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it hung up
        except ValueError:
            with contextlib.suppress(OSError):
                await _write(writer, _refusal(REFUSED, f"a question of over {QUESTION_BYTES_MAX} bytes"))
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question after another. Whoever hangs up is answered no further."""
        line = await reader.readline()
        while line:
            following = asyncio.create_task(reader.readline())
            answering = asyncio.create_task(self._answer_line(line, writer))
            try:
                await asyncio.wait((following, answering), return_when=asyncio.FIRST_COMPLETED)
                if following.done() and not following.result():
                    return
                await answering
                line = await following
            finally:
                following.cancel()
                answering.cancel()
                await asyncio.gather(following, answering, return_exceptions=True)

    async def _answer_line(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            question = json.loads(line)
            if not isinstance(question, dict) or not isinstance(question.get("command"), str):
                raise _No(REFUSED, 'a question is a JSON object with a "command"')
            async for answer in self._answers(question):
                await _write(writer, {"ok": True, **answer})
        except _No as no:
            await _write(writer, _refusal(no.code, str(no)))
        except (ValueError, RecursionError):
            await _write(writer, _refusal(REFUSED, "not a line of JSON"))
        except ConnectionError:
            raise
        except Exception as error:
            log.exception("answering %r", line[:200])
            await _write(writer, _refusal(CONFIGURATION, f"the daemon failed: {type(error).__name__}: {error}"))

    async def _answers(self, question: Mapping[str, Any]) -> AsyncIterator[Answer]:
        match question["command"]:
            case "status":
                yield self._status()
            case "peers":
                yield self._peers()
            case "tasks":
                yield {"tasks": tasks_view(self._node)}
            case "task":
                yield task_detail(self._node, self._task(question))
            case "why":
                yield await self._why(question)
            case "balance":
                account = _name(question, "account") if "account" in question else self._node.account
                yield balance_view(self._node, account)
            case "watch":
                async for answer in self._watch(self._task(question).id):
                    yield answer
            case "submit":
                yield await self._submit(question)
            case "enrol":
                yield await self._enrol(question)
            case "leave":
                task = self._task(question).id
                yield await self._operate(question, lambda nonce: Leave(self._node.account, nonce, task))
            case "transfer":
                yield await self._transfer(question)
            case "validators":
                yield validators_view(self._node)
            case "stand":
                yield await self._stand(question)
            case "back":
                yield await self._back(question)
            case "resign":
                yield await self._operate(question, lambda nonce: Resign(self._node.account, nonce))
            case "rotate":
                yield await self._rotate(question)
            case "operation":
                yield await self._relay(question)
            case "fetch":
                yield await self._fetch(self._task(question).id)
            case "stop":
                yield {}
                self._stop()
            case other:
                raise _No(REFUSED, f"this daemon knows no command {other!r}")

    # Looking

    async def _watch(self, task: Digest) -> AsyncIterator[Answer]:
        """A line now and whenever the task has moved, with what happened since; the last one is done."""
        moved = asyncio.Event()
        events: list[Answer] = []

        def listen(event: News) -> None:
            if isinstance(event, Tell):
                if event.task != task:
                    return
                if len(events) < EVENTS_MAX:
                    events.append({"kind": event.kind, **dict(event.values)})
            moved.set()

        stop_listening = self._pump.listen(listen)
        try:
            last: tuple[Any, ...] = ()
            began = time.monotonic()
            while True:
                view = task_view(self._node, self._known(task))
                now = (view["round"], view["phase"] == "done", view["accuracy"], view["lapses"])
                if now != last:
                    if last and now[0] != last[0]:
                        view["round_ms"] = round(1000 * (time.monotonic() - began))
                        began = time.monotonic()
                    if self._node.replica is not None:
                        view["view"] = self._node.replica.view
                    last = now
                    done = {"done": True} if view["phase"] == "done" else {}
                    yield {**view, "height": self._node.height, "events": events.copy(), **done}
                    events.clear()
                    if done:
                        return
                await moved.wait()
                moved.clear()
        finally:
            stop_listening()

    async def _why(self, question: Mapping[str, Any]) -> Answer:
        """What became of contributions, with its proof, for which the newest height has to be certified."""
        number = _whole(question, "round")
        miner = _name(question, "miner") if "miner" in question else None
        moved = asyncio.Event()
        stop_listening = self._pump.listen(lambda event: moved.set())
        try:
            async with asyncio.timeout(PROOF_PATIENCE_S):
                while self._node.certified < self._node.height:
                    await moved.wait()
                    moved.clear()
        except TimeoutError:
            pass  # it is answered without its proof
        finally:
            stop_listening()
        return why_view(self._node.ledger, self._node.certificate, self._task(question), number, miner)

    # Operations

    async def _submit(self, question: Mapping[str, Any]) -> Answer:
        try:
            spec = decode(base64.b64decode(str(question.get("spec", "")), validate=True), TaskSpec)
        except (Malformed, binascii.Error) as error:
            raise _No(REFUSED, f"the task cannot be read: {error}") from None
        escrow = _whole(question, "escrow_micro")
        imported = await self._imported(question.get("blobs", []))
        self._blobs.pin(imported)
        try:
            self._check_published(spec)
            least = escrow_min_micro(spec)
            if escrow < least:
                raise _No(REFUSED, f"an escrow of {escrow} micro-units, and one round costs at least {least}")
            self._check_balance("an escrow", escrow)
            signed: list[Signed] = []
            answer = await self._operate(
                question, lambda nonce: Submit(self._node.account, nonce, spec, escrow), signed
            )
        except _No as no:
            if no.code != TIMEOUT:  # else the task may open yet, and nobody else has its files
                self._blobs.unpin(imported)
            raise
        return {"task": task_id(encode(signed[0])).hex(), **answer}

    async def _imported(self, paths: object) -> list[BlobRef]:
        """The named files as blobs. Those that the command made for us in our home are moved, others are copied."""
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise _No(REFUSED, '"blobs" is not a list of paths')
        refs: list[BlobRef] = []
        for path in map(Path, paths):
            try:
                ours = path.parent.name.startswith(MADE_PREFIX) and path.parent.parent == self._home.path.absolute()
                ref = await asyncio.to_thread(self._blobs.take_over if ours else self._blobs.copy, path)
            except OSError as error:
                raise _No(CONFIGURATION, f"{path}: {error.strerror or error}") from None
            self._blobs.noticed([ref])
            refs.append(ref)
        return refs

    def _check_published(self, spec: TaskSpec) -> None:
        """Nobody could train on what nobody has."""
        for what, ref in (("weights", spec.weights), ("manifest", spec.manifest)):
            if not self._blobs.has(ref):
                raise _No(CONFIGURATION, f"the task's {what}, blob {ref.root.hex()}, came with no file")
        try:
            manifest = decode(read_blob(self._blobs.folder, spec.manifest), Manifest)
        except (Malformed, OSError) as error:
            raise _No(CONFIGURATION, f"the task's manifest cannot be read: {error}") from None
        shards = (*manifest.training, *manifest.held_out)
        missing = [shard.blob.root.hex() for shard in shards if not self._blobs.has(shard.blob)]
        if missing:
            raise _No(CONFIGURATION, f"{len(missing)} of {len(shards)} shards came with no file, first {missing[0]}")

    async def _enrol(self, question: Mapping[str, Any]) -> Answer:
        task = self._task(question).id
        units = _whole(question, "units") if "units" in question else self._units()
        return await self._operate(question, lambda nonce: Enrol(self._node.account, nonce, task, units))

    async def _transfer(self, question: Mapping[str, Any]) -> Answer:
        to, amount = _name(question, "to"), _whole(question, "amount_micro")
        memo = str(question.get("memo", ""))
        if self._node.is_public_key(to):
            raise _No(REFUSED, f"{to.hex()} is the public key of account {account_id(to).hex()}: pay the account")
        self._check_balance("a transfer", amount)
        return await self._operate(question, lambda nonce: Transfer(self._node.account, nonce, to, amount, memo))

    async def _stand(self, question: Mapping[str, Any]) -> Answer:
        self._check_balance("a bond", self._node.parameters.seat_bond_micro)
        proof = self._possession(self._signer)
        return await self._operate(question, lambda nonce: Stand(self._node.account, nonce, self._signer.key, proof))

    async def _back(self, question: Mapping[str, Any]) -> Answer:
        subject, seated = _name(question, "subject"), question.get("seated")
        if type(seated) is not bool:
            raise _No(REFUSED, f"'seated' is {seated!r}, neither true nor false")
        return await self._operate(question, lambda nonce: Back(self._node.account, nonce, subject, seated))

    async def _rotate(self, question: Mapping[str, Any]) -> Answer:
        """Ask for the key in node.key.next instead of ours. It takes over as owner key as well where ours is both."""
        if not self._home.key_next.exists():
            raise _No(CONFIGURATION, f"{self._home.key_next}: there is none; `potd validators rotate` makes it")
        try:
            coming = Signer(read_key(self._home.key_next), self._node.network)
        except ConfigError as error:
            raise _No(CONFIGURATION, "; ".join(error.problems)) from None
        if self._node.ledger.account_of(coming.key) == self._node.account:
            return {"key": coming.key.hex(), "height": self._node.height}  # asked for, and executed, before
        held = self._node.ledger.account(self._node.account)
        both = held is not None and held.owner_key == held.node_key
        owner, proof = coming.key if both else NOTHING, self._possession(coming)
        answer = await self._operate(question, lambda nonce: Rekey(self._node.account, nonce, owner, coming.key, proof))
        return {"key": coming.key.hex(), **answer}

    def _possession(self, of: Signer) -> bytes:
        return of.sign(Possession(self._node.account)).signature

    async def _relay(self, question: Mapping[str, Any]) -> Answer:
        """An operation of any account, that whoever asks has signed."""
        try:
            signed = decode(base64.b64decode(str(question.get("signed", "")), validate=True), Signed)
            verify(signed, self._node.network, *OPERATIONS)
        except (Malformed, binascii.Error) as error:
            raise _No(REFUSED, f"the operation cannot be read: {error}") from None
        name = record_digest(signed)
        executed = self._node.receipt(name) == ""  # whoever missed the answer asks again
        reason = "" if executed else await self._receipt(name, signed, _patience_s(question))
        if reason:
            raise _No(REFUSED, reason)
        return {"operation": name.hex(), "height": self._node.height}

    def _check_balance(self, what: str, amount_micro: int) -> None:
        """What the ledger would refuse after a fee is refused before it."""
        held = self._node.ledger.account(self._node.account)
        balance = held.balance_micro if held is not None else 0
        if amount_micro > balance:
            raise _No(REFUSED, f"{what} of {amount_micro} micro-units, and a balance of {balance}")

    async def _operate(
        self, question: Mapping[str, Any], build: Callable[[int], Operation], signed_out: list[Signed] | None = None
    ) -> Answer:
        """Sign an operation, have it ordered, and wait for its receipt."""
        async with self._operating:  # the next one's nonce depends on whether this one was taken
            try:
                signed = self._signer.sign(build(self._node.next_nonce()))
            except Malformed as error:
                raise _No(REFUSED, str(error)) from None
            name = record_digest(signed)
            reason = await self._receipt(name, signed, _patience_s(question))
        if reason:
            raise _No(REFUSED, reason)
        if signed_out is not None:
            signed_out.append(signed)
        return {"operation": name.hex(), "height": self._node.height}

    async def _receipt(self, name: Digest, signed: Signed, patience_s: float) -> str:
        """Ask for an operation. Returns the reason why it was not applied, or nothing."""
        executed = asyncio.Event()
        stop_listening = self._pump.listen(lambda event: executed.set())
        try:
            async with asyncio.timeout(patience_s):
                await self._pump.take(OperationAsked(signed))  # what our own node refuses is known with this
                while (reason := self._node.receipt(name)) is None:
                    await executed.wait()
                    executed.clear()
        except TimeoutError:
            raise _No(
                TIMEOUT,
                f"not executed within {patience_s:.0f} s, and it may be yet: see `potd balance` and `potd tasks` first",
            ) from None
        finally:
            stop_listening()
        return reason

    # Models

    async def _fetch(self, task: Digest) -> Answer:
        """The newest model that can be had. While a task is trained its model moves on under our hands."""
        moved = asyncio.Event()
        stop_listening = self._pump.listen(lambda event: moved.set())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = self._known(task)
                    holding = asyncio.create_task(self._fetcher.until_held(found.model))
                    try:
                        while not holding.done() and self._known(task).model == found.model:
                            moved.clear()
                            waiting = asyncio.create_task(moved.wait())
                            await asyncio.wait((holding, waiting), return_when=asyncio.FIRST_COMPLETED)
                            waiting.cancel()
                        if holding.done():
                            holding.result()
                            return self._model_answer(found)
                    finally:
                        holding.cancel()
                        await asyncio.gather(holding, return_exceptions=True)
        except TimeoutError:
            raise _No(TIMEOUT, f"nobody gave the model within {PATIENCE_S:.0f} s") from None
        except OSError as error:
            raise _No(CONFIGURATION, str(error)) from None
        finally:
            stop_listening()

    def _model_answer(self, found: Task) -> Answer:
        self._blobs.pin([found.model])
        asyncio.get_running_loop().call_later(MODEL_STAYS_S, self._blobs.unpin, [found.model])
        spec = self._node.ledger.spec(found.id)
        header = self._node.ledger.header
        assert spec is not None
        return {
            **task_view(self._node, found),
            "model": {"path": str(self._blobs.path(found.model).absolute()), "root": found.model.root.hex()},
            "network": self._node.network.hex(),
            "spec": base64.b64encode(encode(spec)).decode(),
            "height": self._node.height,
            "header": header_digest(header).hex() if header is not None else None,
        }

    # Reading questions

    def _task(self, question: Mapping[str, Any]) -> Task:
        return self._known(_name(question, "task"))

    def _known(self, task: Digest) -> Task:
        found = self._node.ledger.task(task)
        if found is None:
            raise _No(REFUSED, f"the ledger knows no task {task.hex()}")
        return found


def _bound(path: Path) -> socket.socket:
    """A socket at `path` that only its owner may open. The home is ours alone, so one that lies there is dead."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(str(path))
        os.chmod(path, 0o600)  # nobody can connect before it listens
    except BaseException:
        made.close()
        raise
    return made


def _name(question: Mapping[str, Any], field: str) -> bytes:
    text = question.get(field)
    if not isinstance(text, str) or not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise _No(REFUSED, f"{field!r} is {text!r}, not 64 hexadecimal digits")
    return bytes.fromhex(text)


def _patience_s(question: Mapping[str, Any]) -> float:
    """How long whoever asks will wait for the answer."""
    asked = question.get("patience_s", PATIENCE_S)
    return min(float(asked), PATIENCE_S) if isinstance(asked, int | float) and asked > 0 else PATIENCE_S


def _whole(question: Mapping[str, Any], field: str) -> int:
    value = question.get(field)
    if type(value) is not int:
        raise _No(REFUSED, f"{field!r} is {value!r}, not a whole number")
    return value


def _refusal(code: int, error: str) -> Answer:
    return {"ok": False, "error": error, "code": code, "done": True}


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
