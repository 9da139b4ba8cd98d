"""Listening."""

from typing import TYPE_CHECKING

import pytest

from potd.runtime.libp2p.addresses import parse_address

if TYPE_CHECKING:
    from tests.runtime.libp2p.conftest import Nodes


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
