"""One validator lies: it gets no agreement, is replaced, and where its own signatures prove it guilty, is accused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from potd.ledger.entries import Seat
from potd.node import events as ev
from potd.rounds.tally import seal_reports, written_once
from potd.simulation.adversary import a_unit_more
from potd.simulation.trainer import MODEL
from potd.simulation.words import signed_by
from potd.simulation.world import World
from potd.wire.blobs import write_blob
from potd.wire.blocks import NULL, Batch, Record, batch_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Prepare, PrePrepare, Proposal, Refusal
from potd.wire.envelope import Signed, Signer, verify
from potd.wire.ids import NO_BLOB, Key, account_id, digest, short
from potd.wire.jobs import Aggregate, Aggregated
from potd.wire.operations import Accuse
from potd.wire.rounds import (
    Commitment,
    Contribution,
    Evaluation,
    Measured,
    Outcome,
    Report,
    Seal,
    Step,
    Update,
)

Alter = Callable[[Key, Batch], Batch]


def proposing(world: World, liar: Key, alter: Alter) -> list[bytes]:
    """From now on the liar signs and sends altered batches, to each its own. Returns the digests that it lied about."""
    lied: list[bytes] = []
    signer = world.members[liar].signer
    world.distrust(liar)

    def tamper(key: Key, effect: ev.Effect) -> ev.Effect | None:
        if key != liar or not isinstance(effect, ev.Send):
            return effect
        try:
            proposal = decode(effect.data, Proposal)
        except Malformed:
            return effect
        batch = alter(effect.to, proposal.batch)
        if batch == proposal.batch:
            return effect
        order = replace(verify(proposal.pre_prepare, world.network, PrePrepare).body, batch=batch_digest(batch))
        lied.append(order.batch)
        return ev.Send(effect.to, encode(Proposal(signer.sign(order), batch)))

    world.tamper = tamper
    return lied


def said(world: World, key: Key, kind: type[Prepare] | type[Refusal]) -> list[Prepare | Refusal]:
    found: list[Prepare | Refusal] = []
    for signed in signed_by(key, world.members[key].sent):
        try:
            found.append(verify(signed, world.network, kind).body)
        except Malformed:
            continue
    return found


def no_agreement(world: World, liar: Key, lied: list[bytes]) -> None:
    """Nobody honest has prepared what was false, and the liar leads no more."""
    assert lied, "the liar never lied"
    for key in world.validators:
        if key != liar:
            assert not {one.batch for one in said(world, key, Prepare)} & set(lied)
            replica = world.node(key).replica
            assert replica is not None
            assert replica.view > 0 or liar not in replica.group  # its seat is gone, and views count from 0
            assert replica.primary != liar


def bonded(world: World, honest: tuple[Key, ...], guilty: set[Key]) -> None:
    """The guilty lose bond and seat, to the accuser and the others, and nobody else does."""
    world.run(lambda: all({seat.key for seat in seats(world, key)}.isdisjoint(guilty) for key in honest), 1_500)
    bond = world.genesis.parameters.seat_bond_micro
    for key in honest:
        assert {seat.key: seat.bond_micro for seat in seats(world, key)} == dict.fromkeys(honest, bond)
        assert not any(one.startswith("evidence/") and data for one, data in world.members[key].disk.notes.items())


def seats(world: World, key: Key) -> tuple[Seat, ...]:
    return world.node(key).ledger.validators()


@pytest.mark.parametrize("seed", range(2))
def test_an_aggregate_one_unit_off_gets_no_prepare_and_its_primary_is_replaced(tmp_path: Path, seed: int) -> None:
    """The whole node of the liar stands by its sum: draft, update, order and votes are properly its own."""
    world = World(tmp_path, seed=seed, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    world.agree()
    liar, honest = world.keys[0], world.keys[1:]
    false: list[bytes] = []

    def lie(job: Aggregate, done: Aggregated) -> Aggregated:
        replica = world.node(liar).replica
        assert replica is not None
        if replica.view > 0:
            return done
        off = a_unit_more(world.folder, job, done)
        false.append(off.aggregate.root)
        return off

    world.distrust(liar)
    world.members[liar].lie = lie
    lied: list[bytes] = []

    def watch(key: Key, effect: ev.Effect) -> None:
        if key == liar and isinstance(effect, ev.Keep) and isinstance(effect.record, Batch):
            for record in effect.record.records:
                if isinstance(record, Update) and record.aggregate.root in false:
                    lied.append(batch_digest(effect.record))

    world.watchers.append(watch)
    world.reach(world.round(honest[0]) + 4, 1_500, *honest)
    no_agreement(world, liar, lied)
    assert sum(one.batch in lied for key in honest for one in said(world, key, Refusal)) >= 3, "and a quorum says why"
    guilty = f"{short(liar)} is guilty: a quorum refused its batch"
    assert all(any(guilty in line for line in world.members[key].log) for key in honest)
    bonded(world, honest, {liar})
    world.members[liar].lie = None
    world.reach(world.round(honest[0]) + 2, 1_500)
    world.agree()
    world.check()
    assert len({world.task(key).model for key in world.keys}) == 1
    heights = [batch for _, batch in world.members[honest[0]].disk.blocks.values()]
    assert not set(lied) & {batch_digest(one) for one in heights}


@pytest.mark.parametrize("seed", range(2))
def test_a_primary_that_says_two_things_is_accused_by_its_own_signatures_and_replaced(
    tmp_path: Path, seed: int
) -> None:
    world = World(tmp_path, seed=seed, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    liar, honest = world.keys[0], world.keys[1:]
    lied = proposing(world, liar, lambda to, batch: NULL if to == honest[seed] else batch)
    noted: list[bytes] = []

    def watch(key: Key, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Note) and effect.name == f"evidence/{liar.hex()}" and effect.data:
            noted.append(effect.data)

    world.watchers.append(watch)
    world.run(lambda: bool(lied), 600)
    # By a new view, or, if its guilt was proved before that, by the next set of validators.
    world.run(lambda: world.node(honest[0]).replica.primary != liar, 600)  # type: ignore[union-attr]  # it validates
    world.tamper = None
    world.reach(max(map(world.round, honest)) + 3, 1_500, *honest)
    bonded(world, honest, {liar})
    world.agree()
    world.check()
    assert noted
    for evidence in noted:
        orders = [verify(one, world.network, PrePrepare) for one in decode(evidence, Accuse).evidence]
        assert [one.sender for one in orders] == [liar, liar]
        assert len({(one.body.view, one.body.seq) for one in orders}) == 1
        assert len({one.body.batch for one in orders}) == 2


def with_a_stranger(world: World) -> Alter:
    """Seals and updates in which the last report is by somebody who is no validator."""
    stranger = Signer(bytes([77]) * 32, world.network)

    def alter(_: Key, batch: Batch) -> Batch:
        records = []
        for record in batch.records:
            if isinstance(record, Seal):
                first, *others = seal_reports(record, world.network)
                said = sorted((*others, stranger.verified(first.body)), key=lambda one: one.sender)
                record = written_once(record.task, record.round, said, record.commitments)
            if isinstance(record, Update):
                body = verify(record.reports[0], world.network, Report).body
                reports = sorted((*record.reports[1:], stranger.sign(body)), key=lambda one: one.key)
                record = replace(record, reports=tuple(reports))
            records.append(record)
        return Batch(tuple(records))

    return alter


def with_too_few(world: World) -> Alter:
    def alter(_: Key, batch: Batch) -> Batch:
        records: list[Record] = []
        for one in batch.records:
            if isinstance(one, Seal):
                two = seal_reports(one, world.network)[:2]
                records.append(written_once(one.task, one.round, two, one.commitments))
            else:
                records.append(replace(one, reports=one.reports[:2]) if isinstance(one, Update) else one)
        return Batch(tuple(records))

    return alter


def without_a_commitment(world: World) -> Alter:
    """Seals that leave out what the reports name."""

    def alter(_: Key, batch: Batch) -> Batch:
        return Batch(
            tuple(
                replace(one, commitments=one.commitments[1:]) if isinstance(one, Seal) else one for one in batch.records
            )
        )

    return alter


def with_another_model(world: World) -> Alter:
    """Updates that name a model of the primary's choice."""

    def alter(_: Key, batch: Batch) -> Batch:
        model = write_blob(world.folder, digest("mine") * 4 + bytes(16))
        return Batch(tuple(replace(one, model=model) if isinstance(one, Update) else one for one in batch.records))

    return alter


