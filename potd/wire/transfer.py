"""Questions one node asks another, and answers: blobs by chunk, batches in flight, certified blocks, states by part.

A chunk and a batch are answered by their bytes alone, since the asker knows the digest; the others by a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.blocks import Block, Certificate
from potd.wire.codec import U32, U63, Range, Size, message
from potd.wire.ids import BlobRef, Digest, Key
from potd.wire.merkle import CHUNK_BYTES
from potd.wire.merkle_map import POSITION_BITS, Proof
from potd.wire.rounds import VALIDATORS_MAX

BLOB_BYTES_MAX = 2**35  # so that the leaves of one blob fit a message
LEAF_BYTES = 32
LEAVES_BYTES_MAX = BLOB_BYTES_MAX // CHUNK_BYTES * LEAF_BYTES
BLOCKS_BYTES_MAX = 512 * 1024  # an answer ends at the last certified height before this, but has one at least
PART_BYTES_MAX = 1024 * 1024  # keys and values of a part, unless it is a single entry
PART_ENTRIES_MAX = 16_384
ENTRY_BYTES_MAX = 4 * 1024 * 1024  # a task with as many miners as it may have takes 3 MiB
HANDOVERS_MAX = 4096
HANDOVERS_BYTES_MAX = 4 * 1024 * 1024  # an answer ends with the handover that goes beyond

LEAVES, CHUNK, BATCH, BLOCKS, SNAPSHOT, PART = "leaves", "chunk", "batch", "blocks", "snapshot", "part"
KINDS = (LEAVES, CHUNK, BATCH, BLOCKS, SNAPSHOT, PART)


@message(150)
@dataclass(frozen=True)
class WantLeaves:
    """The leaf hashes of a blob's chunks? Kind `leaves`, answered by Leaves."""

    blob: BlobRef


@message(151)
@dataclass(frozen=True)
class WantChunk:
    """One chunk of a blob? Kind `chunk`, answered by its bytes."""

    blob: BlobRef
    index: U32


@message(152)
@dataclass(frozen=True)
class WantBatch:
    """The batch of this digest? Kind `batch`, answered by its encoding."""

    digest: Digest


@message(153)
@dataclass(frozen=True)
class WantBlocks:
    """Certified blocks from this height on? Kind `blocks`, answered by Blocks."""

    first: U63


@message(154)
@dataclass(frozen=True)
class Leaves:
    """Leaf hashes laid end to end."""

    hashes: Annotated[bytes, Size(0, LEAVES_BYTES_MAX)]


@message(155)
@dataclass(frozen=True)
class Blocks:
    """Blocks of consecutive heights; none if the first is not known."""

    blocks: Annotated[tuple[Block, ...], Size(0, 4096)]


@message(156)
@dataclass(frozen=True)
class WantSnapshot:
    """Of which height can the state be had? Of this one, or, for 0, of your newest? Kind `snapshot`, answered by
    Snapshot. `base` is the last height before those that the asker's validators decide."""

    height: U63
    base: U63


@message(157)
@dataclass(frozen=True)
class Snapshot:
    """The state of the certificate's height can be had. `ends` are the certificates of the heights, above the asker's
    base and below this one, after which others decide, `sets` the keys of these others, in the same order.

    If the certificate is the last of `ends`, there are more of them than an answer holds: ask again from there."""

    certificate: Certificate
    ends: Annotated[tuple[Certificate, ...], Size(0, HANDOVERS_MAX)]
    sets: Annotated[tuple[Annotated[tuple[Key, ...], Size(1, VALIDATORS_MAX)], ...], Size(0, HANDOVERS_MAX)]


@message(158)
@dataclass(frozen=True)
class WantPart:
    """What stands in the state of this height at positions that begin with the first `length` bits of `prefix`, of
    which the rest are 0? Kind `part`, answered by Part."""

    height: U63
    prefix: Digest
    length: Annotated[int, Range(0, POSITION_BITS)]


@message(159)
@dataclass(frozen=True)
class Part:
    """The entries of a part of the state, by position, and the proof that they are all. Without a proof: too large, so
    ask for its halves."""

    keys: Annotated[tuple[Annotated[bytes, Size(0, 64)], ...], Size(0, PART_ENTRIES_MAX)]
    values: Annotated[tuple[Annotated[bytes, Size(0, ENTRY_BYTES_MAX)], ...], Size(0, PART_ENTRIES_MAX)]
    proof: Annotated[tuple[Proof, ...], Size(0, 1)]
