"""Asking the daemon of a HOME. JSON lines over its control socket: one object asks, one or more answer.

A question is `{"command": NAME, ...}`, with `"patience_s": SECONDS` if whoever asks won't wait for ever. An answer is
`{"ok": true, ...}` or `{"ok": false, "error": SENTENCE, "code": EXIT-STATUS}`. A stream of answers ends with one that
has `"done": true`.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potd.cli.exits import Exit, Failure

ANSWER_BYTES_MAX = 64 * 1024 * 1024
PATIENCE_S = 10.0
AHEAD_S = 1.0  # so much before we give up, or a tenth of our patience if that is less, the daemon should


class Unanswered(Failure):
    """The daemon was asked, and what it made of that is not known."""


def ask(home: Path, command: str, *, patience_s: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
    """The daemon's answer. Raises Failure if there is none, or if it is no."""
    for answer in stream(home, command, patience_s=patience_s, **fields):
        return answer
    raise Unanswered(Exit.NOT_RUNNING, f"the daemon in {home} hung up without an answer")


def stream(home: Path, command: str, *, patience_s: float | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
    """The daemon's answers until it is done. `patience_s` bounds the wait for each; None waits for ever.

    Raises Unanswered if the daemon goes away or is silent once it was asked, Failure if it says no or none is there."""
    question = {"command": command, **fields}
    if patience_s is not None:
        question["patience_s"] = patience_s - min(AHEAD_S, patience_s / 10)
    path = home / "potd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            hint = f"`potd start --home {home}` starts one"
            raise Failure(Exit.NOT_RUNNING, f"no daemon runs in {home}; {hint}") from None
        except TimeoutError:
            raise Failure(Exit.TIMEOUT, f"the daemon in {home} took no question within {patience_s} s") from None
        except OSError as error:
            raise Failure(Exit.CONFIGURATION, f"{path}: {error.strerror or error}") from None
        try:
            with contextlib.suppress(ConnectionError):  # it may refuse us before it has heard us out, and say why
                connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as lines:
                while line := lines.readline(ANSWER_BYTES_MAX):
                    answer = _parsed(line)
                    yield answer
                    if answer.get("done"):
                        return
        except TimeoutError:
            raise Unanswered(Exit.TIMEOUT, f"the daemon in {home} gave no answer within {patience_s} s") from None
        except ConnectionError:
            raise Unanswered(Exit.NOT_RUNNING, f"the daemon in {home} stopped before it answered") from None


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unanswered(Exit.NOT_RUNNING, "what answers on the control socket is not potd, or stopped in mid-sentence")
    if answer.get("ok"):
        return answer
    said = answer.get("code")
    code = next((one for one in Exit if one == said and one != Exit.OK), Exit.REFUSED)
    raise Failure(code, str(answer.get("error") or "refused without a reason"))
