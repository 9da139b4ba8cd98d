"""A day of a large network: miners come and go, members lie, customers pay each other, and how often all went well.

A minute is good if every probe offered in it was committed in time, and no round was over its deadline by too much.
"""

from __future__ import annotations

import gc
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potd.ledger.entries import Phase
from potd.node import events as ev
from potd.simulation.adversary import LIES, MINERS_LIES, Adversary
from potd.simulation.checks import Violation
from potd.simulation.crowd import PAYLOAD_BYTES, VALIDATOR_TICK_MS, Crowd
from potd.simulation.memo import shared
from potd.simulation.network import Place
from potd.simulation.run import SCRATCH
from potd.simulation.schedule import Liar
from potd.wire.envelope import Signed
from potd.wire.ids import short

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
WARM_UP_MS = 30_000  # until all have met and the task is known
PROBE_LIMIT_MS = 10_000
OVERRUN_PERCENT = 120
CHURN_PERCENT = 10  # of the miners, in an hour
AWAY_MS = (5 * MINUTE_MS, 40 * MINUTE_MS)
PATIENCE_TICKS = 4_800 // VALIDATOR_TICK_MS
REVEAL_TICKS = MINUTE_MS // VALIDATOR_TICK_MS
DEADLINE_TICKS = 270_000 // VALIDATOR_TICK_MS
FOLLOWED = "have left for higher views"  # the reason of who joins others
COLLECT_AFTER = (100_000, 20, 1_000)  # objects made, and younger generations looked at
LIARS_AMONG_MINERS = 10  # one in so many


@dataclass(frozen=True)
class Shape:
    """What is run."""

    seed: int = 0
    hours: float = 24
    validators: int = 31
    miners: int = 1_000
    probe_seconds: int = 30


@dataclass
class Round:
    """One round as the ledger shows it, in milliseconds."""

    number: int
    opened: int
    deadline: int
    sealed: int | None = None
    ended: int | None = None
    counted: int = 0

    def late_from(self) -> int:
        """When it is over its deadline by too much: that of the commitments, and the time to reveal."""
        return self.opened + (self.deadline + REVEAL_TICKS * VALIDATOR_TICK_MS) * OVERRUN_PERCENT // 100


@dataclass
class Findings:
    """What was seen while it ran."""

    offered: dict[bytes, int] = field(default_factory=dict)  # probes not committed yet, by signature, since when
    executed: Counter[bytes] = field(default_factory=Counter)  # at how many honest validators
    latencies: list[tuple[int, int]] = field(default_factory=list)  # offered at, taken
    rounds: list[Round] = field(default_factory=list)
    views: dict[int, int] = field(default_factory=dict)  # entered by anybody honest, and when
    given_up: dict[int, Counter[str]] = field(default_factory=dict)  # by view, and why: by how many honest
    killed: int = 0


