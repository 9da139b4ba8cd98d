"""Questions one node asks another, and answers: blobs by chunk, batches in flight, certified blocks.

A chunk and a batch are answered by their bytes alone, since the asker knows the digest; the others by a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.blocks import Block
from potd.wire.codec import U32, U63, Size, message
from potd.wire.ids import BlobRef, Digest
from potd.wire.merkle import CHUNK_BYTES

BLOB_BYTES_MAX = 2**35  # so that the leaves of one blob fit a message
LEAF_BYTES = 32
LEAVES_BYTES_MAX = BLOB_BYTES_MAX // CHUNK_BYTES * LEAF_BYTES
BLOCKS_BYTES_MAX = 512 * 1024  # an answer ends at the last certified height before this, but has one at least

LEAVES, CHUNK, BATCH, BLOCKS = "leaves", "chunk", "batch", "blocks"
KINDS = (LEAVES, CHUNK, BATCH, BLOCKS)


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
