"""Operations on their way into the ledger: kept, said again, forwarded; and what became of them. Orders nothing."""

from __future__ import annotations

import logging

from potd.consensus.events import Awaited, Settled
from potd.ledger.accounts import why_not
from potd.ledger.state import Ledger
from potd.node.agenda import Agenda, operation_key
from potd.node.events import Effect, Ignore, Log, Publish, Send
from potd.node.tasks import Desks, Tried
from potd.wire.blocks import Receipt, record_digest
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import AccountId, Digest, Key, TaskId, short
from potd.wire.operations import Enrol, Operation

RECEIPTS_MAX = 4096  # kept for whoever waits for one
AGAIN_TICKS = 40  # an operation that is not executed yet is said again, or forwarded to the primary

Due = Awaited | Settled  # what consensus has to know: the primary owes an operation, or owes it no more


class Operations:
    """Those of everybody in the agenda, and the receipts of those executed."""

    def __init__(self, signer: Signer, account: AccountId, agenda: Agenda) -> None:
        self._signer = signer
        self._account = account
        self._agenda = agenda
        self._receipts: dict[Digest, str] = {}
        self._tried: dict[TaskId, Tried] = {}
        self.trouble = ""  # why we cannot enrol, if we cannot

    def receipt(self, operation: Digest) -> str | None:
        """The reason why an operation was not applied, nothing if it was; None while it has not been executed."""
        return self._receipts.get(operation)

    def next_nonce(self, ledger: Ledger) -> int:
        """The nonce for our account's next operation, after those that wait."""
        nonce = ledger.nonce(self._account)
        waiting = self._agenda.pending_nonces(self._account)
        while nonce in waiting:
            nonce += 1
        return nonce

    def take(
        self, ledger: Ledger, message: Verified[Operation], tick: int, ours: bool
    ) -> tuple[list[Effect], list[Due]]:
        """Somebody wants an operation done; `ours` if it is the operator of this node, who is told of a refusal by its
        receipt. What we refuse ourselves is said to nobody: signed as it is, it would be good for later."""
        name = record_digest(message.signed)
        reason = why_not(ledger, message.signed) or self._agenda.add_operation(message, tick, ours)
        if reason:
            if not ours:
                return [Ignore(f"operation: {reason}")], []
            self._note(name, reason)
            return [], []
        self._receipts.pop(name, None)  # the same was refused before, when it could not be done
        effects: list[Effect] = [Publish("operations", encode(message.signed))] if ours else []
        in_turn = message.body.nonce == ledger.nonce(message.body.account)
        return effects, [Awaited(operation_key(message.signed))] if in_turn else []

    def again(self, tick: int, primary: Key | None) -> list[Effect]:
        """Say our own again; forward what waits too long to the primary, who may not have heard it. [4.4]

        `primary` is None where we are it, or there is none."""
        effects: list[Effect] = []
        for _, waiting in sorted(self._agenda.operations.items()):
            if (tick - waiting.since) % AGAIN_TICKS != AGAIN_TICKS - 1:
                continue
            data = encode(waiting.message.signed)
            if waiting.ours:
                effects.append(Publish("operations", data))
            if primary is not None:
                effects.append(Send(primary, data))
        return effects

    def executed(self, receipts: tuple[Receipt, ...]) -> None:
        for one in receipts:
            self._note(one.record, one.reason)

    def clear(self, ledger: Ledger) -> list[Due]:
        """After a height: drop those that can never be executed now, and await those whose turn has come."""
        due: list[Due] = []
        for name, waiting in sorted(self._agenda.operations.items()):
            key = operation_key(waiting.message.signed)
            reason = why_not(ledger, waiting.message.signed)
            if reason:
                self._agenda.drop_operation(name)
                if waiting.ours and name not in self._receipts:
                    self._note(name, reason)
                due.append(Settled(key))
                continue
            self._receipts.pop(name, None)  # if it failed by coming before its turn: it has its turn yet
            if waiting.message.body.nonce == ledger.nonce(waiting.message.body.account):
                due.append(Awaited(key))
        return due

    def enrolments(
        self, ledger: Ledger, desks: Desks, wanted: tuple[TaskId, ...] | None, units: int, tick: int
    ) -> tuple[list[Effect], list[Signed]]:
        """Enrolments for the tasks that the operator wants to mine for, signed; also to come back when suspended."""
        effects: list[Effect] = []
        signed: list[Signed] = []
        asked = self._agenda.waiting_enrolments(self._account)
        for task in desks.to_enrol(wanted, tick, self._tried):
            if task in asked or signed:  # one at a time: the next one's nonce follows from it
                continue
            self._tried[task] = Tried(tick, self._tried.get(task, Tried(0, 0)).times + 1)
            operation = self._signer.sign(Enrol(self._account, self.next_nonce(ledger), task, units))
            before, self.trouble = self.trouble, why_not(ledger, operation)
            if self.trouble:
                if self.trouble != before:
                    effects.append(Log(logging.WARNING, f"cannot enrol: {self.trouble}"))
            else:
                effects.append(Log(logging.INFO, f"enrolling for task {short(task)} with {units} units"))
                signed.append(operation)
        return effects, signed

    def _note(self, name: Digest, reason: str) -> None:
        if len(self._receipts) >= RECEIPTS_MAX:
            del self._receipts[next(iter(self._receipts))]
        self._receipts[name] = reason
