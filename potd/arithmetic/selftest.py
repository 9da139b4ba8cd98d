"""What the arithmetic worker's self-test must come to on every machine. Imports no numpy: the daemon reads it.

A validator whose worker greets with another digest must not vote: its machine, or its numpy, rounds differently.
"""

from __future__ import annotations

from potd.wire.ids import Digest

GOLDEN: Digest = bytes.fromhex("c7105ba83b23061882d31ed160e2ec4d6ff9f5e4bca4bbc78354227e3b42bdcd")
