"""Links between places: what leaves one arrives at another later, twice, in another order, or not at all.

A link carries one message at a time at its rate; what waits behind it lies in a bounded outbox, which drops its oldest
and counts it. Knows nothing of what it carries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from potd.simulation.clock import Act, Clock
from potd.wire.ids import Key

Place = Key  # where a node stands: its key, but for the second of two twins

PPM = 1_000_000


@dataclass(frozen=True)
class Weather:
    """What the links do. Every message draws its own delay, so that messages overtake each other."""

    delay_ms: tuple[int, int] = (1, 80)  # evenly drawn
    tail_ms: int = 0  # up to so many more, for those in the tail
    tail_ppm: int = 0
    loss_ppm: int = 0
    twice_ppm: int = 0  # arrive a second time
    bytes_per_ms: int = 12_500  # of one link in one direction: 100 Mbit/s
    outbox_bytes: int = 8 << 20  # that may wait for one link


@dataclass
class _Link:
    """One direction between two places."""

    free: int = 0  # when what it carries has left
    waiting: deque[tuple[int, Act]] = field(default_factory=deque)  # bytes, and what arrives
    size: int = 0  # of what waits


class Network:
    """All links between the places of a world."""

    def __init__(self, places: Iterable[Place], clock: Clock, chance: Random) -> None:
        self.weather = Weather()
        self.cut: set[tuple[Place, Place]] = set()  # (from, to) that carry nothing
        self.losing: dict[tuple[str, Place], int] = {}  # of a kind, on its way to a place: so many of a million
        self.slow_ms: dict[Place, int] = {}  # what a slow place adds to all that it sends and hears
        self.lost = 0  # messages for a link that is cut, or that the weather took
        self.dropped = 0  # messages for which an outbox had no room
        self.carried = 0
        self.carried_bytes = 0
        self._places = tuple(places)
        self._clock = clock
        self._chance = chance
        self._links: dict[tuple[Place, Place], _Link] = {}

    def part(self, *sides: Iterable[Place]) -> None:
        """Links carry within a side only, until `heal`; those who are on no side reach everybody."""
        side = {place: index for index, places in enumerate(sides) for place in places}
        self.cut = {(one, other) for one in side for other in side if side[one] != side[other]}

    def heal(self) -> None:
        self.cut = set()

    def linked(self, one: Place, other: Place) -> bool:
        """Whether a question and its answer get through."""
        return (one, other) not in self.cut and (other, one) not in self.cut

    def send(self, sender: Place, to: Place, size: int, arrive: Act, kind: str = "") -> None:
        """A message of `size` bytes; `arrive` is called each time that it arrives, if it does."""
        if (self.cut and (sender, to) in self.cut) or (self.losing and self._loses(kind, to)):
            self.lost += 1
            return
        self._carry(sender, to, size, arrive)

    def _loses(self, kind: str, to: Place) -> bool:
        ppm = self.losing.get((kind, to), 0)
        return ppm > 0 and self._chance.randrange(PPM) < ppm

    def gossip(self, sender: Place, to: Place, size: int, arrive: Act, kind: str = "") -> None:
        """The same for what others pass on too: it arrives if there is a way by a third."""
        if self.losing and self._loses(kind, to):
            self.lost += 1
        elif (
            not self.cut
            or (sender, to) not in self.cut
            or any((sender, by) not in self.cut and (by, to) not in self.cut for by in self._places)
        ):
            self._carry(sender, to, size, arrive)
        else:
            self.lost += 1

    def _carry(self, sender: Place, to: Place, size: int, arrive: Act) -> None:
        weather, chance = self.weather, self._chance
        if weather.loss_ppm and chance.randrange(PPM) < weather.loss_ppm:
            self.lost += 1
            return
        link = self._links.get((sender, to))
        if link is None:
            link = self._links[(sender, to)] = _Link()
        if link.free <= self._clock.now and not link.waiting:
            self._depart(link, sender, to, size, arrive)
            return
        if not link.waiting:
            self._clock.later(link.free - self._clock.now, lambda: self._next(link, sender, to))
        link.waiting.append((size, arrive))
        link.size += size
        while link.size > weather.outbox_bytes and len(link.waiting) > 1:
            link.size -= link.waiting.popleft()[0]
            self.dropped += 1

    def _next(self, link: _Link, sender: Place, to: Place) -> None:
        """The link is free: what has waited longest leaves."""
        while link.waiting and link.free <= self._clock.now:
            size, arrive = link.waiting.popleft()
            link.size -= size
            self._depart(link, sender, to, size, arrive)
        if link.waiting:
            self._clock.later(link.free - self._clock.now, lambda: self._next(link, sender, to))

    def _depart(self, link: _Link, sender: Place, to: Place, size: int, arrive: Act) -> None:
        weather, chance = self.weather, self._chance
        taken = size // weather.bytes_per_ms
        link.free = self._clock.now + taken
        self.carried += 1
        self.carried_bytes += size
        pace = taken + self.slow_ms.get(sender, 0) + self.slow_ms.get(to, 0)
        again = weather.twice_ppm and chance.randrange(PPM) < weather.twice_ppm
        for _ in range(2 if again else 1):
            delay = pace + chance.randint(*weather.delay_ms)
            if weather.tail_ppm and chance.randrange(PPM) < weather.tail_ppm:
                delay += chance.randint(0, weather.tail_ms)
            self._clock.later(delay, arrive)
