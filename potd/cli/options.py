"""Options and arguments that several commands share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from potd.cli.control import PATIENCE_S, ask
from potd.cli.exits import Exit, Failure
from potd.cli.text import MICRO

F = TypeVar("F", bound=Callable[..., Any])

_AMOUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")


def home_option(command: F) -> F:
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("~/.potd"),
        show_default=True,
        callback=lambda context, option, value: value.expanduser(),
        help="The folder with the node's files.",
    )(command)


def timeout_option(default_s: float = PATIENCE_S) -> Callable[[F], F]:
    return click.option(
        "--timeout",
        "patience_s",
        type=click.FloatRange(0.1, 86_400),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the daemon's answer.",
    )


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")(command)


def parse_amount(text: str) -> int:
    """An amount in whole units with up to six decimals, as micro-units."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not an amount such as 12 or 0.25, with at most six decimals")
    whole, part = match.groups()
    return int(whole) * MICRO + int((part or "").ljust(6, "0"))


def parse_name(text: str) -> str:
    """The id of an account or a task: 32 bytes, as 64 hexadecimal digits."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise click.BadParameter(f"{text!r} is not an id: 64 hexadecimal digits")
    return text.lower()


def print_json(answer: dict[str, Any]) -> None:
    click.echo(json.dumps({key: value for key, value in answer.items() if key != "ok"}, indent=2))


def find_task(home: Path, wanted: str, patience_s: float) -> str:
    """The id of the one task with this id, this beginning of an id (four digits or more) or this name."""
    if re.fullmatch("[0-9a-f]{64}", wanted):
        return wanted
    tasks = ask(home, "tasks", patience_s=patience_s)["tasks"]
    found = [one for one in tasks if one["name"] == wanted]
    if not found and len(wanted) >= 4:
        found = [one for one in tasks if one["task"].startswith(wanted.lower())]
    if not found:
        raise Failure(Exit.REFUSED, f"no task {wanted!r} here; `potd tasks` lists those there are")
    if len(found) > 1:
        listed = ", ".join(one["task"][:16] for one in found)
        raise Failure(Exit.USAGE, f"{wanted!r} may be any of {listed}; give more digits of the id")
    return str(found[0]["task"])
