"""Peer ids and multiaddrs. Knows nothing of who is behind them."""

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass

from libp2p.peer.id import ID

from potd.runtime.network import NodeKey

ADDRESS_BYTES_MAX = 320

_ED25519_PREFIX = bytes.fromhex("002408011220")  # identity multihash, 36 bytes; protobuf: Ed25519, 32 bytes


def id_of(key: NodeKey) -> ID:
    """The libp2p peer id of a node."""
    assert len(key) == 32
    return ID(_ED25519_PREFIX + key)


def key_of(peer: ID) -> NodeKey | None:
    """The node's key inside a peer id, or None where the id is of another kind of key."""
    raw = peer.to_bytes()
    return raw[6:] if len(raw) == 38 and raw.startswith(_ED25519_PREFIX) else None


@dataclass(frozen=True)
class Address:
    """A place to dial and who must answer there."""

    key: NodeKey
    host: str
    text: str  # the multiaddr without /p2p

    def __str__(self) -> str:
        return f"{self.text}/p2p/{id_of(self.key)}"

    @property
    def loopback(self) -> bool:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


_ADDRESS = re.compile(
    r"/(ip4|ip6|dns|dns4|dns6)/([0-9A-Za-z.:-]{1,253})/tcp/([0-9]{1,5})/p2p/([1-9A-HJ-NP-Za-km-z]{40,64})"
)


def parse_address(text: str) -> Address:
    """Read `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/ID`, and nothing else. Raises ValueError with a sentence."""
    parts = _ADDRESS.fullmatch(text) if len(text) <= ADDRESS_BYTES_MAX else None
    if parts is None:
        raise ValueError(f"not a multiaddr of the form /ip4/HOST/tcp/PORT/p2p/ID: {text[:100]!r}")
    kind, host, port, peer = parts.groups()
    if kind in ("ip4", "ip6"):
        try:
            number = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"not an address of its kind: {text!r}") from None
        if number.is_multicast:
            raise ValueError(f"nobody can be dialled at {text!r}")
        host = str(number)
    if not 1 <= int(port) <= 65_535:
        raise ValueError(f"no such port: {text!r}")
    try:
        key = key_of(ID.from_base58(peer))
    except ValueError:
        key = None
    if key is None:
        raise ValueError(f"not the peer id of an Ed25519 key: {text!r}")
    return Address(key, host, f"/{kind}/{host}/tcp/{int(port)}")


def own_host() -> str:
    """The address this machine would send from, without sending anything."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def parse_addresses(told: bytes, count_max: int) -> list[Address]:
    """The good ones among addresses that a peer sent, one a line."""
    good = []
    for line in told.split(b"\n", count_max)[:count_max]:
        with contextlib.suppress(ValueError):
            good.append(parse_address(line.decode("ascii")))
    return good


def kind_of(host: str) -> str:
    """What a multiaddr calls this kind of IP address."""
    return "ip6" if ":" in host else "ip4"
