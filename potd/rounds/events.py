"""What a task's rounds are told and what they order, and how a task looks from here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Protocol

from potd.rounds.chains import Chained
from potd.rounds.plan import Window
from potd.wire.audits import Audit
from potd.wire.codec import decode
from potd.wire.envelope import Signed, Verified
from potd.wire.ids import AccountId, BlobRef, Digest, Key, TaskId
from potd.wire.jobs import Answer, Job
from potd.wire.rounds import Commitment, Draft, Evaluation, Link, Report, Seal, Update
from potd.wire.tasks import TaskSpec


class Phase(IntEnum):
    IDLE = 0  # waiting for miners, or asleep
    TRAIN = 1
    REVEAL = 2
    DONE = 3


@dataclass(frozen=True)
class Seat:
    """A miner's enrolment. `joined` is the first round that counts for it."""

    account: AccountId
    key: Key
    units: int
    suspended: bool
    joined: int


def _account(seat: Seat) -> AccountId:
    return seat.account


@dataclass(frozen=True)
class Tip:
    """A validator that has a seat, and what the ledger has seen of its chains for the task."""

    account: AccountId
    chained: Chained


@dataclass(frozen=True)
class View:
    """A task as committed at some height."""

    task: TaskId
    spec: TaskSpec
    phase: Phase
    asleep: bool  # idle until somebody enrols
    round: int
    seed: Digest
    model: BlobRef
    momentum: BlobRef
    aggregate: BlobRef  # what led from the model before to this one; NO_BLOB at first
    deadline_ticks: int
    seats: tuple[Seat, ...]  # by account
    window: Window
    next_window: Window
    sealed: tuple[Signed, ...]  # Commitment, by miner, while in REVEAL
    evaluated: int  # the newest round whose model has been scored; -1 for none
    tips: tuple[Tip, ...] = ()  # by account
    probation: frozenset[AccountId] = frozenset()  # miners of what is sealed whose contributions are in no sum

    @cached_property
    def commitments(self) -> tuple[Commitment, ...]:
        """What was sealed, read once: a round of a thousand miners asks at every height."""
        return tuple(decode(one.payload, Commitment) for one in self.sealed)

    def expected(self) -> tuple[Seat, ...]:
        """The miners that this round waits for."""
        return tuple(seat for seat in self.seats if not seat.suspended and seat.joined <= self.round)

    def seat(self, account: AccountId) -> Seat | None:
        at = bisect_left(self.seats, account, key=_account)
        return self.seats[at] if at < len(self.seats) and self.seats[at].account == account else None


# Rounds that are past


class Hour(IntEnum):
    """What may be said of a round that is past."""

    PROMISE = 0
    TELL = 1  # what was promised
    RULE = 2  # on what is contested


class PastRow(Protocol):
    """One contribution of a round that is past, as the ledger has it."""

    @property
    def miner(self) -> AccountId: ...

    @property
    def payload(self) -> BlobRef: ...

    @property
    def units(self) -> int: ...

    @property
    def outcome(self) -> int:
        """rounds.Outcome"""


@dataclass(frozen=True)
class Contested:
    """A contribution that a verdict calls bad, and of which our account has not said yet whether it is."""

    row: PastRow
    by: AccountId  # the first who called it bad


class PastEntry(Protocol):
    """A round that is past, as the ledger has it."""

    @property
    def round(self) -> int: ...

    @property
    def model(self) -> BlobRef:
        """That the gradients were taken at."""

    @property
    def seed(self) -> Digest: ...

    @property
    def validators(self) -> int:
        """By how many of them contributions are drawn."""

    @property
    def rows(self) -> Sequence[PastRow]:
        """By miner."""


@dataclass(frozen=True)
class PastRound:
    """A round that has counted and is audited."""

    entry: PastEntry
    hour: Hour
    closing: bool  # whether a promise has to be made now or never
    window: Window
    audit_ppm: int
    promised: Digest | None  # by our account: `audits.promised`
    kept: bool  # whether that has been told
    contested: tuple[Contested, ...]  # by miner

    @property
    def round(self) -> int:
        return self.entry.round


