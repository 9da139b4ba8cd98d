"""The states that this node can give to others: kept by certified height, given in parts. Takes none itself."""

from __future__ import annotations

from collections.abc import Mapping

from potd.consensus.succession import Handover
from potd.ledger.state import Ledger
from potd.wire.blocks import Certificate
from potd.wire.codec import decode, encode
from potd.wire.ids import Key
from potd.wire.merkle_map import Prefix
from potd.wire.transfer import (
    HANDOVERS_BYTES_MAX,
    HANDOVERS_MAX,
    PART_BYTES_MAX,
    PART_ENTRIES_MAX,
    Part,
    Snapshot,
    WantPart,
    WantSnapshot,
)

SNAPSHOT_HEIGHTS = 64  # every so many heights a state is kept, so that several peers have the same one
KEPT = 2  # the newest, and the one that somebody may still be taking
HANDOVER_NOTES = "handover/"  # what their names begin with
_KEY_BYTES = 32


class Shelf:
    """Ledgers share what they have in common, so a kept one costs what has changed since. `snapshot` and `part` may be
    called from any thread."""

    def __init__(self, notes: Mapping[str, bytes]) -> None:
        self._executed: dict[int, Ledger] = {}  # not certified yet
        self._certified: dict[int, tuple[Ledger, Certificate]] = {}
        self._handovers: dict[int, Handover] = {}
        for name in sorted(name for name, data in notes.items() if name.startswith(HANDOVER_NOTES) and data):
            handover = _read_handover(notes[name])
            self._handovers[handover.height] = handover

    def executed(self, ledger: Ledger) -> None:
        """A height has been executed; whether it is certified will be said."""
        if ledger.height % SNAPSHOT_HEIGHTS == 0:
            self._executed[ledger.height] = ledger
            self._forget_oldest(self._executed)

    def certified(self, certificate: Certificate) -> None:
        height = certificate.header.height
        ledger = self._executed.pop(height, None)
        if ledger is not None:
            self.keep(ledger, certificate)

    def keep(self, ledger: Ledger, certificate: Certificate) -> None:
        """This state can be given from now on, until there are newer ones. A node that has just begun keeps the one
        that it has, whatever its height: where all were stopped at once, all have the same."""
        assert ledger.header == certificate.header
        self._certified[ledger.height] = ledger, certificate
        self._forget_oldest(self._certified)

    def hand_over(self, handover: Handover) -> tuple[str, bytes]:
        """Remember who decides after a height. The name and the data of the note that brings it back: see `notes`."""
        self._handovers[handover.height] = handover
        data = len(handover.keys).to_bytes(2, "big") + b"".join(handover.keys) + encode(handover.certificate)
        return f"{HANDOVER_NOTES}{handover.height}", data

    # What others may ask

    def snapshot(self, want: WantSnapshot) -> Snapshot | None:
        """The state that is asked for, with what leads to its certificate; None if it is not here."""
        height = want.height or max(self._certified, default=0)
        found = self._certified.get(height)
        if found is None:
            return None
        certificate = found[1]
        chosen: list[Handover] = []
        size = 0
        for handover in [one for at, one in sorted(self._handovers.items()) if want.base < at < height]:
            chosen.append(handover)
            size += len(encode(handover.certificate)) + (_KEY_BYTES + 2) * len(handover.keys)
            if len(chosen) == HANDOVERS_MAX or size > HANDOVERS_BYTES_MAX:
                certificate = handover.certificate
                break
        return Snapshot(certificate, tuple(one.certificate for one in chosen), tuple(one.keys for one in chosen))

    def part(self, want: WantPart) -> Part | None:
        """A part of a state, or that it is too large; None if the state is not here."""
        found = self._certified.get(want.height)
        if found is None:
            return None
        part = found[0].entries.part(Prefix(want.prefix, want.length), PART_BYTES_MAX, PART_ENTRIES_MAX)
        if part is None:
            return Part((), (), ())
        entries, proof = part
        return Part(tuple(key for key, _ in entries), tuple(value for _, value in entries), (proof,))

    @staticmethod
    def _forget_oldest(kept: dict[int, Ledger] | dict[int, tuple[Ledger, Certificate]]) -> None:
        while len(kept) > KEPT:
            del kept[min(kept)]


def _read_handover(data: bytes) -> Handover:
    count = int.from_bytes(data[:2], "big")
    end = 2 + count * _KEY_BYTES
    keys: tuple[Key, ...] = tuple(data[at : at + _KEY_BYTES] for at in range(2, end, _KEY_BYTES))
    return Handover(decode(data[end:], Certificate), keys)
