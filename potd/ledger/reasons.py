"""Receipts and their sentences."""

from __future__ import annotations

from potd.wire.blocks import Receipt
from potd.wire.ids import Digest

REASON_BYTES_MAX = 256


def receipt(record: Digest, reason: str = "") -> Receipt:
    """A receipt whose reason, cut if need be, fits its field."""
    return Receipt(record, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))
