"""What became of contributions and why, as the ledger has it: facts, sentences, and what proves them offline.

Amounts are integer micro-units, names are hexadecimal, norms are those of gradients and distances parts of the task's
norm, both as floats, since nobody votes on what stands here.
"""

from __future__ import annotations

import base64
from typing import Any

from potd.ledger.clock import vests_after
from potd.ledger.entries import Miner, Past, Phase, Row, Standing, Task, Voice, past_key
from potd.ledger.state import Ledger
from potd.ledger.training import sealed_commitments
from potd.wire.audits import Status
from potd.wire.blocks import Certificate
from potd.wire.codec import encode
from potd.wire.genesis import Parameters
from potd.wire.ids import AccountId, short
from potd.wire.rounds import Outcome
from potd.wire.rules import WEIGHT_ONE
from potd.wire.tasks import TaskSpec

NANO = 10**9


def why_view(
    ledger: Ledger, certificate: Certificate | None, task: Task, number: int, miner: AccountId | None
) -> dict[str, Any]:
    """What became of the contributions to one round, or of one miner's. The proof needs the certificate of the
    ledger's own height."""
    past = ledger.read(past_key(task.id, number), Past)
    told: dict[str, Any] = {"task": task.id.hex(), "round": number, "now": task.round, "height": ledger.height}
    if past is None:
        return told | {
            "story": [_without_entry(ledger.parameters(), task, number)],
            "contributions": _open(task, number, miner),
        }
    rows = [row for row in past.rows if miner in (None, row.miner)]
    spec = ledger.spec(task.id)
    assert spec is not None, "a task without its spec"
    told |= {
        "model": past.model.root.hex(),
        "seed": past.seed.hex(),
        "ended_height": past.height,
        "story": [f"it ended at height {past.height}, with {len(past.rows)} contributions sealed"],
        "contributions": [_contribution(ledger.parameters(), task, spec, past, row) for row in rows],
        "proof": _proof(ledger, certificate, past_key(task.id, number), past),
    }
    if miner is not None and not rows:
        told["story"].append(_not_sealed(task.miner(miner), miner, number))
    return told


def _without_entry(parameters: Parameters, task: Task, number: int) -> str:
    """Why the ledger holds nothing of a round."""
    vest = vests_after(parameters)
    if number > task.round or (number == task.round and task.phase in (Phase.WAITING, Phase.ASLEEP, Phase.DONE)):
        return f"round {number} has not begun: the task stands before round {task.round}"
    if number == task.round and task.phase == Phase.TRAINING:
        return f"round {number} is open: nothing is sealed yet"
    if number == task.round:
        return f"round {number} is sealed: {len(task.sealed)} contributions are to be revealed, and nothing is paid yet"
    if task.phase != Phase.DONE and task.round - number <= vest:
        return f"round {number} lapsed: too few contributions could be counted, and nobody was paid"
    return (
        f"round {number} is settled: the ledger forgets a round once its pay has vested, {vest} rounds later, "
        f"or when its task is settled; a round that lapsed leaves nothing either"
    )


def _open(task: Task, number: int, miner: AccountId | None) -> list[dict[str, Any]]:
    """What is sealed of the round that is being revealed."""
    if number != task.round:
        return []
    sealed = [commitment for commitment in sealed_commitments(task) if miner in (None, commitment.miner)]
    return [
        {
            "miner": one.miner.hex(),
            "payload": {"root": one.payload.root.hex(), "bytes": one.payload.size},
            "samples": one.samples,
            "loss": one.loss_micro / 1e6,
            "story": ["it is sealed, and its payload is being fetched"],
        }
        for one in sealed
    ]


def _not_sealed(miner: Miner | None, name: AccountId, number: int) -> str:
    who = f"miner {short(name)}"
    if miner is None:
        return f"{who} is not enrolled for this task"
    if miner.joined_round > number:
        return f"{who} is expected from round {miner.joined_round} on: nothing was asked of it before"
    suspended = f"; it has missed {miner.missed} rounds in a row and is suspended" if miner.suspended else ""
    return f"{who} has nothing in this round: fewer than f + 1 validators heard a fitting commitment in time{suspended}"


