"""Calls between the two threads. Knows nothing of what is called."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio

from potd.runtime.network import NetworkEvent, NodeKey


class AsyncioSide(Protocol):
    """What the trio side calls by way of `Crossing.to_asyncio`."""

    def heard(self, event: NetworkEvent, size: int) -> None:
        """Take an event whose content has that many bytes."""

    def begin_answer(self, ticket: int, key: NodeKey, kind: str, question: bytes) -> None:
        """Prepare the answer to a peer's question."""

    def end_answer(self, ticket: int) -> None:
        """Give up preparing it: nobody waits for it any more."""


class Crossing:
    """Calls from one thread to the other, in order. A batch costs one wake-up, however long it is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._token: trio.lowlevel.TrioToken | None = None
        self._to_trio: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._to_asyncio: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._trio_called = False
        self._asyncio_called = False

    def open(self) -> None:
        """On the trio thread, once: calls made before this run now."""
        self._token = trio.lowlevel.current_trio_token()
        self._call_trio()

    def to_trio(self, work: Callable[..., object], *given: Any) -> None:
        """From any thread. Dropped when the other side has ended."""
        self._to_trio.append((work, given))
        if not self._trio_called:
            self._call_trio()

    def _call_trio(self) -> None:
        if self._token is None:
            return
        self._trio_called = True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._in_trio)

    def _in_trio(self) -> None:
        self._trio_called = False  # before the first popleft: what comes later than the last one calls again
        while self._to_trio:
            work, given = self._to_trio.popleft()
            work(*given)

    def to_asyncio(self, work: Callable[..., object], *given: Any) -> None:
        """From any thread. Dropped when the loop has closed."""
        self._to_asyncio.append((work, given))
        if not self._asyncio_called:
            self._asyncio_called = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._in_asyncio)

    def _in_asyncio(self) -> None:
        self._asyncio_called = False
        while self._to_asyncio:
            work, given = self._to_asyncio.popleft()
            work(*given)
