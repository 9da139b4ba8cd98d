"""Peer ids and multiaddrs."""

import pytest

from potd.runtime.libp2p.addresses import Address, id_of, key_of, parse_address

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
