"""Frames that wait for one peer. Knows nothing of the stream that takes them."""

import threading
from collections import deque
from collections.abc import Callable

import trio

from potd.runtime.libp2p.streams import LENGTH
from potd.runtime.network import NetworkConfig


class Outbox:
    """Frames for one peer, connected or not. The asyncio side puts, the trio side takes."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self.called = False  # the writer has been woken and has not looked yet
        self.wake = trio.Event()
        self.writes: Callable[[], bool] | None = None  # what the writer leaves to do at once while it waits
        self.dropped = 0

    def put(self, frame: bytes, now: float) -> bool:
        """Queue a frame, dropping the oldest for lack of room. True if the writer must be woken."""
        with self._lock:
            self._frames.append((now, frame))
            self._bytes += len(frame)
            while len(self._frames) > self._config.outbox_frames_max or self._bytes > self._config.outbox_bytes_max:
                self._drop()
            woken, self.called = self.called, True
            return not woken

    def take(self, bytes_max: int) -> list[bytes]:
        """The oldest frames, with their lengths no more than `bytes_max`, but at least one if there is any."""
        taken: list[bytes] = []
        size = 0
        with self._lock:
            self.called = False
            while self._frames and (not taken or size + len(self._frames[0][1]) + LENGTH.size <= bytes_max):
                frame = self._frames.popleft()[1]
                self._bytes -= len(frame)
                size += len(frame) + LENGTH.size
                taken.append(frame)
            self.called = bool(self._frames)
        return taken

    def give_back(self, frames: list[bytes], now: float) -> None:
        """Put frames back in front: their stream broke under them."""
        with self._lock:
            self._frames.extendleft((now, frame) for frame in reversed(frames))
            self._bytes += sum(map(len, frames))

    def expire(self, before: float) -> None:
        """Drop what was queued earlier than that."""
        with self._lock:
            while self._frames and self._frames[0][0] < before:
                self._drop()

    def awaken(self) -> None:
        """Have what is here written, at once if it can be. On the trio side."""
        if self.writes is None or not self.writes():
            self.wake.set()

    @property
    def empty(self) -> bool:
        return not self._frames

    def _drop(self) -> None:
        self._bytes -= len(self._frames.popleft()[1])
        self.dropped += 1
