"""What befalls a network in one run, as data: who is there, who lies, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass

from potd.simulation.network import Weather

Index = int  # of a node: validators first, then candidates, then miners


@dataclass(frozen=True)
class Crash:
    """It dies when so many more of its effects have been carried out, be it in the middle of a write."""

    at_ms: int
    who: Index
    effects: int

    def __str__(self) -> str:
        return f"n{self.who} dies after {self.effects} more effects"


@dataclass(frozen=True)
class Restart:
    """It starts again from its disk, if it has died."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} starts again"


@dataclass(frozen=True)
class Join:
    """It starts with nothing but genesis."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} joins"


@dataclass(frozen=True)
class Leave:
    """It stops, and does not come back but by joining."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} leaves"


@dataclass(frozen=True)
class Backup:
    """Its home is copied."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} is copied"


@dataclass(frozen=True)
class Restore:
    """It stops, and starts again from what was copied last; from nothing but its key, if nothing was."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} starts from its copy"


@dataclass(frozen=True)
class Elect:
    """It stands for a seat, and whoever has one backs it."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} is to have a seat"


@dataclass(frozen=True)
class Resign:
    """It gives its seat up."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} gives its seat up"


@dataclass(frozen=True)
class Oppose:
    """All others want it to have a seat no more."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} is to lose its seat"


@dataclass(frozen=True)
class Rotate:
    """Its key gives way to the next one."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} is to have its next key"


@dataclass(frozen=True)
class Cut:
    """What one sends to the other gets lost, until Heal."""

    at_ms: int
    sender: Index
    to: Index

    def __str__(self) -> str:
        return f"nothing gets from n{self.sender} to n{self.to}"


@dataclass(frozen=True)
class Part:
    """Those of one side reach only each other, until Heal or the next Part; but those astride reach everybody."""

    at_ms: int
    side: tuple[Index, ...]
    astride: tuple[Index, ...] = ()

    def __str__(self) -> str:
        text = f"{_names(self.side)} and the rest are cut off from each other"
        return f"{text}, but not from {_names(self.astride)}" if self.astride else text


@dataclass(frozen=True)
class Heal:
    """All links carry again."""

    at_ms: int

    def __str__(self) -> str:
        return "all links carry again"


@dataclass(frozen=True)
class Lose:
    """Of a kind of message, so many of a million get lost on their way to these, until it is said otherwise."""

    at_ms: int
    kind: str
    ppm: int
    to: tuple[Index, ...]

    def __str__(self) -> str:
        share = f"{self.ppm // 10_000} %" if self.ppm else "none"
        return f"of all {self.kind} to {_names(self.to)} {share} get lost"


@dataclass(frozen=True)
class Slow:
    """All that it sends and hears takes so much longer."""

    at_ms: int
    who: Index
    ms: int

    def __str__(self) -> str:
        return f"n{self.who} is slower by {self.ms} ms"


@dataclass(frozen=True)
class Skew:
    """Its ticks are so long from now on."""

    at_ms: int
    who: Index
    tick_ms: int

    def __str__(self) -> str:
        return f"n{self.who} ticks every {self.tick_ms} ms"


@dataclass(frozen=True)
class Offer:
    """Its customer has it do a transfer."""

    at_ms: int
    who: Index

    def __str__(self) -> str:
        return f"n{self.who} is offered an operation"


def _names(nodes: tuple[Index, ...]) -> str:
    return " ".join(f"n{one}" for one in nodes) or "nobody"


Wish = Elect | Resign | Oppose | Rotate  # what operators go on asking for until it is so
Event = Crash | Restart | Join | Leave | Backup | Restore | Wish | Cut | Part | Heal | Lose | Slow | Skew | Offer


@dataclass(frozen=True)
class Liar:
    """A validator that lies, and how; names of `adversary.LIES`, and `twins`."""

    who: Index
    lies: tuple[str, ...]

    def __str__(self) -> str:
        return f"n{self.who} lies: {', '.join(self.lies)}"


@dataclass(frozen=True)
class Schedule:
    """Everything that decides a run. Validators are, to begin with, nodes 0 to `validators` - 1."""

    seed: int
    profile: str
    validators: int
    candidates: int  # that may be given a seat
    idle: int  # of the validators, the last so many, that do not mine
    miners: int  # that have no seat
    absent: int  # of the miners, the last so many, that are not there at first
    patience_ticks: int
    window_heights: int
    snapshot_lag: int  # behind by more heights, a node takes a state and not the blocks
    reveal_ticks: int
    deadline_ticks: int  # at most, for commitments
    quiet: bool  # without a task: heights come by operations only
    weather: Weather  # until all heals; then the same without loss and doubling
    disk_ms: tuple[int, int]
    liars: tuple[Liar, ...]
    events: tuple[Event, ...]  # in order
    heals_ms: int  # when all links carry, all nodes are there and nothing new goes wrong

    @property
    def size(self) -> int:
        return self.validators + self.candidates + self.miners

    @property
    def faults(self) -> int:
        """f of the largest set that there may be: more are never faulty at once."""
        return (self.validators + self.candidates - 1) // 3

    def lines(self) -> list[str]:
        """For people."""
        mining = self.validators - self.idle
        return [
            f"seed {self.seed}, profile {self.profile}: {self.validators} validators, {mining} of them mining, "
            f"{self.candidates} candidates and {self.miners} miners, {self.absent} of them absent; "
            f"patience {self.patience_ticks} ticks, window {self.window_heights} heights, "
            f"disk {self.disk_ms[0]}..{self.disk_ms[1]} ms",
            f"{self.weather}",
            *(str(one) for one in self.liars),
            *(f"{one.at_ms:>7} ms  {one}" for one in self.events),
            f"{self.heals_ms:>7} ms  all heals",
        ]
