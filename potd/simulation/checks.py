"""What no run may ever show, checked at every step: of the honest, over all their lives.

One header a height, and it is what the batch makes of the state before it; all the money; certificates that hold by
genesis alone; one answer to each question, said or written; nobody honest accused; and logs within the watermarks.
"""

from __future__ import annotations

from bisect import bisect
from itertools import pairwise

from potd.consensus.quorum import Group, certificate_fault
from potd.consensus.view_change import stables_of
from potd.ledger.apply import execute
from potd.ledger.entries import Seat
from potd.ledger.state import Ledger, genesis_ledger, supply, supply_moved
from potd.node.agenda import OPERATIONS_MAX
from potd.node.events import Effect, Keep, Note, Publish, Send, Store, StoreCertificate, StoreSnapshot
from potd.node.node import SILENT_NOTE, Node
from potd.rounds.tally import seal_reports
from potd.simulation.network import Place
from potd.simulation.words import asked, body_of, signed_in
from potd.wire.blocks import Batch, Certificate, Header, batch_digest
from potd.wire.codec import Malformed, decode
from potd.wire.consensus import NewView, ViewChange
from potd.wire.envelope import Signed
from potd.wire.genesis import Genesis, genesis_digest
from potd.wire.ids import Digest, Key, digest, short
from potd.wire.operations import Operation
from potd.wire.rounds import Seal

SAID_MAX = 1 << 12  # frames of one node that are known to have been looked at
EVIDENCE = "evidence/"  # what a note begins with that accuses a key


class Violation(AssertionError):
    """A run has shown what none may."""


def require(holds: bool, text: str) -> None:
    if not holds:
        raise Violation(text)


