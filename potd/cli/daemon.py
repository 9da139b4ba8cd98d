"""Starting and stopping the daemon of a HOME."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from potd.cli.control import ask
from potd.cli.options import home_option, timeout_option
from potd.config.settings import LOG_LEVELS, ROLES, load_config


@click.command()
@home_option
@click.option("--bootstrap", multiple=True, metavar="ADDRESS|FILE", help="A peer to begin with, or a file of them.")
@click.option("--role", "roles", multiple=True, type=click.Choice([*ROLES, "none"]), help="What this node does.")
@click.option("--device", metavar="DEVICE", help="What trains: auto, cpu, cuda:0, ...")
@click.option("--units", type=int, metavar="1..255", help="How much of every round this rig takes on.")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Where to listen, as a multiaddr.")
@click.option("--announce", multiple=True, metavar="ADDRESS", help="Where others reach this node.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much to log.")
@click.option("--log-json/--log-text", default=None, help="How to log.")
@click.pass_context
def start(context: click.Context, /, home: Path, **options: Any) -> None:
    """Run this node until it is told to stop.

    Options stand in for what config.toml says, for this run; several of one kind replace its whole list.
    SIGHUP reads config.toml again and takes over what can change while running. SIGTERM stops.

    \b
    Examples:
        potd start
        potd start --home /srv/potd --role validator --role miner
        potd start --bootstrap /dns4/boot.example.org/tcp/4001/p2p/12D3KooW... --bootstrap peers.txt
        potd start --device cuda:0 --units 4
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if "none" in given.get("roles", ()):
        if given["roles"] != ("none",):
            raise click.UsageError("--role none stands alone")
        given["roles"] = ()
    config = load_config(home, given)
    from potd.runtime import daemon  # the network behind it takes more than a second to load

    context.exit(daemon.run(config))


@click.command()
@home_option
@timeout_option()
def stop(home: Path, patience_s: float) -> None:
    """Stop the daemon: what it said is on disk, so nothing is lost.

    \b
    Example:
        potd stop --home /srv/potd
    """
    ask(home, "stop", patience_s=patience_s)
    click.echo("stopping")
