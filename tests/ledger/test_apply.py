"""Executing batches: headers, receipts, roots, and storing what changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.ledger.apply import execute, receipts_root
from potd.ledger.entries import ENTRIES, GLOBALS, Account, Seat, account_key
from potd.ledger.state import Ledger, entries_of, genesis_ledger, supply
from potd.wire import merkle
from potd.wire.blocks import NULL, Batch, Header, Receipt, batch_digest, header_digest, record_digest
from potd.wire.codec import decode, encode
from potd.wire.genesis import SUPPLY_MAX, Allotment, genesis_digest
from potd.wire.ids import NOTHING, account_id, digest
from potd.wire.merkle_map import verify_proof
from tests.ledger.world import BALANCE, BOND, PEOPLE, VALIDATORS, World, genesis, spec


def test_genesis_gives_the_validators_their_seats_and_everybody_their_balance() -> None:
    of = genesis()
    ledger = genesis_ledger(of)
    assert (ledger.height, ledger.header, ledger.network) == (0, None, genesis_digest(of))
    assert ledger.validators() == tuple(Seat(account_id(key), key, BOND) for key in of.validators)
    assert ledger.parameters() == of.parameters
    for one in of.balances:
        assert ledger.account(account_id(one.owner_key)) == Account(one.owner_key, one.owner_key, BALANCE, 0)
    assert supply(ledger) == ledger.globals().supply_micro == PEOPLE * BALANCE + VALIDATORS * BOND
    assert ledger.task_ids() == ()


def test_a_validator_without_a_balance_has_an_account_all_the_same() -> None:
    of = replace(genesis(), balances=())
    ledger = genesis_ledger(of)
    assert ledger.account(account_id(of.validators[0])) == Account(of.validators[0], of.validators[0], 0, 0)


def test_allotments_to_one_key_add_up() -> None:
    key = genesis().balances[5].owner_key
    of = replace(genesis(), balances=(Allotment(key, 3), Allotment(key, 4)))
    account = genesis_ledger(of).account(account_id(key))
    assert account is not None
    assert account.balance_micro == 7


def test_a_genesis_that_cannot_be_is_refused() -> None:
    of = genesis()
    with pytest.raises(ValueError, match="a validator is listed twice"):
        genesis_ledger(replace(of, validators=of.validators[:1] * 2))
    with pytest.raises(ValueError, match="at most"):
        genesis_ledger(replace(of, balances=(Allotment(NOTHING, SUPPLY_MAX), Allotment(NOTHING, 1))))


def test_a_header_states_everything_but_itself() -> None:
    world = World()
    batch = Batch((world.transfer(5, world.ids[6], 1),))
    done = execute(world.ledger, batch)
    assert done.header == Header(
        network=genesis_digest(world.genesis),
        protocol=1,
        height=1,
        previous=NOTHING,
        batch=batch_digest(batch),
        receipts=merkle.root([merkle.leaf_hash(encode(Receipt(record_digest(batch.records[0]), "")))]),
        state=done.ledger.root(),
        history=merkle.root([]),
        validators=digest("validators", *world.genesis.validators),
    )
    assert done.ledger.header == done.header


def test_headers_are_linked_by_the_height_that_follows_and_the_history_is_a_mountain_range() -> None:
    world = World()
    headers: list[Header] = []
    for _ in range(20):
        header = world.execute().header
        assert header.height == len(headers) + 1
        assert header.previous == (header_digest(headers[-1]) if headers else NOTHING)
        assert header.history == merkle.root([merkle.leaf_hash(header_digest(one)) for one in headers])
        headers.append(header)


def test_an_empty_batch_moves_the_height_alone() -> None:
    world = World()
    done = world.execute()
    assert done.receipts == ()
    assert [key for key, _ in done.changes] == [GLOBALS]
    assert done.header.receipts == receipts_root([])
    assert done.header.batch == batch_digest(NULL)


def test_execution_is_a_function_of_the_ledger_and_the_batch() -> None:
    world = World()
    task = world.opened(1, 2)
    world.played(task, 1, 2)
    batch = Batch((world.transfer(5, world.ids[6], 1), world.enrol(3, task), world.seal(task, [])))
    before = world.ledger.root()
    rebuilt = Ledger.from_entries(sorted(world.ledger.entries.items()), world.ledger.header)
    first, second = execute(world.ledger, batch), execute(rebuilt, batch)
    assert (first.header, first.receipts, first.changes) == (second.header, second.receipts, second.changes)
    assert world.ledger.root() == before


def test_the_changes_are_all_that_a_store_needs() -> None:
    world = World()
    stored = dict(world.ledger.entries.items())
    for records in ((world.submit(0, 100_000, spec()),), (world.transfer(5, digest("newcomer"), 7),), ()):
        for key, data in world.execute(*records).changes:
            if data is None:
                del stored[key]
            else:
                stored[key] = data
    assert Ledger.from_entries(stored.items(), world.ledger.header).root() == world.ledger.root()


def test_a_store_that_lost_or_changed_an_entry_is_noticed() -> None:
    world = World()
    world.execute()
    entries = dict(world.ledger.entries.items())
    with pytest.raises(ValueError, match="does not hash to what the header of height 1 says"):
        Ledger.from_entries(list(entries.items())[1:], world.ledger.header)
    other = World().ledger
    with pytest.raises(ValueError, match="no globals"):
        Ledger.from_entries([], None)
    with pytest.raises(ValueError, match="the state is of height 1, the header is not"):
        Ledger.from_entries(entries.items(), None)
    assert Ledger.from_entries(other.entries.items(), None).root() == other.root()


def test_what_an_account_has_is_proved_against_the_header() -> None:
    world = World()
    header = world.execute(world.transfer(5, world.ids[6], 1)).header
    key = account_key(world.ids[6])
    data = world.ledger.entries.get(key)
    assert data is not None
    assert verify_proof(header.state, key, data, world.ledger.entries.prove(key))
    assert not verify_proof(
        header.state, key, encode(replace(world.account(6), nonce=5)), world.ledger.entries.prove(key)
    )
    nobody = account_key(digest("nobody"))
    assert verify_proof(header.state, nobody, None, world.ledger.entries.prove(nobody))


def test_every_entry_decodes_as_what_it_is() -> None:
    world = World()
    task = world.opened(1, 2)
    world.sealed(task, 1, 2)
    for key, entry in entries_of(world.ledger):
        data = world.ledger.entries.get(key)
        assert data is not None
        assert decode(data, *ENTRIES) == entry
        assert encode(entry) == data


def test_the_validators_are_the_same_after_any_batch() -> None:
    world = World()
    headers = {world.execute(world.transfer(5, world.ids[6], 1)).header.validators for _ in range(3)}
    assert len(headers) == 1
    assert len(world.ledger.validators()) == VALIDATORS
