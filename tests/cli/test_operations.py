"""Asking for something, and fetching what came of it."""

from __future__ import annotations

import base64
import dataclasses
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from potd.cli.operations import UNITS_PAID
from potd.cli.text import amount
from potd.ledger.tasks import escrow_min_micro
from potd.trainer.layout import weights_to_bytes
from potd.trainer.task import read_task
from potd.trainer.weights import initial_weights
from potd.wire.blobs import blob_ref
from potd.wire.codec import decode, encode
from potd.wire.tasks import TaskSpec
from tests.cli.conftest import Command
from tests.cli.daemon_double import daemon

TASK = Path(__file__).parents[2] / "docs" / "tasks" / "digits.toml"
TASK_ID = "3fa9" + "0" * 60


def test_a_task_is_sent_whole_with_its_files_by_name(potd: Command, home: Path) -> None:
    with daemon(home, {"submit": [{"ok": True, "task": TASK_ID}]}) as asked:
        result = potd("submit", TASK, "--escrow", "12.5", "--home", home)
    assert result.exit_code == 0, result.output
    (question,) = asked
    prepared = read_task(TASK)
    assert decode(base64.b64decode(question["spec"]), TaskSpec) == prepared.spec
    assert question["escrow_micro"] == 12_500_000
    assert [Path(path).name for path in question["blobs"]] == [ref.root.hex() for ref in prepared.refs()]
    assert TASK_ID in result.output
    assert os.listdir(home) == []  # what the daemon did not take over is gone


def test_the_default_escrow_lasts_for_all_rounds(potd: Command, home: Path) -> None:
    with daemon(home, {"submit": [{"ok": True, "task": TASK_ID}]}) as asked:
        assert potd("submit", TASK, "--home", home).exit_code == 0
    spec = read_task(TASK).spec
    assert asked[0]["escrow_micro"] == spec.pay_micro * spec.unit_batch * UNITS_PAID * spec.rounds


def test_a_task_with_mistakes_costs_nothing(potd: Command, home: Path) -> None:
    bad = home / "task.toml"
    bad.write_text(TASK.read_text().replace('"mlp"', '"lstm"').replace("unit_batch", "unit_patch"))
    with daemon(home, {}) as asked:
        result = potd("submit", bad, "--home", home)
    assert (result.exit_code, asked) == (1, [])
    assert "lstm" in result.stderr
    assert "unit_patch" in result.stderr


def test_what_the_ledger_refuses_exits_with_4(potd: Command, home: Path) -> None:
    with daemon(home, {"submit": [{"ok": False, "error": "no balance for the escrow", "code": 4}]}):
        result = potd("submit", TASK, "--home", home)
    assert (result.exit_code, result.stderr) == (4, "Error: no balance for the escrow\n")


def test_operations_name_what_they_are_about(potd: Command, home: Path) -> None:
    to = "aa" * 32
    yes: list[dict[str, object]] = [{"ok": True, "height": 7}]
    with daemon(home, {"enrol": yes, "leave": yes, "transfer": yes}) as asked:
        assert potd("enrol", TASK_ID, "--units", 4, "--home", home).output == "enrolled at height 7\n"
        assert potd("leave", TASK_ID, "--home", home).output == "left at height 7\n"
        done = potd("transfer", to, "0.25", "--memo", "rent", "--home", home).output
    assert done == "paid 0.25 units to aaaaaaaa at height 7\n"
    assert asked == [
        {"command": "enrol", "patience_s": 59.0, "task": TASK_ID, "units": 4},
        {"command": "leave", "patience_s": 59.0, "task": TASK_ID},
        {"command": "transfer", "patience_s": 59.0, "to": to, "amount_micro": 250_000, "memo": "rent"},
    ]


@pytest.mark.parametrize(
    "words", [("transfer", "aa" * 32, "1"), ("submit", TASK), ("enrol", TASK_ID), ("leave", TASK_ID)]
)
@pytest.mark.parametrize(("answer", "status"), [([], 5), (b"", 3), (b'{"ok": tr', 3)])
def test_without_an_answer_nobody_is_told_to_do_it_twice(
    potd: Command, home: Path, words: tuple[object, ...], answer: bytes | list[dict[str, object]], status: int
) -> None:
    with daemon(home, {str(words[0]): answer}):
        result = potd(*words, "--timeout", "0.1", "--home", home)
    assert result.exit_code == status
    assert f"the {words[0]} may still be executed" in result.stderr
    assert (
        f"look with `potd balance --home {home}` and `potd tasks --home {home}` before you ask again" in result.stderr
    )


