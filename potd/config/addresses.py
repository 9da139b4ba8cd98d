"""Multiaddrs and peer ids as text. Knows nothing of who is behind them.

A node is reached at `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT`, followed by `/p2p/ID` where it must be known who
answers. ID is the libp2p peer id of an Ed25519 key: the key itself under a fixed prefix, in base 58.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from potd.config.mistakes import why

FILE_BYTES_MAX = 1024 * 1024  # of a bootstrap list

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# An identity multihash (0x00, 36 bytes) of a protobuf: key type 1 (Ed25519), 32 bytes. [libp2p specs, peer-ids]
_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_HOSTS = ("ip4", "ip6", "dns", "dns4", "dns6")


def peer_id(key: bytes) -> str:
    """The libp2p peer id of an Ed25519 public key (32 bytes)."""
    assert len(key) == 32
    data = _PREFIX + key
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\x00"))) + digits


def key_of_peer_id(text: str) -> bytes:
    """The Ed25519 public key in a peer id. Raises ValueError for anything that is not one."""
    number = 0
    for digit in text[:64]:
        place = _ALPHABET.find(digit)
        if place < 0:
            raise ValueError(f"{digit!r} is not a digit of base 58")
        number = number * 58 + place
    key = (number % 2**256).to_bytes(32, "big")
    if peer_id(key) != text:
        raise ValueError("not the peer id of an Ed25519 key (those begin with 12D3KooW)")
    return key


def check_listen(text: str) -> str:
    """An address to listen on: an IP address and a TCP port, 0 for any. Raises ValueError."""
    host_kind, port, identity = _parts(text)
    if host_kind not in ("ip4", "ip6"):
        raise ValueError("listening needs an IP address: /ip4/ADDRESS/tcp/PORT")
    if identity:
        raise ValueError("a listening address ends with its port")
    assert 0 <= port < 2**16
    return text


def check_announce(text: str) -> str:
    """An address to tell others: no peer id, it is added. Raises ValueError."""
    _, port, identity = _parts(text)
    if identity:
        raise ValueError("an announced address ends with its port; the peer id is added")
    if port == 0:
        raise ValueError("port 0 cannot be dialled")
    return text


def check_dial(text: str) -> str:
    """An address of a known peer. Raises ValueError."""
    _, port, identity = _parts(text)
    if not identity:
        raise ValueError("whose address is it? It must end in /p2p/PEER-ID")
    if port == 0:
        raise ValueError("port 0 cannot be dialled")
    return text


def is_address(text: str) -> bool:
    """Whether this is meant as a multiaddr, and not as a file of them."""
    return text.startswith(tuple(f"/{kind}/" for kind in _HOSTS))


def read_list(path: Path) -> tuple[list[str], list[str]]:
    """The addresses in a bootstrap list (one a line, # begins a comment), and what is wrong with the others."""
    found: list[str] = []
    problems: list[str] = []
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            return [], [f"{path}: longer than {FILE_BYTES_MAX} bytes"]
        text = data.decode()
    except OSError as error:
        return [], [f"{path}: {why(error)}"]
    except UnicodeDecodeError:
        return [], [f"{path}: not UTF-8 text"]
    for number, line in enumerate(text.splitlines(), 1):
        address = line.split("#")[0].strip()
        if not address:
            continue
        try:
            found.append(check_dial(address))
        except ValueError as error:
            problems.append(f"{path}, line {number}: {address!r}: {error}")
    return found, problems


def _parts(text: str) -> tuple[str, int, str]:
    """Kind of host, port, and peer id or nothing."""
    parts = text.split("/")
    if parts[0] != "" or len(parts) not in (5, 7):
        raise ValueError("not of the form /ip4/ADDRESS/tcp/PORT or /dns4/NAME/tcp/PORT/p2p/PEER-ID")
    _, kind, host, transport, port, *rest = parts
    if kind not in _HOSTS:
        raise ValueError(f"{kind!r} is none of {', '.join(_HOSTS)}")
    if kind in ("ip4", "ip6"):
        address = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
        if str(address) != host:
            raise ValueError(f"{host!r} is written {address}")
    elif len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name")
    if transport != "tcp":
        raise ValueError(f"the transport is tcp, not {transport!r}")
    if not (port.isascii() and port.isdigit()) or str(int(port[:6])) != port or int(port) > 65_535:
        raise ValueError(f"{port!r} is not a port from 0 to 65535")
    if rest:
        if rest[0] != "p2p":
            raise ValueError(f"/{rest[0]} after the port, where only /p2p/PEER-ID may stand")
        key_of_peer_id(rest[1])
        return kind, int(port), rest[1]
    return kind, int(port), ""
