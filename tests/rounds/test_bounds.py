"""What a round says fits its messages, for as many miners as a task can have, and for a thousand with room to spare."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.rounds.tally import Choice, make_update, named, written_once
from potd.wire.blocks import BATCH_BYTES_MAX, Batch, Record, miners_max
from potd.wire.codec import MESSAGE_BYTES_MAX, encode
from potd.wire.consensus import PrePrepare, Proposal
from potd.wire.envelope import PAYLOAD_BYTES_MAX, Signed, Verified
from potd.wire.ids import NOTHING, BlobRef, digest
from potd.wire.jobs import Judgement
from potd.wire.rounds import (
    NAMES_MAX,
    Commitment,
    Draft,
    Named,
    Outcome,
    Report,
    Seal,
    Step,
    Update,
    commitment_name,
    positions,
    report_fault,
)
from potd.wire.tasks import BATCH_SAMPLES_MAX

LATE = 2**63 - 1
TASK = digest("task")
MODEL = BlobRef(digest("model"), LATE)


def key(index: int) -> bytes:
    return digest("validator", index.to_bytes(4, "big"))


def signed(by: bytes, body: object) -> Signed:
    return Signed(by, encode(body), bytes(64))


def commitments(count: int, face: int = 0) -> list[Commitment]:
    """The longest there are, by miner."""
    return sorted(
        (
            Commitment(
                TASK,
                LATE,
                digest("miner", index.to_bytes(4, "big")),
                MODEL.root,
                BlobRef(digest("payload", index.to_bytes(4, "big")), LATE),
                BATCH_SAMPLES_MAX,
                True,
                -(2**63),
                NOTHING,
                "c" * 32,
                digest("salt", face.to_bytes(4, "big")),
            )
            for index in range(count)
        ),
        key=lambda one: one.miner,
    )


def seal_report(by: int, names: tuple[bytes, ...]) -> Verified[Report]:
    body = Report(TASK, LATE, Step.SEAL.value, names, (), (), b"", 2**32 - 1)
    assert report_fault(body) == ""
    return Verified(key(by), body, signed(key(by), body))


def names_of(said: list[Commitment]) -> tuple[bytes, ...]:
    return tuple(commitment_name(one.miner, encode(one)) for one in said)


def seal_where_all_agree(validators: int, miners: int) -> Seal:
    said = commitments(miners)
    reports = [seal_report(index, names_of(said)) for index in range(validators)]
    return written_once(TASK, LATE, reports, tuple(signed(one.miner, one) for one in said))


def seal_of_two_faced(validators: int, miners: int) -> Seal:
    """Each miner has said another thing to each validator, and yet everything is sealed."""
    said = commitments(miners)
    reports = [seal_report(index, names_of(commitments(miners, face=index))) for index in range(validators)]
    return written_once(TASK, LATE, reports, tuple(signed(one.miner, one) for one in said))


def update_report(by: int, miners: int, validators: int) -> Signed:
    held = positions([True] * miners)
    links = tuple(sorted(Named(key(index), digest("link", key(index))) for index in range(validators)))
    return signed(key(by), Report(TASK, LATE, Step.UPDATE.value, (), links, (), held, 2**32 - 1))


def update(reporters: int, miners: int, validators: int) -> Update:
    """Each report with the link of every validator."""
    said = tuple(commitments(miners))
    choice = Choice(said, tuple((one.miner, Outcome.COUNTED) for one in said), b"")
    judged = (Judgement(Outcome.COUNTED.value, 2**32 - 1),) * miners
    reports = sorted((update_report(index, miners, validators) for index in range(reporters)), key=lambda one: one.key)
    return make_update(TASK, LATE, reports, choice, judged, (MODEL, MODEL, MODEL))


def proposal_bytes(record: Record) -> int:
    batch = Batch((record,))
    assert len(encode(batch)) <= BATCH_BYTES_MAX
    return len(encode(Proposal(signed(key(0), PrePrepare(LATE, LATE, TASK)), batch)))


def test_a_task_of_31_validators_has_room_for_a_thousand_miners() -> None:
    assert miners_max(31) >= 1_200


@pytest.mark.parametrize("validators", [4, 31, 64])
def test_a_seal_of_a_full_task_fits_half_a_batch_whatever_its_miners_have_said(validators: int) -> None:
    miners = miners_max(validators)
    assert max(len(encode(signed(one.miner, one))) for one in commitments(20)) <= 512
    seal = seal_of_two_faced(validators, miners)
    assert len(seal.names) == validators * miners <= NAMES_MAX // 2
    assert len(encode(Batch((seal,)))) <= BATCH_BYTES_MAX // 2
    assert proposal_bytes(seal) <= MESSAGE_BYTES_MAX


def test_a_round_of_a_thousand_miners_and_31_validators_is_under_six_tenths_of_a_megabyte_in_blocks() -> None:
    seal, end = seal_where_all_agree(21, 1_000), update(21, 1_000, 31)
    assert len(encode(Batch((seal,)))) < 460_000
    assert len(encode(Batch((end,)))) < 100_000
    draft = Draft(LATE, LATE, TASK, LATE, Step.UPDATE.value, end.reports)
    assert len(encode(signed(key(0), draft))) < 60_000


@pytest.mark.parametrize("validators", [4, 31, 70])
def test_every_word_of_a_full_round_fits_its_message(validators: int) -> None:
    miners = miners_max(validators)
    end = update(validators, miners, validators)
    assert proposal_bytes(end) <= MESSAGE_BYTES_MAX
    assert len(encode(Draft(LATE, LATE, TASK, LATE, Step.UPDATE.value, end.reports))) <= PAYLOAD_BYTES_MAX
    report = seal_report(0, names_of(commitments(miners)))
    assert len(report.signed.payload) <= PAYLOAD_BYTES_MAX // 16


def test_liars_that_name_what_they_like_add_no_commitment_to_a_seal() -> None:
    """Of two faces of a miner both would have to be named by f + 1, and each validator names a miner once. The rule of
    f + 1 leaves out who shows two, and no report may name two."""
    one, other = commitments(40), commitments(40, face=1)
    said = [names_of(one)] * 3 + [names_of(other)] * 2 + [names_of(commitments(40, face=2))] * 2
    reports = [seal_report(index, names).body for index, names in enumerate(said)]
    assert named(reports, 3) == names_of(one)
    twice = replace(reports[0], names=tuple(sorted((*names_of(one), *names_of(other)))))
    assert report_fault(twice) == "report that names a miner twice, or out of order"
    with_links = replace(reports[0], links=(Named(TASK, TASK),))
    assert report_fault(with_links) == "report that holds something of another step"
