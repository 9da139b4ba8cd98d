"""The whole story on one machine: four daemons train a model, their primary is killed, and nobody minds."""

from __future__ import annotations

import base64
import json
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from potd.cli.control import ask, stream
from potd.cli.devnet import write_devnet
from potd.cli.exits import Exit, Failure
from potd.cli.fleet import Fleet, free_ports
from potd.cli.picture import chart, draw
from potd.cli.text import amount, duration, number, table
from potd.config.genesis import read_genesis
from potd.config.home import Home, public_key, read_key
from potd.wire.codec import encode
from potd.wire.genesis import genesis_digest
from potd.wire.ids import account_id
from potd.wire.rounds import Outcome

if TYPE_CHECKING:
    from potd.node.history import History, Round
    from potd.trainer.task import Prepared

NODES = 4
KILL_AT = 0.4  # of the rounds
DEAD_ROUNDS = 15  # that the others commit before the killed one is started again
START_S = 90.0
FINISH_S = 60.0
UNITS_PAID = 16
BLOCKS_BYTES = 4 << 20  # read from the journal at a time
MARK = "potd-demo"  # a file that tells a folder of ours from somebody else's


@dataclass
class Progress:
    """What was seen while the network ran."""

    rounds_ms: list[float]
    status_ms: list[float]
    killed: Home | None = None
    killed_round: int = 0
    restarted_round: int = 0


@click.command()
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("potd-demo"),
    show_default=True,
    help="Where homes, logs, the model and the picture go; a former demo's folder is replaced.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here.")
