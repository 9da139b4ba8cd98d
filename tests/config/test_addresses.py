"""Multiaddrs and peer ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID

from potd.config.addresses import (
    check_announce,
    check_dial,
    check_listen,
    is_address,
    key_of_peer_id,
    peer_id,
    read_list,
)
from potd.config.home import public_key

KEY = public_key(bytes(range(32)))
ID_TEXT = peer_id(KEY)


@pytest.mark.parametrize("number", range(8))
def test_a_peer_id_is_the_one_that_libp2p_derives(number: int) -> None:
    key = public_key(bytes([number]) * 32)
    assert peer_id(key) == str(ID.from_pubkey(Ed25519PublicKey.from_bytes(key)))


@given(st.binary(min_size=32, max_size=32))
def test_a_key_survives_its_peer_id(key: bytes) -> None:
    assert key_of_peer_id(peer_id(key)) == key


@given(st.text(max_size=80))
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="peer id|base 58"):
        key_of_peer_id(text)


def test_a_peer_id_with_one_digit_changed_or_added_is_another_or_none() -> None:
    for wrong in (ID_TEXT + "1", "1" + ID_TEXT, ID_TEXT[:-1], "Qm" + ID_TEXT[2:]):
        with pytest.raises(ValueError, match="not the peer id"):
            key_of_peer_id(wrong)


@pytest.mark.parametrize(
    "text", ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/0", "/ip4/127.0.0.1/tcp/65535", "/ip6/fe80::1/tcp/1"]
)
def test_an_ip_address_and_a_port_can_be_listened_on(text: str) -> None:
    assert check_listen(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not of the form"),
        ("127.0.0.1:4001", "not of the form"),
        ("/ip4/127.0.0.1/tcp/4001/", "not of the form"),
        ("/ip4/127.0.0.1/udp/4001", "the transport is tcp"),
        ("/ip4/127.0.0.1/tcp/65536", "not a port"),
        ("/ip4/127.0.0.1/tcp/04001", "not a port"),
        ("/ip4/127.0.0.1/tcp/x", "not a port"),
        ("/ip4/127.0.0.1/tcp/²", "not a port"),
        ("/ip4/127.0.0.1/tcp/" + "9" * 5000, "not a port"),
        ("/ip4/127.0.0.256/tcp/1", "not permitted"),
        ("/ip6/0::0/tcp/1", "is written"),
        ("/dns4/example.org/tcp/1", "needs an IP address"),
        ("/unix/127.0.0.1/tcp/1", "is none of"),
        (f"/ip4/127.0.0.1/tcp/1/p2p/{ID_TEXT}", "ends with its port"),
    ],
)
def test_what_cannot_be_listened_on_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_listen(text)


def test_a_peer_is_dialled_by_name_or_number_and_always_by_its_id() -> None:
    for host in ("ip4/192.0.2.1", "ip6/2001:db8::1", "dns/a", "dns4/boot.example.org", "dns6/boot-2.example.org"):
        address = f"/{host}/tcp/4001/p2p/{ID_TEXT}"
        assert check_dial(address) == address
        assert is_address(address)
    for address, reason in (
        ("/dns4/boot.example.org/tcp/4001", "whose address"),
        (f"/dns4/boot.example.org/tcp/0/p2p/{ID_TEXT}", "port 0"),
        (f"/dns4/-boot.example.org/tcp/1/p2p/{ID_TEXT}", "not a host name"),
        (f"/dns4/{'a' * 300}/tcp/1/p2p/{ID_TEXT}", "not a host name"),
        (f"/dns4/boot.example.org/tcp/1/ipfs/{ID_TEXT}", "only /p2p/PEER-ID"),
        ("/dns4/boot.example.org/tcp/1/p2p/12D3KooW", "not the peer id"),
    ):
        with pytest.raises(ValueError, match=reason):
            check_dial(address)


def test_an_announced_address_has_a_port_and_no_id() -> None:
    assert check_announce("/dns4/rig.example.org/tcp/4001") == "/dns4/rig.example.org/tcp/4001"
    for address in ("/ip4/192.0.2.1/tcp/0", f"/ip4/192.0.2.1/tcp/1/p2p/{ID_TEXT}"):
        with pytest.raises(ValueError, match="port"):
            check_announce(address)


def test_a_bootstrap_list_names_the_lines_that_are_wrong(tmp_path: Path) -> None:
    good = f"/ip4/192.0.2.1/tcp/4001/p2p/{ID_TEXT}"
    (tmp_path / "peers.txt").write_text(f"# friends\n\n{good}  # Ada\n/ip4/192.0.2.2/tcp/4001\nnonsense\n")
    found, problems = read_list(tmp_path / "peers.txt")
    assert found == [good]
    assert [problem.split(":")[0] for problem in problems] == [
        f"{tmp_path}/peers.txt, line 4",
        f"{tmp_path}/peers.txt, line 5",
    ]
    assert read_list(tmp_path / "none.txt") == ([], [f"{tmp_path}/none.txt: no such file or directory"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert read_list(tmp_path / "binary") == ([], [f"{tmp_path}/binary: not UTF-8 text"])
