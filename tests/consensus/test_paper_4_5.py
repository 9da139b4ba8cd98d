"""The paper's claims of section 4.5: quorums [4.5.1], and when replicas go on to another view [4.5.2]."""

from __future__ import annotations

from itertools import combinations

import pytest

from potd.consensus.events import (
    Awaited,
    Effect,
    Executed,
    Held,
    Judged,
    Received,
    Reject,
    Ticked,
)
from potd.consensus.patience import DOUBLINGS_MAX, Patience
from potd.consensus.view_change import carry_over
from potd.wire.blocks import NULL, batch_digest
from potd.wire.consensus import Commit, ViewChange
from tests.consensus import liars
from tests.consensus.cluster import (
    Cluster,
    group,
)
from tests.consensus.parts import (
    FIRST,
    PATIENCE,
    A,
    B,
    agreement,
    begin,
    commitment,
    leave,
    of_kind,
    order,
    proof,
    propose,
    replica,
    sent,
    ticks,
)


@pytest.mark.parametrize("size", range(1, 41))
def test_two_quorums_share_an_honest_member_and_the_honest_can_form_one(size: int) -> None:
    """4.1, for every n rather than for 3f + 1 only."""
    members = group(size)
    assert 2 * members.quorum - size >= members.faults + 1
    assert members.quorum <= size - members.faults
    assert 3 * members.faults + 1 <= size


def test_of_six_three_do_not_suffice() -> None:
    """4.1: 2f + 1 = 3 of 6 is no quorum."""
    backup = replica(1, 6)
    propose(backup, A, size=6)
    assert not sent(backup.step(Received(agreement(2, A, size=6))), Commit)
    assert sent(backup.step(Received(agreement(3, A, size=6))), Commit)


def test_f_plus_1_that_leave_for_higher_views_are_joined_in_the_smallest() -> None:
    """4.5.2, second"""
    backup = replica(1)
    assert not sent(backup.step(Received(leave(2, 7))), ViewChange)
    assert [one.view for one in sent(backup.step(Received(leave(3, 5))), ViewChange)] == [5]


def test_one_liar_cannot_make_anybody_leave() -> None:
    """4.5.3: f replicas cannot force a view change by asking for one."""
    backup = replica(1)
    for view in (1, 2, 9, 2**40):
        assert not sent(backup.step(Received(leave(3, view))), ViewChange)
    assert backup.active


def test_patience_doubles_with_every_view_that_brings_nothing() -> None:
    """4.5.2, first"""
    backup, waited = replica(3), []
    for view in (1, 2):  # n3 itself is the primary of view 3
        for index in (0, 1):
            backup.step(Received(leave(index, view)))
        passed = 0
        while backup.view == view:
            backup.step(Ticked())
            passed += 1
        waited.append(passed)
    assert waited == [PATIENCE, 2 * PATIENCE]


def test_without_a_quorum_of_view_changes_the_next_view_is_not_tried() -> None:
    """4.5.2: so that replicas do not run ahead of each other."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, 50 * PATIENCE)
    assert (backup.view, backup.active) == (1, False)


@pytest.mark.parametrize("sequence", [(0, 3), (3, 0)])
def test_those_who_have_gone_further_count_towards_the_quorum_that_starts_the_timer(sequence: tuple[int, int]) -> None:
    """Else who left for view 1 waits for ever for the lost view change of who is in view 2 by now."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    for index in sequence:
        backup.step(Received(leave(index, 2 if index == 0 else 1)))
    assert [one.view for one in sent(ticks(backup, 2 * PATIENCE), ViewChange)] == [2]


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_what_a_quorum_has_committed_is_in_every_new_view(size: int) -> None:
    """4.5.1: any two quorums share a correct replica, and its proof is in V. The f liars hide theirs."""
    members = group(size)
    quorum, by = members.quorum, tuple(range(1, members.quorum))
    prepared = proof(A, size=size, by=by)
    for committed in combinations(range(size), quorum):
        honest = committed[members.faults :]  # the others of those who committed lie
        for shown in combinations(range(size), quorum):
            changes = [leave(one, 1, [prepared] if one in honest else []).body for one in shown]
            assert carry_over(changes).orders == ((1, batch_digest(A)),)


