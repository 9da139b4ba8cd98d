"""One schedule from beginning to end: what befalls whom, what was shown that none may show, and whether it went on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

from potd.node.tasks import ENROL_TICKS
from potd.rounds.validator import SAY_AGAIN_TICKS
from potd.simulation.adversary import TWINS, Adversary
from potd.simulation.checks import Violation
from potd.simulation.disk import Disk
from potd.simulation.memo import shared
from potd.simulation.network import Place
from potd.simulation.operators import LOOK_MS as ASKED_MS
from potd.simulation.operators import Operators
from potd.simulation.profiles import draw
from potd.simulation.schedule import (
    Backup,
    Crash,
    Cut,
    Elect,
    Event,
    Heal,
    Index,
    Join,
    Leave,
    Lose,
    Offer,
    Oppose,
    Part,
    Resign,
    Restart,
    Restore,
    Rotate,
    Schedule,
    Skew,
    Slow,
)
from potd.simulation.world import World
from potd.wire.genesis import TICK_MS
from potd.wire.ids import account_id, short

ROUNDS = 2  # that the task must move on after healing
LOOK_MS = 50  # how often a healed network is asked whether it has progressed
LAPSES_MAX = 255  # a task that sleeps is woken less and less often; here it never does
SCRATCH = Path("/dev/shm")  # for blobs, where a machine has it


@dataclass(frozen=True)
class Outcome:
    """What a run has shown. `violation` and `stall` are empty when all went well."""

    seed: int
    profile: str
    violation: str
    stall: str
    steps: int  # inputs that nodes took
    trace: str  # names all that the nodes ordered, and when
    virtual_ms: int
    healed_ms: int  # from healing until all had moved on
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.violation and not self.stall


def run_seed(seed: int, profile: str) -> Outcome:
    return run(draw(seed, profile))


def run(schedule: Schedule, listen: Callable[[World], None] | None = None) -> Outcome:
    """`listen` is given the world before anything happens in it."""
    scratch = SCRATCH if SCRATCH.is_dir() else None
    with tempfile.TemporaryDirectory(dir=scratch, prefix="potd-simulation-") as folder, shared(schedule.snapshot_lag):
        return Run(schedule, Path(folder), listen).outcome()


class Run:
    """A world, and the schedule that it goes through."""

    def __init__(self, schedule: Schedule, folder: Path, listen: Callable[[World], None] | None) -> None:
        self._schedule = schedule
        self.world = World(
            folder,
            schedule.validators,
            schedule.seed,
            schedule.patience_ticks,
            candidates=schedule.candidates,
            miners=schedule.miners,
            idle=schedule.idle,
            absent=schedule.absent,
            twins=[one.who for one in schedule.liars if TWINS in one.lies],
            heirs=[one.who for one in schedule.events if isinstance(one, Rotate)],
            window_heights=schedule.window_heights,
            reveal_ticks=schedule.reveal_ticks,
            lapses_max=LAPSES_MAX,
        )
        self._lying = {one.who for one in schedule.liars}
        self._gone = set(range(schedule.size - schedule.absent, schedule.size))  # those who are not to be there
        self._copies: dict[Place, Disk] = {}
        voters = tuple(who for who in range(schedule.validators + schedule.candidates) if who not in self._lying)
        self._operators = Operators(self.world, self._place, voters)
        self._healed_ms = 0
        self._settled = 0  # a height by which all that was offered is executed, once there is one
        for member in self.world.members.values():
            member.disk_ms = schedule.disk_ms
        if listen is not None:
            listen(self.world)

    def outcome(self) -> Outcome:
        violation = stall = ""
        try:
            self._trouble()
            stall = self._recovery()
        except Violation as error:
            violation = f"at {self.world.now} ms: {error}"
        world = self.world
        counters = {
            "messages": world.links.carried,
            "bytes": world.links.carried_bytes,
            "lost": world.links.lost,
            "dropped": world.links.dropped,
            "heights": world.checks.ledger.height,
            "lives": sum((member.life + 1) // 2 for member in world.members.values()),
            "views": max(self._views(), default=0),
            "rounds": max(map(world.round, world.places)),
            "eras": world.checks.eras,
        }
        schedule = self._schedule
        return Outcome(
            schedule.seed,
            schedule.profile,
            violation,
            stall,
            world.steps,
            world.trace(),
            world.now,
            world.now - self._healed_ms if self._healed_ms else 0,
            counters,
        )

    def _views(self) -> list[int]:
        nodes = [self.world.members[place].node for place in self.world.checks.honest]
        return [node.replica.view for node in nodes if node is not None and node.replica is not None]

    # Trouble

    def _trouble(self) -> None:
        """From the first task until all heals."""
        world, schedule = self.world, self._schedule
        first = next(one for one in range(schedule.validators) if one not in self._lying)
        if not schedule.quiet:
            world.submit(rounds=2**31, by=world.keys[first], deadline_ticks_max=schedule.deadline_ticks)
        Adversary(world, schedule.liars)
        world.links.weather = schedule.weather
        for event in schedule.events:
            world.clock.later(event.at_ms, lambda event=event: self._happen(event))  # type: ignore[misc]  # binds the loop's value
        self._pass(schedule.heals_ms)

    def _pass(self, ms: int) -> None:
        """Let so much time pass."""
        world = self.world
        end = world.now + ms
        world.clock.later(ms, lambda: None)
        while world.now < end:
            world.clock.step()

    def _place(self, who: Index) -> Place:
        """Where this node stands now: where its next key is once that has been at work."""
        key = self.world.keys[who]
        heir = self.world.heirs.get(key)
        return heir if heir is not None and self.world.members[heir].life else key

    def _places(self, *nodes: Index) -> list[Place]:
        """Of these nodes, whichever key is at work."""
        keys = [self.world.keys[who] for who in nodes]
        return keys + [self.world.heirs[key] for key in keys if key in self.world.heirs]

    def _happen(self, event: Event) -> None:
        world = self.world
        world.chronicle(str(event))
        match event:
            case Elect() | Resign() | Oppose() | Rotate():
                self._operators.wishes.append(event)
            case Crash(_, who, effects):
                world.doom(self._place(who), effects)
            case Restart(_, who):
                world.members[self._place(who)].assassin = None
                if who not in self._gone:
                    self._start(self._place(who))
            case Backup(_, who):
                self._copies[self._place(who)] = world.members[self._place(who)].disk.copy()
            case Restore(_, who):
                place = self._place(who)
                world.members[place].assassin = None
                if world.members[place].node is not None:
                    world.stop(place)
                world.members[place].disk = self._copies.pop(place, Disk())
                world.start(place)
            case Join(_, who):
                if world.members[self._place(who)].node is None:
                    self._gone.discard(who)
                    world.members[self._place(who)].disk = Disk()
                    world.start(self._place(who))
            case Leave(_, who):
                self._gone.add(who)
                if world.members[self._place(who)].node is not None:
                    world.stop(self._place(who))
            case Cut(_, sender, to):
                world.links.cut |= {(one, other) for one in self._places(sender) for other in self._places(to)}
            case Part(_, side, astride):
                between = self._places(*astride)
                here = self._places(*(who for who in side if who not in astride))
                world.links.part(here, [place for place in world.places if place not in (*here, *between)])
            case Heal():
                world.links.heal()
            case Lose(_, kind, ppm, to):
                world.links.losing |= {(kind, place): ppm for place in self._places(*to)}
            case Slow(_, who, ms):
                world.links.slow_ms |= dict.fromkeys(self._places(who), ms)
            case Skew(_, who, tick_ms):
                world.members[self._place(who)].tick_ms = tick_ms
            case Offer(_, who):
                world.offer(self._place(who))
            case _:
                assert_never(event)

    def _start(self, place: Place) -> None:
        if self.world.members[place].node is None:
            self.world.start(place)

    # After healing

    def _recovery(self) -> str:
        """Heal, and see whether all move on. Why not, if they do not."""
        world = self.world
        self._healed_ms = world.now
        world.chronicle("all heals")
        world.links.heal()
        world.links.slow_ms.clear()
        world.links.losing.clear()
        world.links.weather = replace(self._schedule.weather, loss_ppm=0, twice_ppm=0)
        honest = self._honest()
        for place in honest:
            world.members[place].assassin = None
            self._start(place)
        number = max(map(world.round, honest)) + (0 if self._schedule.quiet else ROUNDS)
        for place in honest:
            world.offer(place)
        bound, missing = self.bound_ticks(honest), ""
        while world.now < self._healed_ms + bound * TICK_MS:
            self._pass(LOOK_MS)
            missing = self._missing(self._honest(), number)
            if not missing:
                return ""
        return f"{bound} ticks after healing {missing}"

    def _honest(self) -> list[Place]:
        """Where those stand of whom something is expected."""
        nodes = range(self._schedule.size)
        return [self._place(who) for who in nodes if who not in self._gone and who not in self._lying]

    def _missing(self, honest: list[Place], number: int) -> str:
        """What has not been done yet, if anything: every operation offered to an honest node that runs is executed at
        all of them, in what is certified there, and the task has moved on."""
        world = self.world
        members = [world.members[place] for place in honest]
        customers = [(account_id(one.customer.key), len(one.offered)) for one in members]
        if not self._settled and all(world.checks.ledger.nonce(one) >= count for one, count in customers):
            self._settled = world.checks.ledger.height
        for place in honest:
            node = world.node(place)
            for account, count in customers:
                done = node.ledger.nonce(account)
                if done < count:
                    return f"{short(place)} has executed {done} of {count} operations of one customer"
            if node.certified < self._settled:
                return f"{short(place)} has a certificate of height {node.certified}, not {self._settled}"
            if world.round(place) < number:
                return f"{short(place)} is in round {world.round(place)}, not {number}"
        if self._operators.wishes:
            return f"it is not so that {self._operators.wishes[0]}"
        bases = sorted({world.node(place).group.base for place in honest})
        return f"eras with the bases {bases}" if len(bases) > 1 else ""

    def bound_ticks(self, honest: list[Place]) -> int:
        """How long recovery may take.

        V: the timer that runs at healing has at most P ticks left, P being the longest patience of any honest
        replica then. Up to f faulty primaries may follow each other, and each view that fails doubles the patience, of
        its own timer and of that of the view change after it: P (1 + 2 + ... + 2^(f+1)) < P 2^(f+2).
        R: then a round takes at most its deadline, the time for reveals, and a retransmission for each of seal, draft,
        update and certificate; the round that healing found under way, a miner's coming back, and ROUNDS more.
        E: for each change of the set that is not yet in force: an operator's look for each of the operations that it
        takes, the window that it is ahead, height by height, and the views of its era, whose patience begins afresh;
        twice, as it may have to wait until another change is over.
        L: messages take what the weather makes of them, and a record takes some eight of them, one after another.
        """
        schedule = self._schedule
        longest = max(
            (node.replica.patience() for node in map(self.world.node, honest) if node.replica is not None), default=0
        )
        views = longest << (schedule.faults + 2)
        a_round = schedule.deadline_ticks + schedule.reveal_ticks + 4 * SAY_AGAIN_TICKS
        weather = schedule.weather
        message_ms = weather.delay_ms[1] + weather.tail_ms + schedule.disk_ms[1]
        latency = 4 * 8 * message_ms // TICK_MS
        look = ASKED_MS // TICK_MS
        an_era = (schedule.patience_ticks << (schedule.faults + 2)) + schedule.window_heights * latency + 4 * look
        eras = 2 * len(self._operators.wishes) * an_era
        return views + eras + (ROUNDS + 1) * (a_round + latency) + ENROL_TICKS
