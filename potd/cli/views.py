"""Looking: what this node does, whom it knows, what is trained and who was paid."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from potd.cli.control import Unanswered, ask, stream
from potd.cli.exits import Exit, Failure
from potd.cli.options import find_task, home_option, json_option, parse_name, print_json, timeout_option
from potd.cli.text import accuracy, amount, duration, number, pairs, size, table


@click.command()
@home_option
@json_option
@timeout_option()
def status(home: Path, as_json: bool, patience_s: float) -> None:
    """Say what this node is doing now. Exit status 3 if it is not running.

    \b
    Examples:
        potd status
        potd status --json | jq .doing
    """
    answer = ask(home, "status", patience_s=patience_s)
    if as_json:
        print_json(answer)
    else:
        click.echo(status_text(answer))


@click.command()
@home_option
@json_option
@timeout_option()
@click.option("--bootstrap-list", is_flag=True, help="Print addresses to begin with, one a line, for --bootstrap.")
def peers(home: Path, as_json: bool, patience_s: float, bootstrap_list: bool) -> None:
    """List whom this node is connected to.

    \b
    Examples:
        potd peers
        potd peers --bootstrap-list > peers.txt
    """
    answer = ask(home, "peers", patience_s=patience_s)
    if bootstrap_list:
        # Where a peer came from is a port that nobody listens on; only where we dialled can others dial.
        dialled = [f"{one['address']}/p2p/{one['peer_id']}" for one in answer["peers"] if one["direction"] == "out"]
        for address in (*answer["addresses"], *sorted(dialled)):
            click.echo(address)
    elif as_json:
        print_json(answer)
    elif not answer["peers"]:
        click.echo("connected to nobody")
    else:
        click.echo(peers_text(answer["peers"]))


@click.command()
@home_option
@json_option
@timeout_option()
def tasks(home: Path, as_json: bool, patience_s: float) -> None:
    """List the tasks of the network.

    \b
    Example:
        potd tasks
    """
    answer = ask(home, "tasks", patience_s=patience_s)
    if as_json:
        print_json(answer)
    elif not answer["tasks"]:
        click.echo("no tasks; `potd submit` opens one")
    else:
        click.echo(tasks_text(answer["tasks"]))


@click.command()
@click.argument("task")
@home_option
@json_option
def watch(task: str, home: Path, as_json: bool) -> None:
    """Follow a task, a line for every round, until it is done or Ctrl-C.

    TASK is an id, the beginning of one, or a name. Exit status 3 if the daemon goes away before the task is done.

    \b
    Examples:
        potd watch digits
        potd watch 3fa9 --json
    """
    wanted = find_task(home, task, patience_s=10)
    live = sys.stdout.isatty() and not as_json
    done = False
    try:
        for answer in stream(home, "watch", task=wanted):
            done = bool(answer.get("done"))
            if as_json:
                print_one_line(answer)
            elif done:
                click.echo(f"{answer.get('phase', 'done').lower()}: {progress_text(answer)}")
            else:
                click.echo(progress_text(answer, bar_width=24 if live else 0))
    except KeyboardInterrupt:
        click.echo("stopped watching; the task goes on")
    except Unanswered:
        raise _gone(home, wanted) from None
    else:
        if not done:
            raise _gone(home, wanted)


def _gone(home: Path, task: str) -> Failure:
    again = f"`potd start --home {home}`, then `potd watch {task[:8]} --home {home}`"
    return Failure(Exit.NOT_RUNNING, f"the daemon is gone; the task goes on: {again}")


@click.command()
@click.argument("account", required=False, type=parse_name)
@home_option
@json_option
@timeout_option()
def balance(account: str | None, home: Path, as_json: bool, patience_s: float) -> None:
    """Print the balance of an account, by default this node's own.

    \b
    Examples:
        potd balance
        potd balance 7d0e0c9a... --json
    """
    fields = {} if account is None else {"account": account}
    answer = ask(home, "balance", patience_s=patience_s, **fields)
    if as_json:
        print_json(answer)
        return
    rows = [("account", answer["account"]), ("balance", amount(answer["balance_micro"]))]
    if "earned_micro" in answer:
        rows.append(("earned", amount(answer["earned_micro"])))
    if answer.get("bonds_micro"):
        rows.append(("in bonds", amount(answer["bonds_micro"])))
    click.echo(pairs(rows))


def print_one_line(answer: dict[str, Any]) -> None:
    click.echo(json.dumps({key: value for key, value in answer.items() if key != "ok"}))
    sys.stdout.flush()


def status_text(answer: dict[str, Any]) -> str:
    """A status as people read it. What an answer lacks is left out."""
    told: list[tuple[str, str]] = []

    def tell(name: str, *keys: str, form: str = "{}") -> None:
        if all(key in answer for key in keys):
            told.append((name, form.format(*(answer[key] for key in keys))))

    tell("doing", "doing")
    if "roles" in answer:
        told.append(("roles", " and ".join(answer["roles"]) or "client"))
    tell("seat", "seat")
    tell("network", "network_name", "network", form="{} ({:.16})")
    tell("height", "height")
    if "view" in answer:
        primary = answer.get("primary", "")
        told.append(("view", f"{answer['view']}" + (f", primary {primary[:8]}" if primary else "")))
    tell("silent", "silent_until", form="until height {}: this home was restored from a backup")
    tell("peers", "peers")
    if "balance_micro" in answer:
        earned = f", {amount(answer['earned_micro'])} earned" if "earned_micro" in answer else ""
        told.append(("pay", f"{amount(answer['balance_micro'])} in hand{earned}"))
    if "blobs_bytes" in answer:
        most = f" of {size(answer['blobs_bytes_max'])}" if "blobs_bytes_max" in answer else ""
        told.append(("blobs", size(answer["blobs_bytes"]) + most))
    if "journal_bytes" in answer:
        told.append(("journal", size(answer["journal_bytes"])))
    if "uptime_s" in answer:
        told.append(("running", f"{duration(answer['uptime_s'])}, release {answer.get('release', '?')}"))
    tell("account", "account")
    tell("peer id", "peer_id")
    parts = [pairs(told)] if told else ["the daemon said nothing of itself"]
    if answer.get("tasks"):
        parts.append(tasks_text(answer["tasks"]))
    if answer.get("refused"):
        refused = sorted(answer["refused"].items(), key=lambda one: (-one[1], one[0]))
        parts.append(table(("refused", "times"), [(reason, str(times)) for reason, times in refused]))
    return "\n\n".join(parts)


def tasks_text(listed: list[dict[str, Any]]) -> str:
    heads = ("task", "name", "phase", "round", "miners", "loss", "accuracy", "escrow")
    rows = [
        (
            one["task"][:8],
            one["name"],
            one["phase"].lower(),
            f"{one['round']}/{one['rounds']}",
            str(one.get("miners", "-")),
            number(one.get("loss")),
            accuracy(one),
            amount(one["escrow_micro"]) if "escrow_micro" in one else "-",
        )
        for one in listed
    ]
    return table(heads, rows)


def peers_text(listed: list[dict[str, Any]]) -> str:
    heads = ("peer id", "address", "way", "since", "rtt ms", "in", "out", "refused")
    rows = [
        (
            one["peer_id"] + (" (guest)" if one.get("guest") else ""),
            one["address"],
            one["direction"],
            duration(one["connected_s"]),
            number(one.get("rtt_ms"), 1),
            size(one["bytes_in"]),
            size(one["bytes_out"]),
            str(one["refused"]),
        )
        for one in listed
    ]
    return table(heads, rows)


def progress_text(answer: dict[str, Any], bar_width: int = 0) -> str:
    """One line on where a task stands."""
    done, most = answer["round"], answer["rounds"]
    filled = bar_width * done // most if most else 0
    parts = [f"[{'#' * filled}{'.' * (bar_width - filled)}]"] if bar_width else []
    parts.append(f"round {done}/{most}")
    if answer.get("loss") is not None:
        parts.append(f"loss {number(answer['loss'])}")
    if answer.get("accuracy") is not None:
        parts.append(f"accuracy {accuracy(answer)}")
    for key, unit in (("counted", "counted"), ("miners", "miners"), ("round_ms", "ms")):
        if answer.get(key) is not None:
            parts.append(f"{answer[key]} {unit}")
    if answer.get("view") is not None:
        parts.append(f"view {answer['view']}")
    return "  ".join(parts)
