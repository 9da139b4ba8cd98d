"""Audits: what a validator may say when, what is taken from whom, and what it costs to be wrong."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from potd.ledger import chains
from potd.ledger.accounts import fee_micro, why_not
from potd.ledger.chains import has_link
from potd.ledger.clock import AuditPhase, audit_phase
from potd.ledger.entries import Parting, Phase, Standing, past_of, task_key
from potd.ledger.state import Ledger, supply
from potd.wire.audits import CHAIN_ROUNDS, Chain, Finding, Ruling, Status, Verdict
from potd.wire.codec import encode
from potd.wire.genesis import SUPPLY_MAX
from potd.wire.ids import NOTHING, digest, short
from potd.wire.rounds import Outcome, Step
from tests.ledger.world import BOND, VALIDATORS, World

MINERS = (5, 6, 7)
PAY = 8 * 1003 - 8 * 1003 * 150_000 // 1_000_000
REQUIRED = 20 * PAY


class Audited:
    """A task in whose newest round a validator draws what one of the miners has done."""

    def __init__(self, miner: int | None = 5, *, rounds: int = 60, miners: tuple[int, ...] = MINERS, **parameters: int):
        defaults = {"audit_rounds": 8, "audit_ppm": 1_000_000, "fee_per_byte_micro": 1}
        self.world = World(**{**defaults, **parameters})
        self.miners = miners
        self.task = self.world.opened(*miners, rounds=rounds)
        chains = [self.world.chain(who, self.task) for who in range(VALIDATORS)]
        assert self.world.reasons(*chains) == [""] * VALIDATORS
        self.play(3)
        while miner is not None and not self.auditors(miner):
            self.play()
        self.round = self.world.task(self.task).round - 1

    def auditors(self, miner: int) -> list[int]:
        """Who draws this miner in the newest round."""
        number = self.world.task(self.task).round - 1
        found = [self.world.drawn(who, self.task, number) for who in range(VALIDATORS)]
        return [who for who in range(VALIDATORS) if self.world.ids[miner] in found[who]]

    def play(self, count: int = 1, *miners: int, lapse: bool = False) -> None:
        for _ in range(count):
            if lapse:
                self.world.sealed(self.task)
            else:
                self.world.played(self.task, *(miners or self.miners))

    def promise(self, who: int, bad: tuple[int, ...] = ()) -> list[str]:
        findings = self.world.findings(who, self.task, self.round, bad)
        return self.world.reasons(self.world.promise(who, self.task, self.round, findings))

    def tell(self, who: int, bad: tuple[int, ...] = ()) -> list[str]:
        findings = self.world.findings(who, self.task, self.round, bad)
        return self.world.reasons(self.world.verdict(who, self.task, self.round, findings))

    def rule(self, who: int, miner: int, bad: bool) -> list[str]:
        return self.world.reasons(self.world.ruling(who, self.task, self.round, miner, bad))

    def contested(self, miner: int = 5) -> int:
        """One who draws a miner has told that it is bad; the time to tell is not over."""
        who = self.auditors(miner)[0]
        assert self.promise(who, (miner,)) == [""]
        self.play(3)
        assert self.tell(who, (miner,)) == [""]
        assert self.row(miner).standing == Standing.CONTESTED
        return who

    def row(self, miner: int) -> Any:
        return self.world.row(self.task, self.round, miner)

    def bond(self, who: int) -> int:
        """What the seat of a validator has locked."""
        return next(one.bond_micro for one in self.world.ledger.validators() if one.account == self.world.ids[who])


# Phases


def test_an_audit_goes_from_promises_to_verdicts_to_rulings_by_rounds() -> None:
    here = Audited(None, audit_rounds=8, vest_rounds=20)
    phases = []
    for _ in range(11):
        task, past = here.world.task(here.task), here.world.past(here.task, here.round)
        phases.append(audit_phase(task, past, here.world.ledger.height + 1, here.world.genesis.parameters))
        assert (past in here.world.ledger.pasts(here.task)) == (phases[-1] != AuditPhase.OVER)
        here.play()
    promise, tell, rule = [AuditPhase.PROMISE] * 2, [AuditPhase.TELL] * 2, [AuditPhase.RULE] * 4
    assert phases == [*promise, *tell, *rule, *[AuditPhase.OVER] * 3]


def test_while_a_task_sleeps_the_time_of_an_audit_stands_still() -> None:
    here = Audited(None, lapses_max=1)
    here.play(lapse=True)
    assert here.world.task(here.task).phase == Phase.ASLEEP
    for _ in range(50):
        here.world.execute()
    task, past = here.world.task(here.task), here.world.past(here.task, here.round)
    height = here.world.ledger.height + 1
    assert audit_phase(task, past, height, here.world.genesis.parameters) == AuditPhase.PROMISE


def test_when_a_task_is_done_audits_go_on_by_heights_and_no_time_is_given_twice() -> None:
    here = Audited(None, rounds=12, settle_heights=8)
    here.play(12 - here.world.task(here.task).round)
    task = here.world.task(here.task)
    assert task.phase == Phase.DONE
    pasts = {number: here.world.past(here.task, number) for number in (11, 9, 7)}
    seen: dict[int, list[int]] = {number: [] for number in pasts}
    for height in range(task.rested_height, task.rested_height + 10):
        for number, past in pasts.items():
            seen[number].append(audit_phase(task, past, height, here.world.genesis.parameters))
    p, t, r, o = AuditPhase
    assert seen == {11: [p, p, p, t, t, r, r, r, r, o], 9: [t, t, t, t, t, r, r, r, r, o], 7: [r] * 9 + [o]}


# Promises and verdicts


def test_who_has_promised_tells_and_every_row_it_draws_has_its_voice() -> None:
    here = Audited()
    who = here.auditors(5)[0]
    assert here.promise(who) == [""]
    here.play(3)
    assert here.tell(who) == [""]
    past = here.world.past(here.task, here.round)
    assert [(one.validator, one.kept) for one in past.promises] == [(here.world.ids[who], True)]
    drawn = here.world.drawn(who, here.task, here.round)
    assert here.world.ids[5] in drawn
    voices = {row.miner: [(one.validator, one.status) for one in row.voices] for row in past.rows}
    assert voices == {
        row.miner: [(here.world.ids[who], Status.GOOD)] if row.miner in drawn else [] for row in past.rows
    }
    chains = here.world.ledger.chains(here.task, here.world.ids[who])
    assert chains is not None
    assert (chains.lots_round, chains.lots) == (here.round, here.world.link(who, here.task, here.round, "lots"))


def test_promises_and_verdicts_have_their_time() -> None:
    here = Audited()
    first, *_ = here.auditors(5)
    number = here.round
    assert here.promise(first) == [""]
    assert here.promise(first) == [f"it has promised its findings of round {number} already"]
    assert here.tell(first) == [f"findings of round {number} are not told now"]
    here.play(2)
    other = next(who for who in range(VALIDATORS) if who != first)
    assert here.world.reasons(here.world.promise(other, here.task, number, ())) == [
        f"the time to promise findings of round {number} is over"
    ]
    nothing = Finding(NOTHING, Status.GOOD.value, 0)
    assert here.world.reasons(here.world.verdict(other, here.task, number, (nothing,))) == [
        f"it has promised no findings of round {number}"
    ]
    here.play(1)
    assert here.tell(first) == [""]
    assert here.tell(first) == [f"it has told its findings of round {number} already"]


def test_a_verdict_that_comes_when_only_rulings_are_heard_is_not_taken() -> None:
    here = Audited()
    who = here.auditors(5)[0]
    assert here.promise(who) == [""]
    here.play(5)
    assert here.tell(who) == [f"findings of round {here.round} are not told now"]


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("findings", "findings that are not those that it has promised"),
        ("salt", "findings that are not those that it has promised"),
        ("link", "not its link for round {round}"),
        ("less", "findings that are not on what its link draws"),
        ("more", "findings that are not on what its link draws"),
        ("twice", "findings that are not on what its link draws"),
        ("far", "a good finding at 401, the tolerance is 400"),
        ("unable", "a distance without a replay"),
        ("status", "a finding of status 9"),
    ],
)
def test_a_verdict_must_be_what_was_promised_and_what_the_link_draws(lie: str, reason: str) -> None:
    here = Audited()
    world = here.world
    who = here.auditors(5)[0]
    findings = list(world.findings(who, here.task, here.round))
    extra = (
        next(Finding(world.ids[one], 0, 7) for one in MINERS if world.ids[one] not in {f.miner for f in findings})
        if len(findings) < len(MINERS)
        else None
    )
    match lie:
        case "less":
            findings = findings[1:] if len(findings) > 1 else [replace(findings[0], miner=NOTHING)]
        case "more":
            findings = sorted([*findings, extra or Finding(b"\xff" * 32, 0, 7)])
        case "twice":
            findings = [findings[0], *findings]
        case "far":
            findings[0] = replace(findings[0], distance_nano=401)
        case "unable":
            findings[0] = replace(findings[0], status=Status.UNABLE.value)
        case "status":
            findings[0] = replace(findings[0], status=9)
    assert world.reasons(world.promise(who, here.task, here.round, findings)) == [""]
    here.play(3)
    if lie == "findings":
        findings[0] = replace(findings[0], distance_nano=8)
    honest = world.verdict(who, here.task, here.round, findings)
    nonce = world.account(who).nonce
    body = Verdict(world.ids[who], nonce, here.task, here.round, NOTHING, NOTHING, tuple(findings))
    link, salt = world.link(who, here.task, here.round, "lots"), world._salt(who, here.round)
    if lie == "link":
        honest = world.sign(who, replace(body, link=world.link(who, here.task, here.round + 1, "lots"), salt=salt))
    if lie == "salt":
        honest = world.sign(who, replace(body, link=link))
    before = world.past(here.task, here.round)
    assert world.reasons(honest) == [reason.format(round=here.round)]
    assert world.past(here.task, here.round) == before


def test_a_verdict_on_an_older_round_is_good_after_one_on_a_newer_round() -> None:
    here = Audited(audit_rounds=16)
    who, number = here.auditors(5)[0], here.round
    assert here.promise(who) == [""]
    later = copy(here)
    later.play()
    while who not in later.auditors(5) and later.world.task(here.task).round < number + 4:
        later.play()
    later.round = later.world.task(here.task).round - 1
    assert later.promise(who) == [""]
    while later.world.task(here.task).round <= later.round + 4:
        later.play()
    assert later.tell(who) == [""]
    assert here.tell(who) == [""]
    chains = here.world.ledger.chains(here.task, here.world.ids[who])
    assert chains is not None
    assert chains.lots_round == later.round > number


def test_nobody_draws_its_own_account_nor_before_its_chain_has_begun() -> None:
    here = Audited(None, miners=(0, 1, 2))
    for _ in range(5):
        here.play()
        for who in (0, 1, 2):
            assert here.world.ids[who] not in here.world.drawn(who, here.task, here.world.task(here.task).round - 1)
    fresh = World(audit_rounds=8)
    task = fresh.opened(*MINERS)
    fresh.played(task, *MINERS)
    assert fresh.reasons(fresh.promise(0, task, 0, ())) == ["no chain of its own draws from round 0"]
    fresh.execute(fresh.chain(0, task))
    assert fresh.reasons(fresh.promise(0, task, 0, ())) == ["no chain of its own draws from round 0"]


def test_only_who_has_a_seat_audits() -> None:
    here = Audited()
    assert here.world.reasons(here.world.promise(5, here.task, here.round, ())) == ["only who has a seat audits"]
    assert here.world.reasons(here.world.chain(5, here.task)) == ["only who has a seat audits"]


def test_nobody_audits_a_task_without_a_tolerance() -> None:
    world = World()
    task = world.opened(*MINERS, tolerance_nano=0)
    world.execute(world.chain(0, task))
    for _ in range(3):
        world.played(task, *MINERS)
    assert world.past(task, 2).pot_micro == 0
    assert world.reasons(world.promise(0, task, 2, ())) == [f"nobody audits task {short(task)}"]


def test_a_round_that_lapsed_or_is_to_come_cannot_be_judged() -> None:
    here = Audited()
    here.play(lapse=True)
    number = here.world.task(here.task).round - 1
    for one in (number, number + 7):
        assert here.world.reasons(here.world.promise(0, here.task, one, ())) == [
            f"nothing of round {one} of task {short(here.task)} can be judged"
        ]
    assert here.world.reasons(here.world.promise(0, NOTHING, 0, ())) == ["there is no task 00000000"]


# Free if taken


def test_what_is_taken_is_free_and_what_is_refused_costs_its_fee() -> None:
    here = Audited()
    world, who = here.world, here.auditors(5)[0]
    findings = world.findings(who, here.task, here.round)
    before = world.account(who)
    assert world.reasons(world.promise(who, here.task, here.round, findings)) == [""]
    assert world.account(who) == replace(before, nonce=before.nonce + 1)
    again = world.promise(who, here.task, here.round, findings)
    fee = fee_micro(world.ledger.parameters(), again)
    carried = world.ledger.globals().fees_micro
    world.execute(again)
    after = world.account(who)
    back = (fee + carried) // VALIDATORS
    assert (after.nonce, after.balance_micro) == (before.nonce + 2, before.balance_micro - fee + back)


def test_a_seated_author_without_a_balance_says_what_is_right_and_nothing_else() -> None:
    here = Audited()
    world, who = here.world, here.auditors(5)[0]
    world.execute(world.transfer(who, world.ids[7], world.account(who).balance_micro - 500))
    while world.account(who).balance_micro > 10:
        rest = world.account(who).balance_micro
        fee = fee_micro(world.ledger.parameters(), world.transfer(who, world.ids[7], 1))
        if rest < fee + 1:
            break
        world.execute(world.transfer(who, world.ids[7], rest - fee))
    right = world.promise(who, here.task, here.round, world.findings(who, here.task, here.round))
    wrong = world.promise(who, here.task, here.round + 50, ())
    assert world.account(who).balance_micro < fee_micro(world.ledger.parameters(), right)
    assert why_not(world.ledger, right) == ""
    assert why_not(world.ledger, wrong).startswith("a fee of ")
    before = world.account(who)
    (reason,) = world.reasons(wrong)
    assert reason.startswith("a fee of ")
    assert world.account(who).nonce == before.nonce
    assert world.reasons(right) == [""]


# Contest, slash, clear


def test_a_quorum_of_bad_slashes_the_bond_and_all_pay_that_has_not_vested() -> None:
    here = Audited()
    world = here.world
    first = here.contested()
    others = [who for who in range(VALIDATORS) if who != first][:2]
    assert here.rule(others[0], 5, True) == [""]
    assert here.row(5).standing == Standing.CONTESTED
    pasts = [world.past(here.task, number) for number in range(world.task(here.task).round)]
    owed = sum(row.pay_micro for past in pasts for row in past.rows if row.miner == world.ids[5])
    assert owed == PAY * len(pasts)
    taken = owed + REQUIRED
    before = [world.account(who).balance_micro for who in range(8)]
    escrow = world.task(here.task).escrow_micro
    assert here.rule(others[1], 5, True) == [""]
    each = taken // 2 // 3
    quorum = {first, *others}
    gained = [world.account(who).balance_micro - before[who] for who in range(8)]
    assert gained == [each if who in quorum else 0 for who in range(8)]
    assert world.task(here.task).escrow_micro == escrow + taken - 3 * each
    for number in range(world.task(here.task).round):
        row = world.row(here.task, number, 5)
        assert (row.pay_micro, row.standing) == (0, Standing.SLASHED)
    assert world.ledger.bond(here.task, world.ids[5]) is None
    assert world.task(here.task).miner(world.ids[5]) is None
    assert world.reasons(world.enrol(5, here.task)) == [
        f"it was slashed in task {short(here.task)}: enrol for another one"
    ]
    assert supply(world.ledger) == world.ledger.globals().supply_micro


def test_what_the_slashed_has_in_a_sealed_round_is_not_paid() -> None:
    here = Audited()
    first = here.contested()
    here.world.sealed(here.task, *MINERS)
    for who in [who for who in range(VALIDATORS) if who != first][:2]:
        assert here.rule(who, 5, True) == [""]
    escrow, number = here.world.task(here.task).escrow_micro, here.world.task(here.task).round
    assert here.world.reasons(here.world.update(here.task)) == [""]
    row = here.world.row(here.task, number, 5)
    assert (row.pay_micro, row.standing) == (0, Standing.SLASHED)
    assert here.world.task(here.task).escrow_micro == escrow - 2 * 8 * 1003


def test_who_has_left_is_slashed_all_the_same() -> None:
    here = Audited()
    first = here.contested()
    assert here.world.reasons(here.world.leave(5, here.task)) == [""]
    before = here.world.account(5).balance_micro
    for who in [who for who in range(VALIDATORS) if who != first][:2]:
        assert here.rule(who, 5, True) == [""]
    here.play(9, 6, 7)
    assert here.world.account(5).balance_micro == before
    assert here.world.ledger.parting(here.task).accounts == ()


def test_what_is_slashed_when_the_task_is_done_goes_to_its_owner() -> None:
    here = Audited(rounds=10, settle_heights=40)
    world = here.world
    first = here.contested()
    here.play(10 - world.task(here.task).round)
    assert world.task(here.task).phase == Phase.DONE
    others = [who for who in range(VALIDATORS) if who != first][:2]
    assert here.rule(others[0], 5, True) == [""]
    before = world.account(0).balance_micro
    owed = sum(world.row(here.task, n, 5).pay_micro for n in range(10))
    assert here.rule(others[1], 5, True) == [""]
    each = (owed + REQUIRED) // 2 // 3
    mine = each if 0 in {first, *others} else 0
    assert world.account(0).balance_micro == before + owed + REQUIRED - 3 * each + mine


def test_fewer_than_a_quorum_slash_nobody_and_time_acquits() -> None:
    here = Audited()
    first = here.contested()
    other = next(who for who in range(VALIDATORS) if who != first)
    assert here.rule(other, 5, True) == [""]
    while here.world.task(here.task).round <= here.round + 8:
        assert here.row(5).standing == Standing.CONTESTED
        here.play()
    row = here.row(5)
    assert (row.standing, row.pay_micro) == (Standing.CLEARED, PAY)
    assert [here.bond(who) for who in range(VALIDATORS)] == [BOND] * VALIDATORS
    late = next(who for who in range(VALIDATORS) if who not in (first, other))
    assert here.rule(late, 5, True) == [f"the time to rule on round {here.round} is over"]


def test_a_verdict_that_a_quorum_contradicts_costs_its_author_what_the_miner_would_have_lost() -> None:
    here = Audited()
    liar = here.contested()
    before = here.world.account(5).balance_micro
    judges = [who for who in range(VALIDATORS) if who != liar]
    for who in judges[:2]:
        assert here.rule(who, 5, False) == [""]
    assert here.row(5).standing == Standing.CONTESTED
    assert here.rule(judges[2], 5, False) == [""]
    row = here.row(5)
    assert (row.standing, row.pay_micro) == (Standing.CLEARED, PAY)
    assert here.world.account(5).balance_micro == before + REQUIRED
    assert here.bond(liar) == BOND - REQUIRED
    assert [here.bond(who) for who in judges] == [BOND] * 3
    here.world.execute(here.world.resign(liar))  # the bond is what is left of it, wherever it goes
    assert supply(here.world.ledger) == here.world.ledger.globals().supply_micro


def test_a_fine_is_at_most_what_there_is() -> None:
    here = Audited(seat_bond_micro=1_000)
    liar = here.contested()
    before = here.world.account(5).balance_micro
    for who in (who for who in range(VALIDATORS) if who != liar):
        assert here.rule(who, 5, False) == [""]
    assert here.world.account(5).balance_micro == before + 1_000
    assert here.bond(liar) == 0
    assert supply(here.world.ledger) == here.world.ledger.globals().supply_micro


def test_who_has_called_good_what_others_called_bad_is_not_fined() -> None:
    here = Audited()
    while len(here.auditors(5)) < 2:
        here.play()
    here.round = here.world.task(here.task).round - 1
    liar, honest, *_ = here.auditors(5)
    assert here.promise(liar, (5,)) == [""]
    assert here.promise(honest) == [""]
    here.play(3)
    assert here.tell(liar, (5,)) == [""]
    assert here.tell(honest) == [""]
    for who in (who for who in range(VALIDATORS) if who not in (liar, honest)):
        assert here.rule(who, 5, False) == [""]
    assert here.row(5).standing == Standing.CLEARED
    assert [here.bond(who) for who in (liar, honest)] == [BOND - REQUIRED, BOND]


def test_a_ruling_is_on_what_is_contested_once_and_never_on_ones_own() -> None:
    here = Audited(miners=(0, 5, 6))
    number = here.round
    assert here.rule(1, 5, True) == [f"nothing of miner {short(here.world.ids[5])} in round {number} is contested"]
    first = here.contested()
    assert here.rule(first, 5, True) == ["it has ruled already"]
    other = next(who for who in range(VALIDATORS) if who != first)
    assert here.rule(other, 5, False) == [""]
    assert here.rule(other, 5, True) == ["it has ruled already"]
    third = next(who for who in range(VALIDATORS) if who not in (first, other))
    unable = Ruling(here.world.ids[third], 0, here.task, number, Finding(here.world.ids[5], Status.UNABLE.value, 0))
    signed = here.world.sign(third, replace(unable, nonce=here.world.account(third).nonce))
    assert here.world.reasons(signed) == ["a ruling that it cannot tell"]


def test_a_validator_does_not_rule_on_what_it_has_mined() -> None:
    here = Audited(0, miners=(0, 5, 6))
    here.contested(0)
    assert here.rule(0, 0, False) == ["a ruling on what is its own"]


def test_who_could_not_replay_may_rule_later() -> None:
    here = Audited()
    world = here.world
    while len(here.auditors(5)) < 2:
        here.play()
    here.round = world.task(here.task).round - 1
    first, second, *_ = here.auditors(5)
    unable = [Finding(one.miner, Status.UNABLE.value, 0) for one in world.findings(second, here.task, here.round)]
    assert here.promise(first, (5,)) == [""]
    assert world.reasons(world.promise(second, here.task, here.round, unable)) == [""]
    here.play(3)
    assert here.tell(first, (5,)) == [""]
    assert world.reasons(world.verdict(second, here.task, here.round, unable)) == [""]
    assert here.rule(second, 5, True) == [""]


def test_a_verdict_is_a_ruling_and_counts_once() -> None:
    here = Audited()
    world = here.world
    while len(here.auditors(5)) < 2:
        here.play()
    here.round = world.task(here.task).round - 1
    first, second, *_ = here.auditors(5)
    assert here.promise(first, (5,)) == [""]
    assert here.promise(second, (5,)) == [""]
    here.play(3)
    assert here.tell(first, (5,)) == [""]
    assert here.rule(second, 5, True) == [""]
    assert here.tell(second, (5,)) == [""]
    assert here.row(5).standing == Standing.CONTESTED  # two have said it, one of them twice
    third = next(who for who in range(VALIDATORS) if who not in (first, second))
    assert here.rule(third, 5, True) == [""]
    assert here.row(5).standing == Standing.SLASHED


def test_of_two_things_that_a_validator_has_said_the_first_counts() -> None:
    here = Audited()
    while len(here.auditors(5)) < 2:
        here.play()
    here.round = here.world.task(here.task).round - 1
    first, second, *_ = here.auditors(5)
    assert here.promise(first, (5,)) == [""]
    assert here.promise(second, (5,)) == [""]
    here.play(3)
    assert here.tell(first, (5,)) == [""]
    assert here.rule(second, 5, False) == [""]
    assert here.tell(second, (5,)) == [""]
    third, fourth = (who for who in range(VALIDATORS) if who not in (first, second))
    assert here.rule(third, 5, True) == [""]
    assert here.row(5).standing == Standing.CONTESTED
    assert here.rule(fourth, 5, True) == [""]
    assert here.row(5).standing == Standing.SLASHED


# The pot


def test_a_part_of_the_validators_share_is_for_what_was_found_and_told() -> None:
    here = Audited(audit_pay_ppm=500_000, fee_per_byte_micro=0)
    world = here.world
    share = 3 * (8 * 1003 * 150_000 // 1_000_000)
    pot = share // 2
    assert world.past(here.task, here.round).pot_micro == pot
    who = here.auditors(5)[0]
    assert here.promise(who) == [""]
    here.play(3)
    assert here.tell(who) == [""]
    while world.task(here.task).round < here.round + 4:
        here.play()
    before = [world.account(one).balance_micro for one in range(VALIDATORS)]
    here.play()
    assert world.past(here.task, here.round).pot_micro == 0
    gained = [world.account(one).balance_micro - before[one] for one in range(VALIDATORS)]
    found = len(world.drawn(who, here.task, here.round))
    common = min(gained)
    assert gained[who] - common == pot // found * found
    assert [one - common for at, one in enumerate(gained) if at != who] == [0, 0, 0]


def test_rulings_and_what_could_not_be_replayed_have_no_part_in_a_pot() -> None:
    here = Audited(audit_pay_ppm=500_000, fee_per_byte_micro=0)
    world = here.world
    while len(here.auditors(5)) < 2:
        here.play()
    here.round = world.task(here.task).round - 1
    pot = world.past(here.task, here.round).pot_micro
    first, second, *_ = here.auditors(5)
    unable = [Finding(one.miner, Status.UNABLE.value, 0) for one in world.findings(second, here.task, here.round)]
    assert here.promise(first, (5,)) == [""]
    assert world.reasons(world.promise(second, here.task, here.round, unable)) == [""]
    here.play(3)
    assert here.tell(first, (5,)) == [""]
    assert world.reasons(world.verdict(second, here.task, here.round, unable)) == [""]
    assert here.rule(second, 5, True) == [""]
    while world.task(here.task).round < here.round + 4:
        here.play()
    before = [world.account(one).balance_micro for one in range(VALIDATORS)]
    here.play()
    gained = [world.account(one).balance_micro - before[one] for one in range(VALIDATORS)]
    found = len(world.drawn(first, here.task, here.round))
    others = [gained[one] for one in range(VALIDATORS) if one != first]
    assert others == [min(gained)] * 3
    assert gained[first] - min(gained) == pot // found * found


def test_a_pot_without_findings_goes_to_the_validators() -> None:
    here = Audited(audit_pay_ppm=1_000_000, fee_per_byte_micro=0)
    world = here.world
    pot = 3 * (8 * 1003 * 150_000 // 1_000_000)
    here.play(10)
    before = [world.account(one).balance_micro for one in range(VALIDATORS)]
    carried = world.ledger.globals().fees_micro
    here.play()
    each, rest = divmod(pot + carried, VALIDATORS)
    assert [world.account(one).balance_micro - before[one] for one in range(VALIDATORS)] == [each] * VALIDATORS
    assert world.ledger.globals().fees_micro == rest


# Chains and links


def test_a_missing_link_costs_that_rounds_share_and_never_the_bond() -> None:
    here = Audited(audit_pay_ppm=0, fee_per_byte_micro=0)
    world = here.world
    share = 3 * (8 * 1003 * 150_000 // 1_000_000)
    before = [world.account(one).balance_micro for one in range(VALIDATORS)]
    carried = world.ledger.globals().fees_micro
    world.played(here.task, *MINERS, links=(0, 1, 3))
    each, rest = divmod(share, 3)
    more = (carried + rest) // VALIDATORS
    gained = [world.account(one).balance_micro - before[one] for one in range(VALIDATORS)]
    assert gained == [each + more, each + more, more, each + more]
    assert here.bond(2) == BOND
    chains = world.ledger.chains(here.task, world.ids[0])
    assert chains is not None
    assert chains.seeds_round == world.task(here.task).round - 1


def test_who_has_a_link_in_the_seed_shares_and_if_nobody_has_all_do() -> None:
    here = Audited(audit_pay_ppm=0, fee_per_byte_micro=0)
    world = here.world
    before = [world.account(one).balance_micro for one in range(VALIDATORS)]
    world.played(here.task, *MINERS)
    gained = [world.account(one).balance_micro - before[one] for one in range(VALIDATORS)]
    assert len(set(gained)) == 1
    bare = World(audit_pay_ppm=0, fee_per_byte_micro=0)
    task = bare.opened(*MINERS)
    bare.execute(bare.chain(0, task), bare.chain(1, task))
    for _ in range(2):
        bare.played(task, *MINERS)
    bare.execute(bare.chain(3, task))  # it has yet to begin
    before = [bare.account(one).balance_micro for one in range(VALIDATORS)]
    bare.played(task, *MINERS, links=(0,))
    gained = [bare.account(one).balance_micro - before[one] for one in range(VALIDATORS)]
    assert gained[0] > gained[1] == gained[2] == gained[3]


def test_links_that_were_missed_in_between_do_not_stop_a_chain() -> None:
    here = Audited(None)
    here.play(5)
    here.world.played(here.task, *MINERS, links=(0, 1, 2, 3))
    here.play(2)
    here.world.played(here.task, *MINERS, links=(0, 1, 2, 3))
    for who in range(VALIDATORS):
        chains = here.world.ledger.chains(here.task, here.world.ids[who])
        assert chains is not None
        assert chains.seeds_round == here.world.task(here.task).round - 1


def test_chains_are_published_for_rounds_whose_seeds_are_unknown() -> None:
    world = World()
    task = world.opened(*MINERS)
    world.played(task, *MINERS)
    for begins in (0, 2, 10):
        assert world.reasons(world.chain(0, task, begins)) == [f"chains from round {begins} on, not from one of 3 to 9"]
    assert world.reasons(world.chain(0, task, 9)) == [""]
    nowhere = Chain(world.ids[0], world.account(0).nonce, NOTHING, 3, NOTHING, NOTHING)
    assert world.reasons(world.sign(0, nowhere)) == ["there is no task 00000000"]


def test_nobody_puts_other_chains_in_the_place_of_those_whose_links_it_does_not_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    task = world.opened(*MINERS)
    assert world.reasons(world.chain(0, task, 2)) == [""]
    for _ in range(4):
        world.played(task, *MINERS)
        again = world.chain(0, task, world.task(task).round + 2)
        assert world.reasons(again) == [f"its chains go on to round {CHAIN_ROUNDS + 1}"]
    number = world.task(task).round
    monkeypatch.setattr(chains, "CHAIN_RENEW_ROUNDS", CHAIN_ROUNDS + 2 - number - 1)
    assert world.reasons(world.chain(0, task, number + 2)) != [""]
    monkeypatch.setattr(chains, "CHAIN_RENEW_ROUNDS", CHAIN_ROUNDS + 2 - number)
    assert world.reasons(world.chain(0, task, number + 2)) == [""]


def test_a_chain_has_links_for_so_many_rounds() -> None:
    here = Audited(None)
    chains = here.world.ledger.chains(here.task, here.world.ids[0])
    assert chains is not None
    assert has_link(chains, chains.begins)
    assert has_link(chains, chains.begins + CHAIN_ROUNDS - 1)
    assert not has_link(chains, chains.begins + CHAIN_ROUNDS)
    assert not has_link(chains, chains.begins - 1)


def test_who_loses_its_seat_loses_its_chains() -> None:
    here = Audited(None, window_heights=2)
    world = here.world
    assert world.reasons(world.resign(3)) == [""]
    world.until_changed()
    assert world.ledger.chains(here.task, world.ids[3]) is None
    assert world.ledger.chains(here.task, world.ids[0]) is not None


# Committing twice


def test_two_commitments_of_one_miner_for_one_round_cost_what_a_bad_one_does() -> None:
    here = Audited(None)
    world = here.world
    one, two = (world.commitment(5, here.task, salt=digest(name)) for name in ("one", "two"))
    owed = sum(world.row(here.task, n, 5).pay_micro for n in range(world.task(here.task).round))
    before, escrow = world.account(7).balance_micro, world.task(here.task).escrow_micro
    accusation = world.accuse(7, one, two)
    assert why_not(world.ledger, accusation) == ""
    assert world.reasons(accusation) == [""]
    half = (owed + REQUIRED) // 2
    assert world.account(7).balance_micro == before + half
    assert world.task(here.task).escrow_micro == escrow + owed + REQUIRED - half
    assert world.task(here.task).miner(world.ids[5]) is None
    again = world.accuse(6, one, two)
    assert why_not(world.ledger, again) == f"nothing is left to take from key {short(world.people[5].key)}"


def test_commitments_to_two_rounds_or_said_twice_prove_nothing() -> None:
    here = Audited(None)
    world = here.world
    one, other = world.commitment(5, here.task), world.commitment(5, here.task, round=99)
    assert world.reasons(world.accuse(7, one, other)) == ["a correct validator may have said both"]
    assert world.reasons(world.accuse(7, one, one)) == ["the same word twice"]
    theirs, twice = (world.commitment(6, here.task, miner=world.ids[5], salt=digest(salt)) for salt in ("one", "two"))
    assert world.reasons(world.accuse(7, theirs, twice)) == [
        f"nothing is left to take from key {short(world.people[6].key)}"
    ]
    assert world.task(here.task).miner(world.ids[5]) is not None


def test_who_committed_twice_does_not_escape_by_changing_its_key() -> None:
    """It leaves or enrols with another key: what was sealed tells whose the old one was."""
    for last in ("leave", "enrol"):
        here = Audited(None)
        world = here.world
        one, two = (world.commitment(5, here.task, salt=digest(name)) for name in ("one", "two"))
        others = [(who, world.commitment(who, here.task)) for who in (6, 7)]
        sealed = [signed for _, signed in sorted([(5, one), *others], key=lambda pair: world.ids[pair[0]])]
        world.execute(world.seal(here.task, sealed))
        nonce = world.account(5).nonce
        away = world.leave(5, here.task, nonce=nonce + 1)
        if last == "enrol":
            away = world.enrol(5, here.task, nonce=nonce + 1)
        assert world.reasons(world.rekey(5, node=world.signer("another")), away) == ["", ""]
        assert world.reasons(world.accuse(7, two, one)) == [""], last
        world.execute(world.update(here.task))
        assert here.row(5).standing == Standing.SLASHED
        assert world.row(here.task, here.round + 1, 5).pay_micro == 0


def test_once_a_task_has_settled_nothing_of_it_is_taken_and_nothing_is_remembered() -> None:
    here = Audited(None, rounds=5, settle_heights=4)
    world = here.world
    here.play(5 - world.task(here.task).round)
    one, two = (world.commitment(5, here.task, salt=digest(name)) for name in ("one", "two"))
    while world.ledger.settling():
        world.execute()
    before = world.account(7)
    assert world.reasons(world.accuse(7, one, two)) == [
        f"nothing is left to take from key {short(world.people[5].key)}"
    ]
    assert world.account(7) == before
    assert world.ledger.parting(here.task) == Parting((), ())


def test_what_a_miner_has_earned_over_its_time_is_counted_up_to_all_there_can_be() -> None:
    """What was slashed goes back into the escrow and is earned again, so that it is not bounded by the supply."""
    here = Audited(None)
    world = here.world
    task = world.task(here.task)
    miners = tuple(replace(one, earned_micro=SUPPLY_MAX - 1) for one in task.miners)
    entries = world.ledger.entries.updated([(task_key(task.id), encode(replace(task, miners=miners)))])
    world.ledger = Ledger(entries, world.ledger.header)
    here.play()
    assert {one.earned_micro for one in world.task(here.task).miners} == {SUPPLY_MAX}


def test_a_ruling_that_comes_when_a_quorum_has_ruled_already_costs_nothing() -> None:
    here = Audited()
    first = here.contested()
    others = [who for who in range(VALIDATORS) if who != first]
    last = others[-1]
    before = here.world.account(last).balance_micro
    rulings = [here.world.ruling(who, here.task, here.round, 5, True) for who in others]
    assert here.world.reasons(*rulings) == ["", "", ""], "of four the first three are a quorum"
    assert here.row(5).standing == Standing.SLASHED
    assert here.world.account(last).balance_micro == before
    assert here.rule(last, 5, True) == ["it has ruled already"]
    assert here.rule(last, 6, True) == [
        f"nothing of miner {short(here.world.ids[6])} in round {here.round} is contested"
    ]


def test_to_slash_a_miner_only_the_rounds_that_it_took_part_in_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thousands of miners for hundreds of rounds all would take every validator half a minute."""
    here = Audited(None)
    world = here.world
    assert world.reasons(world.enrol(4, here.task)) == [""]
    here.play(2)
    here.play(1, *MINERS, 4)
    took_part = world.task(here.task).round - 1
    here.play(2)
    one, two = (world.commitment(4, here.task, salt=digest(name)) for name in ("one", "two"))
    accusation = world.accuse(7, one, two)
    read: set[int] = set()
    known = Ledger.read

    def watched(ledger: Ledger, key: bytes, kind: Any) -> Any:
        read.update([past[1] for past in [past_of(key)] if past is not None])
        return known(ledger, key, kind)

    monkeypatch.setattr(Ledger, "read", watched)
    assert world.reasons(accusation) == [""]
    assert read == {took_part}
    assert world.row(here.task, took_part, 4).standing == Standing.SLASHED


def test_nobody_buys_itself_out_of_an_audit_by_accusing_itself() -> None:
    here = Audited()
    world = here.world
    here.contested()
    one, two = (world.commitment(5, here.task, salt=digest(name)) for name in ("one", "two"))
    before = world.account(7).balance_micro
    assert world.reasons(world.accuse(7, one, two)) == [""]
    assert world.account(7).balance_micro == before
    assert here.row(5).standing == Standing.SLASHED


# Probation


def test_a_contribution_on_probation_is_drawn_and_judged_like_any_other() -> None:
    here = Audited(None, audit_ppm=1)
    world = here.world
    assert all(world.drawn(who, here.task, here.round) == () for who in range(VALIDATORS))
    seen = 0
    for _ in range(8):
        world.sealed(here.task, *MINERS)
        outcomes = {5: Outcome.PROBATION}
        world.execute(world.update(here.task, outcomes, world.reports(here.task, Step.UPDATE)))
        number = world.task(here.task).round - 1
        for who in range(VALIDATORS):
            drawn = world.drawn(who, here.task, number)
            assert set(drawn) <= {world.ids[5]}
            seen += len(drawn)
    assert seen > 0
