"""Taking a certified state from several peers at once, in parts that are each proved. Executes nothing.

First every peer is asked which state it can give; a quorum of those who decided its height must have signed it. Then
the parts of the state that most have are asked for, one of each peer at a time. A peer that gives a wrong one is
refused and never asked again; what it left undone goes to the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from potd.consensus.succession import Handover, Line, succeed
from potd.node.events import Effect, FetchPart, FetchSnapshot, Log, PartFetched, Refuse, SnapshotFetched
from potd.wire.blocks import Certificate, Header
from potd.wire.ids import Digest, Key
from potd.wire.merkle_map import EVERYTHING, POSITION_BITS, Prefix, verify_part
from potd.wire.transfer import PART_BYTES_MAX, PART_ENTRIES_MAX, Part, Snapshot

SNAPSHOT_LAG = 256  # behind by more heights than this, a node takes a state and not the blocks
WORTH_HEIGHTS = 128  # a state that saves fewer is not worth the history that is given up for it
FIRST_BITS = 4  # a state is asked for in so many bits' parts to begin with, so that several peers help at once
OFFER_TICKS = 40  # to hear what peers have
RETRY_TICKS = 1200  # after nobody had anything: blocks do meanwhile
PATIENCE_TICKS = 600  # for one answer; the network gives up before
SLOW_TICKS = 40  # a part that takes so long is asked of a second peer
PAUSE_TICKS = 100  # before a peer that gave nothing is asked whether it has the state after all
VAIN_MAX = 3  # parts asked in a row of a peer that says it has the state: then others are turned to, for RETRY_TICKS
LONELY_TICKS = 400  # with peers of which none has the state any more
PARTS_AT_ONCE = 16
LIARS_MAX = 4096


@dataclass(frozen=True)
class Taken:
    """A whole state, proved: `entries` are all that the certified header's root is made of. `handovers` are those that
    led to its certificate."""

    certificate: Certificate
    handovers: tuple[Handover, ...]
    entries: tuple[tuple[bytes, bytes], ...]


@dataclass
class _Source:
    """A connected peer. `asked` is the question that it has not answered: a height (0 for its newest), and which part
    of it, if not whether it has it at all."""

    asked: tuple[int, Prefix | None] | None = None
    since: int = 0
    holds: bool = False  # the state that is being taken
    again: int = 0  # from which tick on it may be asked for that
    vain: int = 0  # parts that it was asked for in vain, since it gave one
    shunned: int = 0  # up to which tick it is not asked at all, as it says it has what it does not give


class Parts:
    """Which parts of one state are held, being asked for, or wanted yet. Depth first, so that few are open."""

    def __init__(self, root: Digest) -> None:
        self._root = root
        self._wanted = list(reversed(list(_first())))
        self._asked: dict[Prefix, dict[Key, int]] = {}  # whom, and since when
        self._held: dict[Prefix, tuple[tuple[bytes, bytes], ...]] = {}
        self._sizes: dict[Prefix, tuple[int, int]] = {}  # bytes and entries of what is whole
        self._split: dict[Prefix, tuple[Prefix, Key]] = {}  # a half → of what, and who said that it had to be halved
        self.givers: dict[Key, int] = {}  # how many parts each has given

    def next(self, peer: Key, tick: int) -> Prefix | None:
        """What to ask this peer for: what nobody is being asked for, else what one other takes long over.

        Halves go to others than who said that they had to be, if these are there to take them: it is soon seen whether
        that was so."""
        prefix: Prefix | None = None
        if self._wanted:
            others = (at for at in range(len(self._wanted) - 1, -1, -1) if self._halved_by(self._wanted[at]) != peer)
            prefix = self._wanted.pop(next(others, -1))
        else:
            slow = (one for one, by in self._asked.items() if len(by) == 1 and tick - max(by.values()) >= SLOW_TICKS)
            prefix = next((one for one in slow if peer not in self._asked[one]), None)
        if prefix is not None:
            self._asked.setdefault(prefix, {})[peer] = tick
        return prefix

    def _halved_by(self, half: Prefix) -> Key | None:
        return self._split[half][1] if half in self._split else None

    def release(self, peer: Key, prefix: Prefix) -> None:
        """This peer will not give it."""
        by = self._asked.get(prefix, {})
        if by.pop(peer, None) is not None and not by:
            del self._asked[prefix]
            self._wanted.append(prefix)

    def take(self, peer: Key, prefix: Prefix, part: Part) -> list[tuple[Key, str]]:
        """An answer. Who is found to have lied by it, and how."""
        if prefix not in self._asked:
            return []  # another was faster
        if not part.proof:
            if part.keys or part.values or prefix.length == POSITION_BITS:
                self.release(peer, prefix)
                return [(peer, "a part without a proof")]
            del self._asked[prefix]
            left, right = prefix.halves()
            self._split |= {left: (prefix, peer), right: (prefix, peer)}
            self._wanted += [right, left]
            return []
        entries = tuple(zip(part.keys, part.values, strict=False))
        if len(part.keys) != len(part.values) or not verify_part(self._root, prefix, entries, part.proof[0]):
            self.release(peer, prefix)
            return [(peer, "a part that is not of its state")]
        del self._asked[prefix]
        self._held[prefix] = entries
        self.givers[peer] = self.givers.get(peer, 0) + 1
        self._sizes[prefix] = sum(len(key) + len(value) for key, value in entries), len(entries)
        return list(self._false_splits(prefix))

    def _false_splits(self, prefix: Prefix) -> Iterator[tuple[Key, str]]:
        """Whoever said of a part that it was too large, when it is whole and was not."""
        while prefix in self._split:
            prefix, splitter = self._split[prefix]
            halves = [self._sizes[half] for half in prefix.halves() if half in self._sizes]
            if len(halves) < 2:
                return
            size, count = (sum(one) for one in zip(*halves, strict=True))
            self._sizes[prefix] = size, count
            if count < 2 or (size <= PART_BYTES_MAX and count <= PART_ENTRIES_MAX):
                yield splitter, "a part said to be too large that is not"

    def whole(self) -> bool:
        return not self._wanted and not self._asked

    def entries(self) -> tuple[tuple[bytes, bytes], ...]:
        """Everything, by position."""
        assert self.whole()
        return tuple(entry for _, part in sorted(self._held.items()) for entry in part)


class Taking:
    """At rest, or looking for a state that peers have, or taking one."""

    def __init__(self) -> None:
        self._ticks = 0
        self._sources: dict[Key, _Source] = {}
        self._liars: dict[Key, None] = {}  # those who lied first come first
        self._rest_until = 0
        self._line: Line | None = None  # who decides which heights, from our own state on; None at rest
        self._began = 0
        self._heard: set[Key] = set()  # who has said what it has
        self._offers: dict[Key, Certificate] = {}
        self._chosen: Certificate | None = None  # what is being taken
        self._parts = Parts(bytes(32))
        self._lonely_ticks = 0
        self._asking = False  # whether anybody may have a question of ours: at rest a tick looks at no peer

    @property
    def busy(self) -> bool:
        """Whether blocks need not be asked for."""
        return self._line is not None

    def up(self, peer: Key) -> None:
        self._sources[peer] = _Source()

    def down(self, peer: Key) -> None:
        source = self._sources.pop(peer, None)
        self._offers.pop(peer, None)
        if source is not None and source.asked is not None and source.asked[1] is not None:
            self._parts.release(peer, source.asked[1])

    def tick(self, height: int, gain_min: int | None, line: Line) -> list[Effect]:
        """We stand at `height`, after what the line begins with; a state is wanted if it is so much further on."""
        self._ticks += 1
        if self._asking:
            asked = sorted(peer for peer, source in self._sources.items() if source.asked is not None)
            self._asking = bool(asked)
            for peer in asked:
                if self._ticks - self._sources[peer].since >= PATIENCE_TICKS:
                    self._in_vain(peer, self._sources[peer])
        if self._chosen is not None:
            return self._still_there(height) + self._ask()
        if gain_min is None or not self._sources or self._ticks < self._rest_until:
            self._line = None
            return []
        if self._line is None:
            self._line, self._began = line, self._ticks
            self._heard.clear()
            self._offers.clear()
        return self._choose(height + gain_min) + self._ask()

    def on_snapshot(self, event: SnapshotFetched) -> list[Effect]:
        """What a peer has, as it says."""
        peer, snapshot = event.peer, event.snapshot
        source = self._sources.get(peer)
        if source is None or source.asked != (event.height, None):
            return []
        if snapshot is None:
            self._in_vain(peer, source)
            return []
        source.asked = None
        if self._chosen is not None:
            source.holds = snapshot.certificate.header == self._chosen.header
            # Whoever has named its newest may have this one as well.
            source.again = self._ticks + (PAUSE_TICKS if event.height else 0)
            return []
        return self._offered(peer, snapshot) if self._line is not None else []

    def _offered(self, peer: Key, snapshot: Snapshot) -> list[Effect]:
        assert self._line is not None
        base = self._line.base
        if len(snapshot.ends) != len(snapshot.sets):
            return self._blame(peer, "a snapshot whose handovers are incomplete")
        handovers = [Handover(end, keys) for end, keys in zip(snapshot.ends, snapshot.sets, strict=True)]
        line = succeed(self._line, handovers)
        if isinstance(line, str):
            return self._blame(peer, f"a snapshot with a {line}")
        self._line = line
        if snapshot.ends and snapshot.certificate == snapshot.ends[-1] and line.base > base:
            return []  # there are more handovers: it is asked again
        self._heard.add(peer)
        fault = line.certificate_fault(snapshot.certificate)
        if fault:
            return self._blame(peer, f"a snapshot with a {fault}")
        self._offers[peer] = snapshot.certificate
        return []

    def on_part(self, event: PartFetched) -> list[Effect]:
        """A part of the state, or that there is none from this peer."""
        source = self._sources.get(event.peer)
        if source is None or source.asked != (event.height, event.prefix):
            return []
        if event.part is None:
            self._in_vain(event.peer, source)
            return []
        source.asked, source.vain = None, 0
        effects: list[Effect] = []
        for liar, reason in self._parts.take(event.peer, event.prefix, event.part):
            effects += self._blame(liar, reason) if liar not in self._liars else []
        return effects

    def taken(self) -> Taken | None:
        """The whole state, once."""
        if self._chosen is None or not self._parts.whole():
            return None
        assert self._line is not None
        height = self._chosen.header.height
        handovers = tuple(one for one in self._line.handovers if one.height < height)
        taken = Taken(self._chosen, handovers, self._parts.entries())
        self._stop()
        return taken

    # Looking

    def _choose(self, height_min: int) -> list[Effect]:
        """The state that most have, or the newest of these; once all have been heard, or have had the time."""
        due = any(peer not in self._heard and self._may_ask(peer) for peer in self._sources)
        if due and self._ticks - self._began < OFFER_TICKS:
            return []
        offered: dict[Header, list[Certificate]] = {}
        for _, certificate in sorted(self._offers.items()):
            if certificate.header.height >= height_min:
                offered.setdefault(certificate.header, []).append(certificate)
        if not offered:
            self._stop()
            self._rest_until = self._ticks + RETRY_TICKS
            return []
        header = max(offered, key=lambda one: (len(offered[one]), one.height))
        self._chosen = offered[header][0]
        self._parts = Parts(header.state)
        self._lonely_ticks = 0
        for peer, source in self._sources.items():
            source.holds = peer in self._offers and self._offers[peer].header == header
            source.again = self._ticks
        return [_log(f"taking the state of height {header.height}, which {len(offered[header])} peers have")]

    # Taking

    def _still_there(self, height: int) -> list[Effect]:
        """Whether the state is still wanted, and to be had."""
        assert self._chosen is not None
        wanted = self._chosen.header.height
        if height >= wanted:
            self._stop()
            return []
        if any(one.holds for one in self._sources.values()):
            self._lonely_ticks = 0
        elif self._sources:
            self._lonely_ticks += 1
        if self._lonely_ticks < LONELY_TICKS:
            return []
        self._stop()
        return [_log(f"no peer has the state of height {wanted} any more; looking for a newer one")]

    def _ask(self) -> list[Effect]:
        """Ask whoever has answered for what is to be asked of it now."""
        if self._line is None:
            return []
        effects: list[Effect] = []
        room = PARTS_AT_ONCE - sum(1 for one in self._sources.values() if one.asked is not None and one.asked[1])
        for peer, source in sorted(self._sources.items()):
            if source.asked is not None or not self._may_ask(peer):
                continue
            if self._chosen is None:
                if peer not in self._heard:
                    effects.append(self._ask_for(peer, source, 0, self._line))
            elif source.holds:
                prefix = self._parts.next(peer, self._ticks) if room > 0 else None
                if prefix is not None:
                    room -= 1
                    source.asked, source.since = (self._chosen.header.height, prefix), self._ticks
                    self._asking = True
                    effects.append(FetchPart(peer, self._chosen.header.height, prefix))
            elif self._ticks >= source.again:
                effects.append(self._ask_for(peer, source, self._chosen.header.height, self._line))
        return effects

    def _ask_for(self, peer: Key, source: _Source, height: int, line: Line) -> FetchSnapshot:
        source.asked, source.since = (height, None), self._ticks
        self._asking = True
        return FetchSnapshot(peer, height, line.base)

    def _in_vain(self, peer: Key, source: _Source) -> None:
        """A peer has not answered what it was asked."""
        assert source.asked is not None
        prefix = source.asked[1]
        self._heard.add(peer)
        source.asked, source.holds, source.again = None, False, self._ticks + PAUSE_TICKS
        if prefix is None:
            return
        self._parts.release(peer, prefix)
        source.vain += 1
        if source.vain == VAIN_MAX:
            source.vain, source.shunned = 0, self._ticks + RETRY_TICKS

    def _may_ask(self, peer: Key) -> bool:
        return peer not in self._liars and self._sources[peer].shunned <= self._ticks

    def _blame(self, peer: Key, reason: str) -> list[Effect]:
        if len(self._liars) >= LIARS_MAX:
            del self._liars[next(iter(self._liars))]
        self._liars[peer] = None
        self._offers.pop(peer, None)
        if peer in self._sources:
            self._sources[peer].holds = False
        return [Refuse(peer, reason)]

    def _stop(self) -> None:
        self._line = self._chosen = None
        self._parts = Parts(bytes(32))
        for source in self._sources.values():
            source.asked, source.holds = None, False


def _first() -> list[Prefix]:
    """The parts that a state is asked for in, before any is too large."""
    parts = [EVERYTHING]
    for _ in range(FIRST_BITS):
        parts = [half for one in parts for half in one.halves()]
    return parts


def _log(text: str) -> Log:
    return Log(logging.INFO, text)
