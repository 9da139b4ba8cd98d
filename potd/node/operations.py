"""Operations on their way into the ledger: kept, said again, forwarded; and what became of them. Orders nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from potd.consensus.events import Awaited, Settled
from potd.gossip.admit import GOSSIP_BYTES_MAX
from potd.ledger.accounts import why_not
from potd.ledger.entries import account_of
from potd.ledger.state import Ledger
from potd.node.agenda import Agenda, Waiting, operation_key
from potd.node.events import Effect, Ignore, Log, Publish, Send
from potd.node.tasks import Desks, Tried
from potd.wire.blocks import Receipt, record_digest
from potd.wire.codec import encode
from potd.wire.envelope import Signed, Signer, Verified
from potd.wire.ids import AccountId, Digest, Key, TaskId, short
from potd.wire.operations import Enrol, Operation

RECEIPTS_MAX = 4096  # kept for whoever waits for one

Due = Awaited | Settled  # what consensus has to know: the primary owes an operation, or owes it no more


class Operations:
    """Those of everybody in the agenda, and the receipts of those executed."""

    def __init__(self, signer: Signer, account: AccountId, agenda: Agenda) -> None:
        self._signer = signer
        self._account = account
        self._agenda = agenda
        self._receipts: dict[Digest, str] = {}
        self._touched: set[AccountId] = set()  # accounts with something waiting, that the ledger has changed
        self._executed: set[Digest] = set()  # operations that this height has executed, though maybe before their turn
        self._tried: dict[TaskId, Tried] = {}
        self.trouble = ""  # why we cannot enrol, if we cannot

    def receipt(self, operation: Digest) -> str | None:
        """The reason why an operation was not applied, nothing if it was; None while it has not been executed."""
        return self._receipts.get(operation)

    def next_nonce(self, ledger: Ledger) -> int:
        """The nonce for our account's next operation, after those that wait."""
        nonce = ledger.nonce(self._account)
        for waiting, _ in self._agenda.waiting_of(self._account):
            if waiting == nonce:
                nonce += 1
        return nonce

    def take(
        self, ledger: Ledger, message: Verified[Operation], tick: int, ours: bool, peers: Sequence[Key]
    ) -> tuple[list[Effect], list[Due]]:
        """Somebody wants an operation done.

        `ours` if it is the operator of this node: then it is said to the validators `peers`, or, if none are given, to
        everybody, and a refusal is told by its receipt. What we refuse ourselves is said to nobody: signed as it is, it
        would be good for later.
        """
        name = record_digest(message.signed)
        data = encode(message.signed)
        reason = why_not(ledger, message.signed)
        if ours and not peers and len(data) > GOSSIP_BYTES_MAX:
            reason = reason or f"{len(data)} bytes are too long to be gossiped, and only validators hand them on"
        in_turn = message.body.nonce == ledger.nonce(message.body.account)
        reason = reason or self._agenda.add_operation(message, tick, ours, ledger.nonce if in_turn else None)
        if reason:
            if not ours:
                return [Ignore(f"operation: {reason}")], []
            self._note(name, reason)
            return [], []
        self._receipts.pop(name, None)  # the same was refused before, when it could not be done
        effects: list[Effect] = []
        if ours:
            effects += [Send(key, data) for key in peers] or [Publish("operations", data)]
        return effects, [Awaited(operation_key(name))] if in_turn else []

    def again(self, ledger: Ledger, tick: int, primary: Key | None) -> tuple[list[Effect], list[Due]]:
        """Say our own again; forward what waits too long to the primary, who may not have heard it, and await it, as
        it is due from whoever is primary now. [4.4] Both only if it is its turn: else all that waits, for nothing
        perhaps, would go to the primary every time.

        First it is looked at again, for what else than its account may have made it impossible. `primary` is None where
        we are it, or there is none."""
        effects: list[Effect] = []
        due: list[Due] = []
        for name, waiting in self._agenda.to_say_again(tick):
            looked = self._look_at(ledger, name, waiting)
            due += looked
            if name not in self._agenda.operations:
                continue
            data = encode(waiting.message.signed)
            if waiting.ours and len(data) <= GOSSIP_BYTES_MAX:  # evidence may be longer, and goes from hand to hand
                effects.append(Publish("operations", data))
            if primary is not None and looked:
                effects.append(Send(primary, data))
        return effects, due

    def executed(self, receipts: tuple[Receipt, ...], changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """A height has been executed, with these changes of the state: see `clear`."""
        for one in receipts:
            self._note(one.record, one.reason)
            if one.record in self._agenda.operations:
                self._executed.add(one.record)
                self._touched.add(self._agenda.operations[one.record].message.body.account)
        for key, _ in changes if self._agenda.operations else ():
            account = account_of(key)
            if account is not None and self._agenda.waiting_of(account):
                self._touched.add(account)

    def clear(self, ledger: Ledger) -> list[Due]:
        """After a height: drop those that can never be executed now, and await those whose turn has come, of accounts
        that it has changed.

        Those that are still to come are looked at in their turn, and when they have waited: who is behind has many of
        each account, and would look at all of them for each height that it catches up.
        """
        due: list[Due] = []
        for account in sorted(self._touched):
            turn = ledger.nonce(account)
            for nonce, name in self._agenda.waiting_of(account):
                if nonce <= turn or name in self._executed:
                    due += self._look_at(ledger, name, self._agenda.operations[name])
            self._agenda.moved(account)
        self._touched.clear()
        self._executed.clear()
        return due

    def all_due(self, ledger: Ledger) -> list[Due]:
        """What those owe who begin to decide now: whatever waits and is in turn."""
        due: list[Due] = []
        for name, waiting in sorted(self._agenda.operations.items()):
            due += self._look_at(ledger, name, waiting)
        return due

    def _look_at(self, ledger: Ledger, name: Digest, waiting: Waiting) -> list[Due]:
        key = operation_key(name)
        reason = why_not(ledger, waiting.message.signed)
        if reason:
            self._agenda.drop_operation(name)
            if waiting.ours and name not in self._receipts:
                self._note(name, reason)
            return [Settled(key)]
        self._receipts.pop(name, None)  # if it failed by coming before its turn: it has its turn yet
        in_turn = waiting.message.body.nonce == ledger.nonce(waiting.message.body.account)
        return [Awaited(key)] if in_turn else []

    def skipped(self, ledger: Ledger) -> list[Due]:
        """After heights that were not executed here: as `clear`, but what has become of an operation whose turn is over
        is not known, and said to nobody."""
        due: list[Due] = []
        self._touched.clear()
        self._executed.clear()
        for name, waiting in sorted(self._agenda.operations.items()):
            if why_not(ledger, waiting.message.signed):
                self._agenda.drop_operation(name)
                due.append(Settled(operation_key(name)))
        return due + self.all_due(ledger)

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
            if self._account in ledger.parting(task).slashed:
                self.trouble = f"slashed in task {short(task)}, for good; see `potd why`"
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
