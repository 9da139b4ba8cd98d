"""Questions and their answers."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from potd.runtime.network import PeerDown, Refused, Unreachable

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


def test_a_question_is_answered_or_refused_with_the_reason(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            assert await alice.ask(bob, b"abc") == b"cba"
            assert await bob.ask(alice, b"") == b""
            assert len(await alice.ask(bob, b"bytes 1000000")) == 1_000_000
            with pytest.raises(Refused, match=r"^not today$"):
                await alice.ask(bob, b"refuse not today")
            assert await alice.ask(bob, b"abc") == b"cba"

    nodes.run(run())


def test_a_question_without_an_answer_is_unreachable_and_says_why(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):

            async def never() -> bytes:
                await asyncio.Event().wait()
                return b""

            async def broken() -> bytes:
                raise ZeroDivisionError

            bob.witness.answers = {b"never": never, b"broken": broken}
            with pytest.raises(Unreachable, match=r"no answer about blob within 0.1 s"):
                await alice.ask(bob, b"never", patience_s=0.1)
            with pytest.raises(Unreachable, match="the answer about blob is too long"):
                await alice.ask(bob, b"bytes 1001", bytes_max=1_000)
            with pytest.raises(Refused, match="internal error"):
                await alice.ask(bob, b"broken")
            with pytest.raises(Unreachable, match="not connected"):
                await alice.network.ask(bytes(32), "blob", b"", answer_bytes_max=1, patience_s=1)
            assert await alice.ask(bob, b"abc") == b"cba"

    nodes.run(run())


def test_a_cancelled_question_is_cancelled_at_the_peer_and_disturbs_nothing_else(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            begun, ended = asyncio.Event(), asyncio.Event()

            async def never() -> bytes:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
                return b""

            bob.witness.answers = {b"never": never}
            asking = asyncio.create_task(alice.ask(bob, b"never"))
            await asyncio.wait_for(begun.wait(), 5)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(ended.wait(), 5)
            assert await alice.ask(bob, b"abc") == b"cba"
            assert (alice.witness.all(PeerDown), bob.witness.all(PeerDown)) == ([], [])

    nodes.run(run())


def test_transfers_cancelled_half_way_leave_the_connection_alone(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            for n in range(30):
                asking = asyncio.create_task(alice.ask(bob, b"bytes 4000000", bytes_max=1 << 23))
                await asyncio.sleep(0.001 * n)
                asking.cancel()
                await asyncio.wait([asking])
            alice.network.send(bob.key, b"still here")
            bob.network.send(alice.key, b"and here")
            assert (await bob.until_frames(1), await alice.until_frames(1)) == ([b"still here"], [b"and here"])
            assert (alice.witness.all(PeerDown), bob.witness.all(PeerDown)) == ([], [])

    nodes.run(run())


def test_answers_on_the_way_do_not_hold_up_frames(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            asking = [asyncio.create_task(alice.ask(bob, b"bytes 16000000", bytes_max=1 << 24)) for _ in range(4)]
            await asyncio.sleep(0.1)
            bob.network.send(alice.key, b"urgent")
            await alice.until_frames(1)
            assert not any(task.done() for task in asking)
            await asyncio.wait_for(asyncio.gather(*asking), 30)

    nodes.run(run())


def test_many_questions_share_a_few_streams(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            answers = await asyncio.gather(*(alice.ask(bob, b"%d" % n) for n in range(300)))
            assert answers == [b"%d" % n if n < 10 else str(n)[::-1].encode() for n in range(300)]
            assert len(alice.network._host.peers.connected[bob.key].idle["blob"]) <= 4

    nodes.run(run())
