from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from potd.runtime.libp2p.backlog import BACKLOG_BYTES_MAX, Backlog
from potd.runtime.network import PeerDown

EVENT = PeerDown(bytes(32), "gone")
PIECE = BACKLOG_BYTES_MAX // 4


class Wakes:
    """Stands where the crossing does, in one thread: counts how often the trio side is woken."""

    def __init__(self) -> None:
        self.woken = 0

    def to_asyncio(self, work: Callable[..., object], *given: Any) -> None:
        pass

    def to_trio(self, work: Callable[..., object], *given: Any) -> None:
        self.woken += 1
        work(*given)

    def heard(self, event: object, size: int) -> None:
        pass


def test_readers_wait_while_too_much_is_not_taken_and_nobody_is_woken_for_less() -> None:
    async def run() -> None:
        wakes: Any = Wakes()
        backlog = Backlog(wakes, wakes)
        passed = []

        async def read(name: str) -> None:
            await backlog.wait_for_room()
            passed.append(name)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                backlog.put(EVENT, PIECE)
            await read("full, and no more")
            backlog.taken(PIECE)
            assert wakes.woken == 0
            for _ in range(2):
                backlog.put(EVENT, PIECE)
            for name in ("first", "second"):
                nursery.start_soon(read, name)
            await trio.testing.wait_all_tasks_blocked()
            backlog.taken(2 * PIECE)
            await trio.testing.wait_all_tasks_blocked()
            assert passed == ["full, and no more"]
            backlog.taken(PIECE)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(passed[1:]) == ["first", "second"]
            backlog.taken(2 * PIECE)
        assert wakes.woken == 1

    trio.run(run)
