"""Asking what became of contributions, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from potd.cli.control import ask
from potd.cli.options import find_task, home_option, json_option, parse_name, print_json, timeout_option
from potd.cli.text import amount, pairs, table


@click.command()
@click.argument("task")
@click.argument("number", metavar="ROUND", type=click.IntRange(0))
@click.argument("miner", required=False, type=parse_name)
@home_option
@json_option
@timeout_option()
def why(task: str, number: int, miner: str | None, home: Path, as_json: bool, patience_s: float) -> None:
    """Say what became of the contributions to a round, and why.

    TASK is an id, the beginning of one, or a name; MINER the account of one miner. With --json the answer carries the
    ledger's entry, its Merkle proof and the certificate of a height: what it takes to check it without this node.

    \b
    Examples:
        potd why digits 12
        potd why digits 12 7d0e0c9a...
        potd why digits 12 --json > round-12.json
    """
    fields: dict[str, Any] = {"task": find_task(home, task, patience_s), "round": number}
    if miner is not None:
        fields["miner"] = miner
    answer = ask(home, "why", patience_s=patience_s, **fields)
    if as_json:
        print_json(answer)
    else:
        click.echo(why_text(answer, whole=miner is not None))


def why_text(answer: dict[str, Any], whole: bool) -> str:
    """The round's story, and a line for each contribution; or the whole story of the one that was asked for."""
    parts = ["\n".join(answer["story"])]
    told = answer["contributions"]
    if whole:
        parts += ["\n".join(one["story"]) + "\n\n" + pairs(_facts(one)) for one in told]
    elif told and "outcome" in told[0]:
        parts.append(table(("miner", "outcome", "weight", "norm", "audits", "standing", "pay"), list(map(_row, told))))
    return "\n\n".join(parts)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["miner"][:8],
        one["outcome"],
        f"{one['weight']:.3f}",
        f"{one['norm']:.3g}",
        str(len(one["voices"])),
        one["standing"],
        amount(one["pay_micro"]),
    )


def _facts(one: dict[str, Any]) -> list[tuple[str, str]]:
    names = ("miner", "commitment", "outcome", "standing")
    rows = [(name, str(one[name])) for name in names if name in one]
    return [*rows, ("payload", one["payload"]["root"])]
