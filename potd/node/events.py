"""What a node is told and what it orders. Facts in the past tense come in, orders in the imperative go out.

Effects happen in the order in which they are returned. Nothing that follows a Keep, Note or Store leaves the
machine before these are durable. No effect returns a value: an answer is a later input.
"""

from __future__ import annotations

from dataclasses import dataclass

from potd.wire.blocks import Batch, Block, Certificate, Header
from potd.wire.consensus import Prepared
from potd.wire.envelope import Signed
from potd.wire.ids import BlobRef, Digest, Key
from potd.wire.jobs import Answer, Job
from potd.wire.merkle_map import Prefix
from potd.wire.transfer import Part, Snapshot

# Inputs


@dataclass(frozen=True)
class Ticked:
    """50 ms have passed. If the machine slept, ticks are not made up for."""


@dataclass(frozen=True)
class PeerUp:
    """A peer of our network is connected, and says that it has executed this height."""

    peer: Key
    height: int


@dataclass(frozen=True)
class PeerDown:
    peer: Key


@dataclass(frozen=True)
class Framed:
    """A frame from the direct stream of an authenticated peer; not yet decoded."""

    peer: Key
    data: bytes


@dataclass(frozen=True)
class Gossiped:
    """A message heard on a topic (`commitments`, `certificates`, `operations`); not yet decoded."""

    topic: str
    data: bytes


@dataclass(frozen=True)
class Fetched:
    """This blob is in the store, verified against its root."""

    ref: BlobRef


@dataclass(frozen=True)
class BlobRead:
    """An answer to Read: the whole blob, verified against its root."""

    ref: BlobRef
    data: bytes


@dataclass(frozen=True)
class BatchFetched:
    """An answer to FetchBatch; not yet compared with its digest."""

    digest: Digest
    data: bytes


@dataclass(frozen=True)
class BlocksFetched:
    """An answer to FetchBlocks, decoded and not yet checked. Empty if the peer would not or could not answer."""

    peer: Key
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SnapshotFetched:
    """An answer to FetchSnapshot, decoded and not yet checked; None if the peer would not or could not answer."""

    peer: Key
    height: int
    snapshot: Snapshot | None


@dataclass(frozen=True)
class PartFetched:
    """An answer to FetchPart, likewise."""

    peer: Key
    height: int
    prefix: Prefix
    part: Part | None


@dataclass(frozen=True)
class WorkerReady:
    """A worker (`trainer`, `arithmetic`) has started and may be given jobs. `self_test` is its greeting's."""

    kind: str
    device: str
    self_test: Digest


@dataclass(frozen=True)
class WorkerLost:
    """A worker has died or was killed; jobs given to it come back as JobDone(Failed). It is being restarted."""

    kind: str
    reason: str


@dataclass(frozen=True)
class JobDone:
    """A worker's answer, matched by `answer.job`."""

    answer: Answer


@dataclass(frozen=True)
class OperationAsked:
    """The operator of this node wants an operation done; it is signed and complete."""

    signed: Signed


Input = (
    Ticked
    | PeerUp
    | PeerDown
    | Framed
    | Gossiped
    | Fetched
    | BlobRead
    | BatchFetched
    | BlocksFetched
    | SnapshotFetched
    | PartFetched
    | WorkerReady
    | WorkerLost
    | JobDone
    | OperationAsked
)

# Effects: the journal


@dataclass(frozen=True)
class Keep:
    """A record of consensus. It may be forgotten once `seq` is stable; of ViewChange and NewView (seq 2^62) only the
    newest is kept."""

    seq: int
    record: Signed | Prepared | Batch


@dataclass(frozen=True)
class Forget:
    """Consensus records up to this seq are needed no more."""

    seq: int


@dataclass(frozen=True)
class Store:
    """A height was executed: its batch, its header, the state entries that changed (None deletes). One transaction."""

    header: Header
    batch: Batch
    entries: tuple[tuple[bytes, bytes | None], ...]


