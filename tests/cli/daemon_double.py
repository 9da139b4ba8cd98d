"""A daemon as commands see it: answers on a control socket from a script, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Answers = Mapping[str, bytes | Sequence[Mapping[str, Any]]]


@contextlib.contextmanager
def daemon(home: Path, answers: Answers) -> Iterator[list[dict[str, Any]]]:
    """Serve `answers` by command, as objects or as raw bytes, and then hang up; yields the questions.

    An empty list of answers means silence until the caller goes away."""
    asked: list[dict[str, Any]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(home / "potd.sock"))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, answers, asked))
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            (home / "potd.sock").unlink()


def _serve(listener: socket.socket, answers: Answers, asked: list[dict[str, Any]]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rwb") as lines:
            question = json.loads(lines.readline())
            asked.append(question)
            answer = answers[question["command"]]
            data = answer if isinstance(answer, bytes) else b"".join(json.dumps(one).encode() + b"\n" for one in answer)
            with contextlib.suppress(ConnectionError):
                lines.write(data)
                lines.flush()
                if not answer and not isinstance(answer, bytes):
                    lines.readline()
