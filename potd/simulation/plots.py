"""Trouble with an aim: runs in which much is lost, cut off or lied about at the one moment where a mistake would show.

`profiles` draws trouble of all kinds for a long time; a plot is short, and has of one kind more than chance would bring
together. What may go wrong in it is no more than elsewhere: at most f validators lie, die or are cut off at a time.
Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from potd.node.snapshot import SNAPSHOT_LAG
from potd.simulation.adversary import ALWAYS, DESERTS_VIEW
from potd.simulation.network import PPM, Weather
from potd.simulation.schedule import (
    Backup,
    Crash,
    Elect,
    Event,
    Heal,
    Index,
    Liar,
    Lose,
    Offer,
    Part,
    Resign,
    Restart,
    Restore,
    Rotate,
    Schedule,
    Skew,
)
from potd.wire.consensus import quorum_of
from potd.wire.genesis import TICK_MS

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
        self.candidates = 0
        self.miners = 1
        self.leaving = 0  # of the validators, so many that give up their seat
        self.quiet = False
        self.length_ms = chance.randint(2_500, 5_000)
        self.weather = chance.choice((NEAR, NEAR, UNEVEN))
        self.patience_ticks = chance.choice((8, 12))
        self.window_heights = chance.choice((4, 8, 16))
        self.snapshot_lag = SNAPSHOT_LAG
        self.disk_ms = (1, 2)
        self.offers_ms = OFFERS_MS
        self.liars: tuple[Liar, ...] = ()
        self.events: list[Event] = []

    @property
    def everybody(self) -> range:
        return range(self.validators + self.candidates + self.miners)

    @property
    def faults(self) -> int:
        return (self.validators - self.leaving - 1) // 3

    @property
    def quorum(self) -> int:
        return quorum_of(self.validators)

    @property
    def patience_ms(self) -> int:
        """By which, from when something is due, all have left the first view."""
        return self.patience_ticks * TICK_MS * 11 // 10

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
        while (at := at + self.chance.randint(*self.offers_ms)) < self.length_ms:
            self.events.append(Offer(at, self.chance.randrange(self.validators)))


def forks(plot: Plot) -> None:
    """Liars astride two halves lead, and tell each half another thing."""
    plot.validators = plot.chance.choice((4, 5, 5, 6, 7, 8, 8, 9, 10))  # those of n = 3f + 2 most often
    more = plot.chance.choice(((), HIDERS, ("two_view_changes", "orders_again"), ("orders_again",)))
    plot.lie(plot.chance.choice((0, 0, 1)), *FORKERS, *more)
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
    plot.lie(plot.chance.choice((1, 2)), *lies, ALWAYS)
    at = plot.chance.randrange(100, 1_500)
    left = at + plot.patience_ticks * 50 + plot.chance.randint(0, 300)  # by then all have left the first view
    ends = left + plot.chance.randint(400, 1_500)
    plot.lose(at, left, ("Prepare",), list(plot.everybody))
    plot.lose(left, ends, ("Commit",), plot.chance.sample(plot.honest, min(len(plot.honest), plot.faults + 1)))
    plot.lose(at, ends, ("Header", "Certificate"), list(plot.everybody))
    plot.length_ms = max(plot.length_ms, ends)


def unproved(plot: Plot) -> None:
    """Nobody has a certificate of what most of the honest have executed and some have not; then a liar begins the next
    view."""
    plot.lie(1, plot.chance.choice(("few_new_views", "null_new_views")), ALWAYS)
    _ahead(plot, 0)


def lowest_stable(plot: Plot) -> None:
    """The same, but that few have a certificate, and show no proof any more: with them liars and those behind make a
    quorum for the next view."""
    plot.lie(1, "least_new_views", ALWAYS)
    _ahead(plot, max(1, plot.quorum - 2 * plot.faults))


def _ahead(plot: Plot, alone: int) -> None:
    """All but so many lose what would make anything permanent, and f execute nothing, until the first view ends."""
    others = plot.chance.sample(plot.honest, len(plot.honest) - alone)
    behind = others[: plot.faults]
    at = plot.chance.randrange(100, 1_500)
    left = at + plot.patience_ticks * TICK_MS + plot.chance.randint(50, 200)  # about then all leave the first view
    ends = left + plot.chance.randint(600, 1_500)
    plot.lose(at, left, ("Prepare", "Commit"), behind)
    plot.lose(at, ends, ("Status", "ViewChange"), others)
    plot.lose(at, ends, ("Header", "Certificate"), others if alone else list(plot.everybody))
    plot.length_ms = max(plot.length_ms, ends)


def invented(plot: Plot) -> None:
    """Some have not executed what the others have. Then a liar leads a view in which nothing is agreed to, and shows
    the next one proofs of it all the same."""
    plot.lie(1, "invented_proofs", ALWAYS)
    behind = plot.chance.sample(plot.honest, plot.faults)
    at = plot.chance.randrange(100, 1_000)
    left = at + plot.patience_ticks * TICK_MS
    ends = left + 2 * plot.patience_ticks * TICK_MS + plot.chance.randint(-50, 50)
    plot.lose(at, ends, ("Prepare", "Commit"), behind)
    plot.lose(left - 50, ends, ("Prepare",), list(plot.everybody))
    plot.lose(at, ends + 500, ("Header", "Certificate"), list(plot.everybody))
    plot.length_ms = max(plot.length_ms, ends + 500)


def deaths(plot: Plot) -> None:
    """Those who are at work die in the middle of it, again and again, and little of what they said gets through."""
    plot.disk_ms = (5, 40)
    plot.length_ms = 6_000
    at = plot.chance.randrange(100, 600)
    if plot.chance.randrange(2):
        plot.lie(plot.chance.randrange(2), "two_orders")
        plot.liars = plot.liars[:-1]
    while at < plot.length_ms:
        who = plot.chance.choice((*plot.honest[:2], plot.chance.choice(plot.honest)))
        ends = at + plot.chance.randint(100, 500)
        plot.events += [Crash(at, who, plot.chance.randint(0, 30)), Restart(ends, who)]
        deaf = plot.chance.sample(plot.everybody, len(plot.everybody) - plot.chance.choice((0, 0, 2)))
        plot.lose(max(0, at - 100), ends, ("PrePrepare", "Prepare"), deaf)
        at = ends + plot.chance.randint(50, 250)


def slowness(plot: Plot) -> None:
    """The network is slower than anybody's patience."""
    plot.weather = FAR
    plot.patience_ticks = 8
    plot.length_ms = 2_500


