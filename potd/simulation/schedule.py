"""What befalls a network in one run, as data: who is there, who lies, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass

from potd.simulation.network import Weather

Index = int  # of a node: validators first, then miners


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


Event = Crash | Restart | Join | Leave | Cut | Part | Heal | Slow | Skew | Offer


@dataclass(frozen=True)
class Liar:
    """A validator that lies, and how; names of `adversary.LIES`, and `twins`."""

    who: Index
    lies: tuple[str, ...]

    def __str__(self) -> str:
        return f"n{self.who} lies: {', '.join(self.lies)}"


@dataclass(frozen=True)
class Schedule:
    """Everything that decides a run. Validators are nodes 0 to `validators` - 1."""

    seed: int
    profile: str
    validators: int
    idle: int  # of the validators, the last so many, that do not mine
    miners: int  # that have no seat
    absent: int  # of the miners, the last so many, that are not there at first
    patience_ticks: int
    window_heights: int
    reveal_ticks: int
    deadline_ticks: int  # at most, for commitments
    weather: Weather  # until all heals; then the same without loss and doubling
    disk_ms: tuple[int, int]
    liars: tuple[Liar, ...]
    events: tuple[Event, ...]  # in order
    heals_ms: int  # when all links carry, all nodes are there and nothing new goes wrong

    @property
    def size(self) -> int:
        return self.validators + self.miners

    @property
    def faults(self) -> int:
        """f: how many validators may be faulty at once."""
        return (self.validators - 1) // 3

    def lines(self) -> list[str]:
        """For people."""
        mining = self.validators - self.idle
        return [
            f"seed {self.seed}, profile {self.profile}: {self.validators} validators, {mining} of them mining, and "
            f"{self.miners} miners, {self.absent} of them absent; patience {self.patience_ticks} ticks, "
            f"window {self.window_heights} heights, disk {self.disk_ms[0]}..{self.disk_ms[1]} ms",
            f"{self.weather}",
            *(str(one) for one in self.liars),
            *(f"{one.at_ms:>7} ms  {one}" for one in self.events),
            f"{self.heals_ms:>7} ms  all heals",
        ]
