"""Training as it is, in one process on virtual time, with miners and validators that cheat.

The nodes are whole ones, and their workers the real ones: the trainer's gradient on torch, on one thread, and the
arithmetic. What a cheat commits to is made where its trainer answers, what a lying auditor says where its replays do;
all that follows from it is left to the nodes. Virtual time passes in ticks, so that one seed is one run.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import torch

from potd.arithmetic.quantise import decode_payload, encode_payload, to_floats
from potd.ledger.bonds import parts_micro
from potd.ledger.entries import Phase, Row, Task
from potd.node import events as ev
from potd.rounds.plan import Window, assign
from potd.simulation.memo import shared
from potd.simulation.run import SCRATCH
from potd.simulation.trainer import FAR_NANO, MILLISECONDS, Workers
from potd.simulation.world import Member, World
from potd.trainer.__main__ import Trainer
from potd.trainer.data import Samples, decode_shard, gather
from potd.trainer.device import make_exact
from potd.trainer.layout import Floats, weights_from_bytes
from potd.trainer.replay import distance, nearest, neighbours, unit_of
from potd.trainer.step import evaluate, gradient
from potd.trainer.task import Prepared
from potd.wire.audits import Status
from potd.wire.blobs import read_blob, write_blob
from potd.wire.consensus import quorum_of
from potd.wire.genesis import Parameters
from potd.wire.ids import AccountId, BlobRef, Key
from potd.wire.jobs import Answer, Evaluate, Failed, Job, Replay, Replayed, Train, Trained
from potd.wire.operations import Submit
from potd.wire.rounds import payload_binding
from potd.wire.tasks import BINDING_BYTES, TaskSpec
from tests.attacks.attacks import CPU, TARGET, Attack, Known, Rig, with_pattern

VALIDATORS = 4
AUDIT_PPM = Parameters().audit_ppm
LIAR = 1  # which of them lies as an auditor; the first owns the task
MINER_TICK_MS = 200  # a miner has little to wait for
REVEAL_TICKS = 400  # nobody is too late: what is measured are lies
HOPELESS = 1_000  # times the tolerance
ROUND_TICKS_MAX = 4_000
SETTLE_HEIGHTS = 24  # fewer than a network has: most of them are empty
ESCROW = 10**10
KEPT = 256  # gradients and replays that several ask for


class RealWorkers(Workers):
    """The trainer and the arithmetic of the package. What several nodes would work out alike is worked out once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        make_exact(CPU)
        self._trainer = Trainer(folder, CPU)
        self._known: dict[Job, Answer] = {}

    def do(self, job: Job) -> Answer:
        if not isinstance(job, Train | Evaluate | Replay):
            return super().do(job)
        known = replace(job, job=0)
        if known not in self._known:
            done = self._trainer.answer(known)
            assert not isinstance(done, Failed), done.reason
            self._known[known] = replace(done, milliseconds=MILLISECONDS)
            if len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return replace(self._known[known], job=job.job)


@dataclass(frozen=True)
class Made:
    """A contribution of one who takes part in the attack."""

    job: Train
    account: AccountId
    payload: BlobRef
    cheats: bool  # these are not the bytes that were asked for
    moved: float  # by how much it is off them, in the gradient's own unit
    skipped: int  # samples, as far as the attack says so


@dataclass(frozen=True)
class Trial:
    """What one run has shown. Distances are from the referee's replays, in billionths of the task's norm. Gains are in
    what one contribution earns its miner, fees and bonds lost taken off; work costs nothing here."""

    accuracy: float
    fooled: float = 0.0  # of the held-out samples of other classes that carry the pattern, the part named the target's
    counted_rounds: int = 0
    cheats_nano: tuple[int, ...] = ()  # of each contribution that is not what was asked for
    outside: int = 0  # of these, beyond the tolerance, or with exponents that the replay cannot explain
    honest_nano: tuple[int, ...] = ()  # of the others that the same miners made
    alarms: int = 0  # of these, the same
    moved: float = 0.0  # the farthest that one within it is off the bytes that were asked for, in parts of the norm
    skipped: float = 0.0  # the part of their samples that these left out, as far as the attack says so
    drawn: int = 0  # contributions of anybody that an auditor has drawn, and told of
    until_caught: tuple[int, ...] = ()  # of each who was slashed: its contributions, with the first that a quorum named
    until_slashed: tuple[int, ...] = ()  # and the rounds until it was
    gains: tuple[float, ...] = ()  # of each who has cheated
    honest_gains: tuple[float, ...] = ()  # of each miner who has not
    honest_slashed: int = 0
    auditor_gain: float = 0.0  # of the validator that may lie, beside two others


