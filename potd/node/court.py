"""Proposals under judgement: each record is right, wrong, or cannot be told yet. Votes on nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from potd.consensus.events import Judge, Judged
from potd.node.agenda import Agenda, touches
from potd.node.tasks import Desks, Marked
from potd.wire.blocks import BATCH_BYTES_MAX, Batch, record_digest
from potd.wire.codec import Malformed, encode
from potd.wire.envelope import Signed, verify
from potd.wire.genesis import Parameters
from potd.wire.ids import Digest, TaskId
from potd.wire.operations import OPERATIONS
from potd.wire.rounds import Evaluation, Seal, Update


@dataclass
class Case:
    """A proposal, and which of its records, by index, have been found right: these are not gone through again while
    another waits for its sum."""

    judge: Judge
    fault: str  # of the batch as a whole
    right: set[int] = field(default_factory=set)


class Court:
    """The proposals of this view and of the one before, by view and seq: what was wrong there is still said."""

    def __init__(self, network: Digest, parameters: Parameters, desks: Desks, agenda: Agenda) -> None:
        self._network = network
        self._parameters = parameters
        self._desks = desks
        self._agenda = agenda
        self._cases: dict[tuple[int, int], Case] = {}

    def open(self, judge: Judge) -> None:
        self._cases[(judge.view, judge.seq)] = Case(judge, self._batch_fault(judge.batch))

    def _batch_fault(self, batch: Batch) -> str:
        if len(batch.records) > self._parameters.batch_records_max or len(encode(batch)) > BATCH_BYTES_MAX:
            return "a batch over the limits"
        # A record is judged by the state before its batch, so nothing in the batch may move that state for it.
        touched: set[TaskId] = set()
        for record in batch.records:
            if isinstance(record, Seal | Update) and record.task in touched:
                return "a batch in which a round's record follows another record of its task"
            touched |= touches(record)
        return ""

    def entered(self, view: int) -> None:
        """What was proposed before the last view is judged no more."""
        self._cases = {at: case for at, case in self._cases.items() if at[0] >= view - 1}

    def sit(self, height: int, trusted: bool) -> tuple[list[Marked], list[Judged]]:
        """What can be told by now, and what must be worked out for the rest.

        `trusted` says that our own arithmetic has passed its self-test: without it no update is judged."""
        effects: list[Marked] = []
        judged: list[Judged] = []
        for at, case in sorted(self._cases.items(), key=lambda item: item[0]):
            judge = case.judge
            if judge.seq > height:
                verdict, more = self._verdict(case, height >= judge.seq - 1, trusted)
                effects += more
                if verdict is None:
                    continue
                judged.append(Judged(judge.view, judge.seq, judge.digest, verdict))
            del self._cases[at]
        return effects, judged

    def _verdict(self, case: Case, final: bool, trusted: bool) -> tuple[str | None, list[Marked]]:
        """Nothing if every record is right, the reason if one is wrong, None if one cannot be told yet."""
        if case.fault:
            return case.fault, []
        effects: list[Marked] = []
        undecided = False
        for index, record in enumerate(case.judge.batch.records):
            if index in case.right:
                continue
            match record:
                case Signed():
                    verdict: str | None = self._operation_fault(record)
                case Seal() | Update() | Evaluation():
                    verdict, more = self._desks.judge(record, case.judge.view, final, trusted)
                    effects += more
                case _:
                    assert_never(record)
            if verdict:
                return verdict, effects
            if verdict is None:
                undecided = True
            else:
                case.right.add(index)
        return (None if undecided else ""), effects

    def _operation_fault(self, signed: Signed) -> str:
        if record_digest(signed) in self._agenda.operations:
            return ""
        try:
            verify(signed, self._network, *OPERATIONS)
        except Malformed as error:
            return f"an operation: {error}"
        return ""
