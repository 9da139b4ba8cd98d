"""A miner's part in a round: train on what was assigned, commit, and reveal once the seal is certified."""

from __future__ import annotations

from potd.rounds.events import Announce, Effect, Fetch, Hide, Note, Opened, Phase, Reveal, Run, Seat, Told, View
from potd.rounds.keeper import Desk, Keeper
from potd.rounds.plan import assign, shards_of
from potd.wire.codec import decode, encode
from potd.wire.envelope import Signed, Signer, Verified, verify
from potd.wire.ids import NO_BLOB, NOTHING, AccountId, Key, TaskId
from potd.wire.jobs import Answer, Failed, Train, Trained
from potd.wire.rounds import Commitment, payload_binding

ANNOUNCE_TICKS = 40  # a commitment that is not sealed yet is said again every two seconds
RETRY_TICKS = 20  # after a failed job


def commitment_note(task: TaskId) -> str:
    """The name under which a miner remembers its newest commitment: it never commits twice for one round."""
    return f"commitment/{task.hex()}"


class Miner:
    """One miner in one task."""

    def __init__(
        self, signer: Signer, account: AccountId, desk: Desk, keeper: Keeper, holders: tuple[Key, ...], noted: bytes
    ) -> None:
        self._signer = signer
        self._account = account
        self._desk = desk
        self._keeper = keeper
        self._holders = holders
        self._view: View | None = None
        self._opened: Opened | None = None
        self._job: int | None = None
        self._job_round = -1
        self._ticks = 0
        self._retry_at = 0
        self._own: Verified[Commitment] | None = None
        self._revealed = False
        self.doing = "waiting for the task"
        self.loss_micro: int | None = None
        if noted:
            self._own = verify(decode(noted, Signed), signer.network, Commitment)

    def start(self) -> list[Effect]:
        """What must be so before the first peer asks."""
        return [Hide(self._own.body.payload)] if self._own is not None and self._own.body.finite else []

    def reseated(self, holders: tuple[Key, ...]) -> None:
        """Others are validators now, and hold what there is."""
        self._holders = holders

    def _seat(self) -> Seat | None:
        return self._view.seat(self._account) if self._view is not None else None

    def on_opened(self, opened: Opened) -> list[Effect]:
        self._opened = opened
        return self._fetch_shards() + self.advance()

    def on_changed(self, view: View) -> list[Effect]:
        before, self._view = self._view, view
        if before is None or before.round != view.round:
            self._ticks = 0
            self._retry_at = 0
        effects: list[Effect] = []
        if before is None or (before.window, before.next_window) != (view.window, view.next_window):
            effects += self._fetch_shards()
        return effects + self.advance()

    def _fetch_shards(self) -> list[Effect]:
        """This window's shards, and the next one's ahead of time."""
        seat = self._seat()
        if self._opened is None or self._view is None or seat is None or self._view.phase == Phase.DONE:
            return []
        need = seat.units * self._view.spec.unit_batch
        wanted: dict[int, None] = {}
        for window in (self._view.window, self._view.next_window):
            if window.members:
                wanted |= dict.fromkeys(shards_of(window, self._opened.sizes, self._account, seat.units, need))
        blobs = [self._opened.training[index] for index in wanted]
        return [Fetch(blob, self._holders) for blob in blobs if not self._desk.holds(blob)]

    def advance(self) -> list[Effect]:
        """Begin to train if this round's turn has come and all that it needs is held."""
        view, seat = self._view, self._seat()
        if view is None or seat is None:
            self.doing = "not enrolled"
            return []
        if view.phase != Phase.TRAIN:
            self.doing = {Phase.IDLE: "the task is waiting for miners", Phase.DONE: "the task is done"}.get(
                view.phase, f"round {view.round} is being added up"
            )
            return []
        if seat.suspended or seat.joined > view.round:
            self.doing = "suspended after missed rounds" if seat.suspended else f"counted from round {seat.joined}"
            return []
        if self._own is not None and self._own.body.round == view.round:
            self.doing = f"committed to round {view.round}"
            return []
        if self._job is not None and self._job_round == view.round:
            return []
        if not self._keeper.ready():
            self.doing = f"getting the model of round {view.round}"
            return []
        if self._opened is None or self._ticks < self._retry_at:
            self.doing = "getting the data set"
            return []
        given = assign(view.window, self._opened.sizes, view.seed, self._account, seat.units, view.spec.unit_batch)
        shards = tuple(self._opened.training[index] for index in given.shards)
        missing = [blob for blob in shards if not self._desk.holds(blob)]
        if missing:
            self.doing = f"getting {len(missing)} shards"
            return [Fetch(blob, self._holders) for blob in missing]
        self._job, self._job_round = self._desk.job(), view.round
        self.doing = f"training round {view.round}"
        binding = payload_binding(view.task, view.round, self._account, view.model.root)
        return [Run("trainer", Train(self._job, view.spec, view.round, view.model, shards, given.samples, binding))]

    def owes(self) -> bool:
        """Whether a gradient of ours is due, or under way: the trainer is to do nothing else then."""
        view, seat = self._view, self._seat()
        if self._job is not None:
            return True
        if view is None or seat is None or view.phase != Phase.TRAIN or seat.suspended or seat.joined > view.round:
            return False
        return self._own is None or self._own.body.round != view.round

    def on_answer(self, answer: Answer) -> list[Effect]:
        if answer.job != self._job:
            return []
        self._job = None
        match answer:
            case Trained():
                return self._commit(answer)
            case Failed(_, reason):
                self._retry_at = self._ticks + RETRY_TICKS
                return [Told("training failed", (("round", self._job_round), ("reason", reason)))]
            case _:
                return []

    def _commit(self, trained: Trained) -> list[Effect]:
        view = self._view
        if view is None or view.phase != Phase.TRAIN or view.round != self._job_round:
            return self.advance()  # too late: the round has gone on without us
        self.loss_micro = trained.loss_micro
        body = Commitment(
            view.task,
            view.round,
            self._account,
            view.model.root,
            trained.payload,
            trained.samples,
            trained.finite,
            trained.loss_micro,
            NOTHING,
            view.spec.rig_class,
            self._signer.derive("salt", view.task, view.round.to_bytes(8, "big")),
        )
        self._own = self._signer.verified(body)
        self._revealed = False
        self.doing = f"committed to round {view.round}"
        hide: list[Effect] = [Hide(trained.payload)] if trained.payload != NO_BLOB else []
        return [
            Note(commitment_note(view.task), encode(self._own.signed)),
            *hide,
            Announce(self._own.signed),
            Told("trained", (("round", view.round), ("loss_micro", trained.loss_micro), ("ms", trained.milliseconds))),
        ]

    def on_tick(self) -> list[Effect]:
        self._ticks += 1
        view, own = self._view, self._own
        if view is None or view.phase != Phase.TRAIN:
            return []
        if own is not None and own.body.round == view.round:
            return [Announce(own.signed)] if self._ticks % ANNOUNCE_TICKS == 0 else []
        return self.advance() if self._ticks % RETRY_TICKS == 0 else []

    def on_certified(self) -> list[Effect]:
        """The seal is final: nobody can learn from our payload any more what to commit to."""
        view, own = self._view, self._own
        if view is None or own is None or self._revealed or not own.body.finite:
            return []
        if view.round <= own.body.round and not (view.phase == Phase.REVEAL and self._sealed(view, own.body)):
            return []
        self._revealed = True
        return [Reveal(own.body.payload)]

    def _sealed(self, view: View, own: Commitment) -> bool:
        """Also if it is another commitment of ours to the same, under the key that this one gave way to: as validators
        we may have reported that we hold it, and nobody else may."""
        sealed = (one for one in view.commitments if one.miner == own.miner)
        return any((one.round, one.payload) == (own.round, own.payload) for one in sealed)