def demo(folder: Path, json_file: Path | None) -> None:
    """Train the digits with four daemons on this machine, and kill their primary midway.

    Each of four processes is validator and miner. At the end the agreed model stands beside its centralised twin:
    plain torch in one process, on the same samples from the same initial weights.

    \b
    Examples:
        potd demo
        potd demo --out /tmp/demo --json /tmp/demo.json
    """
    began = time.monotonic()
    _clear(folder)
    prepared = _task()
    homes = write_devnet(folder, NODES, NODES, free_ports(NODES))
    with Fleet(homes) as fleet:
        for home in homes:
            fleet.start(home)
        click.echo(f"four daemons on loopback, each validator and miner; homes and logs in {folder}")
        fleet.await_all(lambda one: one["peers"] == NODES - 1, START_S, "the daemons to know each other")
        task = _submit(homes[0], prepared)
        click.echo(f"task {task[:8]} is open: {prepared.spec.name}, {prepared.spec.rounds} rounds")
        seen = _follow(fleet, task, prepared.spec.rounds)
        ended = fleet.await_all(lambda one: _finished(one, task), FINISH_S, "every daemon to hold the last model")
        _fetch(homes[0], task, folder / "model.safetensors")
        stop_s = fleet.stop()
    history = _replay(homes[0], prepared, task)
    figures = _figures(homes, history, ended, seen, folder)
    figures["stop_seconds"] = round(stop_s, 2)
    figures["wall_seconds"] = round(time.monotonic() - began, 1)
    _report(homes, history, figures, seen, folder)
    if json_file is not None:
        json_file.write_text(json.dumps({key: value for key, value in figures.items() if key[0] != "_"}, indent=2))


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise Failure(Exit.CONFIGURATION, f"{folder} is not empty and not of a former demo; choose another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("Made by `potd demo`, which replaces this folder when it is run again.\n")


def _task() -> Prepared:
    from potd.trainer.task import read_task

    with _task_file() as path:
        return read_task(path)


def _task_file() -> AbstractContextManager[Path]:
    return resources.as_file(resources.files("potd.trainer.digits").joinpath("demo.toml"))


def _submit(home: Home, prepared: Prepared) -> str:
    from potd.trainer.task import publish

    spec = prepared.spec
    folder = home.path / "submitted"
    folder.mkdir()
    answer = ask(
        home.path,
        "submit",
        patience_s=60.0,
        spec=base64.b64encode(encode(spec)).decode(),
        escrow_micro=spec.pay_micro * spec.unit_batch * UNITS_PAID * spec.rounds,
        blobs=[str(path.absolute()) for path in publish(prepared, folder)],
    )
    return str(answer["task"])


def _key(home: Home) -> str:
    return public_key(read_key(home.key)).hex()


def _follow(fleet: Fleet, task: str, rounds: int) -> Progress:
    """Show every round, kill the primary at its time, and start it again at its time."""
    seen = Progress([], [])
    watched = fleet.homes[-1]
    last = -1
    since = time.monotonic()
    done = False
    while not done:
        for answer in stream(watched.path, "watch", task=task):
            fleet.check()
            done = bool(answer.get("done"))
            if answer["round"] != last:
                now = time.monotonic()
                if last >= 0:
                    seen.rounds_ms += [1000 * (now - since) / (answer["round"] - last)] * (answer["round"] - last)
                last, since = answer["round"], now
            _show(answer, rounds)
            asked = time.monotonic()
            fleet.status(watched)
            seen.status_ms.append(1000 * (time.monotonic() - asked))
            if seen.killed is None and last >= KILL_AT * rounds:
                status = fleet.status(watched) or {}
                primary = next((one for one in fleet.homes if _key(one) == status.get("primary")), None)
                if primary is None:
                    continue  # between two views; the next round will tell
                fleet.kill(primary)
                seen.killed, seen.killed_round = primary, last
                _say(f"round {last}: killed the primary, {primary.path.name}, with SIGKILL")
                if primary == watched:
                    watched = next(one for one in fleet.homes if one != primary)
                    break
            if seen.killed is not None and not seen.restarted_round and last >= seen.killed_round + DEAD_ROUNDS:
                fleet.start(seen.killed)
                seen.restarted_round = last
                _say(f"round {last}: started {seen.killed.path.name} again")
    return seen


def _say(text: str) -> None:
    click.echo(("\r\x1b[K" if sys.stdout.isatty() else "") + text)


def _show(answer: dict[str, Any], rounds: int) -> None:
    done = answer["round"]
    filled = 30 * done // rounds
    mine = answer.get("mine") or {}
    line = (
        f"[{'#' * filled}{'.' * (30 - filled)}] round {done}/{rounds}"
        f"  loss {number(answer.get('loss'))}  accuracy {number(answer.get('accuracy'))}"
        f"  view {answer.get('view', '-')}  miners {answer['miners']}"
        f"  earned {amount(mine.get('earned_micro', 0))}"
    )
    if sys.stdout.isatty():
        click.echo(f"\r\x1b[K{line}", nl=bool(answer.get("done")))
    elif done % 10 == 0 or answer.get("done"):
        click.echo(line)


def _of(status: dict[str, Any], task: str) -> dict[str, Any]:
    return next((one for one in status["tasks"] if one["task"] == task), {})


def _finished(status: dict[str, Any], task: str) -> bool:
    """Done, and the last model scored."""
    own = _of(status, task)
    return own.get("phase") == "done" and own.get("measured_round") == own["round"]


def _fetch(home: Home, task: str, output: Path) -> None:
    from potd.cli.models import write_model

    write_model(ask(home.path, "fetch", patience_s=60.0, task=task), output)


def _replay(home: Home, prepared: Prepared, task: str) -> History:
    """Everything that was agreed on, worked out again from the chain of one node."""
    from potd.node.history import replay
    from potd.runtime.journal import open_journal

    genesis = read_genesis(home.genesis)
    sizes = [shard.samples for shard in prepared.manifest.training]
    with open_journal(home.journal, genesis_digest(genesis), bytes.fromhex(_key(home))) as journal:
        if journal.begins():
            why = f"its history begins at height {journal.begins()}, so the rounds before cannot be told from it"
            raise Failure(Exit.CONFIGURATION, f"{home.path}: {why}")
        blocks = list(journal.blocks(1, BLOCKS_BYTES))
        while more := journal.blocks(len(blocks) + 1, BLOCKS_BYTES):
            blocks += more
    return replay(genesis, blocks, bytes.fromhex(task), sizes)


def _figures(
    homes: tuple[Home, ...],
    history: History,
    ended: list[dict[str, Any]],
    seen: Progress,
    folder: Path,
) -> dict[str, Any]:
    task = ended[0]["tasks"][0]["task"]
    counted = [one for one in history.rounds if one.counted]
    compared = _compare(counted, folder / "model.safetensors")
    names = {status["key"]: home.path.name for home in homes for status in ended if status["key"] == _key(home)}
    return {
        "accuracy": round(compared["accuracy"], 4),
        "agreed_accuracy": round(_of(ended[0], task)["accuracy"], 4),
        "twin_accuracy": round(compared["twin_accuracy"], 4),
        "rounds": len(counted),
        "lapsed": len(history.rounds) - len(counted),
        "view_changes": max(status["view"] for status in ended),
        "model_digests": {names[status["key"]]: _of(status, task)["model"] for status in ended},
        "pay": {names[status["key"]]: status["earned_micro"] for status in ended},
        "restarted": seen.killed.path.name if seen.killed is not None else None,
        "restarted_counted": _counted_after(history, seen),
        "supply_conserved": history.supply_conserved,
        "round_split_ms": _middle([status["round_ms"] for status in ended]),
        "cpu_ms_a_round": _cpu(ended, len(counted)),
        "status_ms_p50": round(statistics.median(seen.status_ms), 1),
        "status_ms_max": round(max(seen.status_ms), 1),
        "round_ms_p50": round(statistics.median(seen.rounds_ms), 1),
        "_twin_losses": compared["twin_losses"],
    }


def _compare(counted: list[Round], model: Path) -> dict[str, Any]:
    """The fetched model's score, and the twin's, from a process that loads torch."""
    rounds = [
        (one.number, [(part.units, part.samples) for part in one.contributions if part.outcome == Outcome.COUNTED])
        for one in counted
    ]
    with _task_file() as path:
        command = [sys.executable, "-m", "potd.trainer.compare", str(path), str(model)]
        done = subprocess.run(command, input=json.dumps(rounds), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(Exit.CONFIGURATION, "the comparison with the twin failed; its error stands above")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _middle(splits: list[dict[str, float]]) -> dict[str, float]:
    """The median over the nodes, by step."""
    return {
        step: round(statistics.median(one[step] for one in splits if step in one), 1)
        for step in max(splits, key=len, default={})
    }


def _cpu(ended: list[dict[str, Any]], rounds: int) -> dict[str, float]:
    """CPU milliseconds a round and node, start-up included, of those who ran from the first round to the last."""
    longest = max(one["uptime_s"] for one in ended)
    whole = [one["cpu"] for one in ended if one["uptime_s"] > 0.9 * longest]
    return {
        name.removesuffix("_s"): round(1000 * statistics.mean(one[name] or 0.0 for one in whole) / rounds, 1)
        for name in whole[0]
    }


def _counted_after(history: History, seen: Progress) -> int:
    """In how many rounds the killed node's work counted after it had been started again."""
    if seen.killed is None:
        return 0
    account = account_id(bytes.fromhex(_key(seen.killed)))
    later = [one for one in history.rounds if one.number >= seen.restarted_round]
    return sum(
        1
        for one in later
        if any(part.miner == account and part.outcome == Outcome.COUNTED for part in one.contributions)
    )


def _report(homes: tuple[Home, ...], history: History, figures: dict[str, Any], seen: Progress, folder: Path) -> None:
    counted = [one for one in history.rounds if one.counted]
    network = [(float(one.number), loss) for one in counted if (loss := one.loss()) is not None]
    twin = [(float(one.number), loss) for one, loss in zip(counted, figures["_twin_losses"], strict=True)]
    curves = {"network": network, "twin": twin}
    marks = {}
    if seen.killed is not None:
        marks = {float(seen.killed_round): "primary killed", float(seen.restarted_round): "started again"}
    click.echo()
    click.echo(chart(curves, marks))
    picture = folder / "loss.png"
    title = f"Digits: four validators and miners (accuracy {figures['accuracy']}) and their twin"
    try:
        draw(picture, title, curves, marks)
    except ImportError:
        click.echo("no picture: matplotlib is not installed (pip install 'potd[plot]')")
    click.echo()
    digests = figures["model_digests"]
    rows = [(home.path.name, amount(figures["pay"][home.path.name]), digests[home.path.name][:16]) for home in homes]
    click.echo(table(("node", "earned by mining", "model"), rows))
    click.echo()
    click.echo(f"accuracy on the held-out fifth   {figures['accuracy']} (twin {figures['twin_accuracy']})")
    click.echo(f"committed rounds                 {figures['rounds']}, {figures['lapsed']} lapsed")
    click.echo(f"view changes                     {figures['view_changes']}")
    click.echo(f"rounds of the restarted node     {figures['restarted_counted']} counted after its return")
    click.echo(f"median round                     {figures['round_ms_p50']:.0f} ms")
    steps = ", ".join(f"{step} {ms:.0f}" for step, ms in figures["round_split_ms"].items() if step != "round")
    click.echo(f"  of which, in ms                {steps}")
    click.echo(
        f"status answered, ms              {figures['status_ms_p50']:.0f}, at most {figures['status_ms_max']:.0f}"
    )
    cpu = ", ".join(f"{name} {ms:.0f}" for name, ms in figures["cpu_ms_a_round"].items() if name != "loop")
    click.echo(f"CPU ms a round and node          {cpu}")
    click.echo(f"supply conserved                 {'yes, at every height' if figures['supply_conserved'] else 'NO'}")
    click.echo(f"model                            {folder / 'model.safetensors'}")
    if picture.exists():
        click.echo(f"picture                          {picture}")
    click.echo(f"took                             {duration(figures['wall_seconds'])}")
