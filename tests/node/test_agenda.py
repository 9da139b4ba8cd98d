"""What waits to be ordered is bounded, and whose turn it is always finds its place."""

from __future__ import annotations

from dataclasses import replace

from potd.ledger.accounts import NONCES_AHEAD
from potd.node.agenda import AGAIN_TICKS, OPERATION_BYTES_MAX, OPERATIONS_BYTES_MAX, OPERATIONS_MAX, Agenda, touches
from potd.wire.audits import Finding, Ruling, Status, Verdict
from potd.wire.blocks import Batch, record_digest
from potd.wire.consensus import Commit
from potd.wire.envelope import Signed, Signer, Verified, attestation_of
from potd.wire.ids import NO_BLOB, NOTHING, AccountId, account_id, digest
from potd.wire.operations import Accuse, Enrol, Operation, Transfer
from potd.wire.rounds import Commitment, Evaluation, Seal, Update

NETWORK = digest("network")
TASK = digest("task")
SIGNERS = [Signer(bytes([index + 1]) * 32, NETWORK) for index in range(3)]


def transfer(nonce: int, signer: Signer = SIGNERS[0], memo: str = "") -> Verified[Operation]:
    return signer.verified(Transfer(account_id(signer.key), nonce, digest("to"), 1, memo))


def from_zero(account: AccountId) -> int:
    """A ledger in which nobody has done anything."""
    return 0


def signed(by: int = 0) -> Signed:
    return SIGNERS[by].sign(Enrol(TASK, 0, TASK, 1))


def seal(number: int, by: int = 0) -> Seal:
    return Seal(TASK, number, (), (attestation_of(signed(by)),), (b"",), (0,), ())


def update(number: int) -> Update:
    return Update(TASK, number, (signed(),), (), NO_BLOB, NO_BLOB, NO_BLOB)


def evaluation(number: int) -> Evaluation:
    return Evaluation(TASK, number, (signed(),))


def test_the_operation_whose_turn_it_is_has_its_place_however_many_wait_for_theirs() -> None:
    """Else a replica that heard it first would depose every primary that heard the others first."""
    agenda = Agenda()
    for nonce in range(1, NONCES_AHEAD + 1):
        assert agenda.add_operation(transfer(nonce), 0, ours=False) == ""
    assert agenda.add_operation(transfer(0), 0, ours=False) == ""


def test_an_account_has_one_place_for_each_nonce() -> None:
    agenda = Agenda()
    assert agenda.add_operation(transfer(0), 0, ours=False) == ""
    assert agenda.add_operation(transfer(0), 0, ours=False) == "", "the same one again"
    reason = "another operation with nonce 0 is waiting already"
    assert agenda.add_operation(transfer(0, memo="other"), 0, ours=False) == reason
    assert agenda.add_operation(transfer(0, SIGNERS[1]), 0, ours=False) == ""


def test_operations_are_bounded_over_all_accounts() -> None:
    agenda = Agenda()
    for nonce in range(OPERATIONS_MAX):
        assert agenda.add_operation(transfer(nonce), 0, ours=False) == ""
    assert "are waiting already" in agenda.add_operation(transfer(0, SIGNERS[1]), 0, ours=False)