class Laboratory(World):
    """Validators that do not mine, and miners, of which the last so many take part in the attack."""

    def __init__(
        self, folder: Path, task: Prepared, attack: Attack, miners: int, seed: int, audit_ppm: int = AUDIT_PPM
    ) -> None:
        super().__init__(
            folder,
            VALIDATORS,
            seed,
            miners=miners,
            idle=VALIDATORS,
            reveal_ticks=REVEAL_TICKS,
            audit_ppm=audit_ppm,
            settle_heights=SETTLE_HEIGHTS,
        )
        self._workers = RealWorkers(folder)
        self.prepared = task
        self.attack = attack
        self.made: list[Made] = []
        self.rows: dict[tuple[int, AccountId], Row] = {}  # as last seen, by round and miner
        self.slashed: dict[AccountId, int] = {}  # and the round that was open then
        self._seed = seed
        self._group: tuple[Key, ...] = self.keys[len(self.keys) - attack.size(miners) :]
        self._sizes = [shard.samples for shard in task.manifest.training]
        self._rig = Rig(task.spec.model, task.manifest.shape, task.manifest.classes)
        self._shards: dict[BlobRef, Samples] = {}
        self._gradients: dict[tuple[int, AccountId], Floats] = {}  # by round
        self._models: list[BlobRef] = []  # of all rounds so far
        self._last: dict[AccountId, tuple[Floats, Samples]] = {}  # what each cheat has committed to, and its batch then
        for key in self.keys[VALIDATORS:]:
            self.members[key].tick_ms = MINER_TICK_MS

    def train(self) -> Task:
        """The whole task, from submitting it until it is done."""
        place = self.keys[0]
        node = self.node(place)
        refs = {write_blob(self.folder, data) for data in self.prepared.blobs}
        self.members[place].disk.held.update(refs)
        signed = self.members[place].signer.sign(Submit(node.account, node.next_nonce(), self.prepared.spec, ESCROW))
        self.input(place, ev.OperationAsked(signed))
        self.run(lambda: bool(node.ledger.task_ids()), 100)
        for _ in range(self.prepared.spec.rounds):
            before = self.round(place)
            self.run(lambda before=before: self.round(place) > before, ROUND_TICKS_MAX)  # type: ignore[misc]  # binds the loop's value
            self._look()
        self.run(lambda: self.task(place).phase == Phase.DONE, ROUND_TICKS_MAX)
        while node.ledger.settling():
            before = node.height
            self.run(lambda before=before: node.height > before, ROUND_TICKS_MAX)  # type: ignore[misc]  # binds the loop's value
            self._look()
        self.check()
        return self.task(place)

    def _look(self) -> None:
        """Remember what the ledger knows of past rounds: it forgets."""
        task, ledger = self.task(self.keys[0]), self.node(self.keys[0]).ledger
        for number in range(max(0, task.round - ledger.parameters().audit_rounds - 2), task.round):
            past = ledger.past(task.id, number)
            for row in past.rows if past is not None else ():
                self.rows[number, row.miner] = row
        for account in ledger.parting(task.id).slashed:
            self.slashed.setdefault(account, task.round)

    @property
    def norm(self) -> int:
        """The unit of distances; 0 before a round has counted."""
        return self.task(self.keys[0]).norm

    def _has(self, account: AccountId) -> int:
        """What an account has, and what is bound: the bond of its seat and of its enrolment, and pay that vests yet."""
        ledger = self.node(self.keys[0]).ledger
        amounts = [seat.bond_micro for seat in ledger.validators() if seat.account == account]
        known = ledger.account(account)
        amounts += [known.balance_micro] if known is not None else []
        for task in ledger.tasks():
            bond = ledger.bond(task.id, account)
            amounts += [bond.amount_micro] if bond is not None else []
            pasts = [ledger.past(task.id, number) for number in range(task.round)]
            amounts += [row.pay_micro for past in pasts if past for row in past.rows if row.miner == account]
        return sum(amounts)

    def _until_caught(self, account: AccountId) -> int:
        """Contributions, with the first that a quorum calls bad."""
        seats = self.node(self.keys[0]).ledger.seats().seats
        rows = {number: row for (number, miner), row in sorted(self.rows.items()) if miner == account}
        for at, row in enumerate(rows.values()):
            if len({one.validator for one in row.voices if one.status == Status.BAD}) >= quorum_of(len(seats)):
                return at + 1
        raise AssertionError("slashed without a contribution that a quorum calls bad")

    def trial(self) -> Trial:
        """Train, and see what came of it."""
        accounts = [self.node(key).account for key in self.keys]
        had = {account: self._has(account) for account in accounts}
        task = self.train()
        one_pay = parts_micro(self.prepared.spec, self.prepared.spec.unit_batch)[0]
        gains = {account: (self._has(account) - had[account]) / one_pay for account in accounts}
        cheating = dict.fromkeys(one.account for one in self.made if one.cheats)
        auditors = [gains[account] for account in accounts[:VALIDATORS]]
        assert self.norm, "no round has counted"
        weights = weights_from_bytes(self._rig.spec, read_blob(self.folder, task.model))
        held_out = [self._samples(shard.blob) for shard in self.prepared.manifest.held_out]
        score = evaluate(self._rig.spec, weights, held_out, CPU)
        others = [Samples(one.features[one.labels != TARGET], one.labels[one.labels != TARGET]) for one in held_out]
        marked = [with_pattern(one, self._rig.shape) for one in others]
        named = [Samples(one.features, np.full(len(one), TARGET, np.int64)) for one in marked]
        fooled = evaluate(self._rig.spec, weights, named, CPU)
        replays = [(made, *self._replayed(made)) for made in self.made]
        tolerance = self.prepared.spec.tolerance_nano
        unit = self.norm * 2.0**self.prepared.spec.encoding.exponent_min
        inside = [made.moved / unit for made, far, wrong in replays if made.cheats and far <= tolerance and not wrong]
        found = {
            cheats: [(far, far > tolerance or wrong > 0) for made, far, wrong in replays if made.cheats == cheats]
            for cheats in (True, False)
        }
        told = [row for row in self.rows.values() if any(not one.ruling for one in row.voices)]
        return Trial(
            accuracy=score.correct / score.samples,
            fooled=fooled.correct / fooled.samples,
            counted_rounds=task.counted_rounds,
            cheats_nano=tuple(far for far, _ in found[True]),
            outside=sum(outside for _, outside in found[True]),
            honest_nano=tuple(far for far, _ in found[False]),
            alarms=sum(outside for _, outside in found[False]),
            moved=max(inside, default=0.0),
            skipped=sum(one.skipped for one in self.made) / (len(self.made) * self.prepared.spec.unit_batch),
            drawn=len(told),
            until_caught=tuple(self._until_caught(account) for account in self.slashed if account in cheating),
            until_slashed=tuple(number for account, number in self.slashed.items() if account in cheating),
            gains=tuple(gains[account] for account in cheating),
            honest_gains=tuple(gains[account] for account in accounts[VALIDATORS:] if account not in cheating),
            honest_slashed=len(self.slashed.keys() - cheating.keys()),
            auditor_gain=auditors[LIAR] - fmean(auditors[LIAR + 1 :]),
        )

    def _replayed(self, made: Made) -> tuple[int, int]:
        """As an auditor finds it whose rig computes in float64."""
        spec, batch = self.prepared.spec, self._batch(made.job)
        payload = decode_payload(
            read_blob(self.folder, made.payload)[BINDING_BYTES:], spec.model.parameters, spec.encoding
        )
        near = neighbours(self._weights(made.job.model))
        replays = (gradient(spec.model, weights, batch, CPU, torch.float64).vector for weights in near)
        first = next(replays)
        unit = unit_of(payload, self.norm)
        found = distance(payload, first, unit, spec.tolerance_nano)
        if found[0] > HOPELESS * spec.tolerance_nano:  # no neighbour is so far away
            return found
        return nearest(payload, chain([first], replays), unit, spec.tolerance_nano)

    # Where the lies are made

    def _work(self, member: Member, job: Job, life: int) -> None:
        if member.life != life:
            return
        if isinstance(job, Train) and member.place in self._group:
            done: Answer = self._cheat(member, job)
        else:
            done = self._workers.do(job)
        if isinstance(job, Replay) and isinstance(done, Replayed) and member.place == self.keys[LIAR]:
            done = self._audited(job, done)
        self._produced(member, done)
        self.input(member.place, ev.JobDone(done), life)

    def _audited(self, job: Replay, done: Replayed) -> Replayed:
        """What the first validator says of a replay, if it lies."""
        if self.attack.auditor is None:
            return done
        good = done.distance_nano <= job.spec.tolerance_nano and done.exponents == 0
        cheat = any(one.payload == job.payload and one.cheats for one in self.made)
        says = self.attack.auditor(Status.GOOD if good else Status.BAD, cheat)
        return replace(done, distance_nano=0 if says == Status.GOOD else FAR_NANO, exponents=0)

    def _cheat(self, member: Member, job: Train) -> Trained:
        """What one who takes part in the attack commits to."""
        node = self.node(member.place)
        if job.model not in self._models:
            self._models.append(job.model)
        leads = self.attack.led and member.place == self._group[0]
        batch = self._batch(job)
        last = self._last.get(node.account)
        known = Known(
            self._rig,
            self._weights(job.model),
            batch,
            lambda rounds: self._weights(self._models[max(0, self._models.index(job.model) - rounds)]),
            last[0] if last is not None else None,
            last[1] if last is not None else None,
            lambda: self._together(member),
            len(self._group),
            len(self.keys) - VALIDATORS,
            self.norm,
            job.spec.tolerance_nano,
            job.spec.encoding,
            np.random.RandomState([self._seed, job.round, self.keys.index(member.place)]),
        )
        honest = self._gradient(job, node.account)
        vector = honest if leads else self.attack.vector(known)
        self._last[node.account] = vector, batch
        payload = job.binding + encode_payload(vector, job.spec.encoding)
        asked = job.binding + encode_payload(honest, job.spec.encoding)
        ref = write_blob(self.folder, payload)
        off = self._decoded(payload[BINDING_BYTES:]) - self._decoded(asked[BINDING_BYTES:])
        self.made.append(Made(job, node.account, ref, payload != asked, float(np.linalg.norm(off)), known.skipped))
        return Trained(job.job, ref, len(job.samples), True, 0, MILLISECONDS)

    def _decoded(self, data: bytes) -> Floats:
        return to_floats(decode_payload(data, self._rig.spec.parameters, self.prepared.spec.encoding))

    def _together(self, member: Member) -> tuple[Floats, ...]:
        """The honest gradients of all who take part: what each is given follows from what everybody knows."""
        task = self.task(member.place)
        spec = self.prepared.spec
        jobs = [(self._job(task, spec, one), one) for one in (self.node(key).account for key in self._group)]
        return tuple(self._gradient(job, account) for job, account in jobs)

    def _job(self, task: Task, spec: TaskSpec, account: AccountId) -> Train:
        window = Window(task.window.seed, tuple((one.miner, one.units) for one in task.window.members))
        given = assign(window, self._sizes, task.seed, account, 1, spec.unit_batch)
        shards = tuple(self.prepared.manifest.training[index].blob for index in given.shards)
        binding = payload_binding(task.id, task.round, account, task.model.root)
        return Train(0, spec, task.round, task.model, shards, given.samples, binding)

    def _gradient(self, job: Train, account: AccountId) -> Floats:
        """What an honest miner finds."""
        name = job.round, account
        if name not in self._gradients:
            self._gradients[name] = self._rig.gradient(self._weights(job.model), self._batch(job))
            if len(self._gradients) > KEPT:
                del self._gradients[next(iter(self._gradients))]
        return self._gradients[name]

    def _weights(self, model: BlobRef) -> Floats:
        return weights_from_bytes(self._rig.spec, read_blob(self.folder, model))

    def _batch(self, job: Train) -> Samples:
        return gather((self._samples(shard) for shard in job.shards), job.samples)

    def _samples(self, shard: BlobRef) -> Samples:
        if shard not in self._shards:
            features = int(np.prod(self._rig.shape))
            self._shards[shard] = decode_shard(
                read_blob(self.folder, shard), self._rig.shape, features, self._rig.classes
            )
        return self._shards[shard]


def run_trial(task: Prepared, attack: Attack, miners: int, seed: int, audit_ppm: int = AUDIT_PPM) -> Trial:
    """One run in a folder of its own."""
    with ExitStack() as stack:
        stack.enter_context(shared())
        scratch = SCRATCH if SCRATCH.is_dir() else None
        folder = stack.enter_context(TemporaryDirectory(prefix="potd-attacks-", dir=scratch))
        return Laboratory(Path(folder), task, attack, miners, seed, audit_ppm).trial()
