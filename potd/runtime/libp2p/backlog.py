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
        self._bytes = 0
        self._room = trio.Event()

    def put(self, event: NetworkEvent, size: int = 0) -> None:
        """Tell the asyncio side."""
        self._bytes += size
        self._crossing.to_asyncio(self._user.heard, event, size)

    def taken(self, size: int) -> None:
        """The asyncio side has taken that many bytes."""
        self._bytes -= size
        if self._bytes <= BACKLOG_BYTES_MAX // 2:
            self._room.set()

    async def wait_for_room(self) -> None:
        while self._bytes > BACKLOG_BYTES_MAX:
            self._room = trio.Event()
            await self._room.wait()
