"""A closed loop of clients: each has one operation offered at a time, and offers the next once that is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from potd.wire.envelope import Signed, Signer
from potd.wire.ids import account_id
from potd.wire.operations import Transfer


def enough(outstanding: int) -> int:
    """So many operations are measured, however long they take: batches differ, so one of each client is not enough."""
    return max(20, 2 * outstanding)


class Client:
    """An account that pays another, one unit at a time. The payload travels as the memo."""

    def __init__(self, signer: Signer, payee: bytes, payload_bytes: int) -> None:
        self._signer = signer
        self.account = account_id(signer.key)
        self._payee = payee
        self._memo = "x" * payload_bytes
        self.nonce = 0

    def next(self) -> Signed:
        signed = self._signer.sign(Transfer(self.account, self.nonce, self._payee, 1, self._memo))
        self.nonce += 1
        return signed


def clients(signers: Sequence[Signer], payload_bytes: int) -> list[Client]:
    """Each pays the one after it."""
    payees = [account_id(one.key) for one in (*signers[1:], *signers[:1])]
    return [Client(signer, payee, payload_bytes) for signer, payee in zip(signers, payees, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
