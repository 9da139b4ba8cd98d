"""The benchmark's own sums: that it counts what PBFT costs, and stops with nothing lost."""

from __future__ import annotations

from pathlib import Path

from tests.bench.in_process import measure, split
from tests.bench.load import enough


def test_an_operation_alone_costs_each_validator_its_votes_and_no_other_signature() -> None:
    found = measure(4, 1, 0, 0.0)
    assert found["operations"] == enough(1)
    # The client's; of consensus one order, three agreements, four commitments, four headers. Now and then a Status.
    assert 13 <= found["signed"] <= 14
    # Three check each vote of another, and everybody the operation.
    assert found["checked"] >= 3 + 9 + 12 + 12 + 4


def test_operations_offered_together_share_a_batch() -> None:
    assert measure(4, 32, 0, 0.0)["batch"] > 2


def test_a_kilobyte_of_payload_is_carried_to_every_validator() -> None:
    assert measure(4, 1, 1024, 0.0)["bytes"] > 2 * 3 * 1024  # once by gossip, once in the proposal


def test_with_a_journal_every_validator_writes_its_agreement_and_what_follows_apart(tmp_path: Path) -> None:
    assert measure(4, 1, 0, 0.0, tmp_path)["syncs"] >= 2 * 4


def test_the_parts_of_an_operations_time_add_up() -> None:
    found = split(4, 32, 0.0)
    assert sorted(found) == ["decode", "encode", "execute", "rest", "sign", "state", "verify"]
    assert all(taken > 0 for taken in found.values())
