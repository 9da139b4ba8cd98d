"""How an operation that a node's operator asks for reaches those who order it."""

from __future__ import annotations

from dataclasses import replace

from potd.arithmetic.selftest import GOLDEN
from potd.node.agenda import AGAIN_TICKS
from potd.node.events import OperationAsked, Publish, Send, Ticked
from potd.node.node import Node, Settings
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import account_id
from potd.wire.operations import Transfer

SEEDS = [bytes([index + 1]) * 32 for index in range(5)]
KEYS = [Signer(seed, bytes(32)).key for seed in SEEDS]
GENESIS = Genesis(
    "test", 1, 0, tuple(sorted(KEYS[:4])), tuple(sorted(Allotment(key, 10**12) for key in KEYS)), Parameters()
)


def asked(index: int, genesis: Genesis = GENESIS) -> tuple[Node, Signed, list[Send | Publish]]:
    """A node, a validator but for the last, an operation that it was asked for, and to whom it has said it."""
    signer = Signer(SEEDS[index], genesis_digest(genesis))
    node = Node(Settings(index < 4, False, 1, None, False), genesis, signer, GOLDEN)
    signed = signer.sign(Transfer(account_id(signer.key), 0, account_id(KEYS[0]), 1, ""))
    effects = node.step(OperationAsked(signed))
    return node, signed, [one for one in effects if isinstance(one, Send | Publish)]


def test_a_validator_sends_an_operation_to_each_other_one() -> None:
    backup = KEYS.index(GENESIS.validators[1])
    _, signed, said = asked(backup)
    assert said == [Send(key, encode(signed)) for key in GENESIS.validators if key != KEYS[backup]]


def test_any_other_node_publishes_it() -> None:
    _, signed, said = asked(4)
    assert said == [Publish("operations", encode(signed))]


def test_what_a_validator_sent_in_vain_is_published_when_it_has_waited() -> None:
    node, signed, _ = asked(KEYS.index(GENESIS.validators[1]))
    effects = [effect for _ in range(AGAIN_TICKS) for effect in node.step(Ticked())]
    assert effects.count(Publish("operations", encode(signed))) == 1


def test_what_waits_is_said_again_before_half_of_the_patience_with_the_primary_is_over() -> None:
    """A liar may show its operation to a few backups alone: these must not depose a primary that never heard of it."""
    for patience, said in ((80, 40), (30, 15), (8, 4)):
        impatient = replace(GENESIS, parameters=replace(GENESIS.parameters, patience_ticks=patience))
        node, signed, _ = asked(KEYS.index(GENESIS.validators[1]), impatient)
        publish = Publish("operations", encode(signed))
        ticks = [number for number in range(1, said + 1) if publish in node.step(Ticked())]
        assert ticks in ([said - 1], [said])