class Checks:
    """Follows what the nodes carry out, with a ledger of its own that begins with genesis."""

    def __init__(self, genesis: Genesis, places: tuple[Place, ...]) -> None:
        self.ledger: Ledger = genesis_ledger(genesis)
        self.certified: dict[int, Certificate] = {}
        self._network = genesis_digest(genesis)
        self._honest = dict.fromkeys(places)
        self._supply = supply(self.ledger)
        self._headers: dict[int, Header] = {}  # each names its batch
        self._groups = {1: self._group()}  # who decides a height: by the state before it
        self._bases = [0]  # of the eras so far
        self._said: dict[Place, set[bytes]] = {place: set() for place in places}  # frames that have been looked at
        self._answers: dict[Place, dict[tuple[object, ...], Digest]] = {place: {} for place in places}
        self._left: dict[tuple[int, Place], int] = {}  # by era: the newest view that it has left for,
        self._begun: dict[tuple[int, Place], int] = {}  # and the newest that it has seen begin
        self._restored: set[Place] = set()  # whose home has once been found to be an old one

    @property
    def honest(self) -> tuple[Place, ...]:
        return tuple(self._honest)

    @property
    def eras(self) -> int:
        """How many sets of validators there have been."""
        return len(self._bases)

    def distrust(self, *liars: Key) -> None:
        """Nothing is asked of these from now on."""
        for key in liars:
            self._honest.pop(key, None)

    def _group(self) -> Group:
        seats = self.ledger.seats()
        return Group(self._network, tuple(seat.key for seat in seats.seats), seats.base, seats.before)

    def carried_out(self, place: Place, effect: Effect) -> None:
        """An effect has left the machine, or is durable."""
        if place not in self._honest:
            return
        match effect:
            case Send(_, data) | Publish(_, data):
                said = self._said[place]
                if data not in said:
                    if len(said) >= SAID_MAX:
                        said.clear()
                    said.add(data)
                    self._word(place, signed_in(data))
            case Keep(_, Signed() as signed):
                self._word(place, signed)
                self._begins(place, signed)
            case Note(name, data):
                self._note(place, name, data)
            case Store(header, batch, _):
                self._block(place, header, batch)
            case StoreCertificate(certificate):
                self._certificate(place, certificate)
            case StoreSnapshot(certificate, _):
                self._certificate(place, certificate)
            case _:
                pass

    def _word(self, place: Place, signed: Signed | None) -> None:
        """Nothing said or written contradicts another word of the same key, in any life."""
        if signed is None or signed.key != place:
            return
        body = body_of(signed.payload)
        question = asked(body) if not isinstance(body, Operation) else None  # what people want may change
        if isinstance(body, ViewChange | NewView) and question is not None:
            question = *question, self._era(body)  # views count from 0 again in every era
        if question is not None:
            answer = digest("answer", signed.payload)
            known = self._answers[place].setdefault(question, answer)
            if known != answer:
                raise Violation(f"{short(place)} said two things: {_plain(question)}")
        if isinstance(body, ViewChange):
            self._leaves(place, body)

    def _era(self, body: ViewChange | NewView) -> int:
        return bisect(self._bases, body.stable if isinstance(body, ViewChange) else min(stables_of(body)))

    def _begins(self, place: Place, signed: Signed) -> None:
        """What it writes down of another's new view, or of its own, it has entered."""
        body = body_of(signed.payload)
        if isinstance(body, NewView):
            at = self._era(body), place
            self._begun[at] = max(self._begun.get(at, 0), body.view)

    def _leaves(self, place: Place, body: ViewChange) -> None:
        """Nobody gives up a view that has not begun before a quorum has left for it, unless f + 1 have gone further: or
        views would be overtaken before they can begin. [4.5.2] What liars have said they may have said. A restored home
        leaves a view of its own at once: it may have begun it."""
        era = self._era(body)
        before = self._left.get((era, place), 0)
        if body.view <= before:
            return  # said again
        self._left[era, place] = body.view
        if before <= self._begun.get((era, place), 0) or place in self._restored:
            return
        group = self._groups[body.stable + 1]
        honest = [key for key in group.keys if key in self._honest]
        lying = len(group.keys) - len(honest)
        followed = sum(self._left.get((era, key), 0) >= before for key in honest) + lying >= group.quorum
        further = sum(self._left.get((era, key), 0) >= body.view for key in honest if key != place) + lying
        joins = further >= group.some_honest
        require(followed or joins, f"{short(place)} gives up view {before}, for which no quorum has left")

    def _note(self, place: Place, name: str, data: bytes) -> None:
        if name.startswith(EVIDENCE):
            accused = bytes.fromhex(name.removeprefix(EVIDENCE).split("/")[0])
            require(accused not in self._honest, f"{short(place)} accuses {short(accused)}, which is honest")
            return
        if name == SILENT_NOTE and data:
            self._restored.add(place)
        try:
            noted = decode(data, Signed, Seal)
        except Malformed:
            return
        match noted:
            case Signed():
                self._word(place, noted)
            case Seal():
                for signed in seal_reports(noted, self._network):
                    self._word(place, signed.signed)

    def _block(self, place: Place, header: Header, batch: Batch) -> None:
        height = header.height
        if height not in self._headers:
            require(height == len(self._headers) + 1, f"{short(place)} executed {height} before what comes before it")
            executed = execute(self.ledger, batch)
            require(executed.header == header, f"{short(place)} made something else of height {height}")
            moved = supply_moved(self.ledger, executed.ledger)
            self.ledger = executed.ledger
            self._headers[height] = header
            self._groups[height + 1] = self._group()
            if self._groups[height + 1].base == height:
                self._bases.append(height)
            guilty = [seat.key for seat in self._guilty() if seat.key in self._honest]
            require(not guilty, f"height {height} takes the bond of {', '.join(map(short, guilty))}, which is honest")
            require(moved == 0, f"height {height} has {self._supply + moved} micro-units of {self._supply}")
        known = self._headers[height]
        require(known == header, f"two headers at height {height}, one at {short(place)}")
        require(known.batch == batch_digest(batch), f"two batches at height {height}, one at {short(place)}")

    def _guilty(self) -> list[Seat]:
        """Those who decide the next height although their bond was taken."""
        council = self.ledger.council()
        return [seat for seat in self.ledger.validators() if seat.account in council.condemned]

    def _certificate(self, place: Place, certificate: Certificate) -> None:
        height = certificate.header.height
        known = self._headers.get(height)
        require(known is not None, f"{short(place)} has a certificate of height {height} and not its block")
        require(known == certificate.header, f"two certified headers at height {height}")
        if self.certified.get(height) != certificate:
            fault = certificate_fault(certificate, self._groups[height])
            require(not fault, f"{short(place)} keeps for height {height} a {fault}")
            self.certified.setdefault(height, certificate)

    def stepped(self, place: Place, node: Node) -> None:
        """A node has taken an input: what it remembers lies between the watermarks. Nothing is put into words here, at
        every input, unless it is wrong."""
        replica = node.replica
        if replica is None or place not in self._honest:
            return
        window = node.parameters.window_heights
        low, high = replica.stable, replica.stable + window
        extent = replica.extent()
        slots, headers = extent.slots, extent.headers
        if slots and not (low < slots[0] and slots[-1] <= high):
            raise Violation(f"{short(place)} keeps slots {slots}, not {low}..{high}")
        if headers and not (low - window < headers[0] and headers[-1] <= high):
            raise Violation(f"{short(place)} keeps headers {headers}, not {low - window}..{high}")
        # A journal that was cut before it forgot brings back batches below the watermark, until the next checkpoint.
        if extent.batches > extent.ballots + 2 * window + 1:
            raise Violation(f"{short(place)} keeps {extent.batches} batches")
        if extent.view_changes > len(node.group.keys):
            raise Violation(f"{short(place)} keeps {extent.view_changes} view changes")
        if node.waiting > OPERATIONS_MAX:
            raise Violation(f"{short(place)} has {node.waiting} operations waiting")

    def finish(self) -> None:
        """All the money is there, the end of every era can be proved, and every other height by itself or by one within
        a window above: which of them is certified first is chance where everybody starts again."""
        there = supply(self.ledger)
        require(there == self._supply, f"there are {there} micro-units of {self._supply}")
        ends = self._bases[1:]
        require(set(ends) <= self.certified.keys(), "an era whose end nobody can prove")
        window = self.ledger.parameters().window_heights
        for below, height in pairwise((0, *sorted(self.certified))):
            require(height - below <= window, f"heights {below + 1} to {height - 1} that nobody can prove")


def _plain(question: tuple[object, ...]) -> str:
    return " ".join(short(one) if isinstance(one, bytes) else str(one) for one in question)
