"""Every cure has a test that fails without it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_pair
from libp2p.custom_types import TProtocol
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub import gossipsub, pubsub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from potd.runtime.libp2p import patches

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes

TOPIC = "/a/topic"


class Counts:
    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []

    def __call__(self, peer: ID | None, protocol: str, reason: str) -> None:
        self.refused.append((protocol, reason))


async def free(peer: ID, size: int) -> None:
    """Every peer can afford everything."""


def nobody(topic: str, origin: ID) -> frozenset[ID]:
    """Who hears this of its origin by itself."""
    return frozenset()


def host(counts: Counts) -> patches.Host:
    pair = create_new_key_pair(bytes(32))
    noise = Transport(pair, noise_privkey=new_x25519_pair().private_key)
    store = PeerStore()
    store.add_key_pair(ID.from_pubkey(pair.public_key), pair)
    upgrader = TransportUpgrader({TProtocol(NOISE): noise}, {})
    swarm = patches.PlainSwarm(ID.from_pubkey(pair.public_key), store, upgrader, [TCP()])
    return patches.Host(swarm, refuse=counts, streams_per_peer_max=8)


def gossip(counts: Counts, router: patches.Router | None = None) -> patches.Gossip:
    made = patches.Gossip(
        host(counts), router or patches.Router(heartbeat_s=1, refuse=counts, told=nobody),
        topics=frozenset({TOPIC}), rpc_bytes_max=1 << 16, admit=lambda peer: True, afford=free,
    )  # fmt: skip
    made.stop()
    return made


def in_trio(work: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        with trio.fail_after(10):
            await work()

    trio.run(run)


@pytest.fixture(autouse=True)
def cured() -> None:
    patches.apply()


def test_another_release_is_refused_with_a_sentence() -> None:
    with pytest.raises(ImportError, match=r"libp2p 0\.9\.0 is installed, .* for libp2p 0\.8\.1: install"):
        patches.require_release("0.9.0")
    patches.require_release("0.8.1")


def test_one_yamux_frame_carries_256_kib() -> None:
    assert yamux.MAX_MESSAGE_SIZE == 256 << 10


def test_reading_byte_by_byte_costs_no_window_updates() -> None:
    class Connection:
        def __init__(self) -> None:
            self.stream_buffers = {1: bytearray(1_000)}
            self.sent: list[bytes] = []

        def rtt(self) -> float:
            return 0.001

        async def _write_frame(self, data: bytes) -> None:
            self.sent.append(data)

    async def run() -> None:
        connection: Any = Connection()
        stream = yamux.YamuxStream(1, connection, True)
        for received in (1_000, stream.target_recv_window // 2):
            stream.recv_window -= received
            connection.stream_buffers[1] = bytearray(received)
            for n in range(0, received, max(1, received // 100)):
                connection.stream_buffers[1] = bytearray(max(0, received - n - max(1, received // 100)))
                await stream._auto_tune_and_send_window_update(bytes_read=1)
        assert len(connection.sent) == 1

    in_trio(run)


def test_the_window_stops_growing() -> None:
    assert patches.WINDOW_BYTES_MAX < yamux.MAX_WINDOW_SIZE


def test_a_write_that_began_is_finished_though_its_task_is_cancelled() -> None:
    class Wire:
        is_initiator = True

        def __init__(self) -> None:
            self.written: list[bytes] = []

        async def write(self, data: bytes) -> None:
            await trio.sleep(0.02)
            self.written.append(data)

    async def run() -> None:
        wire: Any = Wire()
        muxer = patches.Muxer(wire, ID(b"peer"), is_initiator=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(muxer._write_frame, b"first")
            nursery.start_soon(muxer._write_frame, b"second")
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        # The one in the middle of its write finished it; the one that waited for its turn left.
        assert len(wire.written) == 1

    in_trio(run)


def test_a_swarm_dials_nobody_by_itself() -> None:
    async def run() -> None:
        swarm = host(Counts()).get_network()
        with pytest.raises(SwarmException, match="not connected"):
            await swarm.dial_peer(ID(b"peer"))
        assert isinstance(swarm, patches.PlainSwarm)
        swarm._schedule_auto_connect()
        assert swarm.get_connections() == []

    in_trio(run)


def test_gossip_is_numbered_by_the_nanosecond() -> None:
    async def run() -> None:
        before = time.time_ns()
        assert before <= gossip(Counts()).counter <= time.time_ns()

    in_trio(run)


def test_a_message_that_comes_again_while_it_is_judged_is_heard_once() -> None:
    async def run() -> None:
        pubsub_service = gossip(Counts())
        judged = 0

        async def slow(forwarder: ID, message: rpc_pb2.Message) -> bool:
            nonlocal judged
            judged += 1
            await trio.sleep(0.02)
            return False

        pubsub_service.set_topic_validator(TOPIC, slow, True)
        message = rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], from_id=pubsub_service.my_id.to_bytes(), seqno=bytes(8))
        key = pubsub_service.sign_key
        assert key is not None
        message.signature = key.sign(b"libp2p-pubsub:" + message.SerializeToString())
        message.key = pubsub_service.host.get_public_key().serialize()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(pubsub_service.push_msg, pubsub_service.my_id, message)
        assert judged == 1

    in_trio(run)


def test_what_judging_a_message_raises_is_counted_and_swallowed() -> None:
    async def run() -> None:
        counts = Counts()
        pubsub_service = gossip(counts)
        # Without a signature, and with a key that cannot be read: 0.8.1 raises here, and ends.
        bad = rpc_pb2.Message(
            data=b"x", topicIDs=[TOPIC], from_id=b"\x12\x20" + bytes(32), seqno=b"1", key=b"?", signature=b"?"
        )
        await pubsub_service.push_msg(ID(b"forwarder"), bad)
        assert counts.refused == [("gossip", "DecodeError")]

    in_trio(run)


def test_the_heart_of_gossip_beats_on() -> None:
    class Faint(patches.Router):
        beats = 0

        def fanout_heartbeat(self) -> None:
            self.beats += 1
            raise ZeroDivisionError

    async def run() -> None:
        counts = Counts()
        router = Faint(heartbeat_s=0.05, refuse=counts, told=nobody)
        gossip(counts, router)
        with trio.move_on_after(0.2):
            await router.heartbeat()
        assert router.beats >= 3
        assert counts.refused[0] == ("gossip control", "ZeroDivisionError")

    in_trio(run)


def test_gossip_is_1_1_without_guesswork() -> None:
    router = patches.Router(heartbeat_s=1, refuse=Counts(), told=nobody)
    assert router.get_protocols() == ["/meshsub/1.1.0"]
    assert not (router.spam_protection_enabled or router.adaptive_gossip_enabled or router.eclipse_protection_enabled)
    assert router.heartbeat_interval == 1


def test_a_burst_fits_the_gossip_queues() -> None:
    async def run() -> None:
        queue = pubsub.RpcQueue()  # type: ignore[attr-defined]  # the name that 0.8.1 makes its queues by
        assert all(queue.push(rpc_pb2.RPC()) for _ in range(1_000))
        assert pubsub.SUBSCRIPTION_CHANNEL_SIZE >= 1_000

    in_trio(run)


def test_our_signed_addresses_are_serialised_once() -> None:
    async def run() -> None:
        made = host(Counts())
        first, _ = pubsub.env_to_send_in_RPC(made)  # type: ignore[attr-defined]  # by the name that 0.8.1 calls it by
        again, _ = gossipsub.env_to_send_in_RPC(made)  # type: ignore[attr-defined]  # as above
        assert again is first

    in_trio(run)


def test_signed_addresses_of_peers_are_passed_over() -> None:
    async def run() -> None:
        told = rpc_pb2.RPC(senderRecord=b"nonsense")
        for module in (pubsub, gossipsub):
            assert module.maybe_consume_signed_record(told, host(Counts()), ID(b"peer"))

    in_trio(run)


def test_our_own_messages_go_to_all_who_listen_before_the_mesh_is_woven() -> None:
    async def run() -> None:
        router = patches.Router(heartbeat_s=1, refuse=Counts(), told=nobody)
        service = gossip(Counts(), router)
        await router.join(TOPIC)
        service.peer_topics[TOPIC] = {ID(b"one"), ID(b"two")}
        ours = list(router._get_peers_to_send([TOPIC], service.my_id, service.my_id))
        assert ours == [ID(b"one"), ID(b"two")]
        assert list(router._get_peers_to_send([TOPIC], ID(b"one"), ID(b"three"))) == []

    in_trio(run)


def test_applying_the_cures_again_changes_nothing() -> None:
    before = (pubsub.env_to_send_in_RPC, yamux.YamuxStream._auto_tune_and_send_window_update)  # type: ignore[attr-defined]  # as above
    patches.apply()
    assert before == (pubsub.env_to_send_in_RPC, yamux.YamuxStream._auto_tune_and_send_window_update)  # type: ignore[attr-defined]  # as above


def test_connections_are_made_of_the_cured_muxer(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.pair() as (alice, bob):
            for node in (alice, bob):
                (connection,) = node.network._host.swarm.get_connections()
                assert type(connection.muxed_conn) is patches.Muxer

    nodes.run(run())


def test_only_noise_is_offered(nodes: "Nodes") -> None:
    async def run() -> None:
        async with nodes.started("alice") as (alice,):
            offered = alice.network._host.swarm.upgrader.security_multistream.transports
            assert list(offered) == ["/noise"]

    nodes.run(run())


def test_libp2p_leaves_the_programs_log_alone() -> None:
    program = """
