"""Events on their way to the asyncio side. Knows how many bytes are, not what they say."""

import trio

from potd.runtime.libp2p.crossing import AsyncioSide, Crossing
from potd.runtime.network import NetworkEvent

BACKLOG_BYTES_MAX = 64 << 20  # heard and not yet taken by the asyncio side: readers wait


class Backlog:
    """What was heard and not yet taken. Readers wait while it is too much."""

    def __init__(self, crossing: Crossing, user: AsyncioSide) -> None:
        self._crossing = crossing
        self._user = user
        self._put = 0  # bytes that were put here since the start; counted on the trio side
        self._taken = 0  # of these, what was taken; counted on the asyncio side, which nobody is woken for
        self._awaited = False  # whether a reader waits for room
        self._room = trio.Event()

    def put(self, event: NetworkEvent, size: int = 0) -> None:
        """Tell the asyncio side."""
        self._put += size
        self._crossing.to_asyncio(self._user.heard, event, size)

    def taken(self, size: int) -> None:
        """The asyncio side, on which we are, has taken that many bytes."""
        self._taken += size
        if self._awaited and self._put - self._taken <= BACKLOG_BYTES_MAX // 2:
            self._awaited = False
            self._crossing.to_trio(self._make_room)

    def _make_room(self) -> None:
        self._room.set()

    @property
    def full(self) -> bool:
        return self._put - self._taken > BACKLOG_BYTES_MAX

    async def wait_for_room(self) -> None:
        while self.full:
            if self._room.is_set():
                self._room = trio.Event()
            self._awaited = True  # before looking again: what is taken after that makes room
            if self.full:
                await self._room.wait()
