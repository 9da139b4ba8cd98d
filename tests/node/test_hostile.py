"""Whatever comes in at any input, the node lives, says why it refuses, and the rounds go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potd.arithmetic.selftest import GOLDEN
from potd.ledger.apply import execute
from potd.ledger.entries import Phase
from potd.ledger.state import genesis_ledger
from potd.node import events as ev
from potd.node.node import Node, Settings
from potd.simulation.world import World
from potd.wire.blocks import NULL, Batch, Block, Certificate, batch_digest
from potd.wire.codec import decode, encode
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Proposal, Refusal, Status, ViewChange
from potd.wire.envelope import Attestation, Signed, Signer
from potd.wire.genesis import Allotment, Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, BlobRef, Key, account_id, digest
from potd.wire.jobs import Failed
from potd.wire.operations import Accuse, Back, Enrol, Leave, Rekey, Resign, Stand, Transfer
from potd.wire.rounds import Commitment, Draft, Report, Step, Update

SIGNERS = [Signer(bytes([index + 1]) * 32, NOTHING) for index in range(4)]
GENESIS = Genesis(
    "test",
    1,
    0,
    tuple(one.key for one in SIGNERS),
    tuple(Allotment(one.key, 10**12) for one in SIGNERS),
    Parameters(),
)
NETWORK = genesis_digest(GENESIS)
OURS, PEER, THIRD, FOURTH = (Signer(bytes([index + 1]) * 32, NETWORK) for index in range(4))
STRANGER = Signer(bytes([99]) * 32, NETWORK)
FOREIGNER = Signer(bytes([2]) * 32, digest("another network"))
TASK = digest("no such task")


def lone_node() -> Node:
    node = Node(Settings(True, True, 1, None, True), GENESIS, OURS, GOLDEN)
    node.start()
    node.step(ev.PeerUp(PEER.key, 0))
    return node


def reasons(effects: list[ev.Effect]) -> list[str]:
    return [one.reason for one in effects if isinstance(one, ev.Refuse)]


def passed_over(effects: list[ev.Effect]) -> list[str]:
    """What changed nothing, and is not held against whoever passed it on."""
    return [one.reason for one in effects if isinstance(one, ev.Ignore)]


def lives(node: Node) -> None:
    """It still ticks and still takes what is good."""
    for _ in range(3):
        node.step(ev.Ticked())
    good = PEER.sign(Transfer(account_id(PEER.key), 0, digest("to"), 5, ""))
    assert passed_over(node.step(ev.Gossiped("operations", encode(good)))) == []


REPORT = Report(TASK, 0, Step.SEAL.value, (TASK,), (), ())
COMMITMENT = Commitment(TASK, 0, account_id(PEER.key), TASK, BlobRef(TASK, 4), 8, True, 1, NOTHING, "float32", NOTHING)
WORDS = (
    PrePrepare(0, 1, batch_digest(NULL)),
    PrePrepare(3, 2**62, TASK),
    Prepare(0, 1, TASK, bytes(64)),
    Commit(0, 2**62, TASK),
    ViewChange(2**62, 0, (), ()),
    ViewChange(1, 5, (), ()),
    NewView(1, (PEER.sign(ViewChange(1, 0, (), ())),), ()),
    NewView(1, (PEER.sign(REPORT),), (PEER.sign(REPORT),)),
    Refusal(0, 1, TASK, bytes(64), "no"),
    Status(2**62, True, 2**62, 2**62),
    REPORT,
    Draft(0, 0, TASK, 0, Step.UPDATE.value, (PEER.sign(REPORT),)),
    Draft(0, 2**62, TASK, 2**62, 200, (PEER.sign(COMMITMENT),)),
    COMMITMENT,
    Stand(account_id(PEER.key), 3, PEER.key, bytes(64)),
    Back(account_id(PEER.key), 4, account_id(PEER.key), False),
    Resign(account_id(PEER.key), 5),
    Rekey(account_id(PEER.key), 6, NOTHING, PEER.key, b"x"),
    Accuse(account_id(PEER.key), 7, (PEER.sign(REPORT), PEER.sign(COMMITMENT))),
)


@pytest.mark.parametrize("signer", [PEER, STRANGER, FOREIGNER, OURS], ids=["peer", "stranger", "foreigner", "us"])
def test_nothing_that_can_be_signed_harms_a_node(signer: Signer) -> None:
    node = lone_node()
    for word in WORDS:
        signed = signer.sign(word)
        for frame in (encode(signed), encode(Proposal(signed, NULL)), encode(replace(signed, signature=bytes(64)))):
            node.step(ev.Framed(PEER.key, frame))
            for topic in (*ev.TOPICS, "gossip"):
                node.step(ev.Gossiped(topic, frame))
    lives(node)


@pytest.mark.parametrize("word", WORDS[:5] + WORDS[9:], ids=lambda word: type(word).__name__)
def test_a_word_of_another_network_is_refused_with_its_reason(word: object) -> None:
    frame = encode(FOREIGNER.sign(word))
    assert reasons(lone_node().step(ev.Framed(PEER.key, frame))) == [f"wrong signature on {type(word).__name__}"]


def test_a_stranger_has_no_vote() -> None:
    effects = lone_node().step(ev.Framed(STRANGER.key, encode(STRANGER.sign(Commit(0, 1, TASK)))))
    assert effects == [ev.Refuse(STRANGER.key, "not a validator")]


def test_garbage_by_gossip_is_refused_in_nobodys_name() -> None:
    """Who wrote it is not known, and who passed it on may be honest."""
    for topic in ev.TOPICS:
        (refused,) = lone_node().step(ev.Gossiped(topic, b"garbage"))
        assert isinstance(refused, ev.Ignore)
        assert refused.reason.startswith(f"{topic}: ")


def test_a_forged_certificate_by_gossip_is_held_against_nobody() -> None:
    """Its author chooses whose names stand in it."""
    forged = Certificate(certificate(PEER).header, (Attestation(PEER.key, bytes(64)),))
    effects = lone_node().step(ev.Gossiped("certificates", encode(forged)))
    assert effects == [ev.Ignore("certificates: certificate with 1 signatures of 3")]


def certificate(*signers: Signer, height: int = 1) -> Certificate:
    header = replace(execute(genesis_ledger(GENESIS), NULL).header, height=height)
    attested = sorted((Attestation(one.key, one.sign(header).signature) for one in signers), key=lambda one: one.key)
    return Certificate(header, tuple(attested))


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (certificate(PEER, THIRD), "certificate with 2 signatures of 3"),
        (certificate(PEER, THIRD, STRANGER), "certificate signed by a stranger"),
        (
            Certificate(certificate(PEER).header, certificate(PEER).attestations * 3),
            "certificate with signers out of order or twice",
        ),
        (
            replace(certificate(PEER, THIRD, FOURTH), header=replace(certificate(PEER).header, state=TASK)),
            "certificate with a wrong signature",
        ),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(shown: Certificate, reason: str) -> None:
    node = lone_node()
    assert reasons(node.step(ev.Framed(PEER.key, encode(shown)))) == [reason]
    effects = node.step(ev.BlocksFetched(PEER.key, (Block(shown.header, shown.attestations, NULL),)))
    assert reasons(effects) == [reason]
    assert node.height == 0


def test_a_block_with_another_batch_is_refused() -> None:
    node = lone_node()
    good = certificate(PEER, THIRD, FOURTH)
    other = Batch((PEER.sign(Transfer(account_id(PEER.key), 0, digest("to"), 5, "")),))
    effects = node.step(ev.BlocksFetched(PEER.key, (Block(good.header, good.attestations, other),)))
    assert reasons(effects) == ["block with another batch than its header names"]
    assert node.height == 0
    node.step(ev.BlocksFetched(PEER.key, (Block(good.header, good.attestations, NULL),)))
    assert (node.height, node.certified) == (1, 1)
    lives(node)


def test_blocks_out_of_order_or_known_already_change_nothing() -> None:
    node = lone_node()
    good, far = certificate(PEER, THIRD, FOURTH), certificate(PEER, THIRD, FOURTH, height=7)
    node.step(
        ev.BlocksFetched(
            PEER.key, (Block(far.header, far.attestations, NULL), Block(good.header, good.attestations, NULL))
        )
    )
    assert node.height == 0
    for _ in range(2):
        node.step(ev.BlocksFetched(PEER.key, (Block(good.header, good.attestations, NULL),)))
    assert node.height == 1
    lives(node)


def test_a_batch_that_was_not_asked_for_or_is_none_changes_nothing() -> None:
    node = lone_node()
    for data in (b"", b"garbage", encode(NULL), encode(PEER.sign(REPORT))):
        node.step(ev.BatchFetched(TASK, data))
    lives(node)


def test_who_is_no_validator_passes_over_what_miners_say() -> None:
    """It does not even check their signatures: nothing that it does hangs on them."""
    follower = Node(Settings(False, True, 1, None, True), GENESIS, STRANGER, GOLDEN)
    follower.start()
    assert follower.step(ev.Gossiped("commitments", encode(PEER.sign(COMMITMENT)))) == []
    assert follower.step(ev.Gossiped("commitments", b"garbage")) == []


def test_answers_to_nobodys_questions_change_nothing() -> None:
    node = lone_node()
    for event in (
        ev.JobDone(Failed(77, "who asked?")),
        ev.Fetched(BlobRef(TASK, 5)),
        ev.BlobRead(BlobRef(TASK, 5), b"garbage"),
        ev.PeerDown(STRANGER.key),
        ev.PeerUp(STRANGER.key, 2**62),
        ev.WorkerLost("trainer", "killed"),
        ev.OperationAsked(PEER.sign(REPORT)),
        ev.OperationAsked(FOREIGNER.sign(Leave(account_id(PEER.key), 0, TASK))),
    ):
        node.step(event)
    lives(node)


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (STRANGER.sign(Leave(account_id(PEER.key), 0, TASK)), "is not one of account"),
        (STRANGER.sign(Leave(account_id(STRANGER.key), 0, TASK)), "a fee of"),
        (PEER.sign(Leave(account_id(PEER.key), 65, TASK)), "is far ahead of"),
    ],
)
def test_an_operation_that_can_never_be_executed_is_refused(operation: Signed, reason: str) -> None:
    (said,) = passed_over(lone_node().step(ev.Gossiped("operations", encode(operation))))
    assert reason in said


def test_who_floods_with_operations_of_one_account_fills_that_accounts_places_only() -> None:
    node = lone_node()
    refused: list[str] = []
    for nonce in range(200):
        operation = PEER.sign(Enrol(account_id(PEER.key), nonce, TASK, 1))
        refused += passed_over(node.step(ev.Gossiped("operations", encode(operation))))
    assert len(refused) == 200 - 65
    own = THIRD.sign(Transfer(account_id(THIRD.key), 0, digest("to"), 5, ""))
    assert passed_over(node.step(ev.Gossiped("operations", encode(own)))) == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(("frame", *ev.TOPICS)), st.binary(max_size=200)), max_size=5))
def test_garbage_of_any_kind_is_refused_and_counted(given_bytes: list[tuple[str, bytes]]) -> None:
    node = ALIVE
    for kind, data in given_bytes:
        event = ev.Framed(PEER.key, data) if kind == "frame" else ev.Gossiped(kind, data)
        effects = node.step(event)
        assert len(reasons(effects) + passed_over(effects)) == 1


ALIVE = lone_node()


def test_a_network_under_garbage_trains_on(tmp_path: Path) -> None:
    """Every frame is followed by a broken copy of itself, and every old frame comes again."""
    world = World(tmp_path, seed=1)
    frames: list[bytes] = []

    def noisy(key: Key, effect: ev.Effect) -> ev.Effect | None:
        if isinstance(effect, ev.Send):
            frames.append(effect.data)
            broken = bytearray(effect.data)
            broken[world.random.randrange(len(broken))] ^= 1 << world.random.randrange(8)
            node = world.members[effect.to].node
            if node is not None:
                for data in (bytes(broken), world.random.choice(frames)):
                    world.tell(effect.to, ev.Framed(key, data), 1)
        return effect

    world.tamper = noisy
    task = world.submit(rounds=6)
    world.run(lambda: all(world.task(key).phase == Phase.DONE for key in world.running()), 3_000)
    world.tamper = None
    world.agree()
    world.check()
    assert world.task(world.keys[0]).id == task
    assert all(len(world.members[key].refused) > 100 for key in world.keys)
    assert len({world.node(key).ledger.root() for key in world.keys}) == 1


def test_a_self_test_that_fails_keeps_a_validator_from_vouching_for_sums(tmp_path: Path) -> None:
    """It seals and follows, and proposes no update of its own; another primary does."""
    world = World(tmp_path, seed=2, patience_ticks=30)
    doubtful = world.keys[0]
    world.pass_time(5)
    world.tell(doubtful, ev.WorkerReady("arithmetic", "cpu", bytes(32)))
    world.submit(rounds=1_000)
    world.reach(3, 2_000)
    world.agree()
    world.check()
    for key in world.keys:
        replica = world.node(key).replica
        assert replica is not None
        assert replica.primary != doubtful
    for data in world.members[doubtful].sent:
        envelope = decode(data, Signed, Proposal, Certificate)
        if isinstance(envelope, Proposal):
            assert not any(isinstance(one, Update) for one in envelope.batch.records)


def test_a_height_that_nobody_certified_is_vouched_for_by_the_next_one_that_is() -> None:
    ledger = genesis_ledger(GENESIS)
    blocks: list[Block] = []
    for _ in range(2):
        executed = execute(ledger, NULL)
        ledger = executed.ledger
        signatures = sorted((one.key, one.sign(executed.header).signature) for one in (PEER, THIRD, FOURTH))
        attested = tuple(Attestation(key, signature) for key, signature in signatures)
        blocks.append(Block(executed.header, attested, NULL))
    bare, second = replace(blocks[0], attestations=()), blocks[1]
    node = lone_node()
    node.step(ev.BlocksFetched(PEER.key, (bare,)))
    assert node.height == 0
    node.step(ev.BlocksFetched(PEER.key, (bare, second)))
    assert (node.height, node.certified) == (2, 2)
    lives(node)
    other = lone_node()
    strange = replace(bare, header=replace(bare.header, state=TASK))
    assert reasons(other.step(ev.BlocksFetched(PEER.key, (strange, second)))) == ["blocks that are not a chain"]
    assert other.height == 0
