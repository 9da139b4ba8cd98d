import asyncio
import contextlib
import functools
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from potd.runtime.libp2p_host import Address, id_of, key_of, parse_address
from potd.runtime.network import (
    Allowance,
    Allowances,
    Framed,
    Gossiped,
    Mismatched,
    Network,
    PeerDown,
    PeerUp,
    Refused,
    Unreachable,
)

if TYPE_CHECKING:
    from tests.runtime.conftest import Nodes


def test_frames_arrive_whole_and_in_order(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            frames = [bytes([n]) * (n * 997) for n in range(200)] + [bytes(1 << 20)]
            for frame in frames:
                alice.network.send(bob.key, frame)
                bob.network.send(alice.key, frame)
            assert await bob.until_frames(len(frames)) == frames
            assert await alice.until_frames(len(frames)) == frames
            assert {event.peer for event in bob.witness.all(Framed)} == {alice.key}

    nodes.run(run())


def test_the_host_is_a_network(nodes: "Nodes") -> None:
    network: Network = nodes.new("alice").network
    assert network.addresses == ()


def test_frames_for_an_absent_peer_wait_and_the_oldest_give_way(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", outbox_frames_max=10) as (alice, bob):
            frames = [bytes([n]) for n in range(25)]
            for frame in frames:
                alice.network.send(bob.key, frame)
            alice.network.dial(bob.network.addresses)
            assert await bob.until_frames(10) == frames[15:]
            assert alice.network.counters()["frames dropped"] == 15

    nodes.run(run())


def test_frames_for_a_peer_that_stays_away_are_dropped_when_old(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", away_s=0.2) as (alice, bob):
            alice.network.send(bob.key, b"stale")
            await alice.until_counted("frames dropped", 1)
            alice.network.send(bob.key, b"fresh")
            alice.network.dial(bob.network.addresses)
            assert await bob.until_frames(1) == [b"fresh"]

    nodes.run(run())


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
            assert len(alice.network._core.peers[bob.key].idle["blob"]) <= 4

    nodes.run(run())


def test_gossip_travels_over_a_third_node_and_names_its_origin(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob", "carol", peers_target=0) as (alice, bob, carol):
            alice.network.dial(bob.network.addresses)
            carol.network.dial(bob.network.addresses)
            await bob.until_up(alice, carol)
            await bob.until_subscribed(2)
            await alice.until_subscribed(1)
            bob.witness.screened.add(b"rubbish")
            alice.network.publish(nodes.topic, b"rubbish")
            await bob.until_counted("refused gossip: screened")
            alice.network.publish(nodes.topic, b"news")
            assert await carol.until_gossip(1) == [b"news"]
            assert carol.witness.all(Gossiped) == [Gossiped(nodes.topic, alice.key, b"news")]
            assert alice.gossip() == []

    nodes.run(run())


def test_a_burst_of_gossip_arrives_completely(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            await alice.until_subscribed(1)
            for n in range(500):
                alice.network.publish(nodes.topic, b"%03d" % n)
            assert sorted(await bob.until_gossip(500)) == [b"%03d" % n for n in range(500)]

    nodes.run(run())


def test_gossip_is_heard_after_a_quick_restart(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            for n in range(2):
                async with nodes.started("bob") as (bob,):
                    bob.network.dial(alice.network.addresses)
                    await bob.until_subscribed(1)
                    bob.network.publish(nodes.topic, b"again")
                    assert await alice.until_gossip(n + 1) == [b"again"] * (n + 1)

    nodes.run(run())


def test_both_sides_are_told_why_a_hello_was_refused_and_the_dialer_backs_off(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob") as (alice, bob):
            alice.witness.refusal = "your genesis is 0badcafe, ours is c0ffee"
            bob.network.dial(alice.network.addresses)
            await bob.witness.until(lambda heard: bool(heard.all(Mismatched)))
            told = bob.witness.all(Mismatched)[0]
            assert told.reason == "it refuses us: your genesis is 0badcafe, ours is c0ffee"
            await alice.witness.until(lambda heard: bool(heard.all(Mismatched)))
            assert alice.witness.all(Mismatched)[0].reason == "your genesis is 0badcafe, ours is c0ffee"
            await asyncio.sleep(1)
            assert (alice.up(), bob.up()) == ([], [])
            assert bob.network.counters()["dials"] <= 6
            alice.witness.refusal = None
            await bob.until_up(alice)

    nodes.run(run())


def test_a_peer_that_restarts_is_found_again_more_often_than_any_limit(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", connections_max=6) as (alice,):
            for n in range(12):
                async with nodes.started("bob") as (bob,):
                    bob.network.dial(alice.network.addresses)
                    await bob.until_up(alice)
                    assert await bob.ask(alice, b"abc") == b"cba"
                await alice.witness.until(lambda heard, n=n: len(heard.all(PeerDown)) == n + 1)  # type: ignore[misc]  # n is bound now
            assert len(alice.witness.all(PeerUp)) == 12

    nodes.run(run())


def test_the_dialer_reconnects_when_the_peer_comes_back(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            async with nodes.started("bob") as (bob,):
                place = bob.network.addresses
                alice.network.dial(place)
                await alice.until_up(bob)
            await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 1)
            port = parse_address(place[0]).text
            async with nodes.started("bob", listen=(port,)) as (bob,):
                await alice.until_up(bob)
                assert await alice.ask(bob, b"abc") == b"cba"

    nodes.run(run())


def test_two_connections_between_two_peers_are_one_peer_and_either_may_break(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", "bob") as (alice, bob):
            alice.network.dial(bob.network.addresses)
            bob.network.dial(alice.network.addresses)
            await alice.until_up(bob)
            await bob.until_up(alice)
            # A second connection, whether or not the two dials met.
            core = bob.network._core
            place = parse_address(alice.network.addresses[0])
            connecting = asyncio.get_running_loop().create_future()

            async def connect() -> None:
                connecting.get_loop().call_soon_threadsafe(connecting.set_result, await core._connect(place))

            bob.network._crossing.to_trio(core.start, connect)
            assert await connecting
            assert alice.up() == [bob.key]
            assert len(core.peers[alice.key].lines) >= 2
            while True:
                bob.network.send(alice.key, b"b%d" % len(bob.frames()))
                alice.network.send(bob.key, b"a%d" % len(bob.frames()))
                count = len(bob.frames()) + 1
                assert (await bob.until_frames(count))[-1] == b"a%d" % (count - 1)
                assert (await alice.until_frames(count))[-1] == b"b%d" % (count - 1)
                first, *rest = core.peers[alice.key].lines
                if not rest:
                    break
                bob.network._crossing.to_trio(core.start, functools.partial(core._hang_up, first, "a test"))
                async with asyncio.timeout(5):
                    while len(alice.network._core.peers[bob.key].lines) > len(rest):
                        await asyncio.sleep(0.01)
            assert (alice.up(), bob.up()) == ([bob.key], [alice.key])

    nodes.run(run())


def test_bootstrap_peers_introduce_nodes_to_each_other(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("hub", "alice", "bob", "carol", peers_every_s=0.3) as (hub, *others):
            for node in others:
                node.network.dial(hub.network.addresses)
            for node in others:
                await node.until_up(*(other for other in others if other is not node))

    nodes.run(run())


def test_a_dropped_peer_is_hung_up_on_and_kept_out(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            alice.network.drop(bob.key, "it lies")
            await alice.witness.until(lambda heard: bool(heard.all(PeerDown)))
            assert alice.witness.all(PeerDown) == [PeerDown(bob.key, "dropped: it lies")]
            await alice.until_counted("refused connection: dropped a moment ago")
            assert alice.up() == []

    nodes.run(run())


def test_a_port_that_is_taken_is_an_error_in_a_sentence(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            taken = parse_address(alice.network.addresses[0]).text
            with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use"):
                async with nodes.started("bob", listen=(taken,)):
                    pass
        with pytest.raises(OSError, match="not of the form"):
            async with nodes.started("bob", listen=("nonsense",)):
                pass

    nodes.run(run())


def test_stopping_is_quick_and_leaves_no_thread(nodes: "Nodes") -> None:
    async def run() -> None:
        before = {thread.name for thread in threading.enumerate()}
        async with nodes.started("alice", "bob", "carol") as (alice, bob, carol):
            bob.network.dial(alice.network.addresses)
            carol.network.dial(alice.network.addresses)
            await alice.until_up(bob, carol)
            asking = asyncio.create_task(bob.ask(alice, b"bytes 50000000", bytes_max=1 << 26))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await alice.network.__aexit__(None, None, None)
            assert time.monotonic() - began < 2
            with pytest.raises(Unreachable):
                await asking
            with pytest.raises(Unreachable, match="stopped"):
                await alice.ask(bob, b"abc")
        async with asyncio.timeout(5):
            while {thread.name for thread in threading.enumerate()} - before:
                await asyncio.sleep(0.01)

    nodes.run(run())


CHILD = """
import asyncio, hashlib, sys, uvloop
from potd.runtime.libp2p_host import Libp2pNetwork
from potd.runtime.network import NetworkConfig

class Callbacks:
    def heard(self, event): print(type(event).__name__, flush=True)
    def screen(self, topic, data): return True
    def hello(self): return b"hello from a child"
    def admit(self, peer, hello): return None
    async def answer(self, peer, kind, question): return question

async def main():
    network = Libp2pNetwork(hashlib.sha256(b"bob").digest(), network="c0ffee", topics=(), kinds=("blob",),
        callbacks=Callbacks(), config=NetworkConfig(listen=("/ip4/127.0.0.1/tcp/0",)))
    async with network:
        network.dial(sys.argv[1:])
        await asyncio.Event().wait()

uvloop.run(main())
"""


def test_a_peer_that_stands_still_is_let_go_and_may_start_again(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", ping_every_s=0.5, ping_patience_s=1.5) as (alice,):
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, *alice.network.addresses)
            try:
                await alice.witness.until(lambda heard: bool(heard.all(PeerUp)), 20)
                bob = alice.up()[0]
                child.send_signal(signal.SIGSTOP)
                # Another process with the same key: it is told from the old one at once, not by its silence.
                async with nodes.started("bob") as (again,):
                    assert again.key == bob
                    again.network.dial(alice.network.addresses)
                    await again.until_up(alice)
                    await alice.witness.until(lambda heard: len(heard.all(PeerUp)) == 2)
                    assert alice.witness.all(PeerDown) == [PeerDown(bob, "it started again")]
                    alice.network.send(bob, b"welcome back")
                    assert await again.until_frames(1) == [b"welcome back"]
                await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 2)
                child.send_signal(signal.SIGCONT)
                await alice.witness.until(lambda heard: len(heard.all(PeerUp)) == 3)
                child.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                await alice.witness.until(lambda heard: len(heard.all(PeerDown)) == 3, 15)
                assert alice.witness.all(PeerDown)[-1].reason == "no answer to pings"
                assert time.monotonic() - began < 6
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()

    nodes.run(run())


def test_a_peer_that_sends_too_much_is_slowed_down_and_loses_nothing(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(allowances=Allowances(frames=Allowance(rate=100, burst=20))) as (alice, bob):
            began = time.monotonic()
            for n in range(120):
                alice.network.send(bob.key, bytes([n]))
            assert await bob.until_frames(120) == [bytes([n]) for n in range(120)]
            assert time.monotonic() - began > 0.8
            assert bob.network.counters()["inputs delayed"] > 0

    nodes.run(run())


def test_gossip_beyond_a_forwarders_allowance_is_dropped_and_counted(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(allowances=Allowances(gossip=Allowance(rate=1, burst=10))) as (alice, bob):
            await alice.until_subscribed(1)
            for n in range(100):
                alice.network.publish(nodes.topic, bytes([n]))
            await bob.until_counted("refused gossip: over its allowance", 80)
            assert 10 <= len(bob.gossip()) <= 20
            assert next(peer for peer in bob.network.peers() if peer.key == alice.key).refused >= 80

    nodes.run(run())


def test_peers_are_described(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair(ping_every_s=0.1) as (alice, bob):
            bob.network.send(alice.key, b"12345")
            await alice.until_frames(1)
            async with asyncio.timeout(5):
                while alice.network.peers()[0].rtt_ms is None:
                    await asyncio.sleep(0.01)
            (seen,) = alice.network.peers()
            assert (seen.key, seen.direction, seen.frames_in, seen.bytes_in, seen.guest) == (bob.key, "in", 1, 9, False)
            (seen,) = bob.network.peers()
            assert (seen.key, seen.direction, seen.frames_out, seen.bytes_out) == (alice.key, "out", 1, 9)
            assert f"{seen.address}/p2p/{id_of(seen.key)}" == alice.network.addresses[0]

    nodes.run(run())


def test_connections_beyond_the_limit_are_refused(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice", connections_max=2) as (alice,), nodes.started("b", "c", "d") as others:
            for node in others:
                node.network.dial(alice.network.addresses)
            await alice.until_counted("refused connection: too many connections")
            await alice.witness.until(lambda _: len(alice.up()) == 2)
            assert len(alice.network._core._swarm.get_connections()) == 2

    nodes.run(run())


KEY = bytes(range(32))
PLACE = f"/ip4/10.1.2.3/tcp/4001/p2p/{id_of(KEY)}"


def test_a_key_and_a_peer_id_are_one_to_one() -> None:
    assert key_of(id_of(KEY)) == KEY
    assert str(id_of(KEY)).startswith("12D3KooW")


def test_an_address_is_read_as_it_is_written() -> None:
    assert parse_address(PLACE) == Address(KEY, "10.1.2.3", "/ip4/10.1.2.3/tcp/4001")
    for text in (
        PLACE,
        PLACE.replace("/ip4/10.1.2.3", "/ip6/2001:db8::1"),
        PLACE.replace("/ip4/10.1.2.3", "/dns4/rig.example"),
    ):
        assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ip4/10.1.2.3/tcp/4001",
        PLACE + "/",
        PLACE + "\n",
        PLACE.replace("tcp", "udp"),
        PLACE.replace("4001", "0"),
        PLACE.replace("4001", "65536"),
        PLACE.replace("10.1.2.3", "10.1.2"),
        PLACE.replace("10.1.2.3", "224.0.0.1"),
        PLACE.replace("ip4", "ip6"),
        PLACE.replace("/tcp", "/ws/tcp"),
        PLACE.replace("12D3", "12D4"),
        PLACE[:-1],
        "/p2p-circuit" + PLACE,
        "/ip4/10.1.2.3/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
    ],
)
def test_an_address_of_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)
