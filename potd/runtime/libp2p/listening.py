"""Inbound connections until their handshake is done. Knows nothing of who they turn out to be."""

import logging
import re
import socket
from collections.abc import Sequence

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from potd.runtime.libp2p.addresses import Address, id_of, kind_of, own_host, parse_address
from potd.runtime.libp2p.connections import Connections, remote
from potd.runtime.libp2p.limits import no_room_for
from potd.runtime.libp2p.peers import Peers
from potd.runtime.network import NetworkConfig, NodeKey

log = logging.getLogger("potd.network")


async def bind(addresses: Sequence[str]) -> list[trio.SocketListener]:
    """Listen on `/ip4|ip6/HOST/tcp/PORT`. Raises OSError, in a sentence."""
    listeners: list[trio.SocketListener] = []
    for text in addresses:
        parts = re.fullmatch(r"/(ip4|ip6)/([0-9a-fA-F.:]+)/tcp/([0-9]{1,5})", text)
        if parts is None:
            raise OSError(f"cannot listen on {text!r}: not of the form /ip4/HOST/tcp/PORT")
        kind, host, port = parts.groups()
        sock = trio.socket.socket(socket.AF_INET if kind == "ip4" else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            # Never SO_REUSEPORT: two nodes would share a port and each get half of the callers.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == "ip6":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind((host, int(port)))
            sock.listen(128)
        except (OSError, OverflowError) as error:
            sock.close()
            for listener in listeners:
                listener.socket.close()
            why = error.strerror if isinstance(error, OSError) else "no such port"
            raise OSError(f"cannot listen on {text}: {why}") from error
        listeners.append(trio.SocketListener(sock))
    return listeners


def announced(key: NodeKey, announce: Sequence[str], listeners: Sequence[trio.SocketListener]) -> tuple[Address, ...]:
    """The addresses to give to others: those of the listeners, unless others are named."""
    if announce:
        return tuple(parse_address(f"{text}/p2p/{id_of(key)}") for text in announce)
    addresses = []
    for listener in listeners:
        host, port = listener.socket.getsockname()[:2]
        kind = kind_of(host)
        if host == "0.0.0.0":
            host = own_host()
        elif host == "::":
            host = "::1"
        addresses.append(Address(key, host, f"/{kind}/{host}/tcp/{port}"))
    return tuple(addresses)


class Handshakes:
    """Inbound connections that have not finished Noise and Yamux."""

    def __init__(
        self, config: NetworkConfig, swarm: Swarm, nursery: trio.Nursery, peers: Peers, connections: Connections
    ) -> None:
        self._config = config
        self._swarm = swarm
        self._nursery = nursery
        self._peers = peers
        self._connections = connections
        self._hosts: dict[trio.CancelScope, str] = {}  # the oldest first

    async def accept(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError:  # out of descriptors, mostly: let some go first
                self._peers.counts["accepts failed"] += 1
                await trio.sleep(0.1)
                continue
            self._nursery.start_soon(self._welcome, stream)

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """Upgrade an inbound connection, or close it. When too many are at it, the oldest has had its chance."""
        try:
            host, port = stream.socket.getpeername()[:2]
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        connected = [remote(conn)[0] for conn in self._connections.all]
        why = no_room_for(host, connected, self._hosts.values(), self._config)
        if why is not None:
            self._peers.refuse(None, "connection", why)
            await trio.aclose_forcefully(stream)
            return
        if len(self._hosts) >= self._config.handshakes_max:
            self._peers.refuse(None, "connection", "too many handshakes")
            oldest = next(iter(self._hosts))
            del self._hosts[oldest]
            oldest.cancel()
        wrapped = TrioTCPStream(stream)
        wrapped._cached_remote_address = (host, port)  # 0.8.1 cannot read it from an IPv6 socket
        raw = RawConnection(wrapped, False)
        scope = trio.CancelScope()
        self._hosts[scope] = host
        done = False
        try:
            with scope:
                await self._swarm.upgrade_inbound_raw_conn(raw, Multiaddr(f"/{kind_of(host)}/{host}/tcp/{port}"))
                done = True
        except Exception as error:  # everything that a stranger's handshake can do wrong
            log.debug("handshake with %s failed: %r", host, error)
            self._peers.refuse(None, "connection", "handshake failed")
        finally:
            self._hosts.pop(scope, None)
            if not done:
                await trio.aclose_forcefully(stream)
