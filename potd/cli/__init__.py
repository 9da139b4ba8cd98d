"""The `potd` command: parses, asks, prints, and decides nothing. One module per family of commands.

A family is imported when one of its commands is called, so that `potd status` need not load what `potd fetch` needs.
"""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click

import potd
from potd.cli.exits import Exit, Failure

# Which module holds which command, in the order in which a newcomer meets them.
_FAMILIES = {
    "init": "homes",
    "key": "homes",
    "genesis": "homes",
    "start": "daemon",
    "stop": "daemon",
    "status": "views",
    "peers": "views",
    "tasks": "views",
    "watch": "views",
    "why": "why",
    "balance": "views",
    "submit": "operations",
    "enrol": "operations",
    "leave": "operations",
    "transfer": "operations",
    "validators": "validators",
    "fetch": "models",
    "devnet": "devnet",
    "demo": "demo",
    "completion": "completion",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        family = _FAMILIES.get(cmd_name)
        if family is None:
            return None
        command = getattr(importlib.import_module(f"potd.cli.{family}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except Failure as failure:
            code, problems = failure.code, failure.problems
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has had enough; click knows what to do
                raise
            code, problems = Exit.CONFIGURATION, (str(error),)
        except Exception as error:
            from potd.config import ConfigError  # only now: it takes as long to load as a whole `potd status`

            if not isinstance(error, ConfigError):
                raise
            code, problems = Exit.CONFIGURATION, error.problems
        else:
            return result
        click.echo("Error: " + "\n       ".join(problems), err=True)
        raise click.exceptions.Exit(code)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(potd.__version__, prog_name="potd")
def main() -> None:
    """Train one model together with strangers, and be paid for it.

    \b
    A rig joins a network:
        potd init --genesis genesis.toml --bootstrap peers.txt
        potd start
        potd status
    A model owner has a model trained:
        potd submit task.toml
        potd watch digits
        potd fetch digits -o model.safetensors
    A network on this machine alone:
        potd devnet 4 /tmp/devnet --run

    \b
    Exit statuses: 0 all is well; 1 a file, a value or the machine is not as it must be; 2 the command line
    makes no sense; 3 no daemon runs here; 4 the daemon, the ledger or the network said no; 5 no answer in time.
    """
