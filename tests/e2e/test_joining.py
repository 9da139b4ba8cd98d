"""Real daemons, real libp2p: a newcomer with only genesis and one address joins a long chain by its state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from potd.config.home import public_key
from potd.runtime.journal import open_journal
from potd.wire.genesis import genesis_digest
from potd.wire.ids import account_id
from tests.e2e.joining import VALIDATOR, Node, chain, network
from tests.e2e.test_devnet import potd

pytestmark = pytest.mark.slow

HEIGHT = 400


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """A validator and two that follow it, all at the same height; and a newcomer that knows the address of one."""
    validator = Node(tmp_path, 1, roles='["validator"]')
    second = Node(tmp_path, 2, (validator.address,))
    third = Node(tmp_path, 3, (validator.address, second.address))
    newcomer = Node(tmp_path, 4, (third.address,))
    nodes = [validator, second, third, newcomer]
    writes = chain(HEIGHT)
    try:
        for node in nodes[:3]:
            node.wrote(writes)
            node.start()
        for node in nodes[:3]:
            node.until(lambda status: status["height"] == HEIGHT and status["peers"] == 2, "up and connected")
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def test_a_newcomer_with_genesis_and_one_address_joins_by_the_state_and_goes_on_by_blocks(nodes: list[Node]) -> None:
    validator, second, _, newcomer = nodes
    newcomer.start()
    status = newcomer.until(lambda status: status["height"] == HEIGHT, "at the height of the others")
    assert (status["certified"], status["history_begins"]) == (HEIGHT, HEIGHT)
    account = account_id(public_key(VALIDATOR)).hex()
    potd("transfer", account_id(second.key).hex(), "1", "--home", str(validator.home.path))
    newcomer.until(lambda status: status["height"] == HEIGHT + 1, "at the next height")
    told = [potd("balance", account, "--json", "--home", str(one.home.path)) for one in (validator, newcomer)]
    assert told[0] == told[1]
    assert newcomer.until(lambda status: True, "up")["refused"] == {}
    newcomer.stop()
    with open_journal(newcomer.home.journal, genesis_digest(network()), newcomer.key) as journal:
        assert journal.begins() == HEIGHT
        assert [one.header.height for one in journal.blocks(HEIGHT + 1, 10**6)] == [HEIGHT + 1]
    newcomer.start()
    again = newcomer.until(lambda status: status["peers"] > 0, "up again")
    assert (again["height"], again["history_begins"]) == (HEIGHT + 1, HEIGHT)
