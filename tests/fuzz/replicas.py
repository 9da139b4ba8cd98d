"""Correct replicas under anything: up to f keys that sign what they like, messages lost, late, doubled and in any
order, answers that nobody asked for, crashes, restored homes, and validators that change. One seed is one run.

The cluster checks agreement and every vote; here it is checked besides that nobody votes who must be silent, that
nothing grows beyond what the watermarks and the members bound, and that nothing raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from potd.consensus.events import (
    Accuse,
    Awaited,
    Broadcast,
    Certificated,
    Effect,
    Enter,
    Held,
    Ignore,
    Input,
    Judged,
    Received,
    Reject,
    Send,
    Settled,
    Speak,
    Ticked,
)
from potd.consensus.quorum import Group, certificate_fault
from potd.consensus.replica import Replica
from potd.consensus.slots import order_in
from potd.consensus.view_change import carry_over
from potd.wire.blocks import NULL, Batch, Certificate, Header, batch_digest
from potd.wire.codec import Malformed, encode
from potd.wire.consensus import (
    Commit,
    NewView,
    Prepare,
    Prepared,
    PrePrepare,
    Recollect,
    Recollected,
    Refusal,
    Status,
    ViewChange,
)
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import digest
from potd.wire.rounds import Report
from tests.consensus.cluster import (
    BAD,
    EMPTY,
    Backup,
    Cluster,
    GiveBatch,
    GiveBlocks,
    Member,
    Said,
    batch_of,
    next_header,
    operations_of,
    seats,
    signer,
)
from tests.fuzz.tally import Tally, Violation
from tests.fuzz.twist import twisted

VOTES = (PrePrepare, Prepare, Commit, Refusal, Header, ViewChange, NewView)
POOL = 120  # of each kind of word, the newest that liars have heard
SPARE = 3  # members without a seat at first
FAR = 2**63 - 1
STRANGER = signer(99)


@dataclass(frozen=True)
class Shape:
    """What one run is like."""

    size: int
    liars: tuple[int, ...]
    forgetful: int | None  # a member whose home is restored now and then: one of the f
    window: int
    patience: int
    lies_a_tick: int  # at most
    changes: bool  # of the validators
    crashes: float  # a tick and member
    plain: float  # how much of what liars say stays as their replicas would say it

    @staticmethod
    def drawn(chance: Random) -> Shape:
        size = chance.choice([4, 4, 4, 5, 6, 7, 7])
        faults = (size - 1) // 3
        faulty = chance.sample(range(size), faults)
        forgetful = faulty.pop() if chance.random() < 0.35 else None
        return Shape(
            size,
            tuple(sorted(faulty)),
            forgetful,
            chance.choice([2, 3, 4, 8]),
            chance.choice([6, 15, 40]),
            chance.choice([8, 25, 60]),
            chance.random() < 0.4,
            chance.choice([0.0, 0.0, 0.005, 0.03]),
            chance.choice([0.0, 0.5, 0.9]),
        )


class Watched(Replica):
    """A correct replica that is looked at after every input."""

    def __init__(self, run: Run, member: Member, group: Group) -> None:
        super().__init__(member.signer, group, patience_ticks=run.patience, window=run.window)
        self.run = run
        self.views = run.views.setdefault((member.index, group.base), {0})  # that it was in, over all its lives
        self.awaited: set[str] = set()
        self.recalled = 0  # batches in the journal; past ones among them are dropped with the next checkpoint

    def restore(self, *given: Any, **named: Any) -> None:
        super().restore(*given, **named)
        self.recalled = len(self._batches)

    def step(self, event: Input) -> list[Effect]:
        silent = self.silent
        if isinstance(event, Awaited):
            self.awaited.add(event.key)
        effects = super().step(event)
        self.run.after(self, event, silent, effects)
        return effects

    def check_bounds(self) -> None:
        """Nothing outgrows the watermarks times the members, and the views that this replica has been in."""
        members, window = len(self.group.keys), self._window
        slots = self._log.slots()
        assert all(self.stable < slot.seq <= self.stable + window for slot in slots), "a slot outside the watermarks"
        ballots = [ballot for slot in slots for ballot in slot.ballots.values()]
        for ballot in ballots:
            assert {*ballot.prepares, *ballot.commits} <= set(self.group.keys), "a vote of a stranger is kept"
        for slot in slots:
            assert set(slot.ballots) <= self.views, "ballots of views that never were"
            assert len(slot.refusals) <= members, "more refusals than members"
        named = 1 + len(ballots) + 2 * len(slots)
        assert len(self._batches) <= named + self.recalled, "batches that no slot names"
        heights = self._checkpoints.heights()
        assert all(self.stable - window < one <= self.stable + window for one in heights), "headers of any height"
        assert len(self._view_changes) <= members, "more view changes than members"
        assert len(self._carried) <= window, "more carried orders than the watermarks hold"
        assert len(self._unsigned) <= window, "more unsigned headers than the watermarks hold"
        assert len(self._patience._due) <= window + len(self.awaited), "more due than was asked for"


class Run(Cluster):
    """One run: its cluster, its liars, and who means ill with the schedule."""

    def __init__(self, seed: int, tally: Tally) -> None:
        chance = Random(seed)
        self.shape = shape = Shape.drawn(chance)
        self.tally = tally
        self.pool: dict[type[Any], deque[Verified[Any]]] = {}
        self.batches: deque[Batch] = deque([NULL, batch_of(BAD), batch_of(b"lie")], maxlen=POOL)
        self.backups: deque[Backup] = deque([EMPTY], maxlen=20)
        self.views: dict[tuple[int, int], set[int]] = {}
        self.hostile = False
        super().__init__(
            shape.size,
            seed,
            spare=SPARE,
            liars=dict.fromkeys(shape.liars, Run._lie),
            patience=shape.patience,
            window=shape.window,
            delay=(0, chance.choice([1, 3, 8])),
            judging=(0, chance.choice([0, 3, 10])),
        )
        self.loss = chance.choice([0.0, 0.05, 0.3])
        self.twice = chance.choice([0.0, 0.3])
        self.asked = 0
        self._indices[STRANGER.key] = shape.size + SPARE - 1  # who hears what is sent to one who is nobody
        self._lies: tuple[Callable[[Replica, Signer], tuple[Any, Batch | None]], ...] = (
            self._order,
            self._order,
            self._agreement,
            self._agreement,
            self._commitment,
            self._commitment,
            self._header,
            self._view_change,
            self._view_change,
            self._new_view,
            self._new_view,
            self._refusal,
            self._status,
            self._recollect,
            self._recollected,
        )

    # The harness of correct members

    def replica(self, member: Member, group: Group) -> Replica:
        return Watched(self, member, group) if member.honest else super().replica(member, group)

    def after(self, one: Watched, event: Input, silent: bool, effects: list[Effect]) -> None:
        self.tally.inputs[type(event).__name__] += 1
        self.tally.hostile += self.hostile
        self.hostile = False  # what follows from it here is no lie any more
        for effect in effects:
            self.tally.effects[type(effect).__name__] += 1
            match effect:
                case Enter(view):
                    one.views.add(view)
                case Speak():
                    silent = False
                case Broadcast(signed) | Send(_, Signed() as signed) if signed.key == one.key:
                    body = self._body(signed)
                    self.tally.votes[type(body).__name__] += 1
                    assert not (silent and isinstance(body, VOTES)), f"{type(body).__name__} said in silence"
                case Ignore(_, reason) | Reject(_, reason):
                    self.tally.reason(type(effect).__name__, reason)
                case _:
                    pass
        one.check_bounds()

    def _body(self, signed: Signed) -> Any:
        message = self.verified(signed)
        assert message is not None, "sent what nobody can verify"
        return message.body

    def check_vote(self, sender: Member, signed: Signed) -> None:
        """A restored home may repeat what was lost before anybody heard it, and is one of the f."""
        if sender.index != self.shape.forgetful:
            super().check_vote(sender, signed)

    def on_accused(self, member: Member, key: bytes, accusation: Accuse) -> None:
        if self.index(key) != self.shape.forgetful:
            super().on_accused(member, key, accusation)

    def say(self, sender: Member, to: int, said: Said) -> None:
        message = self.verified(said.signed)
        if message is not None:
            self._hear(message)
        if said.batch is not None and said.batch not in self.batches:
            self.batches.append(said.batch)
        super().say(sender, to, said)

    def _hear(self, message: Verified[Any]) -> None:
        known = self.pool.setdefault(type(message.body), deque(maxlen=POOL))
        if not known or known[-1] != message:
            known.append(message)

    # One run

    def go(self, inputs: int) -> None:
        """Until so many inputs were taken."""
        end = self.tally.total + inputs
        while self.tally.total < end:
            self._disturb()
            self.run(1)
            for _ in range(self.chance.randint(0, self.shape.lies_a_tick)):
                self._mean_ill()

    def _disturb(self) -> None:
        chance = self.chance
        if chance.random() < 0.3 and len(self.open) - len(self.decided) < 20:
            self.asked += 1
            self.request(b"operation %d" % self.asked)
        if self.shape.changes and chance.random() < 0.03:
            self._reseat()
        if chance.random() < 0.01:
            side = set(chance.sample(range(len(self.members)), chance.randint(0, self.shape.size // 2)))
            self.cut = lambda one, other: (one in side) != (other in side)
        for member in self.members:
            if not member.up and chance.random() < 0.1:
                self.restart(member.index)
            elif member.up and chance.random() < self.shape.crashes:
                member.crash_at = member.boundaries + chance.randint(1, 20)
        if self.shape.forgetful is not None:
            self._forget(self.members[self.shape.forgetful])

    def _forget(self, member: Member) -> None:
        if self.chance.random() < 0.05 and member.up:
            self.backups.append(member.backup())
        if self.chance.random() < 0.03 and member.certified >= member.eras[-1].base:
            self.crash(member.index)
            member.put_back(self.chance.choice(self.backups))
            member.eras, member.change = [self.group], None
            self._replay_eras(member)
            self.restart(member.index)

    def _replay_eras(self, member: Member) -> None:
        """Who decides is part of the state, so it is put back with the rest."""
        for header, batch in zip(member.headers, member.batches, strict=True):
            member.reseat(header.height, batch)

    def _reseat(self) -> None:
        """Ask for other validators, with at most f of them faulty and at most f seats that differ."""
        pending = sum(one.startswith(b"seats") for one in self.open) - len(self.changes)
        if pending or any(one.change for one in self.members):
            return
        chance, faulty = self.chance, {*self.shape.liars, self.shape.forgetful}
        now = [self.index(key) for key in self.keys_at(FAR)]
        new = list(now)
        free = [one for one in range(len(self.members)) if one not in now]
        match chance.randrange(3):
            case 0 if len(new) > 4:
                new.remove(chance.choice(new))
            case 1 if free and len(new) < 7:
                new.append(chance.choice(free))
            case _ if free:
                new[chance.randrange(len(new))] = chance.choice(free)
        if len(faulty & set(new)) <= (len(new) - 1) // 3:
            self.asked += 1
            self.request(seats(*new) + b" %d" % self.asked)

    # Ill will

    def _mean_ill(self) -> None:
        target = self.chance.choice([one for one in self.members if one.honest])
        if not target.up:
            return
        self.hostile = True
        if target.seat is None or self.chance.random() < 0.1:
            self._answer_unasked(target)
        else:
            self._lie_to(target, target.seat)
        self.hostile = False

    def _lie_to(self, target: Member, seat: Replica) -> None:
        chance = self.chance
        if chance.random() < 0.15 and self.heard:
            target.receive(target.index, chance.choice(self.heard[-400:]))
            return
        key = self._liar(chance)
        if chance.random() < 0.02:
            other: Any = Report(bytes(32), 0, 0, (), (), ())
            target.feed(Received(key.verified(other)))
            return
        try:
            body, batch = chance.choice(self._lies)(seat, key)
            if chance.random() < 0.2:
                body = twisted(body, chance)
            message = key.verified(body)
        except Malformed:
            return
        except IndexError:  # nothing of the kind was said so far
            return
        self._verified[message.signed] = message
        if chance.random() < 0.5:
            self._hear(message)
        if chance.random() < 0.5:
            self.heard.append(Said(message.signed, batch))
        target.receive(target.index, Said(message.signed, batch))

    def _liar(self, chance: Random) -> Signer:
        if not self.shape.liars or chance.random() < 0.03:
            return STRANGER
        return self.members[chance.choice(self.shape.liars)].signer

    def _answer_unasked(self, target: Member) -> None:
        """What a node may give its replica though nobody has asked, and what peers may give a node."""
        chance, seat = self.chance, target.seat
        batch = chance.choice(self.batches)
        name = batch_digest(batch)
        certificate = self._certificate()
        things: list[Input | Certificate | GiveBatch | GiveBlocks] = [
            Held(name, batch),
            Awaited(f"work {chance.randrange(4)}"),
            Settled(f"work {chance.randrange(4)}"),
            Ticked(chance.random() < 0.5),
            GiveBatch(batch),
        ]
        if certificate is not None:
            other = twisted(certificate, chance)
            things += [certificate, *([other] if _fits(other) else [])]
            if not certificate_fault(certificate, target.group):
                things.append(Certificated(certificate))
            blocks = target.batches[-2:] if chance.random() < 0.5 else [batch]
            things.append(GiveBlocks(tuple(blocks), certificate))
        if seat is not None:
            verdict = "a bad operation" if BAD in operations_of(batch) else ""
            things.append(Judged(self._view(seat), self._seq(seat), name, verdict))
        thing = chance.choice(things)
        if isinstance(thing, Certificate | GiveBatch | GiveBlocks):
            target.receive(target.index, thing)
        else:
            target.feed(thing)

    # What a liar may sign

    def _view(self, seat: Replica) -> int:
        return max(0, seat.view + self.chance.choice([0, 0, 0, 0, 1, 1, 2, 5, -1]))

    def _led(self, seat: Replica, key: Signer) -> int:
        """A view near the replica's that this liar leads, if there is one."""
        for view in range(seat.view + self.chance.choice([0, 0, 1]), seat.view + 2 * len(seat.group.keys)):
            if seat.group.primary(view) == key.key:
                return view
        return seat.view

    def _seq(self, seat: Replica) -> int:
        window = self.window
        near = [seat.executed + 1, seat.executed + 1, seat.stable + 1, seat.executed + 2, seat.stable + window]
        far = [seat.stable, seat.stable + window + 1, max(0, seat.stable - 1), FAR]
        return self.chance.choice(near if self.chance.random() < 0.85 else far)

    def _certificate(self) -> Certificate | None:
        known = [one for member in self.members for one in list(member.certificates.values())[-3:]]
        return self.chance.choice(known) if known else None

    def _said(self, kind: type[Any]) -> Verified[Any]:
        return self.chance.choice(self.pool.get(kind, ()))

    def _order(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        batch = self.chance.choice([*list(self.batches)[-5:], NULL, batch_of(BAD), batch_of(b"%d" % self.now)])
        body = PrePrepare(self._led(seat, key), self._seq(seat), batch_digest(batch))
        return body, batch if self.chance.random() < 0.8 else None

    def _known_order(self, seat: Replica) -> Verified[PrePrepare]:
        """One that the replica knows, or that anybody has given."""
        ballots = [one for slot in seat._log.slots() for one in slot.ballots.values()]
        orders = [one.order for one in ballots if one.order is not None]
        if orders and self.chance.random() < 0.7:
            return self.chance.choice(orders)
        if self.chance.random() < 0.3:
            said = self._said(Prepare)
            return order_in(said.body, seat.group.primary(said.body.view))
        order: Verified[PrePrepare] = self._said(PrePrepare)
        return order

    def _agreement(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        order = self._known_order(seat)
        return Prepare(order.body.view, order.body.seq, order.body.batch, order.signed.signature), None

    def _commitment(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        order = self._known_order(seat)
        return Commit(order.body.view, order.body.seq, order.body.batch), None

    def _refusal(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        order = self._known_order(seat).body, self._known_order(seat).signed.signature
        return Refusal(order[0].view, order[0].seq, order[0].batch, order[1], "no"), None

    def _header(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        height = self._seq(seat)
        header = self.decided.get(height)
        if header is None:
            header = next_header(self.decided.get(height - 1), self.chance.choice(self.batches))
        return header, None

    def _proofs(self, stable: int, view: int) -> Iterable[Prepared]:
        """Some of what was really prepared: of each height one proof."""
        for seq in range(stable + 1, stable + self.window + 1):
            found: list[Prepared] = []
            for member in self.members:
                slot = member.seat._log.get(seq) if member.seat is not None else None
                if slot is not None and slot.proof is not None and slot.proof.view < view:
                    found.append(slot.proof)
            if found and self.chance.random() < 0.8:
                yield self.chance.choice(found)

    def _left_for(self, view: int) -> ViewChange:
        certificate = self._certificate() if self.chance.random() < 0.8 else None
        stable = certificate.header.height if certificate is not None else 0
        shown = (certificate,) if certificate is not None else ()
        return ViewChange(view, stable, shown, tuple(self._proofs(stable, view)))

    def _view_change(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        return self._left_for(self._view(seat) + (self.chance.random() < 0.5)), None

    def _new_view(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        view = self._led(seat, key)
        left: dict[bytes, Verified[Any]] = {}
        for one in self.pool.get(ViewChange, ()):
            if one.body.view == view and one.sender in seat.group:
                left[one.sender] = one
        for index in self.shape.liars:
            left[signer(index).key] = signer(index).verified(self._left_for(view))
        chosen = [left[one] for one in sorted(left)][-seat.group.quorum :]
        if not chosen or (len(chosen) < seat.group.quorum and self.chance.random() < 0.9):
            return self._left_for(view), None
        carried = carry_over([one.body for one in chosen])
        orders = [PrePrepare(view, seq, name) for seq, name in carried.orders]
        if orders and self.chance.random() < 0.3:
            orders[self.chance.randrange(len(orders))] = twisted(self.chance.choice(orders), self.chance)
        signed = tuple(key.sign(one) for one in orders)
        return NewView(view, tuple(one.signed for one in chosen), signed), None

    def _status(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        chance = self.chance
        stable = chance.choice([0, seat.stable, max(0, seat.stable - 1), seat.stable + 1])
        return Status(self._view(seat), chance.random() < 0.5, stable, self._seq(seat)), None

    def _recollect(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        return Recollect(digest("boot", bytes([self.chance.randrange(256)]))), None

    def _recollected(self, seat: Replica, key: Signer) -> tuple[Any, Batch | None]:
        """An answer to whoever asks, with some of what it said; sometimes its own, sometimes to another."""
        asking = [one for one in self.members if one.seat is not None and one.seat.silent and one.honest]
        chosen = self.chance.choice(asking).replica if self.chance.random() < 0.9 else seat
        boot = chosen._recollection.question.boot if chosen._recollection is not None else bytes(32)
        said = [one.signed for known in self.pool.values() for one in known if one.sender == chosen.key]
        votes = self.chance.sample(said, min(len(said), self.chance.randint(0, 6)))
        certificate = self._certificate() if self.chance.random() < 0.7 else None
        return Recollected(boot, chosen.key, (certificate,) if certificate is not None else (), tuple(votes), ()), None

    @staticmethod
    def _lie(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
        """What a liar's own replica says: as it is, changed, or not at all."""
        assert isinstance(cluster, Run)
        chance = cluster.chance
        if chance.random() < cluster.shape.plain:
            return [said]
        message = cluster.verified(said.signed)
        if message is None or chance.random() < 0.4:
            return []
        try:
            return [Said(member.signer.sign(twisted(message.body, chance)), said.batch)]
        except Malformed:
            return []


def _fits(message: Any) -> bool:
    """Whether these values can be bytes at all, and so come in."""
    try:
        encode(message)
    except Malformed:
        return False
    return True


def play(seed: int, inputs: int, tally: Tally) -> None:
    """One run of so many inputs. Raises Violation."""
    try:
        Run(seed, tally).go(inputs)
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}") from error
