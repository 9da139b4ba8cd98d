"""Trouble with an aim: runs in which much is lost, cut off or lied about at the one moment where a mistake would show.

`profiles` draws trouble of all kinds for a long time; a plot is short, and has of one kind more than chance would bring
together. What may go wrong in it is no more than elsewhere: at most f validators lie, die or are cut off at a time.
Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from potd.node.snapshot import SNAPSHOT_LAG
from potd.simulation.network import PPM, Weather
from potd.simulation.schedule import (
    Crash,
    Event,
    Heal,
    Index,
    Liar,
    Lose,
    Offer,
    Part,
    Restart,
    Schedule,
    Skew,
)
from potd.wire.consensus import quorum_of

SHARP = "sharp"
NEAR = Weather(delay_ms=(1, 8))
UNEVEN = Weather(delay_ms=(1, 60), tail_ms=300, tail_ppm=30_000)
FAR = Weather(delay_ms=(180, 420))  # three of these are beyond any patience here
OFFERS_MS = (60, 250)
SHORT_LAG = 8  # heights

FORKERS = ("two_orders", "two_votes")
HIDERS = ("old_proofs", "least_new_views")
KINDS = ("PrePrepare", "Prepare", "Commit", "Header", "ViewChange", "NewView")


class Plot:
    """One run as it is drawn: the plots below fill it in."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.validators = chance.choice((4, 4, 4, 5, 5, 6, 7, 8, 9, 10))
        self.miners = 1
        self.faults = (self.validators - 1) // 3
        self.length_ms = chance.randint(2_500, 5_000)
        self.weather = chance.choice((NEAR, NEAR, UNEVEN))
        self.patience_ticks = chance.choice((8, 12))
        self.window_heights = chance.choice((4, 8, 16))
        self.snapshot_lag = SNAPSHOT_LAG
        self.disk_ms = (1, 2)
        self.liars: tuple[Liar, ...] = ()
        self.events: list[Event] = []

    @property
    def everybody(self) -> range:
        return range(self.validators + self.miners)

    @property
    def honest(self) -> list[Index]:
        lying = {one.who for one in self.liars}
        return [who for who in range(self.validators) if who not in lying]

    def lie(self, first: Index, *lies: str) -> None:
        """f liars of one mind, who lead views one after another from this one on."""
        whom = sorted((first + index) % self.validators for index in range(self.faults))
        self.liars = tuple(Liar(who, lies) for who in whom)

    def lose(self, begins: int, ends: int, kinds: tuple[str, ...], to: list[Index], ppm: int = PPM) -> None:
        for kind in kinds:
            self.events += [Lose(begins, kind, ppm, tuple(to)), Lose(ends, kind, 0, tuple(to))]

    def moment(self) -> int:
        return self.chance.randrange(200, self.length_ms - 600)

    def offers(self) -> None:
        at = 0
        while (at := at + self.chance.randint(*OFFERS_MS)) < self.length_ms:
            self.events.append(Offer(at, self.chance.randrange(self.validators)))


