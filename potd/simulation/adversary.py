"""Members that lie: whole nodes with their own keys, and no others', whose effects pass through the lie.

Liars see every frame that anybody sends, and know of each other; keys of the honest they do not have. What a liar tells
some and not others it decides once for each question, so that it can be caught by its own signatures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np

from potd.arithmetic.work import answer as add_up
from potd.consensus.quorum import Group
from potd.consensus.view_change import NULL_DIGEST, carry_over
from potd.node import events as ev
from potd.simulation.network import Place
from potd.simulation.schedule import Liar
from potd.simulation.words import asked, body_of, signed_in
from potd.simulation.world import Member, World
from potd.wire.blobs import read_blob, write_blob
from potd.wire.blocks import NULL, Batch, Certificate, Header, batch_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Commit, NewView, Prepare, Prepared, PrePrepare, Proposal, ViewChange
from potd.wire.envelope import Attestation, Signed, Signer, attestation_of
from potd.wire.ids import Digest, Key, digest
from potd.wire.jobs import Aggregate, Aggregated, Applied, Apply, Trained
from potd.wire.rounds import Commitment, Draft, Report
from potd.wire.transfer import Part, Snapshot

OVERHEARD_MAX = 400  # frames that liars remember for replays
HEARD_MAX = 1 << 17  # frames by which they know what they have heard before
MISLED_MAX = 1 << 12  # questions for which a liar remembers whom it misleads: older ones are asked no more
PROOFS_MAX = 1 << 10  # of its own, that a liar remembers
TRIED_MAX = 1 << 12  # sets of view changes that a liar looks at, to begin with those that oblige to the least
FLOOD = 20  # frames at once, and not more often than
FLOOD_MS = 500
LISTENS_MS = 80  # to those who leave a view, before it begins the next
TWINS = "twins"
ALWAYS = "always"  # it never behaves for a while
DESERTS_VIEW = 9  # by when one that deserts does

B = TypeVar("B")


class Adversary:
    """All liars of a world, and what they know together."""

    def __init__(self, world: World, liars: Sequence[Liar]) -> None:
        self.world = world
        self.frames: deque[bytes] = deque(maxlen=OVERHEARD_MAX)
        self.orders: dict[tuple[int, int], dict[Digest, bytes]] = {}  # (view, seq): batch and the primary's signature
        self.agreed: dict[Prepare, dict[Key, bytes]] = {}  # who has said so, and the signatures
        self.leavings: dict[int, dict[Key, Signed]] = {}  # view: who leaves for it, and with what
        self.signed: dict[Header, dict[Key, bytes]] = {}  # who has, and the signatures
        self._heard: set[bytes] = set()
        self._halves: dict[tuple[int, int], frozenset[Key]] = {}
        self._members: dict[Place, Lying] = {}
        for liar in liars:
            key = world.keys[liar.who]
            names = tuple(name for name in liar.lies if name not in (TWINS, ALWAYS))
            for place in (key, world.twins.get(key)):
                if place is not None:
                    chance = Random(f"{world.random.random()} {liar.who}")
                    self._members[place] = Lying(self, world.members[place], names, ALWAYS in liar.lies, chance)
        if liars:
            world.distrust(*(world.keys[liar.who] for liar in liars))
            world.tamper = self._ordered
            world.corrupt = self._answered
            world.watchers.append(self._overhear)

    @property
    def signers(self) -> list[Signer]:
        """All keys of all liars."""
        return [one for _, one in sorted({lying.signer.key: lying.signer for lying in self._members.values()}.items())]

    def proofs(self, group: Group, low: int, high: int) -> list[Prepared]:
        """All that can be made of what was said, and of what liars would say: also what nobody has ever put together.
        Of sequence numbers above the one, up to the other; by these, and then by view."""
        found = []
        for body, said in self.agreed.items():
            if not low < body.seq <= high:
                continue
            primary = group.primary(body.view)
            mine = {one.key: one.sign(body).signature for one in self.signers}
            backups = sorted(Attestation(key, sign) for key, sign in (said | mine).items() if key != primary)
            if len(backups) + 1 >= group.quorum:
                order = Attestation(primary, body.primary)
                found.append(Prepared(body.view, body.seq, body.batch, order, tuple(backups[: group.quorum - 1])))
        return sorted(found, key=lambda one: (one.seq, one.view))

    def half(self, view: int, seq: int, chance: Random) -> frozenset[Key]:
        """Those who are to hear of another order than the rest: one side, where the network is parted. Where it is not,
        most often nobody: whoever is caught leads no more when it would matter."""
        if (view, seq) not in self._halves:
            keys = [key for key in self.world.checks.honest if key in self.world.hearers]
            one = chance.choice(keys)
            half = [key for key in keys if not self.world.links.linked(one, key)]
            if not half and chance.randrange(40) == 0:
                half = chance.sample(keys, chance.randint(0, len(keys) - 1))
            self._halves[view, seq] = frozenset(half)
        return self._halves[view, seq]

    def _ordered(self, place: Place, effect: ev.Effect) -> ev.Effect | None:
        lying = self._members.get(place)
        return effect if lying is None else lying.say(effect)

    def _answered(self, place: Place, answer: Snapshot | Part) -> Snapshot | Part | None:
        lying = self._members.get(place)
        return answer if lying is None else lying.answer(answer)

    def _overhear(self, _: Place, effect: ev.Effect) -> None:
        if not isinstance(effect, ev.Send) or effect.data in self._heard:
            return
        if len(self._heard) >= HEARD_MAX:
            self._heard.clear()
        self._heard.add(effect.data)
        self.frames.append(effect.data)
        signed = signed_in(effect.data)
        body = body_of(signed.payload) if signed is not None else None
        if signed is None:
            return
        match body:
            case PrePrepare(view, seq, batch):
                self.orders.setdefault((view, seq), {})[batch] = signed.signature
            case Prepare():
                self.agreed.setdefault(body, {})[signed.key] = signed.signature
            case Header():
                self.signed.setdefault(body, {})[signed.key] = signed.signature
            case ViewChange(view, _, _, _):
                self.leavings.setdefault(view, {}).setdefault(signed.key, signed)
            case _:
                pass


class Lying:
    """One lying node."""

    def __init__(
        self, adversary: Adversary, member: Member, names: tuple[str, ...], always: bool, chance: Random
    ) -> None:
        self.shared = adversary
        self.world = adversary.world
        self.member = member
        self.signer = member.signer
        self.chance = chance
        self.abroad = member.abroad
        self.proofs: deque[Prepared] = deque(maxlen=PROOFS_MAX)  # its own, of all views
        self.begun: dict[int, NewView | None] = {}  # how it begins each view
        self.flooded_ms = -FLOOD_MS
        self._lies = [(LIES | MINERS_LIES | STAGED)[name] for name in names]
        self._misled: dict[object, frozenset[Key]] = {}
        self._always = always
        self._until_ms = 0
        self._lying = always
        self.deserted = False
        if wrong_sums in self._lies:
            member.lie = self._sum
        if garbage in self._lies:
            member.noise = self._noise

    def say(self, effect: ev.Effect) -> ev.Effect | None:
        """What leaves instead of what the node has ordered."""
        if isinstance(effect, ev.Keep) and isinstance(effect.record, Prepared):
            self.proofs.append(effect.record)
        if not self._always and self.world.now >= self._until_ms:  # now and then it behaves for a while
            self._until_ms = self.world.now + self.chance.randint(500, 4_000)
            self._lying = self.chance.randrange(4) > 0
        said: ev.Effect | None = effect
        for lie in self._lies if self._lying else ():
            said = lie(self, said) if said is not None else None
        return said

    def misled(self, question: object) -> frozenset[Key]:
        """Those who get another answer to this question than the rest."""
        if question not in self._misled:
            keys = [key for key in self.world.hearers if key != self.signer.key]
            if len(self._misled) >= MISLED_MAX:
                del self._misled[next(iter(self._misled))]
            self._misled[question] = frozenset(self.chance.sample(keys, self.chance.randint(0, len(keys) - 1)))
        return self._misled[question]

    def told(self, effect: ev.Effect, kind: type[B]) -> tuple[Key, B] | None:
        """For a word of its own and of this kind, on its way to somebody: to whom, and what it says."""
        if not isinstance(effect, ev.Send):
            return None
        signed = signed_in(effect.data)
        if signed is None or signed.key != self.signer.key:
            return None
        body = body_of(signed.payload)
        return (effect.to, body) if isinstance(body, kind) else None

    def misled_by(self, effect: ev.Effect, kind: type[B]) -> tuple[Key, B] | None:
        """The same, if this is one of those who get another answer to its question."""
        told = self.told(effect, kind)
        return told if told is not None and told[0] in self.misled(asked(told[1])) else None

    def sign(self, body: object) -> bytes:
        return encode(self.signer.sign(body))

    def order(self, body: PrePrepare, batch: Batch) -> bytes:
        """Another batch in the place of the one ordered."""
        return encode(Proposal(self.signer.sign(replace(body, batch=batch_digest(batch))), batch))

    def leaving(self, body: ViewChange) -> ViewChange:
        """A view change that hides something, and that nobody can refute."""
        old = {proof.seq: proof for proof in reversed(self.proofs) if proof.view < body.view}
        earlier = tuple(old.get(one.seq, one) for one in body.prepared)
        certificates = self.member.disk.certificates
        stale = [height for height in certificates if height < body.stable]
        match self.chance.randrange(4):
            case 0 if stale:
                stable = max(stale)
                return replace(body, stable=stable, certificate=(certificates[stable],), prepared=())
            case 1 if earlier != body.prepared:
                return replace(body, prepared=earlier)
            case 2 if len(body.prepared) > 1:
                return replace(body, prepared=body.prepared[:-1])
            case _:
                return replace(body, prepared=())

    def group(self) -> Group | None:
        """Those among whom it lies, while it is at work."""
        node = self.member.node
        return node.replica.group if node is not None and node.replica is not None else None

    def answer(self, answer: Snapshot | Part) -> Snapshot | Part:
        """What it gives to who asks for a state."""
        if isinstance(answer, Snapshot) and thin_certificates in self._lies:
            return replace(answer, certificate=self.thin(answer.certificate))
        return answer

    def thin(self, certificate: Certificate) -> Certificate:
        """The same with the signatures of f + 1, its own among them."""
        known = {one.key: one.signature for one in certificate.attestations}
        known |= {one.key: one.sign(certificate.header).signature for one in self.shared.signers}
        group = self.group()
        some = group.some_honest if group is not None else 1
        first = [one.key for one in self.shared.signers][:some]
        chosen = [*first, *(key for key in sorted(known) if key not in first)][:some]
        return Certificate(certificate.header, tuple(Attestation(key, known[key]) for key in sorted(chosen)))

    def also(self, to: Key, data: bytes) -> None:
        """Send something more."""
        self.world.send(self.member.place, to, data)

    def _sum(self, job: Aggregate, done: Aggregated) -> Aggregated:
        return a_unit_more(self.world.folder, job, done) if self._lying and done.aggregate.size else done

    def _noise(self, done: Trained) -> Trained:
        if not self._lying:
            return done
        return replace(done, payload=write_blob(self.world.folder, self.chance.randbytes(done.payload.size)))


Lie = Callable[[Lying, ev.Effect], ev.Effect | None]


def mute(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Says nothing."""
    return None if isinstance(effect, ev.Send | ev.Publish) else effect


