"""Fetching a trained model."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import click

from potd.cli.control import ask
from potd.cli.exits import Exit, Failure
from potd.cli.options import find_task, home_option, json_option, print_json, timeout_option
from potd.cli.text import accuracy, size
from potd.config.home import write_atomically
from potd.trainer.layout import to_safetensors
from potd.wire.codec import Malformed, decode
from potd.wire.merkle import root_of_bytes
from potd.wire.tasks import TaskSpec


@click.command()
@click.argument("task")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where to write it."
)
@home_option
@json_option
@timeout_option(60)
def fetch(task: str, output: Path, home: Path, as_json: bool, patience_s: float) -> None:
    """Write the newest model of a task as a safetensors file.

    The file says in its metadata which network, task, round and digests it came from. It is checked against the
    digest that the validators agreed on, and written wholly or not at all.

    \b
    Examples:
        potd fetch digits -o model.safetensors
        potd fetch 3fa9 -o model.safetensors --timeout 600
    """
    if not output.parent.is_dir():
        raise Failure(Exit.CONFIGURATION, f"{output}: there is no folder {output.parent}")
    answer = ask(home, "fetch", patience_s=patience_s, task=find_task(home, task, patience_s))
    spec, written = write_model(answer, output)
    if as_json:
        print_json({**answer, "output": str(output)})
        return
    scored = f", accuracy {accuracy(answer)}" if answer.get("accuracy") is not None else ""
    click.echo(f"{output}: {spec.name} after {answer['round']} rounds, {size(written)}{scored}")


def write_model(answer: dict[str, Any], output: Path) -> tuple[TaskSpec, int]:
    """Turn a daemon's answer to `fetch` into a safetensors file, whole or not at all. Returns the task and the size."""
    path, root = Path(answer["model"]["path"]), str(answer["model"]["root"])
    raw = path.read_bytes()
    if root_of_bytes(raw).hex() != root:
        raise Failure(Exit.CONFIGURATION, f"{path} is damaged: its digest is not {root}")
    try:
        spec = decode(base64.b64decode(answer["spec"], validate=True), TaskSpec)
        data = to_safetensors(spec.model, raw, metadata(answer, spec))
    except (Malformed, binascii.Error) as error:
        raise Failure(Exit.CONFIGURATION, f"the daemon's answer makes no model: {error}") from None
    write_atomically(output, data)
    return spec, len(data)


def metadata(answer: dict[str, Any], spec: TaskSpec) -> dict[str, str]:
    """Where a model comes from, as texts: what the file's header carries."""
    told = {
        "format": "pt",
        "potd.genesis": answer["network"],
        "potd.task": answer["task"],
        "potd.name": spec.name,
        "potd.round": answer["round"],
        "potd.model": answer["model"]["root"],
        "potd.initial_weights": spec.weights.root.hex(),
        "potd.manifest": spec.manifest.root.hex(),
        "potd.header": answer.get("header"),
        "potd.height": answer.get("height"),
        "potd.training_loss": answer.get("loss"),
        "potd.held_out_loss": answer.get("held_out_loss"),
        "potd.accuracy": answer.get("accuracy"),
        "potd.measured_round": answer.get("measured_round"),
    }
    return {key: str(value) for key, value in told.items() if value is not None}
