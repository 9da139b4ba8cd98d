"""A verifier that was written from PROTOCOL.md alone believes what a network shows it, and nothing that was changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest

from potd.ledger.apply import execute
from potd.ledger.state import Ledger, genesis_ledger
from potd.wire import merkle
from potd.wire.blocks import Block, Certificate, Receipt, header_digest, validators_digest
from potd.wire.codec import encode
from potd.wire.consensus import quorum_of
from potd.wire.envelope import Signed, Signer, attestation_of
from potd.wire.ids import Key, account_id, digest
from potd.wire.merkle_map import MerkleMap, Neighbour, Proof
from potd.wire.operations import Transfer
from potd.wire.transfer import Part, Snapshot, WantPart, WantSnapshot
from tests.docs import verifier
from tests.docs.verifier import Chain, Unproved
from tests.node.test_eras import admit, ask, blocks, network, turned


@dataclass(frozen=True)
class Shown:
    """What a node shows whoever asks, after a change of the validators and a transfer."""

    genesis: bytes
    snapshot: Snapshot
    ledger: Ledger  # of that height
    paid: Signed  # the transfer
    at: Certificate  # of its height
    receipts: tuple[bytes, ...]  # of that height
    place: int  # of its receipt
    headers: tuple[bytes, ...]  # names, from height 1 to before the snapshot's
    signers: dict[Key, Signer]
    part: Callable[[bytes], Part]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    world = network(tmp_path_factory.mktemp("network"), miners=0)
    payer, new = world.keys[0], world.keys[-1]
    admit(world, new)
    world.run(turned(world, set(world.keys)), 600)
    ask(world, payer, Transfer(account_id(payer), 0, digest("somebody"), 7, ""))
    world.run(lambda: world.node(new).ledger.account(digest("somebody")) is not None, 600)
    world.agree()
    world.run(lambda: not world.members[new].disk.owed, 600)  # the certificate is on its disk, too
    world.stop(new)
    world.start(new)  # who has just begun can show the state that it has
    node = world.node(new)
    snapshot = node.snapshot(WantSnapshot(0, 0))
    assert snapshot is not None
    ledger = genesis_ledger(world.genesis)
    paid: list[tuple[Signed, Block, tuple[Receipt, ...], int]] = []
    for block in blocks(world):
        executed = execute(ledger, block.batch)
        ledger = executed.ledger
        for place, record in enumerate(block.batch.records):
            if isinstance(record, Signed) and digest("somebody") in record.payload:
                paid.append((record, block, executed.receipts, place))
    ((transfer, held, receipts, index),) = paid
    at = held.certificate()
    assert at is not None
    assert ledger.header == snapshot.certificate.header
    height = ledger.height

    def part(position: bytes) -> Part:
        found = node.part(WantPart(height, position, 256))
        assert found is not None
        return found

    return Shown(
        encode(world.genesis),
        snapshot,
        ledger,
        transfer,
        at,
        tuple(encode(one) for one in receipts),
        index,
        tuple(header_digest(block.header) for block in blocks(world))[: height - 1],
        {key: member.signer for key, member in world.members.items()},
        part,
    )


def value(message: object) -> object:
    """What stands in bytes that have come inside others."""
    return msgpack.unpackb(encode(message))


def position(account: bytes) -> bytes:
    return verifier.sha(b"potd map key\x00a" + account)


def believed(shown: Shown) -> tuple[Chain, verifier.Header]:
    return verifier.snapshot(Chain.begin(shown.genesis), encode(shown.snapshot))


def signed_by(shown: Shown, certificate: Certificate, keys: list[Key], **changes: Any) -> Certificate:
    """The certificate of a changed header, honestly signed by these keys."""
    header = replace(certificate.header, **changes)
    return Certificate(header, tuple(attestation_of(shown.signers[key].sign(header)) for key in sorted(keys)))


def test_genesis_alone_leads_to_the_state_that_later_validators_have_certified(shown: Shown) -> None:
    chain, header = believed(shown)
    assert len(chain.sets) == 2 and len(chain.sets[0][1]) == 4 and len(chain.sets[1][1]) == 5
    assert header.state == shown.ledger.root()
    assert header.name == header_digest(shown.snapshot.certificate.header)


def test_a_balance_and_the_absence_of_an_account_are_proved_by_parts(shown: Shown) -> None:
    _, header = believed(shown)
    assert verifier.account_at(header, digest("somebody"), encode(shown.part(position(digest("somebody"))))) == (7, 0)
    for account in (account_id(key) for key in shown.signers):
        held = shown.ledger.account(account)
        assert held is not None
        said = verifier.account_at(header, account, encode(shown.part(position(account))))
        assert said == (held.balance_micro, held.nonce)
    for number in range(20):
        nobody = digest("nobody", bytes([number]))
        assert verifier.account_at(header, nobody, encode(shown.part(position(nobody)))) is None


def test_the_receipt_of_an_operation_is_proved_by_the_header_of_its_height(shown: Shown) -> None:
    chain, _ = believed(shown)
    header = chain.certified(value(shown.at))
    leaves = [merkle.leaf_hash(one) for one in shown.receipts]
    way = merkle.proof(leaves, shown.place)
    receipt = shown.receipts[shown.place]
    assert verifier.outcome(header, encode(shown.paid), receipt, shown.place, len(leaves), way) == ""
    with pytest.raises(Unproved, match="another record"):
        verifier.outcome(header, encode(shown.snapshot), receipt, shown.place, len(leaves), way)
    with pytest.raises(Unproved):
        verifier.outcome(header, encode(shown.paid), receipt, shown.place, len(leaves), (*way, bytes(32)))


def test_the_history_of_a_certified_header_holds_every_header_before_it(shown: Shown) -> None:
    chain, header = believed(shown)
    leaves = [merkle.leaf_hash(one) for one in shown.headers]
    end = chain.certified(value(shown.snapshot.ends[0]))
    assert verifier.is_before(header, end, merkle.proof(leaves, end.height - 1))
    assert not verifier.is_before(header, replace(end, encoded=b""), merkle.proof(leaves, end.height - 1))


@pytest.mark.parametrize("count", range(1, 18))
def test_lists_of_any_length_are_proved_place_by_place(count: int) -> None:
    leaves = [merkle.leaf_hash(bytes([one])) for one in range(count)]
    for index in range(count):
        assert verifier.led_up(leaves[index], index, count, merkle.proof(leaves, index)) == merkle.root(leaves)


@pytest.mark.parametrize("count", (0, 1, 2, 3, 50))
def test_maps_of_any_size_prove_what_they_hold_and_what_they_do_not(shown: Shown, count: int) -> None:
    _, header = believed(shown)
    accounts = [digest("held", bytes([one])) for one in range(count)]
    held = encode(shown.ledger.account(account_id(next(iter(shown.signers)))))
    tree = MerkleMap.of((b"a" + one, held) for one in accounts)
    header = replace(header, state=tree.root())
    for account in (*accounts, *(digest("absent", bytes([one])) for one in range(50))):
        found = tree.get(b"a" + account)
        part = Part((b"a" + account,) if found else (), (found,) if found else (), (tree.prove(b"a" + account),))
        if found:
            assert verifier.account_at(header, account, encode(part)) is not None
            continue
        neighbour = part.proof[0].neighbour
        lie = Part((b"a" + account,), (held,), (Proof(part.proof[0].bits, part.proof[0].siblings, ()),))
        with pytest.raises(Unproved):
            verifier.account_at(header, account, encode(lie))
        if not neighbour:
            assert verifier.account_at(header, account, encode(part)) is None


def test_what_was_changed_proves_nothing(shown: Shown) -> None:
    snapshot, begin = shown.snapshot, Chain.begin(shown.genesis)
    old, new = (list(keys) for _, keys in believed(shown)[0].sets)
    end = snapshot.ends[0]
    usurper = next(key for key in new if key not in old)
    other = (usurper, *snapshot.sets[0][1:])
    lies = {
        "signatures of": replace(snapshot, certificate=signed_by(shown, snapshot.certificate, new[:3])),
        "strangers": replace(snapshot, ends=(signed_by(shown, end, [*old[:2], usurper]),)),
        "others than": replace(snapshot, sets=(other,)),
        "not complete": replace(snapshot, sets=()),
        "a wrong signature": replace(
            snapshot,
            certificate=replace(
                snapshot.certificate, header=replace(snapshot.certificate.header, state=digest("another"))
            ),
        ),
        "of another network": replace(
            snapshot, certificate=signed_by(shown, snapshot.certificate, new, network=digest("another"))
        ),
        "not after": replace(snapshot, ends=(end, end), sets=(*snapshot.sets, *snapshot.sets)),
    }
    signed = snapshot.certificate.attestations
    turned_round = replace(snapshot, certificate=replace(snapshot.certificate, attestations=signed[::-1]))
    doubled = tuple(sorted((*signed[:3], *signed[:3])))
    twice = replace(snapshot, certificate=replace(snapshot.certificate, attestations=doubled))
    lies |= {"out of order": turned_round, "twice": twice}
    for why, lie in lies.items():
        with pytest.raises(Unproved, match=why):
            verifier.snapshot(begin, encode(lie))
    taken = signed_by(shown, end, old, validators=validators_digest(other))  # so it is the header that names the next
    assert begin.handed_over(value(taken), other).sets[-1] == (end.header.height, other)
    with pytest.raises(Unproved):
        verifier.snapshot(Chain.begin(encode(snapshot.certificate)), encode(snapshot))


def test_bytes_that_are_not_the_shortest_are_no_message(shown: Shown) -> None:
    data = encode(shown.snapshot)
    assert data[0] == 0x94  # an array of four
    with pytest.raises(Unproved, match="not the one encoding"):
        verifier.snapshot(Chain.begin(shown.genesis), b"\xdc\x00\x04" + data[1:])


def test_branches_of_a_proof_go_down_and_its_entry_has_the_name_that_was_asked_for(shown: Shown) -> None:
    _, header = believed(shown)
    account = account_id(next(iter(shown.signers)))
    held = shown.part(position(account)).values[0]
    at = position(account)

    def state(branches: tuple[int, ...]) -> bytes:
        here = verifier.sha(b"\x10" + at + verifier.sha(held))
        for bit in reversed(branches):
            right = verifier.bits(at)[bit] == "1"
            here = verifier.sha(b"\x11" + bytes([bit]) + (bytes(32) + here if right else here + bytes(32)))
        return here

    def answer(name: bytes, branches: tuple[int, ...]) -> bytes:
        return encode(Part((name,), (held,), (Proof(branches, (bytes(32),) * len(branches), ()),)))

    name = b"a" + account
    down, up = (3, 5), (5, 3)
    assert verifier.account_at(replace(header, state=state(down)), account, answer(name, down)) is not None
    with pytest.raises(Unproved, match="go down"):
        verifier.account_at(replace(header, state=state(up)), account, answer(name, up))
    with pytest.raises(Unproved, match="another"):
        verifier.account_at(replace(header, state=state(down)), account, answer(b"b" + account, down))


def test_a_proof_of_one_account_is_none_of_another_or_of_another_balance(shown: Shown) -> None:
    _, header = believed(shown)
    one, other = (account_id(key) for key in list(shown.signers)[:2])
    part = shown.part(position(one))
    rich = encode(replace(shown.ledger.account(one), balance_micro=10**18))  # type: ignore[type-var]  # it has one
    nobody = digest("nobody")
    absent = shown.part(position(nobody))
    (neighbour,) = absent.proof[0].neighbour
    proof = replace(part.proof[0], neighbour=(Neighbour(position(one), verifier.sha(part.values[0])),))
    moved = replace(absent.proof[0], neighbour=(Neighbour(position(nobody), neighbour.value),))
    for account, lie in (
        (other, part),
        (one, replace(part, values=(rich,))),
        (one, Part((), (), (proof,))),  # that it is not there, by its own leaf
        (nobody, replace(absent, proof=(moved,))),
        (one, absent if position(one) != neighbour.position else Part((), (), part.proof)),
        (one, Part((), (), ())),
        (one, replace(part, proof=(replace(part.proof[0], bits=part.proof[0].bits[::-1]),))),
    ):
        with pytest.raises(Unproved):
            verifier.account_at(header, account, encode(lie))


def test_the_quorum_is_that_of_the_protocol_for_every_number_of_validators() -> None:
    assert [verifier.quorum(one) for one in range(1, 200)] == [quorum_of(one) for one in range(1, 200)]