def test_a_view_change_that_takes_back_what_was_committed_is_never_entered() -> None:
    """4.5.1: local commits in different views agree."""
    backup = replica(2)
    shown = [leave(0), leave(1), leave(3, 1, [proof(A)])]
    for taken_back in ([], [(1, B)], [(1, NULL)]):
        assert of_kind(backup.step(Received(begin(shown, taken_back))), Reject)
    assert (backup.view, backup.active) == (0, True)


@pytest.mark.parametrize("size", range(1, 17))
def test_a_faulty_replica_leads_one_view_of_n_and_f_of_them_at_most_f_in_a_row(size: int) -> None:
    """4.5.2: the primary cannot be faulty for more than f consecutive views."""
    members = group(size)
    for view in range(2 * size):
        assert len({members.primary(view + one) for one in range(members.faults + 1)}) == members.faults + 1


def test_after_f_mute_primaries_in_a_row_the_next_one_leads() -> None:
    """4.5.2, third"""
    cluster = Cluster(7, 1, liars={0: liars.mute_as_primary, 1: liars.mute_as_primary})
    cluster.request(b"operation")
    cluster.settle()
    assert {one.replica.view for one in cluster.honest()} == {2}


@pytest.mark.parametrize("size", [4, 7])
def test_f_liars_that_ask_for_ever_other_views_move_nobody(size: int) -> None:
    """4.5.2, third: faulty replicas cannot impede progress by forcing frequent view changes."""
    faults = (size - 1) // 3
    cluster = Cluster(size, 1, liars=dict.fromkeys(range(size - faults, size), liars.forge_view_changes))
    for number in range(6):
        cluster.request(b"operation %d" % number)
        cluster.run(20)
    cluster.settle()
    claimed = [cluster.verified(one.signed) for one in cluster.heard]
    assert claimed
    assert {one.replica.view for one in cluster.honest()} == {0}


def test_a_timer_that_has_begun_does_not_begin_again_with_every_further_view_change() -> None:
    """4.5.2, first: it starts when 2f + 1 view-change messages have come; a liar cannot put it off."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    for index in (0, 3):
        backup.step(Received(leave(index)))
    effects: list[Effect] = []
    for view in range(2, 2 + 2 * PATIENCE):
        effects += backup.step(Received(leave(0, view)))
        effects += ticks(backup, 1)
    assert 2 in [one.view for one in sent(effects, ViewChange)]


def test_patience_shrinks_again_with_what_is_executed() -> None:
    """4.5.2: the timeout adapts. Here each height takes back one doubling, not all of them."""
    backup = replica(2)
    backup.step(Awaited("operation"))
    ticks(backup, PATIENCE)
    assert backup.patience() == 2 * PATIENCE
    backup.step(Received(begin([leave(0), leave(1), leave(3)])))
    for message in (order(A, view=1), agreement(3, A, view=1), commitment(1, A, view=1), commitment(3, A, view=1)):
        backup.step(Received(message))
    backup.step(Held(batch_digest(A), A))
    backup.step(Judged(1, 1, batch_digest(A), ""))
    backup.step(Executed(FIRST))
    assert backup.patience() == PATIENCE


def test_a_night_without_a_view_is_forgotten_after_as_many_heights_as_patience_was_doubled() -> None:
    """Views that ended beyond the longest patience are not paid for with a height each."""
    patience = Patience(PATIENCE, 4)
    for _ in range(10 * DOUBLINGS_MAX):
        patience.failed()
    assert patience.ticks() == PATIENCE << DOUBLINGS_MAX
    patience.progressed(1)
    assert patience.ticks() == PATIENCE << DOUBLINGS_MAX - 1
    patience.progressed(DOUBLINGS_MAX - 1)
    assert patience.ticks() == PATIENCE
