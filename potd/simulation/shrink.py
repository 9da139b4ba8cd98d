"""Cuts a failing schedule down to what it takes to fail, and tells the rest as a story.

What is left still fails in the same way, as a violation or as a stall, though perhaps with another sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from potd.node import events as ev
from potd.simulation.network import Place, Weather
from potd.simulation.run import Outcome, run
from potd.simulation.schedule import Schedule
from potd.simulation.transcript import line_of
from potd.simulation.world import World

T = TypeVar("T")
RUNS_MAX = 400  # attempts at leaving something out


class Shrinker:
    """`fails` says of a schedule whether it still goes wrong."""

    def __init__(self, fails: Callable[[Schedule], bool]) -> None:
        self._fails = fails
        self.runs = 0

    def shrink(self, schedule: Schedule) -> Schedule:
        """Leave out liars, lies, events and weather, as long as it fails without them."""
        before = None
        while before != schedule and self.runs < RUNS_MAX:
            before = schedule
            schedule = self._calm(schedule)
            liars = self._least(schedule.liars, lambda kept, of=schedule: replace(of, liars=kept))  # type: ignore[misc]  # binds the loop's value
            schedule = replace(schedule, liars=liars)
            for index, liar in enumerate(schedule.liars):

                def telling(lies: tuple[str, ...], of: Schedule = schedule, at: int = index) -> Schedule:
                    changed = replace(of.liars[at], lies=lies)
                    return replace(of, liars=(*of.liars[:at], changed, *of.liars[at + 1 :]))

                schedule = telling(self._least(liar.lies, telling))
            events = self._least(schedule.events, lambda kept, of=schedule: replace(of, events=kept))  # type: ignore[misc]  # binds the loop's value
            schedule = replace(schedule, events=events)
        return schedule

    def _calm(self, schedule: Schedule) -> Schedule:
        calm = replace(schedule, weather=Weather(delay_ms=(1, 5)))
        return calm if calm != schedule and self._still(calm) else schedule

    def _still(self, schedule: Schedule) -> bool:
        self.runs += 1
        return self.runs <= RUNS_MAX and self._fails(schedule)

    def _least(self, items: tuple[T, ...], build: Callable[[tuple[T, ...]], Schedule]) -> tuple[T, ...]:
        """As few of the items as it takes: leave out halves, then quarters, and so on. [Zeller 1999]"""
        size = len(items)
        while size:
            at = 0
            while at < len(items):
                fewer = (*items[:at], *items[at + size :])
                if self._still(build(fewer)):
                    items = fewer
                else:
                    at += size
            size = min(size // 2, len(items))
        return items


def shrunk(schedule: Schedule, outcome: Outcome) -> tuple[Schedule, Outcome]:
    """The least schedule that fails as this one did, and how it does."""
    assert not outcome.good

    def fails(other: Schedule) -> bool:
        found = run(other)
        return bool(found.violation) if outcome.violation else bool(found.stall)

    least = Shrinker(fails).shrink(schedule)
    return least, run(least)


def told(schedule: Schedule) -> list[str]:
    """A run as lines: what befell whom, and who said what to whom."""
    lines: list[str] = []

    def listen(world: World) -> None:
        names = {place: f"n{index}" for index, place in enumerate(world.keys)}
        names |= {place: f"{names[key]}'" for key, place in world.twins.items()}

        def watch(place: Place, effect: ev.Effect) -> None:
            text = line_of(effect, names)
            if text:
                lines.append(f"{world.now:>7} ms  {names[place]:<4} {text}")

        world.watchers.append(watch)
        world.chronicle = lambda text: lines.append(f"{world.now:>7} ms  *    {text}")

    outcome = run(schedule, listen)
    return [*schedule.lines(), "", *_joined(lines), "", outcome.violation or outcome.stall or "all went well"]


def _joined(lines: Sequence[str]) -> list[str]:
    """What one says to several at one moment is one line."""
    found: list[str] = []
    for line in lines:
        said, to, more = line.partition(" -> ")
        if to and found and found[-1].partition(" -> ")[0] == said:
            found[-1] += f" {more}"
        else:
            found.append(line)
    return found