@dataclass(frozen=True)
class StoreCertificate:
    """The height of this certificate is permanent; kept beside its block for ever."""

    certificate: Certificate


@dataclass(frozen=True)
class StoreSnapshot:
    """The state of this certified height, which has not been executed here, takes the place of the one that is stored.
    The blocks up to it go: history begins anew. One transaction."""

    certificate: Certificate
    entries: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Note:
    """A small fact under a name, replacing what was there; empty data deletes it."""

    name: str
    data: bytes


OWED = (Forget, StoreCertificate)  # writes that nothing waits for: others prove the one, the other only tidies up

# Effects: the network


@dataclass(frozen=True)
class Send:
    """A frame to one peer, over its direct stream."""

    to: Key
    data: bytes


@dataclass(frozen=True)
class Publish:
    """A message to everybody, by gossip, on `commitments`, `certificates` or `operations`."""

    topic: str
    data: bytes


@dataclass(frozen=True)
class Fetch:
    """Get this blob, from these holders first, then from any peer; again and again until Unfetch. At once if held."""

    ref: BlobRef
    holders: tuple[Key, ...]


@dataclass(frozen=True)
class Unfetch:
    """This blob is wanted no more."""

    ref: BlobRef


@dataclass(frozen=True)
class Read:
    """Get this small blob as Fetch does, and answer with its bytes: BlobRead."""

    ref: BlobRef


@dataclass(frozen=True)
class FetchBatch:
    """Ask these peers, one after another, for a batch in flight."""

    digest: Digest
    peers: tuple[Key, ...]


@dataclass(frozen=True)
class FetchBlocks:
    """Ask this peer for certified blocks from `first` on, as many as fit an answer."""

    peer: Key
    first: int


@dataclass(frozen=True)
class FetchSnapshot:
    """Ask this peer whether it can give the state of this height, or, for 0, of which height it can. `base` is the last
    height before those that the validators known to us decide."""

    peer: Key
    height: int
    base: int


@dataclass(frozen=True)
class FetchPart:
    """Ask this peer for a part of the state of this height."""

    peer: Key
    height: int
    prefix: Prefix


# Effects: blobs, workers, people


@dataclass(frozen=True)
class Hide:
    """Serve this blob to nobody, until Reveal."""

    ref: BlobRef


@dataclass(frozen=True)
class Reveal:
    """This blob may be served."""

    ref: BlobRef


@dataclass(frozen=True)
class Retain:
    """These blobs are needed; others may be deleted, least recently used first, to stay within the size budget.
    `surplus` are known to be needed no more and may go at once."""

    needed: tuple[BlobRef, ...]
    surplus: tuple[BlobRef, ...]


@dataclass(frozen=True)
class Run:
    """Give a job to a worker: `trainer` or `arithmetic`. Answered by JobDone, always."""

    worker: str
    job: Job


@dataclass(frozen=True)
class Ignore:
    """An input changed nothing, and is held against nobody: honest ones come early or late, and who wrote what came by
    gossip is not known. Counted by reason."""

    reason: str


@dataclass(frozen=True)
class Refuse:
    """A peer's input is false; counted by reason and against the peer, which may be hung up on."""

    peer: Key
    reason: str


@dataclass(frozen=True)
class Log:
    """A line for people: what changed, with numbers. `level` is that of logging."""

    level: int
    text: str


@dataclass(frozen=True)
class Tell:
    """An event for `potd watch` and the like: a kind and plain values."""

    kind: str
    task: Digest
    values: tuple[tuple[str, int | str], ...]


Effect = (
    Keep
    | Forget
    | Store
    | StoreCertificate
    | StoreSnapshot
    | Note
    | Send
    | Publish
    | Fetch
    | Unfetch
    | Read
    | FetchBatch
    | FetchBlocks
    | FetchSnapshot
    | FetchPart
    | Hide
    | Reveal
    | Retain
    | Run
    | Ignore
    | Refuse
    | Log
    | Tell
)

TOPICS = ("commitments", "certificates", "operations")
TRAINER = "trainer"
ARITHMETIC = "arithmetic"