def mute_as_primary(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders nothing and begins no view, but votes."""
    leads = any(liar.told(effect, kind) is not None for kind in (PrePrepare, NewView, Draft))
    return None if leads else effect


def desert(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Behaves until many views have ended, and says nothing from then on."""
    replica = liar.member.node.replica if liar.member.node is not None else None
    if replica is not None and replica.view >= DESERTS_VIEW and not replica.active:
        liar.deserted = True
    return mute(liar, effect) if liar.deserted else effect


def withhold_headers(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Votes, and does not say what came of it: where it is needed for a quorum nothing becomes permanent."""
    proves = liar.told(effect, Header) is not None or _certificate(effect) is not None
    return None if proves else effect


def bad_for_the_deaf(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders of those who do not hear what others agree to what nobody agrees to."""
    told = liar.told(effect, PrePrepare)
    place = liar.world.place_of(told[0], liar.member.place) if told is not None else None
    if told is None or place is None or not liar.world.links.losing.get(("Prepare", place)):
        return effect
    return ev.Send(told[0], liar.order(told[1], _nonsense(liar)))


def selective(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Speaks to some, for a while, and to others later."""
    friends = liar.misled(("friends", liar.world.now // 3_000))
    match effect:
        case ev.Send(to, _):
            return effect if to in friends else None
        case ev.Publish(_, data):
            for to in sorted(friends):
                liar.also(to, data)
            return None
        case _:
            return effect


def two_orders(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """One batch to these, another to those, and to each a commit for what it has heard: its own node, which soon hears
    of both and gives up, will send none."""
    told = liar.told(effect, PrePrepare)
    batch = _batch(effect) if told is not None else None
    if told is None or batch is None:
        return effect
    to, body = told
    half = liar.shared.half(body.view, body.seq, liar.chance)
    if not half:
        return effect
    other = Batch(batch.records[:-1])
    chosen = other if to in half else batch
    liar.also(to, liar.sign(Commit(body.view, body.seq, batch_digest(chosen))))
    return ev.Send(to, liar.order(body, chosen))


def orders_again(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders, and then another batch in the place of the one ordered."""
    told = liar.told(effect, PrePrepare)
    batch = _batch(effect) if told is not None else None
    if told is not None and batch is not None and told[0] in liar.misled(asked(told[1])):
        to, other = told[0], liar.order(told[1], Batch(batch.records[:-1]))
        liar.world.clock.later(liar.chance.randint(5, 50), lambda: liar.also(to, other))
    return effect


def bad_batches(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders what nobody honest agrees to."""
    told = liar.told(effect, PrePrepare)
    if told is None or not liar.misled(asked(told[1])):
        return effect
    to, body = told
    return ev.Send(to, liar.order(body, _nonsense(liar)))


def withhold_batches(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders without showing what; asked for it, it may answer."""
    told = liar.misled_by(effect, PrePrepare)
    return effect if told is None else ev.Send(told[0], liar.sign(told[1]))


def two_votes(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Agrees to one order before these and to another before those, and says at once that both are prepared.

    Where a primary lies along, the two halves of the network hear of different batches and of votes for them."""
    told: tuple[Key, Prepare | Commit] | None = liar.told(effect, Prepare) or liar.told(effect, Commit)
    if told is None:
        return effect
    to, body = told
    if to not in liar.shared.half(body.view, body.seq, liar.chance):
        return effect
    known = liar.shared.orders.get((body.view, body.seq), {})
    batch = next((one for one in sorted(known) if one != body.batch), None)
    if batch is None:
        return effect
    liar.also(to, liar.sign(Prepare(body.view, body.seq, batch, known[batch])))
    return ev.Send(to, liar.sign(Commit(body.view, body.seq, batch)))


def early_commits(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Says that it has prepared what it has only agreed to."""
    told = liar.told(effect, Prepare)
    if told is not None:
        to, body = told
        liar.also(to, liar.sign(Commit(body.view, body.seq, body.batch)))
    return effect


def two_headers(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Signs another result for some."""
    told = liar.misled_by(effect, Header)
    if told is None:
        return effect
    to, body = told
    return ev.Send(to, liar.sign(replace(body, state=digest("elsewhere", body.state))))


def two_view_changes(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Hides from some what it has prepared, or goes back to an older checkpoint."""
    told = liar.misled_by(effect, ViewChange)
    return effect if told is None else ev.Send(told[0], liar.sign(liar.leaving(told[1])))


def forged_proofs(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Shows proofs for another batch, with the signatures for the one; or claims a checkpoint that it cannot show."""
    told = liar.misled_by(effect, ViewChange)
    if told is None:
        return effect
    to, body = told
    forged = replace(body, stable=body.stable + 1)
    kind = liar.chance.randrange(3)
    if kind == 0 and body.prepared:
        forged = replace(body, prepared=tuple(replace(one, batch=NULL_DIGEST) for one in body.prepared))
    elif kind == 1 and body.prepared:
        forged = replace(body, prepared=tuple(replace(one, view=body.view - 1) for one in body.prepared))
    return ev.Send(to, liar.sign(forged))


def rushed_views(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Leaves for views that nobody else wants."""
    replica = liar.member.node.replica if liar.member.node is not None else None
    if replica is not None and isinstance(effect, ev.Send) and liar.chance.randrange(40) == 0:
        view = replica.view + liar.chance.choice((1, 1, 2, 3, 2**40))
        certificate = (replica.certificate,) if replica.certificate is not None else ()
        liar.also(effect.to, liar.sign(ViewChange(view, replica.stable, certificate, ())))
    return effect


def two_new_views(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Begins its view in another way with some: by another quorum's view changes, or with orders of its own."""
    told = liar.misled_by(effect, NewView)
    if told is None:
        return effect
    to, body = told
    kind = liar.chance.randrange(4)
    if kind == 0:
        orders = tuple(liar.signer.sign(PrePrepare(body.view, one.seq, NULL_DIGEST)) for one in _orders(body))
        return ev.Send(to, liar.sign(replace(body, pre_prepares=orders)))
    if kind == 1 and body.pre_prepares:
        return ev.Send(to, liar.sign(replace(body, pre_prepares=body.pre_prepares[:-1])))
    changes = {one.key: one for one in body.view_changes}
    mine = body_of(changes[liar.signer.key].payload)
    assert isinstance(mine, ViewChange)
    others = {key: one for key, one in liar.shared.leavings.get(body.view, {}).items() if key != liar.signer.key}
    if len(others) < len(changes) - 1:
        return effect
    chosen = [others[key] for key in liar.chance.sample(sorted(others), len(changes) - 1)]
    chosen.append(liar.signer.sign(liar.leaving(mine)))
    chosen.sort(key=lambda one: one.key)
    bodies = [one for one in (body_of(signed.payload) for signed in chosen) if isinstance(one, ViewChange)]
    carried = carry_over(bodies)
    orders = tuple(liar.signer.sign(PrePrepare(body.view, seq, batch)) for seq, batch in carried.orders)
    return ev.Send(to, liar.sign(NewView(body.view, tuple(chosen), orders)))


def old_proofs(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Shows the oldest that can be proved of each sequence number, be it by what never met at one place."""
    told, group = liar.told(effect, ViewChange), liar.group()
    if told is None or group is None:
        return effect
    to, body = told
    oldest: dict[int, Prepared] = {}
    high = body.stable + liar.world.genesis.parameters.window_heights
    for proof in liar.shared.proofs(group, body.stable, high):
        if proof.view < body.view:
            oldest.setdefault(proof.seq, proof)
    shown = liar.misled(asked(body)) and tuple(oldest.values())
    return ev.Send(to, liar.sign(replace(body, prepared=shown or body.prepared)))


def invented_proofs(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Shows that the null request was prepared where a liar has led, by its own order and signatures of nobody."""
    told, group = liar.told(effect, ViewChange), liar.group()
    if told is None or group is None:
        return effect
    to, body = told
    signers = {one.key: one for one in liar.shared.signers}
    view = next((one for one in range(body.view - 1, -1, -1) if group.primary(one) in signers), None)
    if view is None:
        return effect
    primary = signers[group.primary(view)]
    backups = [key for key in sorted(group.keys) if key != primary.key][: group.quorum - 1]
    nobody = tuple(Attestation(key, bytes(64)) for key in backups)
    seqs = range(body.stable + 1, body.stable + 1 + liar.world.genesis.parameters.window_heights)
    orders = [(seq, primary.sign(PrePrepare(view, seq, NULL_DIGEST)).signature) for seq in seqs]
    proofs = tuple(Prepared(view, seq, NULL_DIGEST, Attestation(primary.key, sign), nobody) for seq, sign in orders)
    return ev.Send(to, liar.sign(replace(body, prepared=proofs)))


def least_new_views(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Begins its view by those view changes, of all that anybody has sent, that oblige to the least. All liars vote at
    once for what follows."""
    group = liar.group()
    return _begin(liar, effect, group, group.quorum) if group is not None else effect


def few_new_views(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """The same by f + 1 view changes, which lack one who knows what was committed."""
    group = liar.group()
    return _begin(liar, effect, group, group.some_honest) if group is not None else effect


def null_new_views(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Begins its view by the right view changes and with nothing but null requests."""
    told = liar.told(effect, NewView)
    if told is None:
        return effect
    to, body = told
    orders = tuple(liar.signer.sign(replace(one, batch=NULL_DIGEST)) for one in _orders(body))
    begun = replace(body, pre_prepares=orders)
    liar.world.clock.later(LISTENS_MS, lambda: _agree(liar, to, begun))
    return ev.Send(to, liar.sign(begun))


def _begin(liar: Lying, effect: ev.Effect, group: Group, size: int) -> ev.Effect | None:
    told = liar.told(effect, NewView)
    if told is None:
        return effect
    to, body = told
    liar.world.clock.later(LISTENS_MS, lambda: _show(liar, to, body.view, size, group))
    return None


def _show(liar: Lying, to: Key, view: int, size: int, group: Group) -> None:
    """Once all who leave have said so."""
    if view not in liar.begun:
        liar.begun[view] = _least(liar, view, size, group)
    begun = liar.begun[view]
    if begun is None:
        return
    liar.also(to, liar.sign(begun))
    liar.world.clock.later(LISTENS_MS, lambda: _agree(liar, to, begun))


def _agree(liar: Lying, to: Key, begun: NewView) -> None:
    """All liars vote for what a new view orders, before one who has entered it."""
    for signed in begun.pre_prepares:
        order = body_of(signed.payload)
        assert isinstance(order, PrePrepare)
        for one in liar.shared.signers:
            if one.key != liar.signer.key:
                liar.also(to, encode(one.sign(Prepare(order.view, order.seq, order.batch, signed.signature))))
            liar.also(to, encode(one.sign(Commit(order.view, order.seq, order.batch))))


def _least(liar: Lying, view: int, size: int, group: Group) -> NewView | None:
    """By the view changes of the honest, and those of the liars, who show nothing, or the last that they can prove and
    not what comes before it, from the oldest checkpoint of all."""
    known = dict(liar.shared.leavings.get(view, {}))
    bodies = {key: body for key, one in known.items() if isinstance(body := body_of(one.payload), ViewChange)}
    oldest = min(bodies.values(), key=lambda one: one.stable)
    high = oldest.stable + liar.world.genesis.parameters.window_heights
    proofs = [one for one in liar.shared.proofs(group, oldest.stable, high) if one.view < view]
    nulls_first = liar.chance.randrange(2) == 0  # as many as can be, up to the last that can be proved
    shown = proofs[-1:] if nulls_first else []
    for one in liar.shared.signers:
        bodies[one.key] = ViewChange(view, oldest.stable, oldest.certificate, tuple(shown))
        known[one.key] = one.sign(bodies[one.key])
    best: tuple[tuple[int, int], NewView] | None = None
    for keys in islice(combinations(sorted(bodies), size), TRIED_MAX):
        carried = carry_over([bodies[key] for key in keys])
        nulls = sum(batch == NULL_DIGEST for _, batch in carried.orders)
        some = len(carried.orders) - nulls
        rank = (-nulls, some) if nulls_first else (some, -nulls)
        if liar.signer.key in keys and (best is None or rank < best[0]):
            orders = tuple(liar.signer.sign(PrePrepare(view, seq, batch)) for seq, batch in carried.orders)
            best = rank, NewView(view, tuple(known[key] for key in keys), orders)
    return best[1] if best is not None else None


def gaps(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Orders every other time for the sequence number behind, which leaves one that nobody has heard of."""
    told = liar.told(effect, PrePrepare)
    batch = _batch(effect) if told is not None else None
    if told is None or batch is None or told[1].seq % 2:
        return effect
    to, body = told
    return ev.Send(to, liar.order(replace(body, seq=body.seq + 1), Batch(())))


def thin_certificates(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Has f + 1 sign what is permanent, and leaves out the others."""
    thin = _certificate(effect)
    if thin is not None:
        return _with(effect, liar.thin(thin))
    told = liar.told(effect, Header)
    if told is not None:
        to, header = told
        said = liar.shared.signed.get(header, {})
        liar.also(to, encode(liar.thin(Certificate(header, tuple(Attestation(*one) for one in sorted(said.items()))))))
    return effect


def foreign_certificates(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Shows what all have signed on another network."""
    told, group = liar.told(effect, Header), liar.group()
    if told is not None and group is not None:
        to, body = told
        header = replace(body, network=liar.abroad.network, state=digest("abroad", body.state))
        signed = [liar.world.members[key].abroad.sign(header) for key in sorted(group.keys)]
        liar.also(to, encode(Certificate(header, tuple(attestation_of(one) for one in signed))))
    return effect


def two_reports(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Reports less to some, and drafts other reports."""
    report, draft = liar.misled_by(effect, Report), liar.misled_by(effect, Draft)
    if report is not None:
        to, body = report
        less = replace(body, names=body.names[:-1]) if body.names else replace(body, held=bytes(len(body.held)))
        return ev.Send(to, liar.sign(less))
    if draft is not None:
        return ev.Send(draft[0], liar.sign(replace(draft[1], reports=draft[1].reports[:-1] or draft[1].reports)))
    return effect


def two_commitments(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """As a miner, commits to one payload before these and to another before those, and shows neither."""
    if isinstance(effect, ev.Reveal):
        return None
    if not isinstance(effect, ev.Publish):
        return effect
    signed = signed_in(effect.data)
    body = body_of(signed.payload) if signed is not None else None
    if not isinstance(body, Commitment):
        return effect
    other = liar.sign(replace(body, salt=digest("another salt", body.salt)))
    misled = liar.misled(asked(body))
    for to in liar.world.hearers:
        if to != liar.signer.key:
            liar.also(to, other if to in misled else effect.data)
    return None


def wrong_sums(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Stands by sums that are a unit off: its arithmetic lies, and all that it says follows from it."""
    return effect


def replays(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Sends again what anybody has said, of whatever view and height."""
    if isinstance(effect, ev.Send) and liar.shared.frames and liar.chance.randrange(4) == 0:
        liar.also(effect.to, liar.chance.choice(liar.shared.frames))
    return effect


def foreign_words(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Says what it says as if on another network."""
    told = liar.misled_by(effect, object)
    return effect if told is None else ev.Send(told[0], encode(liar.abroad.sign(told[1])))


def flood(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """Votes for whatever comes to its mind, and noise, as much as may pass."""
    if not isinstance(effect, ev.Send) or liar.world.now < liar.flooded_ms + FLOOD_MS:
        return effect
    liar.flooded_ms = liar.world.now
    chance = liar.chance
    for _ in range(FLOOD // 4):
        view, seq = chance.choice((0, chance.randrange(9), 2**40)), chance.choice((chance.randrange(200), 2**40))
        name = digest("flood", bytes([chance.randrange(4)]))
        for body in (Commit(view, seq, name), Prepare(view, seq, name, bytes(64)), PrePrepare(view, seq, name)):
            liar.also(effect.to, liar.sign(body))
        liar.also(effect.to, chance.randbytes(chance.randrange(1, 200)))
    return effect


LIES: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (
        mute,
        mute_as_primary,
        selective,
        two_orders,
        bad_batches,
        withhold_batches,
        two_votes,
        early_commits,
        two_headers,
        two_view_changes,
        forged_proofs,
        rushed_views,
        two_new_views,
        old_proofs,
        invented_proofs,
        least_new_views,
        few_new_views,
        null_new_views,
        gaps,
        thin_certificates,
        foreign_certificates,
        two_reports,
        two_commitments,
        wrong_sums,
        replays,
        foreign_words,
        flood,
    )
}


def withhold(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """As a miner, never shows what it has committed to."""
    return None if isinstance(effect, ev.Reveal) else effect


def garbage(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """As a miner, commits to noise: its trainer lies."""
    return effect


def wrong_models(liar: Lying, effect: ev.Effect) -> ev.Effect | None:
    """As a miner, commits to another model than the round's."""
    signed = signed_in(effect.data) if isinstance(effect, ev.Publish) else None
    body = body_of(signed.payload) if signed is not None else None
    if not isinstance(effect, ev.Publish) or not isinstance(body, Commitment):
        return effect
    return ev.Publish(effect.topic, liar.sign(replace(body, model=digest("another model", body.model))))


MINERS_LIES: dict[str, Lie] = {lie.__name__: lie for lie in (withhold, garbage, wrong_models, two_commitments)}

# What comes to nothing but in the plot that it is for.
STAGED: dict[str, Lie] = {lie.__name__: lie for lie in (desert, orders_again, withhold_headers, bad_for_the_deaf)}


def a_unit_more(folder: Path, job: Aggregate, done: Aggregated) -> Aggregated:
    """The sum with its last coordinate one unit off, and the model and momentum that follow from it."""
    data = bytearray(read_blob(folder, done.aggregate))
    last = int(np.frombuffer(bytes(data[-2:]), "<i2")[0])
    data[-2:] = np.array([last - 1 if last > 0 else last + 1], "<i2").tobytes()
    aggregate = write_blob(folder, bytes(data))
    moved = add_up(Apply(0, job.spec, job.round, job.model, job.momentum, aggregate), folder)
    assert isinstance(moved, Applied), moved
    return replace(done, aggregate=aggregate, model=moved.model, momentum=moved.momentum)


def _nonsense(liar: Lying) -> Batch:
    """What nobody honest agrees to."""
    return Batch((Signed(liar.world.keys[0], b"pay me", bytes(64)),))


def _batch(effect: ev.Effect) -> Batch | None:
    """The batch that travels in a frame with its order, if there is something in it."""
    envelope = decode(effect.data, Proposal, Signed) if isinstance(effect, ev.Send) else None
    return envelope.batch if isinstance(envelope, Proposal) and envelope.batch != NULL else None


def _certificate(effect: ev.Effect) -> Certificate | None:
    if not isinstance(effect, ev.Send | ev.Publish):
        return None
    try:
        return decode(effect.data, Certificate)
    except Malformed:
        return None


def _with(effect: ev.Effect, certificate: Certificate) -> ev.Effect:
    assert isinstance(effect, ev.Send | ev.Publish)
    return replace(effect, data=encode(certificate))


def _orders(body: NewView) -> list[PrePrepare]:
    found = (body_of(signed.payload) for signed in body.pre_prepares)
    return [one for one in found if isinstance(one, PrePrepare)]
