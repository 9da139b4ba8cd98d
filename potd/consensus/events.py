"""What a replica is told and what it orders. Facts are in the past tense, orders in the imperative."""

from __future__ import annotations

from dataclasses import dataclass

from potd.wire.blocks import Batch, Certificate, Header
from potd.wire.consensus import Prepared, Recollect, Word
from potd.wire.envelope import Signed, Verified
from potd.wire.ids import Digest, Key

# Inputs


@dataclass(frozen=True)
class Ticked:
    """One tick has passed. `timed` is false while too few replicas are connected for anybody to make progress: then
    nothing that is due is the primary's fault."""

    timed: bool = True


@dataclass(frozen=True)
class Received:
    """A validator said this."""

    message: Verified[Word]


@dataclass(frozen=True)
class Recollecting:
    """A validator has started and asks what it said last. `reports` names those of its reports that go before our
    answer."""

    message: Verified[Recollect]
    reports: tuple[Digest, ...]


@dataclass(frozen=True)
class Held:
    """A batch is at hand: it came with a proposal, or was fetched."""

    digest: Digest
    batch: Batch


@dataclass(frozen=True)
class Proposed:
    """The node, being primary, has something to order."""

    digest: Digest
    batch: Batch


@dataclass(frozen=True)
class Awaited:
    """Something is due from the primary; if it takes longer than our patience, the primary is replaced."""

    key: str


@dataclass(frozen=True)
class Settled:
    """What was due has come, or is due no more."""

    key: str


@dataclass(frozen=True)
class Judged:
    """The node has compared a proposal with what it worked out itself. An empty reason means agreement."""

    view: int
    seq: int
    digest: Digest
    reason: str


@dataclass(frozen=True)
class Executed:
    """The batch at this height was executed, with this result."""

    header: Header


@dataclass(frozen=True)
class Ending:
    """Another set of validators has been agreed, and decides what comes after this height: nothing above it is ordered
    here. Told before the Executed (or followed) that makes it known, and after a restart before anything else."""

    height: int


@dataclass(frozen=True)
class Certificated:
    """Somebody showed a certificate; its signatures have been checked."""

    certificate: Certificate


Input = (
    Ticked | Received | Recollecting | Held | Proposed | Awaited | Settled | Judged | Executed | Ending | Certificated
)

# Effects


@dataclass(frozen=True)
class Persist:
    """Write this down before anything that follows is sent. It may be forgotten once `seq` is stable."""

    seq: int
    record: Signed | Prepared | Batch


@dataclass(frozen=True)
class Forget:
    """What was persisted up to this seq is permanent in the checkpoint."""

    seq: int


@dataclass(frozen=True)
class Broadcast:
    """Send to every other validator. A `batch` travels with its pre-prepare."""

    signed: Signed
    batch: Batch | None = None


@dataclass(frozen=True)
class Send:
    """Send to one validator."""

    to: Key
    message: Signed | Certificate
    batch: Batch | None = None


@dataclass(frozen=True)
class Judge:
    """Work out whether this proposal is right, and answer Judged."""

    view: int
    seq: int
    digest: Digest
    batch: Batch


@dataclass(frozen=True)
class Deliver:
    """Execute this batch, and answer Executed."""

    seq: int
    digest: Digest
    batch: Batch


@dataclass(frozen=True)
class Certify:
    """A quorum has signed the header that we executed: the height is permanent."""

    certificate: Certificate


@dataclass(frozen=True)
class Enter:
    """A view has begun."""

    view: int
    primary: Key
    reason: str


@dataclass(frozen=True)
class Suspect:
    """The primary is given up."""

    view: int
    primary: Key
    reason: str


@dataclass(frozen=True)
class FetchBatch:
    """A batch is named but not held. Answer Held."""

    digest: Digest


@dataclass(frozen=True)
class Follow:
    """The network has certified a height that we have not executed: fetch the blocks up to it."""

    height: int


@dataclass(frozen=True)
class Hush:
    """This home was restored: it has forgotten what it said. We are silent until this height is stable, also over
    restarts, so remember it."""

    height: int


@dataclass(frozen=True)
class Speak:
    """From now on we may vote; so may whoever else speaks for this validator. `restored` says that there are words of
    ours which this home has forgotten."""

    restored: bool


@dataclass(frozen=True)
class Accuse:
    """These signatures prove that the key broke the protocol."""

    key: Key
    reason: str
    evidence: tuple[Signed, ...]


@dataclass(frozen=True)
class Ignore:
    """A message came too early or too late to change anything, as honest ones do; the reason is counted."""

    sender: Key
    reason: str


@dataclass(frozen=True)
class Reject:
    """A message is false: no honest replica sends it. The reason is counted against the sender."""

    sender: Key
    reason: str


Effect = (
    Persist
    | Forget
    | Broadcast
    | Send
    | Judge
    | Deliver
    | Certify
    | Enter
    | Suspect
    | FetchBatch
    | Follow
    | Hush
    | Speak
    | Accuse
    | Ignore
    | Reject
)
