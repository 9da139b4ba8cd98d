"""A network on one machine, for trying things out."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click

from potd.cli.exits import Exit, Failure
from potd.cli.fleet import Fleet
from potd.cli.homes import make_home
from potd.cli.options import parse_amount
from potd.config.addresses import peer_id
from potd.config.genesis import read_genesis
from potd.config.home import Home, new_seed, public_key, read_key, write_atomically
from potd.wire.genesis import PROTOCOL, Allotment, Genesis, Parameters, genesis_digest

POLL_S = 0.2
CONTAINER_PORT = 4001


@dataclass(frozen=True)
class _Node:
    home: Home
    seed: bytes
    port: int

    @property
    def name(self) -> str:
        return self.home.path.name

    @property
    def peer_id(self) -> str:
        return peer_id(public_key(self.seed))


@click.command()
@click.argument("count", metavar="N", type=click.IntRange(1, 64))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), default=Path("devnet"))
@click.option("--run", is_flag=True, help="Run all nodes, each in its own process, until Ctrl-C.")
@click.option("--validators", type=click.IntRange(1, 64), help="How many of the nodes validate; by default all.")
@click.option("--port", type=click.IntRange(1024, 65_000), default=4001, show_default=True, help="Of the first node.")
@click.option(
    "--balance",
    type=parse_amount,
    metavar="AMOUNT",
    default="1000000",
    show_default=True,
    help="Opening balance of every node.",
)
@click.option("--device", default="cpu", show_default=True, help="What trains.")
@click.option("--image", default="potd", show_default=True, help="The image that compose.yaml names.")
def devnet(
    count: int, folder: Path, run: bool, validators: int | None, port: int, balance: int, device: str, image: str
) -> None:
    """Write N ready homes with one genesis into DIR, and a compose.yaml that runs them in containers.

    Every node mines, and validates unless --validators says fewer. Four validators outlast the failure of one.
    Homes that are there already are used as they are.

    \b
    Examples:
        potd devnet 4 /tmp/devnet
        potd start --home /tmp/devnet/node1      (and so on, each in its own terminal)
        potd devnet 4 /tmp/devnet --run
        potd submit docs/tasks/digits.toml --home /tmp/devnet/node1
    """
    validators = count if validators is None else validators
    if validators > count:
        raise click.UsageError(f"{validators} validators of {count} nodes")
    if port + count > 65_536:
        raise click.UsageError(f"{count} nodes from port {port} on pass port 65535")
    homes = [Home(folder / f"node{number}") for number in range(1, count + 1)]
    if (folder / "compose.yaml").exists():
        missing = [home.path.name for home in homes if not home.genesis.exists()]
        if missing:
            raise Failure(Exit.CONFIGURATION, f"{folder} is a devnet without {', '.join(missing)}; choose another")
        click.echo(f"{folder}: using the {count} homes that are there")
    else:
        write_devnet(folder, count, validators, port, balance, device, image)
        click.echo(f"{folder}: {count} homes, of which {validators} validate, and compose.yaml")
    click.echo(f"network {genesis_digest(read_genesis(homes[0].genesis)).hex()}")
    if run:
        _run(homes)
    else:
        click.echo(f"start each with: potd start --home {homes[0].path}")


def write_devnet(
    folder: Path,
    count: int,
    validators: int,
    port: int,
    balance_micro: int = 10**12,
    device: str = "cpu",
    image: str = "potd",
) -> tuple[Home, ...]:
    """The homes of a network with one genesis, and a compose file. The first `validators` of them validate."""
    homes = [Home(folder / f"node{number}") for number in range(1, count + 1)]
    nodes = [_Node(home, new_seed(), port + number) for number, home in enumerate(homes)]
    network = _network(nodes, validators, balance_micro)
    for number, node in enumerate(nodes):
        chosen = {
            "roles": ("validator", "miner") if number < validators else ("miner",),
            "listen": (f"/ip4/127.0.0.1/tcp/{node.port}",),
            "bootstrap": tuple(
                f"/ip4/127.0.0.1/tcp/{other.port}/p2p/{other.peer_id}" for other in nodes if other is not node
            ),
            "device": device,
        }
        make_home(node.home, chosen, network, node.seed)
        assert read_key(node.home.key) == node.seed, f"{node.home.key} was there already"
    # Last, since it tells a whole devnet from one that was interrupted.
    write_atomically(folder / "compose.yaml", _compose(nodes, image).encode())
    return tuple(homes)


def _network(nodes: list[_Node], validators: int, balance_micro: int) -> Genesis:
    keys = [public_key(node.seed) for node in nodes]
    balances = tuple(sorted(Allotment(key, balance_micro) for key in keys))
    return Genesis("devnet", PROTOCOL, int(time.time()), tuple(sorted(keys[:validators])), balances, Parameters())


def _compose(nodes: list[_Node], image: str) -> str:
    """A compose file: the same homes, mounted, with addresses that hold between containers."""
    lines = [
        "# The nodes of this folder as containers: docker compose up",
        "# They run as whoever wrote this, since nobody else may read the keys.",
        "services:",
    ]
    for node in nodes:
        others = [other for other in nodes if other is not node]
        command: list[str] = ["potd", "start", "--home", "/data", "--listen", f"/ip4/0.0.0.0/tcp/{CONTAINER_PORT}"]
        for other in others:
            command += ["--bootstrap", f"/dns4/{other.name}/tcp/{CONTAINER_PORT}/p2p/{other.peer_id}"]
        lines += [
            f"  {node.name}:",
            f"    image: {image}",
            f'    user: "{os.getuid()}:{os.getgid()}"',
            "    volumes:",
            f"      - ./{node.name}:/data",
            "    ports:",
            f'      - "127.0.0.1:{node.port}:{CONTAINER_PORT}"',
            "    stop_grace_period: 10s",
            "    command:",
            *(f'      - "{word}"' for word in command),
        ]
    return "\n".join(lines) + "\n"


def _run(homes: list[Home]) -> None:
    """Run a daemon in every home until Ctrl-C or SIGTERM, or until the last has ended."""
    stopping = threading.Event()
    handlers = {one: signal.signal(one, lambda *_: stopping.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Fleet(homes, quiet=False) as fleet:
            for home in homes:
                fleet.start(home)
                click.echo(f"{home.path.name}: process {fleet.pid(home)}, log in {home.log}")
            click.echo("Ctrl-C stops them all")
            while fleet.running() and not stopping.wait(POLL_S):
                for home, status in fleet.ended():
                    click.echo(f"{home.path.name} ended with status {status}")
            if not stopping.is_set():
                raise Failure(Exit.CONFIGURATION, "every node ended by itself; their logs say why")
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