def with_a_forged_operation(world: World) -> Alter:
    """Batches with an operation that nobody signed."""

    def alter(_: Key, batch: Batch) -> Batch:
        return Batch((*batch.records, Signed(world.keys[1], b"pay me", bytes(64))))

    return alter


def with_an_update_behind_the_seal(world: World) -> Alter:
    """A seal, and in the same batch an update of the primary's own making: before the batch, no update could be right,
    but behind its seal the ledger would take one."""
    model = write_blob(world.folder, b"\x00\x00\x80\x3f" * MODEL.parameters)
    aggregate = write_blob(world.folder, b"never added up")

    def alter(_: Key, batch: Batch) -> Batch:
        records: list[Record] = list(batch.records)
        for seal in [one for one in batch.records if isinstance(one, Seal)]:
            parts = tuple(
                Contribution(decode(one.payload, Commitment).miner, Outcome.COUNTED.value, 65_536)
                for one in seal.commitments
            )
            reports = tuple(one.signed for one in seal_reports(seal, world.network))
            records.append(Update(seal.task, seal.round, reports, parts, aggregate, model, NO_BLOB))
        return Batch(tuple(records))

    return alter


def with_an_unsigned_score(world: World) -> Alter:
    """An evaluation of a round whose reports nobody signed."""

    def alter(_: Key, batch: Batch) -> Batch:
        task = world.node(world.keys[1]).ledger.task_ids()[0]
        body = encode(Report(task, 0, Step.EVALUATION.value, (), (), (Measured(0, 10**6, 10**6, -5),)))
        reports = tuple(Signed(key, body, bytes(64)) for key in sorted(world.validators))
        return Batch((*batch.records, Evaluation(task, 0, reports)))

    return alter


