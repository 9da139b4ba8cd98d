"""Holding the current model: by applying agreed aggregates, or by fetching it. Decides nothing about rounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from potd.rounds.events import Effect, Fetch, Retire, Run, Told, Unfetch, View
from potd.wire.ids import NO_BLOB, BlobRef, Key
from potd.wire.jobs import Answer, Applied, Apply, Failed

KEEP_ROUNDS = 16  # models, payloads and aggregates are kept so long for late joiners; for audits perhaps longer


class Desk:
    """What the parts of one node share: which blobs it holds, for how many rounds those of each are kept, and the next
    job's number."""

    def __init__(self, held: set[BlobRef], numbers: Iterator[int], audit_rounds: int = 0) -> None:
        self.held = held
        self.keep_rounds = max(KEEP_ROUNDS, audit_rounds)
        self._numbers = numbers

    def holds(self, ref: BlobRef) -> bool:
        return ref == NO_BLOB or ref in self.held

    def job(self) -> int:
        return next(self._numbers)


class Keeper:
    """Keeps one task's model and momentum at hand, by the cheapest road that is open."""

    def __init__(self, desk: Desk, holders: tuple[Key, ...]) -> None:
        self._desk = desk
        self._holders = holders
        self._view: View | None = None
        self._applying: int | None = None  # the job
        self._from: View | None = None  # the view whose model the aggregate moves on
        self._past: deque[tuple[BlobRef, ...]] = deque()

    def reseated(self, holders: tuple[Key, ...]) -> None:
        """Others are validators now, and hold what there is."""
        self._holders = holders

    def ready(self) -> bool:
        """Whether the current model and momentum are held."""
        view = self._view
        return view is not None and self._desk.holds(view.model) and self._desk.holds(view.momentum)

    def on_changed(self, view: View) -> list[Effect]:
        before, self._view = self._view, view
        if before is not None and (before.model, before.momentum) == (view.model, view.momentum):
            return []
        effects: list[Effect] = []
        if before is not None:
            effects += [Unfetch(ref) for ref in (before.model, before.momentum) if not self._desk.holds(ref)]
            effects += self._retire(before)
        if self.ready():
            return effects
        held_before = before is not None and self._desk.holds(before.model) and self._desk.holds(before.momentum)
        if held_before and view.aggregate != NO_BLOB:
            self._from = before
            return [*effects, Fetch(view.aggregate, self._holders), *self.advance()]
        return effects + self._fetch_whole()

    def _retire(self, before: View) -> list[Effect]:
        self._past.append((before.model, before.momentum, before.aggregate))
        if len(self._past) <= self._desk.keep_rounds:
            return []
        assert self._view is not None
        spec = self._view.spec
        kept = {self._view.model, self._view.momentum, self._view.aggregate, spec.weights, NO_BLOB}
        kept.update(ref for refs in list(self._past)[1:] for ref in refs)
        return [Retire(tuple(ref for ref in self._past.popleft() if ref not in kept))]

    def _fetch_whole(self) -> list[Effect]:
        assert self._view is not None
        self._from = None
        wanted = (self._view.model, self._view.momentum)
        return [Fetch(ref, self._holders) for ref in wanted if not self._desk.holds(ref)]

    def advance(self) -> list[Effect]:
        """Apply the aggregate once it is held."""
        view, origin = self._view, self._from
        if view is None or origin is None or self._applying is not None or self.ready():
            return []
        if not self._desk.holds(view.aggregate):
            return []
        self._applying = self._desk.job()
        return [
            Run(
                "arithmetic",
                Apply(self._applying, view.spec, origin.round, origin.model, origin.momentum, view.aggregate),
            )
        ]

    def on_answer(self, answer: Answer) -> list[Effect]:
        if answer.job != self._applying:
            return []
        self._applying = None
        if self.ready():
            return []
        origin, self._from = self._from, None
        match answer:
            case Applied(_, model, momentum) if origin is not None and self._view is not None:
                if (model, momentum) == (self._view.model, self._view.momentum):
                    return []  # the node has marked both as held
            case Failed(_, reason):
                told = Told("apply failed", (("reason", reason),))
                return [told, *self._fetch_whole()]
            case _:
                pass
        return self._fetch_whole()