class Thousand:
    """One run."""

    def __init__(
        self, shape: Shape, folder: Path, say: Callable[[str], None], keep: Callable[[dict[str, Any]], None]
    ) -> None:
        self.shape = shape
        self.found = Findings()
        self._say = say
        self._keep = keep
        self._began = time.monotonic()
        self.crowd = Crowd(
            folder,
            shape.validators,
            shape.miners,
            shape.seed,
            patience_ticks=PATIENCE_TICKS,
            reveal_ticks=REVEAL_TICKS,
            lapses_max=255,
        )
        self._chance = self.crowd.random
        self._needed = (shape.validators - 1) // 3 + 1  # answers that a client waits for [4.1]
        self._from = self._until = 0

    def report(self) -> dict[str, Any]:
        """Run it, and say what was found."""
        violation = ""
        try:
            self._run()
            self.crowd.check()
        except Violation as error:
            violation = f"at {self.crowd.now} ms: {error}"
        return self._findings(violation)

    def _run(self) -> None:
        crowd, shape = self.crowd, self.shape
        self._pass(WARM_UP_MS)
        liars = self._liars()
        lying = {one.who for one in liars}
        honest = [key for index, key in enumerate(crowd.validators) if index not in lying]
        self._honest = frozenset(honest)
        crowd.watchers.append(self._watch)
        held = set(crowd.members[honest[0]].disk.held)
        crowd.submit(
            rounds=2**31,
            by=honest[0],
            miners_min=max(2, shape.miners // 2),
            pay_micro=100,
            deadline_ticks_min=DEADLINE_TICKS,
            deadline_ticks_max=DEADLINE_TICKS,
        )
        for ref in sorted(crowd.members[honest[0]].disk.held - held):
            crowd.has(honest[0], ref)
        Adversary(crowd, liars)
        self._from, self._until = crowd.now, crowd.now + int(shape.hours * HOUR_MS)
        self._probe(honest)
        self._churn()
        self._look()
        self._pass(self._until - crowd.now)

    def _pass(self, ms: int) -> None:
        clock = self.crowd.clock
        end = clock.now + ms
        clock.later(ms, lambda: None)
        step = clock.step
        while clock.now < end:
            step()

    def _liars(self) -> tuple[Liar, ...]:
        """f of the validators, and a part of the miners."""
        shape, chance = self.shape, self._chance
        found = []
        for who in sorted(chance.sample(range(shape.validators), (shape.validators - 1) // 3)):
            found.append(Liar(who, tuple(chance.sample(sorted(LIES), chance.choice((1, 1, 2, 3))))))
        miners = range(shape.validators, shape.validators + shape.miners)
        for who in sorted(chance.sample(miners, shape.miners // LIARS_AMONG_MINERS)):
            found.append(Liar(who, (chance.choice(sorted(MINERS_LIES)),)))
        return tuple(found)

    # What happens

    def _probe(self, honest: list[Place]) -> None:
        """A customer of some honest validator pays somebody, now and again."""
        place = self._chance.choice(honest)
        self.crowd.offer(place)
        self.found.offered[self.crowd.members[place].offered[-1].signature] = self.crowd.now
        if self.crowd.now + self.shape.probe_seconds * 1_000 < self._until:
            self.crowd.clock.later(self.shape.probe_seconds * 1_000, lambda: self._probe(honest))

    def _churn(self) -> None:
        """A miner dies, and starts again from its disk later."""
        crowd, chance = self.crowd, self._chance
        crowd.clock.later(int(chance.expovariate(self.shape.miners * CHURN_PERCENT / 100 / HOUR_MS)), self._churn)
        place = chance.choice(crowd.keys[self.shape.validators :])
        if (self.found.killed and crowd.members[place].node is not None) or not self.found.killed:
            self.found.killed += 1
            crowd.stop(place)
            crowd.clock.later(chance.randint(*AWAY_MS), lambda: crowd.start(place))

    def _look(self) -> None:
        """Tell how far it has come, every tenth of an hour; show what was found so far, every hour."""
        crowd = self.crowd
        crowd.clock.later(HOUR_MS // 10, self._look)
        if (crowd.now - self._from) % HOUR_MS == 0:
            settle()
            self._keep(self._findings(""))
        last = self.found.rounds[-1].number if self.found.rounds else "-"
        wall, processor = time.monotonic() - self._began, time.process_time()
        self._say(
            f"{(crowd.now - self._from) / HOUR_MS:.1f} h, {wall:.0f} s ({processor:.0f} of the processor), "
            f"{memory_mb()} MB, {resident_mb()} now: height {crowd.checks.ledger.height}, round {last}, "
            f"{crowd.steps} steps, "
            f"{len(self.found.offered)} probes under way, view {max(self.found.views, default=0)}, "
            f"bad minutes {sorted(self._bad_minutes())}"
        )

    # What is seen

    def _watch(self, place: Place, effect: ev.Effect) -> None:
        if place not in self._honest:
            return
        match effect:
            case ev.Store(header, batch, _):
                if header.height == self.crowd.checks.ledger.height:
                    self._follow()
                for record in batch.records:
                    if isinstance(record, Signed) and record.signature in self.found.offered:
                        self._executed(record.signature)
            case ev.Log(_, text) if text.startswith("entered view "):
                number, _, _ = text.removeprefix("entered view ").partition(": ")
                self.found.views.setdefault(int(number), self.crowd.now)
            case ev.Log(_, text) if text.startswith("gave up view "):
                number, _, rest = text.removeprefix("gave up view ").partition(" ")
                self.found.given_up.setdefault(int(number), Counter())[rest] += 1
                if self.found.given_up[int(number)][rest] == 1 and FOLLOWED not in rest:
                    self._say(f"{self.crowd.now} ms: view {number} is given up {rest}")
            case _:
                pass

    def _executed(self, probe: bytes) -> None:
        self.found.executed[probe] += 1
        if self.found.executed[probe] == self._needed:
            since = self.found.offered.pop(probe)
            self.found.latencies.append((since, self.crowd.now - since))
            del self.found.executed[probe]

    def _follow(self) -> None:
        """What the newest height has made of the round."""
        crowd = self.crowd
        task = next(iter(crowd.checks.ledger.tasks()), None)
        if task is None or task.phase not in (Phase.TRAINING, Phase.REVEALING):
            return
        rounds = self.found.rounds
        if not rounds or rounds[-1].number != task.round:
            if rounds:
                rounds[-1].ended = crowd.now
            rounds.append(Round(task.round, crowd.now, task.deadline_ticks * VALIDATOR_TICK_MS))
        if task.phase == Phase.REVEALING and rounds[-1].sealed is None:
            rounds[-1].sealed = crowd.now
            rounds[-1].counted = len(task.sealed)

    # What was found

    def _bad_minutes(self) -> dict[int, str]:
        """By number; the last one may not have been over."""
        bad: dict[int, str] = {}
        late = [(since, f"a probe took {taken} ms") for since, taken in self.found.latencies if taken > PROBE_LIMIT_MS]
        late += [(since, "a probe was not committed") for since in self.found.offered.values()]
        for since, reason in late:
            if since + PROBE_LIMIT_MS <= self.crowd.now:
                bad.setdefault((since - self._from) // MINUTE_MS, reason)
        for one in self.found.rounds:
            ended = one.ended if one.ended is not None else self.crowd.now
            for at in range(one.late_from(), ended, MINUTE_MS):
                bad.setdefault((at - self._from) // MINUTE_MS, f"round {one.number} was over its deadline")
        return bad

    def _why(self, view: int) -> str:
        """Why a view was given up, by how many: by those who did not only follow others, if an honest one was first."""
        reasons = self.found.given_up[view]
        own = {reason: count for reason, count in reasons.items() if FOLLOWED not in reason} or reasons
        return f"view {view} {max(own, key=lambda one: (own[one], one))} ({max(own.values())})"

    def _findings(self, violation: str) -> dict[str, Any]:
        crowd, shape, found = self.crowd, self.shape, self.found
        minutes = max(1, (crowd.now - self._from) // MINUTE_MS)
        bad = self._bad_minutes()
        taken = sorted(one for _, one in found.latencies)
        ended = [one for one in found.rounds if one.ended is not None]
        lengths = sorted((one.ended or 0) - one.opened for one in ended)
        size, rounds = shape.validators + shape.miners, max(1, len(ended))
        lines = crowd.lines
        bonds = {seat.key: seat.bond_micro for seat in crowd.checks.ledger.seats().seats}
        task = next(iter(crowd.checks.ledger.tasks()), None)

        def among(counter: Counter[Place], places: tuple[Place, ...]) -> int:
            return sum(counter[place] for place in places) // max(1, len(places)) // rounds

        mesh = sum(crowd.gossiped.values()) * 8 // rounds
        mesh_bytes = sum(crowd.gossiped_bytes.values()) * 8 // rounds
        miners = crowd.keys[shape.validators :]
        return {
            "profile": "thousand",
            "seed": shape.seed,
            "validators": shape.validators,
            "miners": shape.miners,
            "liars": {"validators": (shape.validators - 1) // 3, "miners": shape.miners // LIARS_AMONG_MINERS},
            "hours": round((crowd.now - self._from) / HOUR_MS, 3),
            "hours_asked": shape.hours,
            "violation": violation,
            "forks": 0 if not violation else None,
            "uptime_percent": round(100 * (minutes - len(bad)) / minutes, 3),
            "bad_minutes": {str(minute): reason for minute, reason in sorted(bad.items())},
            "probes": len(found.latencies) + len(found.offered),
            "probes_late": sum(1 for one in taken if one > PROBE_LIMIT_MS) + len(found.offered),
            "commit_ms": {"p50": _part(taken, 50), "p99": _part(taken, 99), "max": taken[-1] if taken else 0},
            "heights": crowd.checks.ledger.height,
            "view_changes": len(found.views),
            "given_up": [self._why(view) for view in sorted(found.given_up)],
            "rounds": len(ended),
            "rounds_counted": task.counted_rounds if task is not None else 0,
            "round_ms": {"p50": _part(lengths, 50), "max": lengths[-1] if lengths else 0},
            "sealed": {
                "least": min((one.counted for one in ended), default=0),
                "most": max((one.counted for one in ended), default=0),
            },
            "miners_killed": found.killed,
            "bonds_lost": [
                short(key) for key in sorted(self._honest) if bonds.get(key) != crowd.genesis.parameters.seat_bond_micro
            ],
            "frames_per_validator_round": among(lines.messages, crowd.validators),
            "frame_bytes_per_validator_round": among(lines.frame_bytes, crowd.validators),
            "fetched_bytes_from_validator_round": among(lines.fetched_bytes, crowd.validators),
            "frames_per_miner_round": among(lines.messages, miners),
            "fetched_bytes_from_miner_round": among(lines.fetched_bytes, miners),
            "gossip_sent_per_node_round": mesh,
            "gossip_bytes_sent_per_node_round": mesh_bytes,
            "payload_bytes": PAYLOAD_BYTES,
            "cpu_ms_per_validator_round": round(1_000 * crowd.cpu_seconds / shape.validators / rounds, 1),
            "steps": crowd.steps,
            "trace": crowd.trace(),
            "cpu_seconds": round(time.process_time()),
            "wall_seconds": round(time.monotonic() - self._began, 1),
            "memory_mb": memory_mb(),
            "nodes": size,
        }


def _part(ordered: list[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0


def memory_mb() -> int:
    """The most that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def resident_mb() -> int:
    """What it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def settle() -> None:
    """Have the collector look at what is here now, and from then on at what comes later: a world lives long, and to go
    through all of it again and again takes a fifth of the time."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def seldom_collected() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def unkept(_: dict[str, Any]) -> None:
    pass


def run_thousand(
    shape: Shape, say: Callable[[str], None], keep: Callable[[dict[str, Any]], None] = unkept
) -> dict[str, Any]:
    """`say` is told how it goes; `keep` is given what was found so far, every hour of the network."""
    scratch = SCRATCH if SCRATCH.is_dir() else None
    folder = tempfile.TemporaryDirectory(dir=scratch, prefix="potd-simulation-")
    with folder as name, shared(), seldom_collected():
        return Thousand(shape, Path(name), say, keep).report()


def good(found: dict[str, Any]) -> bool:
    """Whether what was promised was kept."""
    return not found["violation"] and not found["bonds_lost"] and found["uptime_percent"] >= 99.9


def table(found: dict[str, Any]) -> list[str]:
    """For people."""
    return [f"{name:<40} {value}" for name, value in found.items()]
