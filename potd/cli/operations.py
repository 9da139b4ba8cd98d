"""Asking the ledger for something: open a task, mine for one, pay somebody."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potd.cli.control import Unanswered, ask
from potd.cli.exits import Exit, Failure
from potd.cli.options import (
    find_task,
    home_option,
    json_option,
    parse_amount,
    parse_name,
    print_json,
    timeout_option,
)
from potd.cli.text import amount, pairs, size
from potd.wire.codec import encode
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.operations import MEMO_BYTES_MAX
from potd.wire.rules import rule_text

if TYPE_CHECKING:
    from potd.trainer.task import Prepared

# The default escrow pays every round to so many units of miners. What is not spent goes back, so it may be generous.
UNITS_PAID = 16
AGREEMENT_S = 60  # operations are answered when they are executed, which may take a view change


@click.command()
@click.argument("file", metavar="TASK.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--escrow",
    type=parse_amount,
    metavar="AMOUNT",
    help=f"Set aside for pay; by default enough for {UNITS_PAID} units.",
)
@click.option("--check", is_flag=True, help="Only say what the task would be; no daemon is needed.")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def submit(file: Path, escrow: int | None, check: bool, home: Path, as_json: bool, patience_s: float) -> None:
    """Have a model trained: open the task in TASK.toml, and put its pay in escrow.

    Everything about the task is checked here first, its data included, before anything is spent.

    \b
    Examples:
        potd submit docs/tasks/digits.toml
        potd submit digits.toml --escrow 250 --home /srv/potd
        potd submit digits.toml --check
    """
    from potd.ledger.tasks import escrow_min_micro
    from potd.trainer.task import TaskError, publish, read_task  # loads numpy

    try:
        prepared = read_task(file)
    except TaskError as error:
        told = [problem if str(file) in problem else f"{file}: {problem}" for problem in error.problems]
        raise Failure(Exit.CONFIGURATION, told) from None
    spec = prepared.spec
    if escrow is None:
        escrow = min(spec.pay_micro * spec.unit_batch * max(spec.miners_min, UNITS_PAID) * spec.rounds, SUPPLY_MAX)
    if escrow > SUPPLY_MAX:
        raise Failure(Exit.CONFIGURATION, f"an escrow of {amount(escrow)} units is more than a network can hold")
    if escrow < (least := escrow_min_micro(spec)):
        raise Failure(
            Exit.CONFIGURATION, f"an escrow of {amount(escrow)} units, and one round costs at least {amount(least)}"
        )
    if check:
        click.echo(_prepared_text(prepared, escrow))
        return
    if not home.is_dir():
        raise Failure(Exit.NOT_RUNNING, f"{home} is no home of a node; `potd init` makes one")
    # In the home, so that the daemon takes the files over by renaming them.
    with tempfile.TemporaryDirectory(prefix=".submit-", dir=home) as folder:
        paths = publish(prepared, Path(folder))
        answer = ask_operation(
            home,
            "submit",
            patience_s,
            spec=base64.b64encode(encode(spec)).decode(),
            escrow_micro=escrow,
            blobs=[str(path.absolute()) for path in paths],
        )
    if as_json:
        print_json(answer)
    else:
        click.echo(f"task {answer['task']} is open, with {amount(escrow)} units in escrow")
        click.echo(f"follow it with: potd watch {answer['task'][:8]} --home {home}")


@click.command()
@click.argument("task")
@click.option("--units", type=click.IntRange(1, 255), help="How much of every round; by default what config.toml says.")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def enrol(task: str, units: int | None, home: Path, as_json: bool, patience_s: float) -> None:
    """Mine for a task, change its units, or come back after a suspension.

    \b
    Examples:
        potd enrol digits
        potd enrol 3fa9 --units 4
    """
    fields: dict[str, Any] = {} if units is None else {"units": units}
    operation(home, "enrol", "enrolled", as_json, patience_s, task=find_task(home, task, patience_s), **fields)


@click.command()
@click.argument("task")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def leave(task: str, home: Path, as_json: bool, patience_s: float) -> None:
    """Stop mining for a task.

    \b
    Example:
        potd leave digits
    """
    operation(home, "leave", "left", as_json, patience_s, task=find_task(home, task, patience_s))


@click.command()
@click.argument("to", type=parse_name)
@click.argument("units", metavar="AMOUNT", type=parse_amount)
@click.option("--memo", default="", help=f"Up to {MEMO_BYTES_MAX} bytes that everybody can read, paid for by the byte.")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def transfer(to: str, units: int, memo: str, home: Path, as_json: bool, patience_s: float) -> None:
    """Pay AMOUNT units from this node's account to another.

    \b
    Example:
        potd transfer 7d0e0c9a... 12.5
    """
    if len(memo.encode()) > MEMO_BYTES_MAX:
        raise click.UsageError(f"a memo of {len(memo.encode())} bytes, at most {MEMO_BYTES_MAX}")
    done = f"paid {amount(units)} units to {to[:8]}"
    operation(home, "transfer", done, as_json, patience_s, to=to, amount_micro=units, memo=memo)


def operation(home: Path, command: str, done: str, as_json: bool, patience_s: float, **fields: Any) -> None:
    """Have the daemon ask the ledger for something, and say that it is done."""
    answer = ask_operation(home, command, patience_s, **fields)
    if as_json:
        print_json(answer)
    else:
        click.echo(done + (f" at height {answer['height']}" if "height" in answer else ""))


def ask_operation(home: Path, command: str, patience_s: float, **fields: Any) -> dict[str, Any]:
    """The daemon's answer. Without one, the operation may yet be executed: asking again may do it twice."""
    try:
        return ask(home, command, patience_s=patience_s, **fields)
    except Unanswered as failure:
        (said,) = failure.problems
        look = f"look with `potd balance --home {home}` and `potd tasks --home {home}` before you ask again"
        raise Failure(failure.code, f"{said}; the {command} may still be executed, or be already: {look}") from None


def _prepared_text(prepared: Prepared, escrow: int) -> str:
    spec = prepared.spec
    sizes = "-".join(str(one) for one in spec.model.sizes)
    return pairs(
        [
            ("task", spec.name),
            ("model", f"{spec.model.architecture} {sizes}, {spec.model.parameters:,} parameters"),
            ("data", f"{prepared.manifest.name}, {spec.samples:,} samples, {len(prepared.manifest.training)} shards"),
            ("files", size(sum(ref.size for ref in prepared.refs()))),
            ("rounds", f"{spec.rounds}, of {spec.unit_batch} samples a unit, {spec.miners_min} or more miners"),
            ("rule", f"{spec.optimiser.kind} on {rule_text(spec.rule)}, {spec.encoding.kind}"),
            ("pay", f"{amount(spec.pay_micro)} a sample, {spec.validators_ppm / 10_000:g} % of it to validators"),
            ("escrow", amount(escrow)),
        ]
    )