def thin_states(plot: Plot) -> None:
    """Some are away for a while, one after another, and take the state of those who lie about it."""
    plot.snapshot_lag = SHORT_LAG
    plot.miners = 3
    plot.length_ms = 5_000
    mute = plot.chance.choice(((), ("mute_as_primary",)))
    plot.lie(plot.chance.randrange(plot.validators), "thin_certificates", *mute, ALWAYS)
    plot.lose(200, 2_500, ("Header",), plot.chance.sample(plot.honest, len(plot.honest) // 2))
    for index in range(plot.miners):
        gone, who = plot.chance.randint(200, 600), plot.validators + index
        back = plot.length_ms - (index + 1) * 700 + plot.chance.randint(-200, 200)
        plot.events += [Crash(gone, who, 0), Restart(back, who)]


def false_proofs(plot: Plot) -> None:
    """Liars show what nobody has signed, or what was signed elsewhere, while views change."""
    names = ("foreign_certificates", "thin_certificates", "forged_proofs", "orders_again", "gaps", "bad_batches")
    plot.lie(plot.chance.randrange(2), *plot.chance.sample(names, 2), ALWAYS)
    at = plot.moment()
    ends = at + plot.chance.randint(300, 1_500)
    plot.lose(at, ends, ("Commit",), plot.chance.sample(plot.everybody, len(plot.everybody) // 2))
    plot.lose(at, ends, plot.chance.choice((("Header",), ("Header", "Certificate"))), plot.honest)


def left_behind(plot: Plot) -> None:
    """Some hear of no view that begins, while one after another ends. Then liars say no more, and the others are too
    few without those who have been left behind."""
    plot.lie(plot.chance.randrange(plot.validators), "desert", ALWAYS)
    needed = plot.validators - plot.faults - plot.quorum + 1
    behind = plot.chance.sample(plot.honest, needed)
    plot.weather, plot.patience_ticks = NEAR, 8
    at = plot.chance.randrange(100, 400)
    for _ in range(DESERTS_VIEW + 2):
        ends = at + plot.patience_ms + plot.chance.randint(0, 60)
        plot.lose(at, ends, ("PrePrepare",), list(plot.everybody))
        at = ends + plot.chance.randint(250, 400)
    plot.length_ms = at
    plot.lose(100, at, ("NewView", "ViewChange"), behind)


def quiet(plot: Plot) -> None:
    """Liars vote, and say of no result that it is theirs; some of the honest execute nothing for a while. Nobody wants
    anything more afterwards but what makes it permanent."""
    plot.quiet = True
    plot.window_heights = 16
    plot.offers_ms = (100, 300)
    plot.lie(plot.chance.randrange(plot.validators), "withhold_headers", ALWAYS)
    behind = plot.chance.sample(plot.honest, plot.validators - plot.quorum)
    begins = plot.chance.randrange(200, 1_000)
    plot.length_ms = begins + plot.patience_ms + plot.chance.randint(200, 400)
    plot.lose(begins, plot.length_ms, ("PrePrepare", "Prepare", "Commit", "Certificate"), behind)


def forgetful(plot: Plot) -> None:
    """A home is put back from a copy while what it forgets is on its way: most often that of who leads."""
    plot.lie(1, *plot.chance.choice((("two_orders",), ("two_orders", "two_votes"), ("least_new_views",))))
    plot.liars = plot.liars[:-1]
    who = 0 if plot.chance.randrange(4) else plot.chance.choice(plot.honest)
    copied = plot.chance.randrange(100, 1_500)
    dies = copied + plot.chance.randint(50, 1_000)
    back = dies + plot.chance.randint(10, plot.patience_ms)
    plot.events += [Backup(copied, who), Crash(dies, who, plot.chance.randint(0, 30)), Restore(back, who)]
    plot.lose(dies, back + plot.chance.randint(0, 500), ("Header", "Certificate", "Commit"), list(plot.everybody))


def eras(plot: Plot) -> None:
    """Validators change, while a liar leads every era and what becomes permanent is known late."""
    plot.window_heights = plot.chance.choice((4, 8))
    plot.leaving = plot.chance.randrange(2) if plot.validators > 4 else 0
    plot.candidates = plot.chance.randrange(2)
    plot.lie(0, *plot.chance.choice((("mute_as_primary", ALWAYS), ("mute_as_primary", ALWAYS), HIDERS, ("gaps",))))
    staying = plot.honest
    if plot.leaving:
        staying.remove(leaver := plot.chance.choice(staying))
        plot.events.append(Resign(plot.chance.randrange(1_500), leaver))
    if plot.candidates:
        plot.events.append(Elect(plot.chance.randrange(1_500), plot.validators))
    else:
        plot.events.append(Rotate(plot.chance.randrange(1_500), plot.chance.choice(staying)))
    at = plot.moment()
    few = plot.chance.sample(plot.everybody, len(plot.everybody) // 2)
    plot.lose(at, at + plot.chance.randint(200, 800), ("Header", "Certificate"), few)


def second_thoughts(plot: Plot) -> None:
    """Whoever has refused what a liar ordered dies before anybody hears that, and before it hears what the others agree
    to, and hears it in its next life."""
    plot.validators = plot.chance.choice((7, 7, 8, 9, 10))
    plot.lie(0, "bad_for_the_deaf", ALWAYS)
    plot.liars = plot.liars[:-1]
    plot.patience_ticks, plot.window_heights = 12, 16
    at = plot.chance.randrange(200, 600)
    while at < plot.length_ms - 800:
        who = plot.chance.choice(plot.honest)
        back = at + plot.chance.randint(80, 250)
        plot.lose(at, back, ("Prepare", "Commit"), [who])
        plot.lose(at, back + plot.chance.randint(100, 300), ("Refusal", "Header", "Certificate"), list(plot.everybody))
        plot.events += [Crash(back - plot.chance.randint(5, 30), who, 0), Restart(back, who)]
        at = back + plot.chance.randint(300, 600)


PLOTS: tuple[Callable[[Plot], None], ...] = (
    forks,
    losses,
    older_proofs,
    unproved,
    lowest_stable,
    invented,
    deaths,
    slowness,
    thin_states,
    false_proofs,
    left_behind,
    quiet,
    forgetful,
    eras,
    second_thoughts,
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
        candidates=plot.candidates,
        idle=plot.validators - 2,
        miners=plot.miners,
        absent=0,
        patience_ticks=plot.patience_ticks,
        window_heights=plot.window_heights,
        snapshot_lag=plot.snapshot_lag,
        reveal_ticks=20,
        deadline_ticks=40,
        quiet=plot.quiet,
        weather=plot.weather,
        disk_ms=plot.disk_ms,
        liars=plot.liars,
        events=tuple(sorted(plot.events, key=lambda one: one.at_ms)),
        heals_ms=plot.length_ms,
    )