@dataclass(frozen=True)
class Audited:
    """What the ledger knows of a task's audits."""

    norm: int  # the unit of distances; 0 while there is none
    chained: Chained | None  # our account's
    pasts: tuple[PastRound, ...]  # whose audit is not over, by round


UNAUDITED = Audited(0, None, ())


# Inputs


@dataclass(frozen=True)
class Ticked:
    """One tick has passed."""


@dataclass(frozen=True)
class Changed:
    """The ledger has moved this task, or one of its rounds that are past."""

    view: View
    audited: Audited


@dataclass(frozen=True)
class Heard:
    """A miner has committed."""

    commitment: Verified[Commitment]


@dataclass(frozen=True)
class Reported:
    """A validator has reported."""

    report: Verified[Report]


@dataclass(frozen=True)
class Drafted:
    """A primary has chosen reports."""

    draft: Verified[Draft]


@dataclass(frozen=True)
class Released:
    """A validator has released a link."""

    link: Verified[Link]


@dataclass(frozen=True)
class Fetched:
    """A blob is held now."""

    ref: BlobRef


@dataclass(frozen=True)
class Opened:
    """The manifest is held and has been read: sizes and blobs of the training and the held-out shards."""

    training: tuple[BlobRef, ...]
    sizes: tuple[int, ...]
    held_out: tuple[BlobRef, ...]


@dataclass(frozen=True)
class Answered:
    """A worker has answered one of our jobs."""

    answer: Answer


@dataclass(frozen=True)
class Entered:
    """A view of the consensus has begun, or ended with nobody to lead (`primary` is None)."""

    view: int
    primary: Key | None


@dataclass(frozen=True)
class Certified:
    """Everything executed so far is certified by a quorum."""


Input = Ticked | Changed | Heard | Reported | Drafted | Released | Fetched | Opened | Answered | Entered | Certified

# Effects


@dataclass(frozen=True)
class Run:
    worker: str
    job: Job


@dataclass(frozen=True)
class Announce:
    """Gossip our commitment."""

    signed: Signed


@dataclass(frozen=True)
class Share:
    """Send to every other validator."""

    signed: Signed


@dataclass(frozen=True)
class Fetch:
    ref: BlobRef
    holders: tuple[Key, ...]


@dataclass(frozen=True)
class Read:
    """Get a small blob and its bytes: the manifest. Answered by Opened."""

    ref: BlobRef


@dataclass(frozen=True)
class Unfetch:
    ref: BlobRef


@dataclass(frozen=True)
class Hide:
    ref: BlobRef


@dataclass(frozen=True)
class Reveal:
    ref: BlobRef


@dataclass(frozen=True)
class Retire:
    """These blobs are needed no more."""

    refs: tuple[BlobRef, ...]


@dataclass(frozen=True)
class Note:
    """Remember this before anything that follows is sent."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Propose:
    """We are primary, and this record is due. Proposing one again, or one that is stale, harms nothing."""

    record: Seal | Update | Evaluation


@dataclass(frozen=True)
class Ask:
    """Have our account ask this of the ledger, unless it has. The nonce, here 0, is the node's to fill in."""

    operation: Audit


@dataclass(frozen=True)
class Await:
    """The primary owes this."""

    key: str


@dataclass(frozen=True)
class Settle:
    key: str


@dataclass(frozen=True)
class Ignore:
    """A message came too early or too late, as honest ones do."""

    reason: str


@dataclass(frozen=True)
class Accuse:
    """These signatures prove that the key broke the protocol."""

    key: Key
    reason: str
    evidence: tuple[Signed, ...]


@dataclass(frozen=True)
class Told:
    """Something worth showing: a kind and plain values."""

    kind: str
    values: tuple[tuple[str, int | str], ...]


Effect = (
    Run
    | Announce
    | Share
    | Fetch
    | Unfetch
    | Read
    | Hide
    | Reveal
    | Retire
    | Note
    | Propose
    | Ask
    | Await
    | Settle
    | Ignore
    | Accuse
    | Told
)
