"""What kinds of trouble there are, and how a seed draws one run of a kind. Runs nothing.

At most f validators are faulty at a time: liars, those that have crashed and those that are cut off, together. One that
is back counts no more; but one that is back with an older home does to the end, as it may be silent so long. f is that
of the smallest set that there may be in the run, and a candidate counts as if it had its seat. Beside that links may
part the network in any way for a while: nobody is faulty for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from potd.node.snapshot import SNAPSHOT_LAG
from potd.simulation.adversary import LIES, TWINS
from potd.simulation.network import PPM, Weather
from potd.simulation.plots import KINDS, SHARP, sharp
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
    Liar,
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
    Wish,
)

OFFERS_MS = (300, 1_500)  # between two operations that customers offer
DEAD_MS = (200, 6_000)  # that one who has crashed stays so
PARTED_MS = (300, 5_000)
COPIED_MS = 6_000  # at most that a home is copied before it is lost
CRASH_EFFECTS_MAX = 120  # after which one who is to die does: any boundary of a round


LEAVING: tuple[type[Wish], ...] = (Resign, Oppose)
LOST = (*KINDS, "Certificate", "Status", "Refusal", "Report")  # kinds that may get lost
CONSPIRACY = ("two_orders", "two_votes", "two_view_changes", "two_new_views")  # to have two halves decide differently


@dataclass(frozen=True)
class Profile:
    """Rates are events in ten seconds of virtual time."""

    weathers: tuple[Weather, ...]
    patience_ticks: tuple[int, ...]
    length_ms: tuple[int, int]
    liars: bool
    crashes: int
    parts: int
    cuts: int
    losses: int  # kinds of messages that get lost for a while
    slow: int
    churn: int  # nodes without a seat that leave or join
    absent: int  # of them that are not there at first
    changes: tuple[int, ...]  # of the set of validators that are asked for in a run, drawn from these
    homes: tuple[int, ...]  # that are put back from a copy, or wiped, in a run


LAN = Weather(delay_ms=(1, 5))
WAN = Weather(delay_ms=(20, 150), tail_ms=600, tail_ppm=20_000, loss_ppm=5_000, bytes_per_ms=1_250)
ROUGH = Weather(delay_ms=(5, 60), tail_ms=1_500, tail_ppm=30_000, loss_ppm=30_000, twice_ppm=30_000)
AWFUL = Weather(
    delay_ms=(1, 200), tail_ms=2_000, tail_ppm=50_000, loss_ppm=150_000, twice_ppm=100_000, outbox_bytes=16_384
)
NARROW = Weather(delay_ms=(5, 40), loss_ppm=10_000, bytes_per_ms=20, outbox_bytes=32_768)

PROFILES: dict[str, Profile] = {
    "lan": Profile((LAN,), (30, 60), (8_000, 16_000), False, 2, 0, 0, 0, 1, 0, 0, (0,), (0,)),
    "wan": Profile((WAN,), (40, 80), (10_000, 20_000), False, 2, 1, 1, 0, 1, 0, 0, (0,), (0,)),
    "hostile": Profile(
        (LAN, ROUGH, ROUGH, WAN, AWFUL, NARROW),
        (8, 15, 25),
        (8_000, 18_000),
        True,
        6,
        5,
        4,
        2,
        2,
        1,
        0,
        (0, 0, 0, 0, 1, 2),
        (0, 0, 1),
    ),
    "churn": Profile(
        (LAN, WAN, ROUGH), (25, 40), (12_000, 24_000), False, 14, 1, 0, 0, 1, 8, 2, (1, 2, 3, 4), (0, 1, 1, 2)
    ),
}


NAMES = (*sorted(PROFILES), SHARP)


def draw(seed: int, name: str) -> Schedule:
    """The run of this seed."""
    if name == SHARP:
        return sharp(seed)
    chance, profile = Random(f"{name} {seed}"), PROFILES[name]
    validators = chance.choice((4, 4, 4, 5, 5, 6, 7, 8, 8, 9, 10))  # n = 3f + 2 has the largest quorums for its size
    miners = chance.randint(1, 3) + profile.absent
    length = chance.randint(*profile.length_ms)
    kinds = _kinds(chance, validators, chance.choice(profile.changes))
    candidates = kinds.count(Elect)
    faults = (validators - sum(kind in LEAVING for kind in kinds) - 1) // 3
    liars = (
        _liars(chance, validators, chance.choice((0, faults, faults, chance.randint(0, faults))))
        if profile.liars
        else ()
    )
    weather = chance.choice(profile.weathers)
    draft = _Draft(chance, validators, candidates, miners, length, faults - len(liars), {one.who for one in liars})
    draft.change(kinds)
    draft.fill(profile)
    return Schedule(
        seed=seed,
        profile=name,
        validators=validators,
        candidates=candidates,
        idle=chance.randint(0, validators - 2),
        miners=miners,
        absent=profile.absent,
        patience_ticks=chance.choice(profile.patience_ticks),
        window_heights=chance.choice((2, 4, 8, 16)),
        snapshot_lag=SNAPSHOT_LAG,
        reveal_ticks=chance.choice((20, 40)),
        deadline_ticks=chance.choice((40, 100)),
        quiet=False,
        weather=weather,
        disk_ms=chance.choice(((1, 2), (1, 10), (5, 40))),
        liars=liars,
        events=tuple(sorted(draft.events, key=lambda one: one.at_ms)),
        heals_ms=length,
    )


def _kinds(chance: Random, validators: int, count: int) -> list[type[Wish]]:
    """So many changes of the set, that leave it as many as it takes to bear a fault, or now and then one less."""
    kinds: list[type[Wish]] = []
    for _ in range(count):
        left = validators - sum(kind in LEAVING for kind in kinds)
        small = left <= 3 or (left == 4 and chance.randrange(4))
        kinds.append(chance.choice((Elect, Rotate) if small else (Elect, Rotate, *LEAVING)))
    return kinds


def _liars(chance: Random, validators: int, count: int) -> tuple[Liar, ...]:
    together = bool(count) and chance.randrange(2) == 0
    first = [0] if together and chance.randrange(2) else []  # a plot goes best with whoever leads from the beginning
    rest = [one for one in range(validators) if one not in first]
    found = []
    for who in sorted([*first, *chance.sample(rest, count - len(first))]):
        others = [one for one in sorted(LIES) if not together or one not in CONSPIRACY]
        lies = chance.sample(others, chance.choice((0, 0, 1) if together else (1, 1, 2, 3, 5)))
        lies += CONSPIRACY if together else ()
        found.append(Liar(who, (*lies, TWINS) if chance.randrange(6) == 0 else tuple(lies)))
    return tuple(found)


class _Draft:
    """Events as they are drawn, with who is faulty when."""

    def __init__(
        self,
        chance: Random,
        validators: int,
        candidates: int,
        miners: int,
        length_ms: int,
        spare: int,
        liars: set[Index],
    ) -> None:
        self.events: list[Event] = []
        self._chance = chance
        self._validators = validators
        self._voting = validators + candidates
        self._size = validators + candidates + miners
        self._length = length_ms
        self._spare = spare  # validators that may be faulty at a time beside the liars
        self._liars = liars
        self._honest = [one for one in range(self._voting) if one not in liars]
        self._faulty: list[tuple[int, int, Index]] = []  # from, to, who
        self._parted: list[tuple[int, int]] = []

    def change(self, kinds: list[type[Wish]]) -> None:
        """Each change in the set is of somebody else, and is asked for while there is time for it."""
        honest = [one for one in self._honest if one < self._validators]
        waiting = list(range(self._validators, self._voting))
        taken: set[Index] = set()
        for kind in kinds:
            among = waiting if kind is Elect else list(range(self._validators)) if kind is Oppose else honest
            free = [one for one in among if one not in taken]
            if free:
                who = self._chance.choice(free)
                taken.add(who)
                self.events.append(kind(self._chance.randrange(self._length * 2 // 3), who))

    def fill(self, profile: Profile) -> None:
        for _ in range(self._chance.choice(profile.homes)):
            self._put_back()
        self._often(profile.crashes, self._crash)
        self._often(profile.cuts, self._isolate)
        self._often(profile.parts, self._part)
        self._often(profile.losses, self._lose)
        self._often(profile.slow, self._slow)
        self._often(profile.churn, self._come_or_go)
        for who in range(self._size):
            self.events.append(Skew(0, who, self._chance.randint(45, 55)))
        at = 0
        while (at := at + self._chance.randint(*OFFERS_MS)) < self._length:
            self.events.append(Offer(at, self._chance.randrange(self._size)))

    def _often(self, rate: int, draw_one: Callable[[], None]) -> None:
        for _ in range(rate * self._length // 10_000):
            if self._chance.randrange(4):
                draw_one()

    def _span(self, lasting_ms: tuple[int, int]) -> tuple[int, int]:
        begins = self._chance.randrange(self._length)
        return begins, min(self._length, begins + self._chance.randint(*lasting_ms))

    def _may_fail(self, begins: int, ends: int, who: Index) -> bool:
        """Whether it can be faulty for so long without being one too many."""
        others = [one for one in self._faulty if one[0] <= ends and begins <= one[1]]
        if who in {one[2] for one in others} or len(others) >= self._spare:
            return False
        self._faulty.append((begins, ends, who))
        return True

    def _crash(self) -> None:
        begins, ends = self._span(DEAD_MS)
        who = self._chance.choice([*self._honest, *range(self._voting, self._size)])
        if who >= self._voting or self._may_fail(begins, ends, who):
            self.events += [Crash(begins, who, self._chance.randint(0, CRASH_EFFECTS_MAX)), Restart(ends, who)]

    def _put_back(self) -> None:
        """A home that was copied earlier, or never, is put back: what was said since is forgotten."""
        begins, ends = self._span(DEAD_MS)
        who = self._chance.choice(self._honest)
        if not self._may_fail(begins, self._length, who):
            return
        if self._chance.randrange(3):
            self.events.append(Backup(max(0, begins - self._chance.randint(0, COPIED_MS)), who))
        self.events += [Crash(begins, who, self._chance.randint(0, CRASH_EFFECTS_MAX)), Restore(ends, who)]

    def _isolate(self) -> None:
        """One loses what it hears, or what it says, or some of both."""
        begins, ends = self._span(PARTED_MS)
        if not self._free(begins, ends):
            return
        who = self._chance.choice(self._honest)
        if not self._may_fail(begins, ends, who):
            return
        everybody = range(self._size)
        deaf, dumb = self._chance.choice(((True, False), (False, True), (True, True)))
        for other in everybody:
            if other != who and deaf:
                self.events.append(Cut(begins, other, who))
            if other != who and dumb and self._chance.randrange(5):
                self.events.append(Cut(begins, who, other))
        self.events.append(Heal(ends))

    def _part(self) -> None:
        """Two sides of any size, once or twice otherwise before they meet again."""
        begins, ends = self._span(PARTED_MS)
        if not self._free(begins, ends):
            return
        everybody = range(self._size)
        astride = tuple(sorted(self._liars)) if self._chance.randrange(3) else ()
        for at in sorted({begins, *(self._chance.randint(begins, ends) for _ in range(self._chance.randrange(3)))}):
            half = self._chance.sample(everybody, len(everybody) // 2)
            odd = [one for one in everybody if self._chance.randrange(2)]
            self.events.append(Part(at, tuple(sorted(half if astride else odd)), astride))
        self.events.append(Heal(ends))

    def _lose(self) -> None:
        """Of one kind of message most get lost, on their way to some or to all."""
        begins, ends = self._span(PARTED_MS)
        kind, ppm = self._chance.choice(LOST), self._chance.choice((PPM // 2, PPM * 9 // 10, PPM))
        to = tuple(sorted(self._chance.sample(range(self._size), self._chance.randint(1, self._size))))
        self.events += [Lose(begins, kind, ppm, to), Lose(ends, kind, 0, to)]

    def _free(self, begins: int, ends: int) -> bool:
        """Whether no other cut would be healed by this one's end."""
        if any(one <= ends and begins <= other for one, other in self._parted):
            return False
        self._parted.append((begins, ends))
        return True

    def _slow(self) -> None:
        begins, ends = self._span(PARTED_MS)
        who = self._chance.randrange(self._size)
        self.events += [Slow(begins, who, self._chance.choice((50, 200, 800))), Slow(ends, who, 0)]

    def _come_or_go(self) -> None:
        begins, ends = self._span(DEAD_MS)
        who = self._chance.randrange(self._voting, self._size)
        self.events += [Leave(begins, who), Join(ends, who)]