def test_what_was_never_asked_may_be_asked_again(potd: Command, home: Path) -> None:
    result = potd("transfer", "aa" * 32, "1", "--home", home)
    assert (result.exit_code, "may still be executed" in result.stderr) == (3, False)


@pytest.mark.parametrize("words", [[], ["--check"]])
def test_an_escrow_below_one_round_is_refused_before_anything_is_sent(
    potd: Command, home: Path, words: list[str]
) -> None:
    least = escrow_min_micro(read_task(TASK).spec)
    with daemon(home, {}) as asked:
        result = potd("submit", TASK, "--escrow", amount(least - 1).replace(",", ""), "--home", home, *words)
    assert (result.exit_code, asked) == (1, [])
    assert f"one round costs at least {amount(least)}" in result.stderr
    assert potd("submit", TASK, "--escrow", amount(least).replace(",", ""), "--check").exit_code == 0


def test_a_task_file_that_is_not_there_is_named_once(potd: Command, home: Path) -> None:
    result = potd("submit", home / "none.toml", "--home", home)
    assert (result.exit_code, result.stderr) == (1, f"Error: can't read {home}/none.toml: No such file or directory\n")


@pytest.mark.parametrize("damaged", [False, True])
def test_a_fetched_model_says_where_it_comes_from_or_is_not_written(potd: Command, home: Path, damaged: bool) -> None:
    spec = read_task(TASK).spec
    weights = initial_weights(spec.model, 7)
    raw = weights_to_bytes(weights)
    ref = blob_ref(raw)
    blob = home / ref.root.hex()
    blob.write_bytes(raw[:-1] + b"\x7f" if damaged else raw)
    answer = {
        "ok": True,
        "task": TASK_ID,
        "network": "d8" * 32,
        "model": {"path": str(blob), "root": ref.root.hex(), "size": ref.size},
        "spec": base64.b64encode(encode(spec)).decode(),
        "round": 130,
        "header": "cc" * 32,
        "height": 400,
        "loss": 0.21,
        "accuracy": 0.975,
        "held_out_loss": 0.25,
        "measured_round": 120,
    }
    output = home / "model.safetensors"
    with daemon(home, {"fetch": [answer]}):
        result = potd("fetch", TASK_ID, "-o", output, "--home", home)
    if damaged:
        assert (result.exit_code, output.exists()) == (1, False)
        assert "damaged" in result.stderr
        return
    assert result.exit_code == 0, result.output
    assert "digits after 130 rounds" in result.output
    assert "accuracy 0.9750 at round 120" in result.output
    assert stat.S_IMODE(output.stat().st_mode) & 0o400
    with safe_open(output, framework="numpy") as file:
        told = file.metadata()
        read = np.concatenate([file.get_tensor(name).ravel() for name in ("0.weight", "0.bias", "1.weight", "1.bias")])
    assert np.array_equal(read, weights)
    assert told["potd.genesis"] == "d8" * 32
    assert told["potd.task"] == TASK_ID
    assert told["potd.round"] == "130"
    assert told["potd.model"] == ref.root.hex()
    assert told["potd.header"] == "cc" * 32
    assert told["potd.initial_weights"] == spec.weights.root.hex()
    assert told["potd.training_loss"] == "0.21"
    assert told["potd.held_out_loss"] == "0.25"
    assert told["potd.accuracy"] == "0.975"
    assert told["potd.measured_round"] == "120"


def test_a_folder_that_is_not_there_is_said_before_anything_is_fetched(potd: Command, home: Path) -> None:
    with daemon(home, {}) as asked:
        result = potd("fetch", TASK_ID, "-o", home / "none" / "model.safetensors", "--home", home)
    assert (result.exit_code, asked) == (1, [])
    assert result.stderr == f"Error: {home}/none/model.safetensors: there is no folder {home}/none\n"


def test_a_spec_that_is_not_the_models_is_refused(potd: Command, home: Path) -> None:
    spec = read_task(TASK).spec
    raw = b"\x00" * 40
    (home / "blob").write_bytes(raw)
    answer = {
        "ok": True,
        "task": TASK_ID,
        "network": "d8" * 32,
        "model": {"path": str(home / "blob"), "root": blob_ref(raw).root.hex()},
        "spec": base64.b64encode(encode(dataclasses.replace(spec, name="x"))).decode(),
        "round": 1,
    }
    with daemon(home, {"fetch": [answer]}):
        result = potd("fetch", TASK_ID, "-o", home / "model.safetensors", "--home", home)
    assert (result.exit_code, (home / "model.safetensors").exists()) == (1, False)