def _contribution(parameters: Parameters, task: Task, spec: TaskSpec, past: Past, row: Row) -> dict[str, Any]:
    step = 2.0**spec.encoding.exponent_min
    return {
        "miner": row.miner.hex(),
        "commitment": row.commitment.hex(),
        "payload": {"root": row.payload.root.hex(), "bytes": row.payload.size},
        "units": row.units,
        "outcome": Outcome(row.outcome).name.lower(),
        "weight": row.weight / WEIGHT_ONE,
        "norm": row.norm * step,
        "task_norm": task.norm * step,
        "pay_micro": row.pay_micro,
        "vests_round": past.round + vests_after(parameters),
        "standing": Standing(row.standing).name.lower(),
        "tolerance": spec.tolerance_nano / NANO,
        "voices": [
            {
                "validator": one.validator.hex(),
                "kind": "ruling" if one.ruling else "verdict",
                "status": Status(one.status).name.lower(),
                "distance": one.distance_nano / NANO,
            }
            for one in row.voices
        ],
        "story": [
            f"sealed: commitment {short(row.commitment)}, of {row.units * spec.unit_batch} samples",
            _outcome_text(row, spec, step),
            *_audit_texts(row, spec, parameters),
            _pay_text(task, past, row, parameters),
        ],
    }


def _outcome_text(row: Row, spec: TaskSpec, step: float) -> str:
    match Outcome(row.outcome):
        case Outcome.COUNTED if row.weight == WEIGHT_ONE:
            return f"revealed and counted in full; its norm is {row.norm * step:.3g}"
        case Outcome.COUNTED:
            part, norm = 100 * row.weight / WEIGHT_ONE, row.norm * step
            return f"revealed and counted by {part:.1f} %, as rule {spec.rule.kind} has it; its norm is {norm:.3g}"
        case Outcome.WITHHELD:
            return "not revealed in time: fewer than f + 1 of the reports held its payload"
        case Outcome.MALFORMED:
            return "revealed, and worth nothing: its payload is no encoding of this task, miner and round"
        case Outcome.NON_FINITE:
            return "its miner says itself that its gradient was not finite"
        case Outcome.PROBATION:
            return "revealed, and not counted: its miner was on probation, without a whole bond"


def _audit_texts(row: Row, spec: TaskSpec, parameters: Parameters) -> list[str]:
    if not row.voices and row.outcome in (Outcome.COUNTED, Outcome.PROBATION):
        if not spec.tolerance_nano:
            return ["this task is not audited"]
        percent = 50.0 if row.outcome == Outcome.PROBATION else parameters.audit_ppm / 10_000
        return [f"no audit of it is known; honest validators replay {percent:g} % of all"]
    texts = [_voice_text(one, spec) for one in row.voices]
    match Standing(row.standing):
        case Standing.CONTESTED:
            texts.append("contested: every validator replays it now")
        case Standing.CLEARED:
            texts.append("cleared")
        case Standing.SLASHED:
            texts.append("slashed: its miner has lost its bond and all pay that had not vested")
        case Standing.UNCONTESTED:
            pass
    return texts


def _voice_text(one: Voice, spec: TaskSpec) -> str:
    what = "ruled on" if one.ruling else "audited"
    if one.status == Status.UNABLE:
        return f"{what} by {short(one.validator)}, who could not replay it"
    found = "good" if one.status == Status.GOOD else "bad"
    distance, tolerance = one.distance_nano / NANO, spec.tolerance_nano / NANO
    return f"{what} by {short(one.validator)}: {found}, distance {distance:.2g} where {tolerance:.2g} is tolerated"


def _pay_text(task: Task, past: Past, row: Row, parameters: Parameters) -> str:
    if row.standing == Standing.SLASHED:
        return "nothing is paid"
    if row.outcome == Outcome.PROBATION:
        return "its pay went into its miner's bond"
    if not row.pay_micro:
        return "nothing is paid"
    if task.phase == Phase.DONE:
        due = f"at height {task.rested_height + parameters.settle_heights}"
    else:
        due = f"with round {past.round + vests_after(parameters)}, now is {task.round}"
    return f"{row.pay_micro} micro-units are owed, and vest {due}"


def _proof(ledger: Ledger, certificate: Certificate | None, key: bytes, past: Past) -> dict[str, Any] | None:
    """What shows to anybody who knows the validators' keys that the network holds this entry; None while the newest
    height is not certified."""
    if certificate is None or certificate.header != ledger.header:
        return None
    return {
        "height": certificate.header.height,
        "certificate": _text(encode(certificate)),
        "key": key.hex(),
        "entry": _text(encode(past)),
        "proof": _text(encode(ledger.entries.prove(key))),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
