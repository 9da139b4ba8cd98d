"""Known mistakes in this protocol, by name. Most were found in published implementations; the rest nearly happened.

The simulator must find each of them. They exist only here: nothing of this is in what is shipped.
"""

from __future__ import annotations

from tests.simulation.mutation import Mutant, edit

QUORUM = "potd.consensus.quorum"
REPLICA = "potd.consensus.replica"
VIEW_CHANGE = "potd.consensus.view_change"

COMMITTED = "any(self.key in b.commits and s.chosen is None for s in self._log.slots() for b in s.ballots.values())"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "quorum-of-n-thirds",
        "2⌊n/3⌋ + 1 of six are five, of five three: two such sets of five share one replica, who may be a liar",
        (
            edit(
                "potd.wire.consensus:quorum_of",
                "(validators + (validators - 1) // 3 + 2) // 2",
                "2 * (validators // 3) + 1",
            ),
        ),
    ),
    Mutant(
        "min-for-min-s",
        "the new view begins at the lowest stable checkpoint, which the others have thrown away",
        (edit(f"{VIEW_CHANGE}:carry_over", "highest = max(view_changes", "highest = min(view_changes"),),
    ),
    Mutant(
        "max-s-forgotten",
        "nothing that was prepared is carried over",
        (edit(f"{VIEW_CHANGE}:carry_over", "last = max([highest.stable, *best])", "last = highest.stable"),),
    ),
    Mutant(
        "range-one-short",
        "the last sequence number that was prepared is not carried over",
        (edit(f"{VIEW_CHANGE}:carry_over", "range(highest.stable + 1, last + 1)", "range(highest.stable + 1, last)"),),
    ),
    Mutant(
        "lowest-view-wins",
        "of two proofs for one sequence number the older one is carried over",
        (edit(f"{VIEW_CHANGE}:carry_over", "proof.view > best[proof.seq].view", "proof.view < best[proof.seq].view"),),
    ),
    Mutant(
        "null-request-skipped",
        "a gap between carried orders stays a gap, and nothing behind it can be executed",
        (
            edit(
                f"{VIEW_CHANGE}:carry_over",
                "for seq in range(highest.stable + 1, last + 1)",
                "for seq in range(highest.stable + 1, last + 1) if seq in best",
            ),
        ),
    ),
    Mutant(
        "o-not-recomputed",
        "backups follow whatever orders the new primary shows",
        (
            edit(
                f"{VIEW_CHANGE}:new_view_fault",
                "if [one.body for one in orders] != expected:",
                "shown = tuple((one.body.seq, one.body.batch) for one in orders)\n"
                "    carried = Carried(carried.stable, carried.certificate, shown)\n"
                "    if len(expected) < 0:",
            ),
        ),
    ),
    Mutant(
        "new-view-on-f-plus-one",
        "a new view that shows f + 1 view changes may lack one who knows what was committed",
        (edit(f"{VIEW_CHANGE}:new_view_fault", "len(senders) != group.quorum:", "len(senders) < group.some_honest:"),),
    ),
    Mutant(
        "forged-proof-believed",
        "the signatures in a prepared proof are not checked",
        (edit(f"{VIEW_CHANGE}:prepared_fault", "or not attests(one, group.network, agreement):", "or False:"),),
    ),
    Mutant(
        "prepare-for-commit",
        "a quorum of agreements is taken for a quorum that knows of it",
        (
            edit(
                f"{REPLICA}:Replica._advance",
                "chosen = ballot.committed(self.group.quorum)",
                "chosen = ballot.committed(self.group.quorum) or "
                "(proof.batch if (proof := ballot.prepared(self.group)) else None)",
            ),
        ),
    ),
    Mutant(
        "commit-blocks-view-change",
        "who has sent a commit waits for its execution, and neither leaves the view nor joins those who do",
        (
            edit(
                f"{REPLICA}:Replica._suspect",
                "if not self.active or self.silent:",
                f"if not self.active or self.silent or {COMMITTED}:",
            ),
            edit(
                f"{REPLICA}:Replica._join_or_gather",
                "and not self.silent:",
                f"and not self.silent and not {COMMITTED}:",
            ),
        ),
    ),
    Mutant(
        "timer-not-doubled",
        "where the network is slower than the patience, views follow each other for ever",
        (
            edit(
                "potd.consensus.patience:Patience.ticks",
                "self._base << self._failures",
                "self._base",
            ),
        ),
    ),
    Mutant(
        "vote-before-fsync",
        "votes leave before they are durable, so a crash between the two votes twice",
        (
            edit(
                "potd.node.node:Node.step",
                "return effects + self._turn() + self._propose()",
                "effects += self._turn() + self._propose()\n"
                "    return sorted(effects, key=lambda one: isinstance(one, out.Keep | out.Note))",
            ),
        ),
    ),
    Mutant(
        "votes-forgotten-at-restart",
        "the journal's votes are not read back",
        (
            edit(
                "potd.consensus.restart:_vote",
                "ballot = found.log.slot(body.seq).ballot(body.view)",
                "ballot = Log(1).slot(body.seq).ballot(body.view)",
            ),
        ),
    ),
    Mutant(
        "truncated-one-too-early",
        "the log forgets the slot above the stable checkpoint, and with it what was prepared there",
        (
            edit(
                f"{REPLICA}:Replica._move_to",
                "self._log.forget_up_to(height)",
                "self._log.forget_up_to(height + 1)",
            ),
        ),
    ),
    Mutant(
        "set-order-reaches-an-effect",
        "the order of a set of digests, which differs from process to process, decides the order of a record",
        (
            edit(
                "potd.rounds.tally:named",
                "sorted(name for name, count in counts.items() if count >= some_honest)",
                "list({name for name, count in counts.items() if count >= some_honest})",
            ),
        ),
        seen_by="traces",
    ),
    Mutant(
        "certificate-of-any-network",
        "what the same keys have certified elsewhere counts here",
        (
            edit(
                f"{QUORUM}:certificate_fault",
                "if header.network != group.network:",
                "if False:",
                ("attests(one, group.network, header)", "attests(one, header.network, header)"),
            ),
        ),
    ),
    Mutant(
        "certificate-on-f-plus-one",
        "what is permanent is believed on f + 1 signatures, f of which may be those of liars",
        (edit(f"{QUORUM}:certificate_fault", "len(signers) < quorum:", "len(signers) < group.some_honest:"),),
    ),
    Mutant(
        "retransmission-forgotten",
        "who lacks a message by its own word is sent nothing",
        (
            edit(
                f"{REPLICA}:Replica._on_status",
                "if peer == self.key or peer in self._answered:",
                "if peer in self.group:",
            ),
        ),
    ),
    Mutant(
        "smallest-view-not-joined",
        "f + 1 who have left do not take along the others, whose timers may never run out",
        (
            edit(
                f"{REPLICA}:Replica._join_or_gather",
                "if len(claims) >= self.group.some_honest and not self.silent:",
                "if False:",
            ),
        ),
    ),
    Mutant(
        "view-timer-without-a-quorum",
        "the timer for a new view runs before a quorum has left, so that views are overtaken before they begin",
        (
            edit(
                "potd.consensus.patience:Patience.left",
                "self._leaving = None",
                "self._leaving = 0",
            ),
        ),
    ),
    Mutant(
        "beyond-the-watermarks",
        "orders are taken however far ahead they are, and the log grows with a liar's will",
        (
            edit(
                "potd.consensus.slots:Log.between",
                "stable < seq <= stable + self._window",
                "stable < seq",
            ),
        ),
    ),
    Mutant(
        "one-order-is-enough",
        "the first of two orders for one slot is agreed to, and then the second",
        (
            edit(
                f"{REPLICA}:Replica._on_pre_prepare",
                "if ballot.order is not None:",
                "if ballot.order is not None and ballot.order.signed != message.signed:\n"
                "        ballot.judged = False\n"
                "        ballot.prepares.pop(self.key, None)\n"
                "    elif ballot.order is not None:",
            ),
        ),
    ),
    Mutant(
        "snapshot-on-f-plus-one",
        "a state is taken over on f + 1 signatures, f of which may be those of liars",
        (
            edit(
                "potd.consensus.succession:Line.certificate_fault",
                "else certificate_fault(certificate, group)",
                "else certificate_fault(certificate, group)\n"
                "        if len(certificate.attestations) < group.some_honest or not all(\n"
                "            one.key in group.keys and attests(one, group.network, certificate.header)\n"
                "            for one in certificate.attestations\n"
                "        )\n"
                "        else ''",
                (
                    "group = self.group_at(certificate.header.height)",
                    "from potd.wire.envelope import attests\n    group = self.group_at(certificate.header.height)",
                ),
            ),
        ),
    ),
    Mutant(
        "slot-due-until-executed",
        "nothing is due any more once it is executed, so nobody leaves a view whose certificates never come",
        (
            edit(
                f"{REPLICA}:Replica._on_executed",
                "self._patience.progressed(1)",
                "self._patience.progressed(1); self._patience.settle(slot_key(header.height))",
            ),
            edit(
                f"{REPLICA}:Replica._prepare",
                "self._patience.owe(slot_key(ballot.seq))",
                "if ballot.seq > self.executed: self._patience.owe(slot_key(ballot.seq))",
            ),
            edit(
                f"{REPLICA}:Replica._owe_again",
                "self._patience.owe(slot_key(slot.seq))",
                "if slot.seq > self.executed: self._patience.owe(slot_key(slot.seq))",
            ),
        ),
    ),
    Mutant(
        "refusal-and-prepare",
        "who has refused an order stays in the view, and after a restart agrees to another one for the same slot",
        (
            edit(
                f"{REPLICA}:Replica._refuse",
                'effects = self._suspect(f"refused its batch at {ballot.seq}: {why}") if here else []',
                "effects = []",
            ),
        ),
    ),
    Mutant(
        "era-without-an-end",
        "validators vote on above the height at which their set ends, before it is permanent",
        (
            edit(
                "potd.consensus.slots:Log.between",
                "and (self.ends is None or seq <= self.ends)",
                "",
            ),
        ),
    ),
    Mutant(
        "handover-by-the-new-set",
        "the last certificate of a set is checked with the keys of the set that follows",
        (
            edit(
                f"{QUORUM}:Group.certifiers",
                "return self.before if height == self.base else ()",
                "return self.keys if height == self.base else ()",
            ),
        ),
    ),
    Mutant(
        "recollection-skipped",
        "a home that was put back from a backup votes at once, and contradicts what it has forgotten",
        (edit(f"{REPLICA}:Replica.restore", "if boot is not None:", "if False:"),),
    ),
)