import logging, asyncio
from potd.gossip.admit import Screening
from potd.runtime.libp2p import Libp2pNetwork
from potd.runtime.network import NetworkConfig
async def main():
    nets = [Libp2pNetwork(bytes([n]) * 32, network="c0ffee", topics=(), kinds=(), callbacks=Callbacks(),
        config=NetworkConfig(listen=("/ip4/127.0.0.1/tcp/0",))) for n in range(2)]
    async with nets[0], nets[1]:
        nets[0].dial(nets[1].addresses)
        await up.wait()
up = asyncio.Event()
class Callbacks:
    def heard(self, event): up.set()
    def screen(self, topic, data): return Screening.ACCEPT
    def hello(self): return b""
    def admit(self, peer, hello): return None
asyncio.run(main())
assert logging.getLogger().handlers == [], logging.getLogger().handlers
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stock_host_may_identify_ping_and_gossip(nodes: "Nodes") -> None:
    """In a process of its own, without any of our cures: as a guest."""

    async def run() -> None:
        async with nodes.started("alice", handshake_s=1.0) as (alice,):
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                STOCK,
                alice.network.addresses[0],
                nodes.wire_topic,
                stdout=asyncio.subprocess.PIPE,
            )
            assert child.stdout is not None
            try:
                async with asyncio.timeout(30):
                    assert (await child.stdout.readline()).split() == [b"identified", b"/potd/hello/1"]
                    assert (await child.stdout.readline()).split() == [b"pinged"]
                    await alice.until_subscribed(1)
                    assert await alice.until_gossip(1) == [b"from stock"]
                    alice.network.publish(nodes.topic, b"from alice")
                    assert (await child.stdout.readline()).split() == [b"heard", b"from", b"alice"]
                    while not alice.network.peers():
                        await asyncio.sleep(0.05)
                    (guest,) = alice.network.peers()
                    assert guest.guest
                    assert alice.up() == []
            finally:
                if child.returncode is None:
                    child.kill()
                await child.wait()

    nodes.run(run())


STOCK = """
import sys, trio
from libp2p import new_host
from libp2p.host.ping import PingService
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

async def main(place, topic):
    host = new_host(muxer_preference="YAMUX")
    router = GossipSub(protocols=["/meshsub/1.1.0"], degree=6, degree_low=4, degree_high=12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    async with host.run([]), background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        heard = await pubsub.subscribe(topic)
        await host.connect(place)
        peer = place.peer_id
        while "/potd/hello/1" not in (known := [*host.get_peerstore().peer_data_map[peer].get_protocols()]):
            await trio.sleep(0.02)
        print("identified", "/potd/hello/1", flush=True)
        await PingService(host).ping(peer)
        print("pinged", flush=True)
        await pubsub.wait_for_subscription(peer, topic)
        await pubsub.wait_for_mesh(peer, topic)
        await pubsub.publish(topic, b"from stock")
        while True:
            message = await heard.get()
            if message.data != b"from stock":
                print("heard", message.data.decode(), flush=True)
                break
        await trio.sleep_forever()

trio.run(main, info_from_p2p_addr(Multiaddr(sys.argv[1])), sys.argv[2])
"""
