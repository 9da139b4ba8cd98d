"""Seats: who validates, who wants to, and having one's own say in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from potd.cli.control import ask
from potd.cli.exits import Exit, Failure
from potd.cli.operations import AGREEMENT_S, ask_operation, operation
from potd.cli.options import home_option, json_option, print_json, timeout_option
from potd.cli.text import amount, pairs, table
from potd.config.home import Home, new_seed, write_key


@click.group(invoke_without_command=True)
@home_option
@json_option
@timeout_option()
@click.pass_context
def validators(context: click.Context, home: Path, as_json: bool, patience_s: float) -> None:
    """List the validators, who stands for a seat, and the change that is agreed on.

    \b
    Examples:
        potd validators
        potd validators stand --home /srv/potd
        potd validators back 7d0e
    """
    if context.invoked_subcommand is not None:
        return
    answer = ask(home, "validators", patience_s=patience_s)
    if as_json:
        print_json(answer)
    else:
        click.echo(validators_text(answer))


@validators.command()
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def stand(home: Path, as_json: bool, patience_s: float) -> None:
    """Ask for a seat for this node. Its bond is locked at once; validators decide with `potd validators back`.

    \b
    Example:
        potd validators stand
    """
    operation(home, "stand", "standing for a seat", as_json, patience_s)


@validators.command()
@click.argument("account")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def back(account: str, home: Path, as_json: bool, patience_s: float) -> None:
    """Say, as a validator, that ACCOUNT should have a seat. A quorum that says so admits a candidate.

    ACCOUNT is an id or the beginning of one. For a validator this takes back an `oppose`.

    \b
    Example:
        potd validators back 7d0e
    """
    _say(home, account, True, as_json, patience_s)


@validators.command()
@click.argument("account")
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def oppose(account: str, home: Path, as_json: bool, patience_s: float) -> None:
    """Say, as a validator, that ACCOUNT should have no seat. A quorum that says so removes a validator.

    ACCOUNT is an id or the beginning of one. For a candidate this takes back a `back`.

    \b
    Example:
        potd validators oppose 7d0e
    """
    _say(home, account, False, as_json, patience_s)


@validators.command()
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def resign(home: Path, as_json: bool, patience_s: float) -> None:
    """Give up this node's seat, or stand for one no longer. A seat is kept until the change takes over.

    \b
    Example:
        potd validators resign
    """
    operation(home, "resign", "resigned", as_json, patience_s)


@validators.command()
@home_option
@json_option
@timeout_option(AGREEMENT_S)
def rotate(home: Path, as_json: bool, patience_s: float) -> None:
    """Replace this node's key by a new one, which is made in node.key.next; its seat, if it has one, stays its own.

    The daemon goes on with its present key until the change has taken over, and then, by itself, with the new one.
    If you do not know whether it was executed, see whether `potd validators` or `potd key` shows the new key, and
    otherwise run it again: a key that is made already is used.

    \b
    Example:
        potd validators rotate
    """
    place = Home(home)
    if not place.key.exists():
        raise Failure(Exit.CONFIGURATION, f"{home} is no home of a node; `potd init` makes one")
    if not place.key_next.exists():
        write_key(place.key_next, new_seed())
    answer = ask_operation(home, "rotate", patience_s)
    if as_json:
        print_json(answer)
        return
    click.echo(f"key {answer['key']} will take over; it lies in {place.key_next}")
    click.echo("the daemon goes on with it by itself once it has: `potd status` then shows the new peer id")


def _say(home: Path, account: str, seated: bool, as_json: bool, patience_s: float) -> None:
    name = _find(home, account, patience_s)
    done = f"{name[:8]} should have a seat: said" if seated else f"{name[:8]} should have no seat: said"
    operation(home, "back", done, as_json, patience_s, subject=name, seated=seated)


def _find(home: Path, wanted: str, patience_s: float) -> str:
    """The id of the one validator or candidate with this id, or this beginning of an id (four digits or more)."""
    wanted = wanted.lower()
    if re.fullmatch("[0-9a-f]{64}", wanted):
        return wanted
    answer = ask(home, "validators", patience_s=patience_s)
    names = {one["account"] for one in (*answer["validators"], *answer["candidates"])}
    found = sorted(name for name in names if len(wanted) >= 4 and name.startswith(wanted))
    if not found:
        raise Failure(Exit.REFUSED, f"no validator or candidate {wanted!r} here; `potd validators` lists them")
    if len(found) > 1:
        listed = ", ".join(name[:16] for name in found)
        raise Failure(Exit.USAGE, f"{wanted!r} may be any of {listed}; give more digits of the account")
    return str(found[0])


def validators_text(answer: dict[str, Any]) -> str:
    """Seats as people read them."""
    quorum = answer["quorum"]
    seats = [
        (
            one["account"][:8],
            one["key"][:8],
            amount(one["bond_micro"]),
            str(one["since_height"]),
            ", ".join(_remarks(one, quorum)) or "-",
        )
        for one in answer["validators"]
    ]
    parts = [table(("validator", "key", "bond", "since", "remarks"), seats)]
    if answer["candidates"]:
        standing = [
            (
                one["account"][:8],
                one["key"][:8],
                amount(one["bond_micro"]),
                str(one["since_height"]),
                f"{len(one['backers'])} of {quorum}" + (", this node" if one["mine"] else ""),
            )
            for one in answer["candidates"]
        ]
        parts.append(table(("candidate", "key", "bond", "since", "backed by"), standing))
    rows = [("height", str(answer["height"])), ("bond of a seat", amount(answer["seat_bond_micro"]))]
    if answer["change"] is not None:
        rows.append(("change", _change_text(answer)))
    if "unbonding" in answer:
        locked = answer["unbonding"]
        rows.append(("locked", f"{amount(locked['amount_micro'])}, back at height {locked['due_height']}"))
    return "\n\n".join([*parts, pairs(rows)])


def _remarks(one: dict[str, Any], quorum: int) -> list[str]:
    said = ["this node"] if one["mine"] else []
    if one["guilty"]:
        said.append("found guilty")
    if one["resigning"]:
        said.append("resigning")
    if one["key_next"] is not None:
        said.append(f"asks for key {one['key_next'][:8]}")
    if one["opposers"]:
        said.append(f"opposed by {len(one['opposers'])} of {quorum}")
    return said


def _change_text(answer: dict[str, Any]) -> str:
    """Who comes, who goes and whose key changes, and when."""
    now = {one["account"]: one["key"] for one in answer["validators"]}
    then = {one["account"]: one["key"] for one in answer["change"]["validators"]}
    said = [f"without {name[:8]}" for name in now if name not in then]
    said += [f"with {name[:8]}" for name in then if name not in now]
    said += [f"{name[:8]} with key {then[name][:8]}" for name in now if then.get(name, now[name]) != now[name]]
    return f"after height {answer['change']['height']}: {', '.join(said)}"