@pytest.mark.parametrize(
    "lie",
    [
        with_a_stranger,
        with_too_few,
        without_a_commitment,
        with_another_model,
        with_a_forged_operation,
        with_an_update_behind_the_seal,
        with_an_unsigned_score,
    ],
)
def test_a_false_record_gets_no_prepare_and_its_primary_is_replaced(
    tmp_path: Path, lie: Callable[[World], Alter]
) -> None:
    world = World(tmp_path, seed=11, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    world.agree()
    liar, honest = world.keys[0], world.keys[1:]
    lied = proposing(world, liar, lie(world))
    world.run(lambda: world.node(honest[0]).replica.view > 0, 1_000)  # type: ignore[union-attr]  # it validates
    world.tamper = None
    world.reach(max(map(world.round, honest)) + 3, 1_500, *honest)
    no_agreement(world, liar, lied)
    world.agree()
    world.check()


def test_a_primary_that_is_silent_about_one_task_is_replaced(tmp_path: Path) -> None:
    """It orders all but the seals: what is due is timed, not whether anything happens."""
    world = World(tmp_path, seed=12, patience_ticks=30)
    world.submit(rounds=1_000)
    world.reach(2, 600)
    liar, honest = world.keys[0], world.keys[1:]

    def unsealed(_: Key, batch: Batch) -> Batch:
        return Batch(tuple(one for one in batch.records if not isinstance(one, Seal)))

    proposing(world, liar, unsealed)
    world.run(lambda: world.node(honest[0]).replica.view > 0, 600)  # type: ignore[union-attr]  # it validates
    world.tamper = None
    world.reach(max(map(world.round, honest)) + 3, 1_500, *honest)
    world.agree()
    world.check()


def test_a_miner_that_copies_the_root_of_another_is_not_paid(tmp_path: Path) -> None:
    """Its commitment names a payload that another will reveal, and that begins with the other's name."""
    world = World(tmp_path, seed=3, miners=1)
    honest, copier = world.keys[1], world.keys[4]
    signer = world.members[copier].signer
    world.distrust(copier)

    def tamper(key: Key, effect: ev.Effect) -> ev.Effect | None:
        if not isinstance(effect, ev.Publish) or effect.topic != "commitments":
            return effect
        if key == copier:
            return None
        if key == honest:
            body = verify(decode(effect.data, Signed), world.network, Commitment).body
            copied = encode(signer.sign(replace(body, miner=account_id(copier))))
            for other in world.validators:
                world.tell(other, ev.Gossiped("commitments", copied))
        return effect

    world.tamper = tamper
    world.submit(rounds=1_000)
    world.reach(8, 3_000)
    task = world.task(world.keys[0])
    earned = {one.account: one.earned_micro for one in task.miners}
    assert earned[account_id(copier)] == 0
    assert earned[account_id(honest)] > 0


def test_a_commitment_that_only_a_crashed_validator_can_show_does_not_hold_up_the_round(tmp_path: Path) -> None:
    """A lying miner and validator shows its commitment to one validator, which reports it and dies on the spot."""
    world = World(tmp_path, seed=3, patience_ticks=60)
    world.submit(rounds=1_000, deadline_ticks_min=100, deadline_ticks_max=200)
    world.reach(2, 900)
    world.agree()
    liar, witness = world.keys[3], world.keys[1]
    number = max(map(world.round, world.keys)) + 1
    died: list[int] = []

    def tamper(key: Key, effect: ev.Effect) -> ev.Effect | None:
        if key != liar:
            return effect
        if isinstance(effect, ev.Publish) and effect.topic == "commitments":
            body = verify(decode(effect.data, Signed), world.network, Commitment).body
            if body.round >= number:
                return ev.Send(witness, effect.data) if not died else None
        if isinstance(effect, ev.Send) and _says(world, effect.data, Commitment):
            return None
        return effect

    def assassin(effect: ev.Effect) -> bool:
        if not isinstance(effect, ev.Note) or not effect.name.endswith("/seal"):
            return False
        note = decode(effect.data, Seal)
        if note.round < number or liar not in {one.key for one in note.commitments}:
            return False
        died.append(note.round)
        return True

    world.distrust(liar)
    world.tamper, world.members[witness].assassin = tamper, assassin
    world.run(lambda: bool(died), 3_000)
    world.pass_time(5)
    world.start(witness)
    honest = [key for key in world.keys if key != liar]
    world.reach(died[0] + 3, 3_000, *honest)


def _says(world: World, data: bytes, kind: type[Commitment]) -> bool:
    try:
        verify(decode(data, Signed), world.network, kind)
    except Malformed:
        return False
    return True
