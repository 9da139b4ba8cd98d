"""One task on the bench: four validators who mine, their keys, and a view of the task to change at will."""

from __future__ import annotations

import itertools
from dataclasses import replace

from potd.rounds.chains import Chains
from potd.rounds.evaluator import Evaluator
from potd.rounds.events import Effect, Ignore, Opened, Phase, Seat, View
from potd.rounds.keeper import Desk, Keeper
from potd.rounds.miner import Miner
from potd.rounds.plan import Window
from potd.rounds.tally import Electorate, name_of
from potd.rounds.validator import Validator
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import NO_BLOB, NOTHING, BlobRef, account_id, digest
from potd.wire.rounds import Commitment, Draft, Measured, Report, Step, positions
from potd.wire.rules import CLIP
from potd.wire.tasks import EncodingSpec, ModelSpec, OptimiserSpec, TaskSpec, payload_bytes

NETWORK = digest("network")
TASK = digest("task")


def blob(name: str) -> BlobRef:
    return BlobRef(digest("blob", name.encode()), 100)


SIGNERS = sorted((Signer(bytes([index + 1]) * 32, NETWORK) for index in range(4)), key=lambda one: one.key)
KEYS = tuple(one.key for one in SIGNERS)
STRANGER = Signer(bytes([99]) * 32, NETWORK)
MINERS = tuple(account_id(key) for key in KEYS)  # by validator
ELECTORATE = Electorate(NETWORK, KEYS, 3, 2)
SHARDS = tuple(blob(f"shard {index}") for index in range(4))
OPENED = Opened(SHARDS, (32,) * 4, (blob("held out"),))

SPEC = TaskSpec(
    name="bench",
    model=ModelSpec("mlp", (8, 4), 36),
    weights=blob("model 0"),
    manifest=blob("manifest"),
    samples=128,
    loss="cross_entropy",
    optimiser=OptimiserSpec("nesterov", 500_000, (200_000,)),
    encoding=EncodingSpec("int8", 16, -20, 0),
    rule=CLIP,
    rig_class="float32",
    unit_batch=8,
    rounds=100,
    window_rounds=4,
    miners_min=2,
    pay_micro=1_000,
    validators_ppm=100_000,
    deadline_ticks_min=10,
    deadline_ticks_max=30,
    evaluate_every=0,
    tolerance_nano=400,
)

_WINDOW = Window(digest("window"), tuple(sorted((one, 1) for one in MINERS)))

TRAIN = View(
    task=TASK,
    spec=SPEC,
    phase=Phase.TRAIN,
    asleep=False,
    round=3,
    seed=digest("seed"),
    model=blob("model 3"),
    momentum=blob("momentum 3"),
    aggregate=blob("aggregate 3"),
    deadline_ticks=15,
    seats=tuple(sorted((Seat(a, k, 1, False, 0) for a, k in zip(MINERS, KEYS, strict=True)), key=lambda s: s.account)),
    window=_WINDOW,
    next_window=_WINDOW,
    sealed=(),
    evaluated=-1,
)


def opened_after(view: View, number: int) -> View:
    """A later round, open, with another model."""
    return replace(
        view,
        phase=Phase.TRAIN,
        round=number,
        seed=digest("seed", bytes([number])),
        model=blob(f"model {number}"),
        momentum=blob(f"momentum {number}"),
        aggregate=blob(f"aggregate {number}"),
        sealed=(),
    )


def revealing(view: View, *commitments: Verified[Commitment]) -> View:
    ordered = sorted(commitments, key=lambda one: one.body.miner)
    return replace(view, phase=Phase.REVEAL, sealed=tuple(one.signed for one in ordered))


def commitment(index: int, view: View = TRAIN, salt: str = "", **changes: object) -> Verified[Commitment]:
    """What the miner at `index` commits to."""
    body = Commitment(
        TASK,
        view.round,
        MINERS[index],
        view.model.root,
        replace(blob(f"payload {index} {view.round}"), size=payload_bytes(SPEC)),
        8,
        True,
        500_000,
        NOTHING,
        "float32",
        digest("salt", salt.encode()),
    )
    return SIGNERS[index].verified(replace(body, **changes))  # type: ignore[arg-type]  # fields of a commitment


def seal_report(index: int, *heard: Verified[Commitment], view: View = TRAIN, ticks: int = 1) -> Verified[Report]:
    """What the validator at `index` says it has heard."""
    names = tuple(sorted(name_of(one) for one in heard))
    return SIGNERS[index].verified(Report(TASK, view.round, Step.SEAL.value, names, (), (), b"", ticks))


def update_report(index: int, *held: Verified[Commitment], view: View = TRAIN) -> Verified[Report]:
    """What the validator at `index` says it holds of what was sealed, if that is of all four miners."""
    miners = {one.body.miner for one in held}
    held_positions = positions([one in miners for one in sorted(MINERS)])
    return SIGNERS[index].verified(Report(TASK, view.round, Step.UPDATE.value, (), (), (), held_positions, 1))


def score_report(index: int, number: int, *measured: Measured) -> Verified[Report]:
    return SIGNERS[index].verified(Report(TASK, number, Step.EVALUATION.value, (), (), measured))


def signed(reports: list[Verified[Report]]) -> tuple[Signed, ...]:
    return tuple(one.signed for one in sorted(reports, key=lambda one: one.sender))


def draft(index: int, reports: list[Verified[Report]], number: int = 0, view: View = TRAIN) -> Verified[Draft]:
    return SIGNERS[index].verified(Draft(0, number, TASK, view.round, Step.UPDATE.value, signed(reports)))


class Bench:
    """The parts of the node at one index, with what it holds and what it has noted."""

    def __init__(self, index: int, *held: BlobRef, notes: dict[str, bytes] | None = None) -> None:
        self.held = set(held)
        self.desk = Desk(self.held, itertools.count(1))
        self.keeper = Keeper(self.desk, KEYS)
        self.signer = SIGNERS[index]
        self.index = index
        self.notes = notes if notes is not None else {}

    def miner(self, noted: bytes = b"") -> Miner:
        return Miner(self.signer, MINERS[self.index], self.desk, self.keeper, KEYS, noted)

    def evaluator(self, noted: bytes = b"", trainer: bool = True) -> Evaluator:
        return Evaluator(self.signer, ELECTORATE, self.desk, trainer=trainer, noted=noted)

    def validator(self, noted: dict[Step, bytes] | None = None, drafted: bytes = b"") -> Validator:
        return Validator(
            self.signer,
            MINERS[self.index],
            Chains(self.signer, MINERS[self.index], TASK),
            ELECTORATE,
            self.desk,
            self.keeper,
            reveal_ticks=20,
            work_ticks_max=50,
            noted=noted or {},
            drafted=drafted,
        )


def why_not(answer: tuple[list[Effect], str]) -> str:
    """Why a message was not taken: because it is false, or because it is untimely. Nothing else came of it."""
    effects, reason = answer
    if reason:
        assert effects == []
        return f"false: {reason}"
    (ignored,) = effects
    assert isinstance(ignored, Ignore)
    return f"untimely: {ignored.reason}"


def only(effects: list[Effect], *kinds: type) -> list[Effect]:
    """The effects of these kinds, in order."""
    return [one for one in effects if isinstance(one, kinds)]


def model_blobs(view: View) -> tuple[BlobRef, ...]:
    return tuple(one for one in (view.model, view.momentum) if one != NO_BLOB)
