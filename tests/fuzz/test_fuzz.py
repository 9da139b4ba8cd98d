"""A little of the fuzzing at every run of the tests, and that it gets deep and would find what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from potd.consensus import replica as consensus
from potd.consensus.events import Broadcast, Persist
from potd.consensus.patience import Patience
from potd.consensus.replica import Replica
from potd.consensus.slots import Ballot, Log
from potd.wire.codec import decode, encode
from potd.wire.consensus import ViewChange
from tests.consensus.parts import A, leave, proof
from tests.fuzz import __main__ as command
from tests.fuzz import nodes, replicas
from tests.fuzz.tally import Tally, Violation
from tests.fuzz.twist import broken, twisted

SEEDS, INPUTS = 20, 1_000


def test_twisting_changes_a_message_in_many_ways() -> None:
    body = leave(2, 1, [proof(A)]).body
    chance = Random(1)
    others = {repr(twisted(body, chance)) for _ in range(100)} - {repr(body)}
    assert len(others) > 15
    data = encode(body)
    assert len({broken(data, chance) for _ in range(100)} - {data}) > 50
    assert decode(data, ViewChange) == body


def test_replicas_bear_anything_and_the_fuzzing_gets_deep() -> None:
    tally = Tally()
    for seed in range(SEEDS):
        replicas.play(seed, INPUTS, tally)
    inputs = "Ticked Received Recollecting Held Proposed Awaited Settled Judged Executed Ending Certificated"
    effects = (
        "Persist Forget Broadcast Send Judge Deliver Certify Enter Suspect FetchBatch Follow Hush Speak Accuse Ignore "
        "Reject"
    )
    votes = "PrePrepare Prepare Commit Refusal Header ViewChange NewView Status Recollect Recollected"
    assert not set(inputs.split()) - set(tally.inputs)
    assert not set(effects.split()) - set(tally.effects)
    assert not set(votes.split()) - set(tally.votes)
    assert tally.hostile > tally.total / 4
    assert len(tally.reasons) > 30, sorted(tally.reasons)


def test_nodes_bear_anything_and_the_fuzzing_gets_deep() -> None:
    tally = Tally()
    for seed in range(3):
        nodes.play(seed, 1_500, tally)
    inputs = (
        "Ticked PeerUp PeerDown Framed Gossiped Fetched BlobRead BatchFetched BlocksFetched SnapshotFetched "
        "PartFetched WorkerReady WorkerLost JobDone OperationAsked"
    )
    assert not set(inputs.split()) - set(tally.inputs)
    effects = "Keep Forget Store StoreCertificate Send Publish Fetch FetchBatch FetchBlocks Run Ignore Refuse Tell"
    assert not {f"node {one}" for one in effects.split()} - set(tally.effects)
    assert len(tally.reasons) > 30, sorted(tally.reasons)


def test_one_seed_is_one_run() -> None:
    """So that the line which names a failure reruns it."""
    one, other = Tally(), Tally()
    for tally in (one, other):
        replicas.play(5, INPUTS, tally)
        nodes.play(5, 300, tally)
    assert vars(one) == vars(other)


def found(first: int = 0) -> str:
    """The first violation of thirty seeds; which of them shows it soon is known."""
    for seed in range(first, first + 30):
        try:
            replicas.play(seed, 2 * INPUTS, Tally())
        except Violation as violation:
            return str(violation)
    return ""


def test_it_finds_that_watermarks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Log, "between", lambda log, stable, seq: stable < seq)
    assert "watermarks" in found()


def test_it_finds_that_half_a_quorum_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Ballot.committed
    monkeypatch.setattr(Ballot, "committed", lambda ballot, quorum: right(ballot, quorum // 2))
    assert "decided otherwise" in found(7)


def test_it_finds_that_a_silent_replica_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    def sign(one: Any, header: Any) -> Any:
        vote = one.signer.verified(header)
        one._checkpoints.add(vote)
        return [Persist(header.height, vote.signed), Broadcast(vote.signed)]

    monkeypatch.setattr(Replica, "_sign_header", sign)
    assert "said in silence" in found(25)


def test_it_finds_an_accusation_that_no_signature_bears_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consensus, "attests", lambda *_: True)
    assert "accused the honest" in found()


def test_it_finds_what_grows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "settle_slots", lambda patience, height: None)
    assert "more due" in found(10)


def test_a_failure_is_named_by_the_line_that_reruns_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def play(seed: int, inputs: int, tally: Tally) -> None:
        tally.inputs["Ticked"] += inputs
        if seed == 3:
            raise Violation("two votes")

    monkeypatch.setattr(command, "CORES", {"replicas": (play, 10), "nodes": (play, 10)})
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--inputs", "50", "--json", str(report)])
    assert command.main() == 1
    line = "python -m tests.fuzz --core replicas --seed 3"
    assert f"{line}  # two votes" in capsys.readouterr().out
    said = json.loads(report.read_text())
    assert (said["inputs"], said["violations"]) == (50, [{"rerun": line, "violation": "two votes"}])
    monkeypatch.setattr(sys, "argv", line.split()[2:])
    assert command.main() == 1
