"""The benchmark of a round: that the round is played to its end, and that its bytes are those of what was said."""

from __future__ import annotations

from tests.bench.meters import counted_signatures
from tests.bench.rounds import ACCOUNTS, WAITING_EACH, measure


def test_a_round_is_played_from_its_first_commitment_until_operations_wait_behind_it() -> None:
    found = measure(4, 8)
    assert (found["validators"], found["miners"], found["waiting_operations"]) == (4, 8, 8 * WAITING_EACH)
    assert found["ledger_entries"] > ACCOUNTS
    assert min(found.values()) > 0


def test_a_report_names_each_commitment_by_32_bytes_and_each_payload_by_a_bit() -> None:
    few, many = measure(4, 16), measure(4, 80)
    assert many["seal_report_bytes"] - few["seal_report_bytes"] == 64 * (32 + 2)  # two say that they are 32
    assert many["update_report_bytes"] - few["update_report_bytes"] == 64 // 8


def test_the_primary_sends_each_other_validator_two_reports_a_draft_and_two_proposals() -> None:
    found = measure(7, 16)
    said = ("seal_report_bytes", "seal_bytes", "update_report_bytes", "draft_bytes", "update_bytes")
    once = sum(found[name] for name in said)
    assert once < found["primary_sent_bytes"] / 6 < once + 500  # the orders that go with the two batches


def test_every_node_checks_the_signature_of_every_commitment_itself() -> None:
    with counted_signatures() as counts:
        found = measure(4, 40)
    # A quorum of validators, and once all alone to know what a signature costs.
    assert counts["checked"] - found["waiting_operations"] >= (3 + 1) * 40