def accusation(nonce: int, length: int, signer: Signer = SIGNERS[0]) -> Verified[Operation]:
    word = Signed(signer.key, bytes(length // 2), bytes(64))
    return signer.verified(Accuse(account_id(signer.key), nonce, (word, word)))


def test_an_operation_that_fits_no_batch_holds_up_nobody() -> None:
    """It would be the next of its account for ever, and of all accounts behind it."""
    agenda = Agenda()
    reason = agenda.add_operation(accusation(0, OPERATION_BYTES_MAX), 0, ours=False)
    assert reason.endswith(f"at most {OPERATION_BYTES_MAX}")
    assert agenda.add_operation(transfer(0, SIGNERS[1]), 0, ours=False) == ""
    assert agenda.take(512, from_zero) == Batch((transfer(0, SIGNERS[1]).signed,))


def test_operations_are_bounded_by_their_bytes_as_well() -> None:
    agenda = Agenda()
    length = OPERATION_BYTES_MAX * 15 // 16
    room = OPERATIONS_BYTES_MAX // length
    long = [accusation(nonce, length) for nonce in range(room + 1)]
    reasons = [agenda.add_operation(one, 0, ours=False) for one in long]
    full = next(number for number, reason in enumerate(reasons) if reason)
    assert reasons[full].endswith("bytes of operations are waiting already")
    assert full >= room - 1
    agenda.drop_operation(record_digest(long[0].signed))
    assert agenda.add_operation(long[full], 0, ours=False) == ""


def test_those_ahead_of_their_turn_give_way_to_one_whose_turn_it_is_the_farthest_first() -> None:
    """To wait for a nonce that never comes costs nothing: a few accounts could shut out all others for ever."""
    agenda = Agenda()
    for nonce in range(1, OPERATIONS_MAX + 1):
        assert agenda.add_operation(transfer(nonce), 0, ours=nonce == OPERATIONS_MAX) == ""
    late = transfer(0, SIGNERS[1])
    assert "are waiting already" in agenda.add_operation(late, 0, ours=False)
    assert agenda.add_operation(late, 0, ours=False, turns=from_zero) == ""
    waiting = {one.body.nonce for one in (each.message for each in agenda.operations.values())}
    assert waiting == {*range(OPERATIONS_MAX - 1), OPERATIONS_MAX}, "and our own stays"
    assert agenda.add_operation(transfer(0), 0, ours=False, turns=from_zero) == ""
    assert agenda.take(2, from_zero) is not None
    assert len(agenda.operations) == OPERATIONS_MAX


def test_bytes_that_wait_for_nothing_give_way_as_well() -> None:
    agenda = Agenda()
    length = OPERATION_BYTES_MAX * 15 // 16
    nonce = 1
    while not agenda.add_operation(accusation(nonce, length), 0, ours=False):
        nonce += 1
    late = accusation(0, length, SIGNERS[1])
    assert agenda.add_operation(late, 0, ours=False, turns=from_zero) == ""
    assert nonce - 1 not in {one.message.body.nonce for one in agenda.operations.values()}


def test_records_go_before_operations_and_these_by_account_and_nonce() -> None:
    agenda = Agenda()
    operations = [transfer(nonce, signer) for signer in SIGNERS for nonce in (2, 0, 1)]
    for one in operations:
        agenda.add_operation(one, 0, ours=False)
    agenda.add_record(seal(4))
    ordered = sorted(operations, key=lambda one: (one.body.account, one.body.nonce))
    assert agenda.take(512, from_zero) == Batch((seal(4), *(one.signed for one in ordered)))
    assert agenda.take(512, from_zero) is None, "all of it is in flight"


def test_operations_wait_for_company_where_they_are_told_to_and_go_at_once_with_a_rounds_record() -> None:
    agenda = Agenda()
    two = [transfer(nonce) for nonce in range(2)]
    for one in two:
        agenda.add_operation(one, 0, ours=False)
    assert agenda.take(512, from_zero, fewest=3) is None
    agenda.add_record(seal(4))
    assert agenda.take(512, from_zero, fewest=3) == Batch((seal(4), *(one.signed for one in two)))
    later = [transfer(nonce, SIGNERS[1]) for nonce in range(3)]
    for one in later[:2]:
        agenda.add_operation(one, 0, ours=False)
    assert agenda.take(512, from_zero, fewest=3) is None, "what is in flight is no company"
    agenda.add_operation(later[2], 0, ours=False)
    assert agenda.take(512, from_zero, fewest=3) == Batch(tuple(one.signed for one in later))


def test_a_batch_is_no_longer_than_genesis_allows() -> None:
    agenda = Agenda()
    for nonce in range(5):
        agenda.add_operation(transfer(nonce), 0, ours=False)
    taken = [agenda.take(2, from_zero) for _ in range(4)]
    assert [len(one.records) if one is not None else 0 for one in taken] == [2, 2, 1, 0]


def test_the_newest_record_of_a_round_replaces_the_one_before() -> None:
    agenda = Agenda()
    agenda.add_record(seal(4, by=0))
    agenda.add_record(seal(4, by=1))
    assert agenda.take(512, from_zero) == Batch((seal(4, by=1),))


def test_an_executed_record_is_gone_and_an_operation_stays_until_it_is_dropped() -> None:
    """One that failed by coming before its turn has its turn yet; whether it has, the ledger says."""
    agenda = Agenda()
    agenda.add_operation(transfer(0), 0, ours=False)
    agenda.add_record(update(4))
    names = [record_digest(transfer(0).signed), record_digest(update(4))]
    assert agenda.take(512, from_zero) == Batch((update(4), transfer(0).signed))
    agenda.executed(names)
    assert agenda.take(512, from_zero) == Batch((transfer(0).signed,))
    agenda.drop_operation(names[0])
    assert agenda.take(512, from_zero) is None


def test_an_operation_before_its_turn_is_not_given_out() -> None:
    """It would fail, and pay nothing for its place."""
    agenda = Agenda()
    for nonce in (0, 2, 3):
        agenda.add_operation(transfer(nonce), 0, ours=False)
    assert agenda.take(512, from_zero) == Batch((transfer(0).signed,))
    agenda.moved(account_id(SIGNERS[0].key))
    assert agenda.take(512, lambda account: 2) == Batch((transfer(2).signed, transfer(3).signed))


def test_a_rounds_record_is_never_put_behind_another_of_its_task() -> None:
    agenda = Agenda()
    agenda.add_record(seal(4))
    agenda.add_record(update(4))
    agenda.add_record(evaluation(3))
    assert agenda.take(512, from_zero) == Batch((seal(4), evaluation(3)))
    assert agenda.take(512, from_zero) == Batch((update(4),))


def test_whatever_may_slash_a_miner_touches_its_task() -> None:
    """What is judged of an update behind it in one batch would not be what is executed."""
    signer = SIGNERS[0]
    who, found = account_id(signer.key), Finding(account_id(SIGNERS[1].key), Status.BAD.value, 10**6)
    words = [replace(commitment(), salt=digest(salt)) for salt in ("one", "other")]
    for body in (
        Verdict(who, 0, TASK, 3, NOTHING, NOTHING, (found,)),
        Ruling(who, 0, TASK, 3, found),
        Accuse(who, 0, tuple(SIGNERS[1].sign(word) for word in words)),
    ):
        assert touches(signer.sign(body)) == {TASK}
    votes = [Commit(0, 1, digest(batch)) for batch in ("one", "other")]
    assert touches(signer.sign(Accuse(who, 0, tuple(SIGNERS[1].sign(vote) for vote in votes)))) == set()


def commitment() -> Commitment:
    return Commitment(TASK, 3, account_id(SIGNERS[1].key), NOTHING, NO_BLOB, 8, False, 0, NOTHING, "float32", NOTHING)


def test_seals_and_updates_of_past_rounds_are_dropped_and_their_evaluations_kept() -> None:
    agenda = Agenda()
    for record in (seal(3), update(3), evaluation(3), seal(4)):
        agenda.add_record(record)
    agenda.drop_stale(TASK, 4)
    assert agenda.take(512, from_zero) == Batch((evaluation(3), seal(4)))


def test_another_view_gives_operations_out_again_and_has_records_worked_out_afresh() -> None:
    agenda = Agenda()
    agenda.add_operation(transfer(0), 0, ours=False)
    agenda.add_record(seal(4))
    agenda.take(512, from_zero)
    agenda.view_changed()
    assert agenda.take(512, from_zero) == Batch((transfer(0).signed,))


def test_an_enrolment_that_waits_is_known() -> None:
    agenda = Agenda()
    account = account_id(SIGNERS[0].key)
    agenda.add_operation(SIGNERS[0].verified(Enrol(account, 0, TASK, 1)), 0, ours=True)
    assert agenda.waiting_enrolments(account) == {TASK}
    assert agenda.waiting_enrolments(account_id(SIGNERS[1].key)) == set()


def test_only_accounts_that_may_have_something_in_turn_are_asked_about() -> None:
    """So a batch costs what is in it, however much waits for its turn."""
    agenda = Agenda()
    asked: list[AccountId] = []

    def nonce_of(account: AccountId) -> int:
        asked.append(account)
        return 0

    first, second, third = sorted(account_id(one.key) for one in SIGNERS)
    for signer in SIGNERS:
        for nonce in (0, 2):
            agenda.add_operation(transfer(nonce, signer), 0, ours=False)
    assert agenda.take(512, nonce_of) is not None
    assert asked == [first, second, third]
    assert agenda.take(512, nonce_of) is None
    assert asked == [first, second, third], "what is given out is not looked at again"
    agenda.moved(second)
    agenda.moved(account_id(Signer(bytes(32), NETWORK).key))
    assert agenda.take(512, nonce_of) is None
    assert asked == [first, second, third, second]


def test_an_account_that_did_not_fit_a_batch_is_in_the_next_one() -> None:
    agenda = Agenda()
    for signer in SIGNERS:
        agenda.add_operation(transfer(0, signer), 0, ours=False)
    taken = [agenda.take(2, from_zero), agenda.take(2, from_zero), agenda.take(2, from_zero)]
    assert [len(one.records) if one is not None else 0 for one in taken] == [2, 1, 0]


def test_what_failed_by_coming_too_early_is_given_out_again() -> None:
    agenda = Agenda()
    agenda.add_operation(transfer(0), 0, ours=False)
    assert agenda.take(512, from_zero) == Batch((transfer(0).signed,))
    agenda.executed([record_digest(transfer(0).signed)])
    assert agenda.take(512, from_zero) == Batch((transfer(0).signed,))


def test_each_is_said_again_after_its_own_waiting() -> None:
    agenda = Agenda()
    agenda.add_operation(transfer(0), 7, ours=False)
    agenda.add_operation(transfer(1), 8, ours=False)
    said = {tick: [name for name, _ in agenda.to_say_again(tick)] for tick in range(8, 8 + 2 * AGAIN_TICKS)}
    first, second = (record_digest(transfer(nonce).signed) for nonce in (0, 1))
    assert {tick: names for tick, names in said.items() if names} == {
        6 + AGAIN_TICKS: [first],
        7 + AGAIN_TICKS: [second],
        6 + 2 * AGAIN_TICKS: [first],
        7 + 2 * AGAIN_TICKS: [second],
    }


def test_what_is_dropped_is_nowhere_any_more() -> None:
    agenda = Agenda()
    agenda.add_operation(transfer(0), 0, ours=False)
    agenda.drop_operation(record_digest(transfer(0).signed))
    agenda.drop_operation(record_digest(transfer(0).signed))
    assert agenda.waiting_of(account_id(SIGNERS[0].key)) == []
    assert [agenda.to_say_again(tick) for tick in range(AGAIN_TICKS)] == [[]] * AGAIN_TICKS
    assert agenda.take(512, from_zero) is None
    assert agenda.add_operation(transfer(0, memo="another"), 0, ours=False) == ""
