"""Evidence that this node holds: kept over restarts, and brought before the ledger. Proves nothing itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from potd.ledger.accounts import at_stake
from potd.ledger.evidence import commitment
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

    key: Key
    evidence: tuple[Signed, ...]
    since: int
    made: Digest | None = None
    tries: int = 0


class Accuser:
    """One case for each key, and for each task that it mines for: every bond can be taken once."""

    def __init__(self, account: AccountId, notes: Mapping[str, bytes]) -> None:
        self._account = account
        self._cases: dict[str, Case] = {}  # by name
        for name, data in sorted(notes.items()):
            if name.startswith(_NOTE) and data:
                try:
                    evidence = decode(data, Accuse).evidence
                except Malformed:
                    continue  # not of this release; whoever lied will be seen again
                self._cases[name.removeprefix(_NOTE)] = Case(evidence[0].key, evidence, 0)

    def hold(self, key: Key, evidence: tuple[Signed, ...], tick: int) -> Note | None:
        """Keep this, unless something proves the same already. The note brings it back after a restart."""
        name = _name(key, evidence)
        if name in self._cases:
            return None
        self._cases[name] = Case(key, evidence, tick)
        return Note(f"{_NOTE}{name}", encode(Accuse(self._account, 0, evidence)))

    def due(self, place: int, tick: int) -> list[tuple[str, Case]]:
        """Whom to accuse now; `place` is ours among the validators."""
        return [
            (name, case)
            for name, case in sorted(self._cases.items())
            if case.made is None and tick - case.since >= TURN_TICKS * (place + 1)
        ]

    def made(self) -> list[tuple[Case, Digest]]:
        """The accusations that are on their way."""
        return [(case, case.made) for _, case in sorted(self._cases.items()) if case.made is not None]

    def closed(self, name: str, ledger: Ledger) -> list[Note]:
        """Forget the case if nothing is left to take, or it was tried in vain too often."""
        case = self._cases[name]
        if at_stake(ledger, Accuse(self._account, 0, case.evidence)) and case.tries < TRIES_MAX:
            return []
        del self._cases[name]
        return [Note(f"{_NOTE}{name}", b"")]


def _name(key: Key, evidence: tuple[Signed, ...]) -> str:
    """What is at stake: the bond of a seat, or that of a miner in one task."""
    word = commitment(evidence)
    return key.hex() if word is None else f"{key.hex()}/{word.task.hex()}"
