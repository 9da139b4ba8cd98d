"""Evidence that this node holds: kept over restarts, and brought before the ledger. Proves nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from potd.ledger.seats import answers
from potd.ledger.state import Ledger
from potd.node.events import Note
from potd.wire.codec import Malformed, decode, encode
from potd.wire.envelope import Signed
from potd.wire.ids import AccountId, Digest, Key
from potd.wire.operations import Accuse

TURN_TICKS = 10  # by which each validator waits longer than the one before it: one accusation is enough
TRIES_MAX = 3  # each may cost a fee
_NOTE = "evidence/"


@dataclass
class Case:
    """Against one key: what proves its guilt, since when it waits, and our accusation while it is on its way."""

    evidence: tuple[Signed, ...]
    since: int
    made: Digest | None = None
    tries: int = 0


class Accuser:
    """One case for each key: a bond can be taken once."""

    def __init__(self, account: AccountId, notes: Mapping[str, bytes]) -> None:
        self._account = account
        self._cases: dict[Key, Case] = {}
        for name, data in sorted(notes.items()):
            if name.startswith(_NOTE) and data:
                try:
                    self._cases[bytes.fromhex(name.removeprefix(_NOTE))] = Case(decode(data, Accuse).evidence, 0)
                except (Malformed, ValueError):
                    continue  # not of this release; whoever lied will be seen again

    def hold(self, key: Key, evidence: tuple[Signed, ...], tick: int) -> Note | None:
        """Keep this, unless something proves the same already. The note brings it back after a restart."""
        if key in self._cases:
            return None
        self._cases[key] = Case(evidence, tick)
        return Note(f"{_NOTE}{key.hex()}", encode(Accuse(self._account, 0, evidence)))

    def due(self, place: int, tick: int) -> list[tuple[Key, Case]]:
        """Whom to accuse now; `place` is ours among the validators."""
        return [
            (key, case)
            for key, case in sorted(self._cases.items())
            if case.made is None and tick - case.since >= TURN_TICKS * (place + 1)
        ]

    def made(self) -> list[tuple[Key, Case, Digest]]:
        """The accusations that are on their way."""
        return [(key, case, case.made) for key, case in sorted(self._cases.items()) if case.made is not None]

    def closed(self, key: Key, ledger: Ledger) -> list[Note]:
        """Forget the case if nothing is left to take, or it was tried in vain too often."""
        if answers(ledger, key) and self._cases[key].tries < TRIES_MAX:
            return []
        del self._cases[key]
        return [Note(f"{_NOTE}{key.hex()}", b"")]