def forks(plot: Plot) -> None:
    """Liars astride two halves lead, and tell each half another thing."""
    plot.lie(plot.chance.choice((0, 0, 1)), *FORKERS, *plot.chance.choice(((), HIDERS, ("two_view_changes",))))
    begins = plot.chance.randrange(100, 900)
    half = plot.honest[: len(plot.honest) // 2] if plot.chance.randrange(2) else plot.honest[::2]
    plot.events += [
        Part(begins, tuple(half), tuple(one.who for one in plot.liars)),
        Heal(plot.chance.randint(begins + 600, plot.length_ms)),
    ]


def losses(plot: Plot) -> None:
    """One kind of message after another gets lost, most often until the view is left."""
    if plot.chance.randrange(3):
        lies = plot.chance.choice(
            (HIDERS, (*HIDERS, "gaps"), ("few_new_views",), ("two_view_changes", "two_new_views"))
        )
        plot.lie(plot.chance.randrange(3), *lies)
    at = plot.chance.randrange(100, 500)
    while at < plot.length_ms:
        ends = min(plot.length_ms, at + plot.chance.randint(200, 900))
        to = plot.chance.sample(plot.everybody, plot.chance.randint(1, len(plot.everybody)))
        kinds = tuple(plot.chance.sample(KINDS, plot.chance.choice((1, 1, 2))))
        plot.lose(at, ends, kinds, to, plot.chance.choice((PPM // 2, PPM * 9 // 10, PPM)))
        if plot.chance.randrange(2):
            plot.lose(at, ends, ("Header", "Certificate"), plot.honest, PPM)
        at = ends


def older_proofs(plot: Plot) -> None:
    """What was prepared in one view and unknown to the next is shown after it, while some have executed the other."""
    lies = plot.chance.choice((HIDERS, HIDERS, ("invented_proofs",), ("null_new_views",)))
    plot.lie(plot.chance.choice((1, 2)), *lies)
    at = plot.chance.randrange(100, 1_500)
    left = at + plot.patience_ticks * 50 + plot.chance.randint(0, 300)  # by then all have left the first view
    ends = left + plot.chance.randint(400, 1_500)
    plot.lose(at, left, ("Prepare",), list(plot.everybody))
    plot.lose(left, ends, ("Commit",), plot.chance.sample(plot.honest, min(len(plot.honest), plot.faults + 1)))
    plot.lose(at, ends, ("Header", "Certificate"), list(plot.everybody))
    plot.length_ms = max(plot.length_ms, ends)


def alone_stable(plot: Plot) -> None:
    """Few of the honest have a certificate, and show no proof of it any more, some have not executed it,
    and the others do not hear of it; then a liar begins the next view."""
    lie = plot.chance.choice(("least_new_views", "few_new_views", "null_new_views", "invented_proofs"))
    plot.lie(0 if lie == "invented_proofs" else 1, lie)
    # With liars and those behind a quorum; the other lies need nobody to be ahead.
    alone = max(1, quorum_of(plot.validators) - 2 * plot.faults) if lie == "least_new_views" else 0
    secret = () if lie == "invented_proofs" else ("ViewChange",)
    others = plot.chance.sample(plot.honest, len(plot.honest) - alone)
    behind = others[: plot.faults]
    at = plot.chance.randrange(100, 1_500)
    left = at + plot.patience_ticks * 50 + plot.chance.randint(50, 200)  # about then all leave the first view
    ends = left + plot.chance.randint(600, 1_500)
    plot.lose(at, left, ("Prepare", "Commit"), behind)
    plot.lose(at, ends, ("Header", "Certificate", "Status", *secret), others)
    plot.length_ms = max(plot.length_ms, ends)


def deaths(plot: Plot) -> None:
    """Those who are at work die in the middle of it, again and again, and little of what they said gets through."""
    plot.disk_ms = (5, 40)
    at = plot.chance.randrange(100, 600)
    if plot.chance.randrange(2):
        plot.lie(plot.chance.randrange(2), "two_orders")
        plot.liars = plot.liars[:-1]
    while at < plot.length_ms:
        who = plot.chance.choice(plot.honest)
        ends = at + plot.chance.randint(100, 500)
        plot.events += [Crash(at, who, plot.chance.randint(0, 30)), Restart(ends, who)]
        deaf = plot.chance.sample(plot.everybody, len(plot.everybody) - 2)
        plot.lose(max(0, at - 100), ends, ("PrePrepare", "Prepare"), deaf)
        at = ends + plot.chance.randint(50, 400)


def slowness(plot: Plot) -> None:
    """The network is slower than anybody's patience."""
    plot.weather = FAR
    plot.patience_ticks = 8
    plot.length_ms = 2_500


def thin_states(plot: Plot) -> None:
    """One is away for long, and takes the state of those who lie about it."""
    plot.snapshot_lag = SHORT_LAG
    plot.lie(
        plot.chance.randrange(plot.validators), "thin_certificates", *plot.chance.choice(((), ("mute_as_primary",)))
    )
    who = plot.chance.choice([*plot.honest, plot.validators])
    if who < plot.validators:
        plot.liars = plot.liars[: plot.faults - 1] or plot.liars
    plot.length_ms = 6_000
    plot.events += [Crash(300, plot.validators, 0), Restart(plot.length_ms - 500, plot.validators)]


def false_proofs(plot: Plot) -> None:
    """Liars show what nobody has signed, or what was signed elsewhere, while views change."""
    names = ("invented_proofs", "foreign_certificates", "thin_certificates", "forged_proofs", "gaps", "bad_batches")
    plot.lie(plot.chance.randrange(2), *plot.chance.sample(names, 2))
    at = plot.moment()
    ends = at + plot.chance.randint(300, 1_500)
    plot.lose(at, ends, ("Commit",), plot.chance.sample(plot.everybody, len(plot.everybody) // 2))
    plot.lose(at, ends, ("Header", "Certificate"), plot.honest)


PLOTS: tuple[Callable[[Plot], None], ...] = (
    forks,
    losses,
    older_proofs,
    alone_stable,
    deaths,
    slowness,
    thin_states,
    false_proofs,
)


def sharp(seed: int) -> Schedule:
    """The run of this seed."""
    chance = Random(f"{SHARP} {seed}")
    plot = Plot(chance)
    PLOTS[seed % len(PLOTS)](plot)
    plot.offers()
    plot.events += [Skew(0, who, chance.randint(45, 55)) for who in plot.everybody]
    return Schedule(
        seed=seed,
        profile=SHARP,
        validators=plot.validators,
        candidates=0,
        idle=plot.validators - 2,
        miners=plot.miners,
        absent=0,
        patience_ticks=plot.patience_ticks,
        window_heights=plot.window_heights,
        snapshot_lag=plot.snapshot_lag,
        reveal_ticks=20,
        deadline_ticks=40,
        weather=plot.weather,
        disk_ms=plot.disk_ms,
        liars=plot.liars,
        events=tuple(sorted(plot.events, key=lambda one: one.at_ms)),
        heals_ms=plot.length_ms,
    )
