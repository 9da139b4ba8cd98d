"""What the arithmetic worker's self-test must come to on every machine. Imports no numpy: the daemon reads it.

A validator whose worker greets with another digest must not vote: its machine, or its numpy, rounds differently.
"""

from __future__ import annotations

from potd.wire.ids import Digest

GOLDEN: Digest = bytes.fromhex("9809a68ab5563907b536459386704f632cd58ad87f09622b7e50dceec273da5a")
