"""Making a HOME, its key and a network's genesis."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import click

from potd.cli.exits import Exit, Failure
from potd.cli.options import home_option, parse_amount, print_json
from potd.cli.text import amount, pairs
from potd.config.addresses import is_address, peer_id
from potd.config.genesis import genesis_text, parse_genesis, parse_key, read_genesis, write_genesis
from potd.config.home import Home, new_seed, public_key, read_account, read_key, write_atomically, write_key
from potd.config.mistakes import ConfigError
from potd.config.settings import ROLES, config_text, load_config
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest


@click.command()
@home_option
@click.option("--genesis", type=click.Path(path_type=Path, dir_okay=False), help="The network to join.")
@click.option("--role", "roles", multiple=True, type=click.Choice([*ROLES, "none"]), help="What this node will do.")
@click.option("--bootstrap", multiple=True, metavar="ADDRESS|FILE", help="A peer to begin with, or a file of them.")
@click.option("--listen", multiple=True, metavar="ADDRESS", help="Where to listen, as a multiaddr.")
@click.option("--announce", multiple=True, metavar="ADDRESS", help="Where others reach this node.")
@click.option("--device", metavar="DEVICE", help="What trains: auto, cpu, cuda:0, ...")
@click.option("--units", type=int, metavar="1..255", help="How much of every round this rig takes on.")
def init(home: Path, genesis: Path | None, **options: Any) -> None:
    """Make a home for a node: its key, its config.toml and, if given, its network.

    Writes nothing if anything is wrong, and never over a key. Run it again with --genesis to add a network later.

    \b
    Examples:
        potd init --genesis genesis.toml --bootstrap peers.txt
        potd init --home /srv/potd --role validator --genesis genesis.toml
    """
    chosen = {name: value for name, value in options.items() if value not in (None, ())}
    if "none" in chosen.get("roles", ()):
        chosen["roles"] = ()
    if "bootstrap" in chosen:
        chosen["bootstrap"] = tuple(_from_here(entry) for entry in chosen["bootstrap"])
    place = Home(home)
    network = read_genesis(genesis) if genesis else None
    if place.config.exists() and (chosen or network is None):
        raise Failure(Exit.CONFIGURATION, f"{place.config} exists already; edit it, or choose another home")
    if place.genesis.exists() and network is not None and read_genesis(place.genesis) != network:
        raise Failure(Exit.CONFIGURATION, f"{place.genesis} is another network; one home, one network")
    make_home(place, chosen, network)
    click.echo(f"{place.path} is ready")
    click.echo(_identity(place))
    if network is None and not place.genesis.exists():
        click.echo(f"It has no network yet: potd init --home {place.path} --genesis FILE")


def make_home(place: Home, chosen: dict[str, Any], network: Genesis | None, seed: bytes | None = None) -> None:
    """Write what is missing in a home. Raises ConfigError, with nothing written, if `chosen` is wrong."""
    if problems := place.problems():
        raise ConfigError(problems)
    place.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = not place.config.exists()
    if fresh:
        write_atomically(place.config, config_text(chosen).encode())
        try:
            load_config(place.path)
        except ConfigError:
            place.config.unlink()
            raise
    try:
        if not place.key.exists():
            write_key(place.key, seed or new_seed())
        if network is not None:
            write_genesis(place.genesis, network)
    except OSError:
        if fresh:
            place.config.unlink()
        raise


@click.command()
@home_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@click.option("--public", is_flag=True, help="Print the public key alone.")
def key(home: Path, as_json: bool, public: bool) -> None:
    """Print who this node is: account, public key and peer id.

    \b
    Examples:
        potd key
        potd key --public >> validators.txt
    """
    own = public_key(read_key(Home(home).key))
    if public:
        click.echo(own.hex())
    elif as_json:
        print_json({"account": read_account(Home(home)).hex(), "public_key": own.hex(), "peer_id": peer_id(own)})
    else:
        click.echo(_identity(Home(home)))


@click.command()
@click.option("--name", help="What people call the network.")
@click.option("--validator", "validators", multiple=True, metavar="KEY|FILE", help="A public key, or a file of them.")
@click.option("--balance", "balances", multiple=True, metavar="KEY=AMOUNT", help="An opening balance.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=NUMBER", help="Change one parameter.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write; else print.")
@click.option("--check", type=click.Path(path_type=Path, dir_okay=False), help="Only read a file and print its digest.")
def genesis(
    name: str | None,
    validators: tuple[str, ...],
    balances: tuple[str, ...],
    parameters: tuple[str, ...],
    output: Path | None,
    check: Path | None,
) -> None:
    """Make the genesis of a network from public keys, and print its digest.

    The digest is the network's name: compare it by telephone before the first start.

    \b
    Examples:
        potd genesis --name rigs --validator validators.txt --balance 2c5f...=1000000 -o genesis.toml
        potd genesis --check genesis.toml
    """
    if check is not None:
        click.echo(genesis_digest(read_genesis(check)).hex())
        return
    if name is None:
        raise click.UsageError("a network needs a --name")
    problems: list[str] = []
    table = {
        "name": name,
        "protocol": PROTOCOL,
        "created_unix": int(time.time()),
        "validators": sorted(_listed_keys(validators, problems)),
        "balances": _listed_balances(balances, problems),
        "parameters": _listed_parameters(parameters, problems),
    }
    made, wrong = parse_genesis(table)
    if made is None or problems:
        raise Failure(Exit.CONFIGURATION, problems + wrong)
    made = dataclasses.replace(made, balances=tuple(sorted(made.balances)))
    if output is None:
        click.echo(genesis_text(made), nl=False)
        return
    if output.exists():
        raise Failure(Exit.CONFIGURATION, f"{output} exists already")
    write_genesis(output, made)
    click.echo(f"{output}: {len(made.validators)} validators, {amount(_supply(made.balances))} units")
    click.echo(genesis_digest(made).hex())


def _identity(place: Home) -> str:
    own = public_key(read_key(place.key))
    return pairs([("account", read_account(place).hex()), ("public key", own.hex()), ("peer id", peer_id(own))])


def _from_here(entry: str) -> str:
    """A file named on the command line, by its full path; addresses as they are."""
    return entry if is_address(entry) else str(Path(entry).absolute())


def _listed_keys(entries: tuple[str, ...], problems: list[str]) -> list[str]:
    keys: list[str] = []
    for entry in entries:
        if Path(entry).is_file():
            lines = (line.split("#")[0].strip() for line in Path(entry).read_text().splitlines())
            keys += [line for line in lines if line]
        elif "." in entry or os.sep in entry:  # no key, then, but a file's name
            problems.append(f"--validator {entry}: no such file")
        else:
            keys.append(entry)
    return keys


def _listed_balances(entries: tuple[str, ...], problems: list[str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for entry in entries:
        owner, _, text = entry.partition("=")
        try:
            found.append({"owner_key": parse_key(owner).hex(), "amount_micro": parse_amount(text)})
        except (ValueError, click.BadParameter) as error:
            problems.append(f"--balance {entry}: {error}")
    return found


def _listed_parameters(entries: tuple[str, ...], problems: list[str]) -> dict[str, object]:
    found: dict[str, object] = dataclasses.asdict(Parameters())
    for entry in entries:
        name, _, text = entry.partition("=")
        if not text.isdecimal():
            problems.append(f"--parameter {entry}: not of the form NAME=NUMBER")
        else:
            found[name] = int(text)
    return found


def _supply(balances: tuple[Allotment, ...]) -> int:
    return sum(one.amount_micro for one in balances)
