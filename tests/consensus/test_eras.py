"""Validators that change: each set decides the heights between its base and its end, in views of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from potd.consensus.events import (
    Broadcast,
    Certificated,
    Effect,
    Ending,
    Held,
    Ignore,
    Proposed,
    Received,
    Reject,
    Send,
    Ticked,
)
from potd.consensus.quorum import Group, certificate_fault
from potd.consensus.replica import Replica
from potd.wire.blocks import NULL, Certificate, Header, batch_digest
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Recollected, Refusal, Status, ViewChange
from potd.wire.envelope import Verified
from potd.wire.rounds import Report
from tests.consensus.cluster import NETWORK, Cluster, Lie, Member, Said, headers, operations_of, seats, signer
from tests.consensus.liars import any_lie, mute_as_primary
from tests.consensus.parts import (
    BOOT,
    PATIENCE,
    WINDOW,
    A,
    B,
    agreement,
    begin,
    certificate,
    leave,
    recollected,
    said,
    sent,
    told_nothing,
)

BASE = 2
CHAIN = headers(A, B, A, B, A)
OLD = (0, 1, 2, 3)
NEW = (1, 2, 3, 4)  # n4 in the place of n0


def keys(*indices: int) -> tuple[bytes, ...]:
    return tuple(signer(index).key for index in indices)


GROUP = Group(NETWORK, keys(*NEW), BASE, keys(*OLD))


def old_replica(index: int, *, ends: int | None, executed: int = 0) -> Replica:
    """A member of the set before, which has executed so far and has nothing of it certified."""
    one = Replica(signer(index), Group(NETWORK, keys(*OLD)), patience_ticks=PATIENCE, window=WINDOW)
    if executed:
        one.restore(CHAIN[executed - 1], None, (), BOOT)
        told_nothing(one)
    if ends is not None:
        one.step(Ending(ends))
    return one


def new_replica(index: int, records: Iterable[Any] = ()) -> Replica:
    """A member of the set that begins above BASE."""
    one = Replica(signer(index), GROUP, patience_ticks=PATIENCE, window=WINDOW)
    one.restore(CHAIN[BASE - 1], certificate(CHAIN[BASE - 1]), records, BOOT)
    told_nothing(one, certificate(CHAIN[BASE - 1]))
    return one


def left(effects: Iterable[Effect]) -> bool:
    return bool(sent(effects, ViewChange))


# Certificates


def test_a_base_is_certified_by_those_before_and_what_follows_by_the_new() -> None:
    at = {header.height: header for header in CHAIN}
    assert certificate_fault(certificate(at[2], by=(0, 1, 2)), GROUP) == ""
    assert certificate_fault(certificate(at[2], by=(1, 2, 4)), GROUP) == "certificate signed by a stranger"
    assert certificate_fault(certificate(at[3], by=(1, 2, 4)), GROUP) == ""
    assert certificate_fault(certificate(at[3], by=(0, 1, 2)), GROUP) == "certificate signed by a stranger"


def test_what_lies_below_a_base_is_not_for_its_set_to_check() -> None:
    fault = certificate_fault(certificate(CHAIN[0], by=(0, 1, 2)), GROUP)
    assert fault == "certificate of a height that earlier validators decided"


def test_a_base_needs_the_quorum_of_those_before() -> None:
    seven = Group(NETWORK, keys(0, 1, 2, 3, 4), BASE, keys(*range(7)))
    assert certificate_fault(certificate(CHAIN[1], by=(0, 1, 2, 3)), seven) == "certificate with 4 signatures of 5"
    assert certificate_fault(certificate(CHAIN[2], by=(0, 1, 2, 3)), seven) == ""


# The end


def test_nothing_beyond_the_end_is_proposed() -> None:
    primary = old_replica(0, ends=2)
    for batch in (A, B):
        assert primary.may_propose()
        primary.step(Proposed(batch_digest(batch), batch))
    assert not primary.may_propose()


def test_nothing_beyond_the_end_is_prepared_or_committed() -> None:
    backup = old_replica(1, ends=2)
    order = signer(0).verified(PrePrepare(0, 3, batch_digest(A)))
    for message in (order, agreement(2, A, 3), agreement(3, A, 3)):
        assert [type(one) for one in backup.step(Received(message))] == [Ignore]
    assert backup.step(Held(batch_digest(A), A)) == []


def test_a_new_view_carries_nothing_beyond_the_end() -> None:
    primary = old_replica(1, ends=2)
    for index in (2, 3):
        primary.step(Received(leave(index)))
    primary.step(said(2, ViewChange(2, 0, (), ())))
    assert not primary.may_propose() or primary.next_seq() <= 2


def test_once_the_end_is_permanent_a_replica_leaves_no_view() -> None:
    """Its view change, from the base of the next era, would count there."""
    one = old_replica(1, ends=2, executed=2)
    one.step(Certificated(certificate(CHAIN[1])))
    assert one.done
    effects = [effect for index in (2, 3) for effect in one.step(Received(leave(index)))]
    for _ in range(5 * PATIENCE):
        effects += one.step(Ticked())
    assert effects == []


def test_who_ends_the_era_with_its_first_word_after_a_start_leaves_no_view() -> None:
    """It had executed the end and not signed it; the others have waited for that, and given up their view."""
    one = Replica(signer(1), Group(NETWORK, keys(*OLD)), patience_ticks=PATIENCE, window=WINDOW)
    one.restore(CHAIN[1], None, (), BOOT)
    one.step(Ending(2))
    for index in (2, 3):
        one.step(said(index, CHAIN[1]))
        one.step(Received(leave(index)))
    effects = told_nothing(one)
    assert (one.done, sent(effects, Header), left(effects)) == (True, [CHAIN[1]], False)


def test_who_is_shown_the_end_as_it_asks_what_it_said_leaves_no_view() -> None:
    one = Replica(signer(1), Group(NETWORK, keys(*OLD)), patience_ticks=PATIENCE, window=WINDOW)
    one.restore(CHAIN[1], None, (), BOOT)
    one.step(Ending(2))
    for index in (2, 3):
        one.step(Received(leave(index)))
    effects = one.step(recollected(one, 0))
    effects += one.step(recollected(one, 2, (), certificate(CHAIN[1], by=(0, 2, 3))))
    assert (one.done, left(effects)) == (True, False)


def test_a_view_change_that_shows_the_end_ends_the_era_and_is_not_joined() -> None:
    """f + 1 claims to join come together with the certificate."""
    one = old_replica(1, ends=2, executed=2)
    one.step(Received(leave(2)))
    effects = one.step(Received(leave(3, 1, stable=certificate(CHAIN[1]))))
    assert (one.done, left(effects)) == (True, False)
    assert [type(effect) for effect in effects].count(Ignore) == 1


def test_a_view_change_that_shows_the_end_counts_for_no_view_of_the_era() -> None:
    """Whoever shows it to one that is behind is a liar, or early."""
    primary = old_replica(1, ends=2)
    for index in (0, 2):
        primary.step(Received(leave(index, 1, stable=certificate(CHAIN[1], by=(0, 2, 3)))))
    effects = primary.step(Received(leave(3)))
    assert not sent(effects, NewView)
    assert not left(effects)


# The views of the era before, and of the next


def test_an_era_begins_in_view_0_above_its_base() -> None:
    one = new_replica(1)
    assert (one.view, one.active, one.primary, one.stable, one.executed, one.next_seq()) == (0, True, one.key, 2, 2, 3)


def test_the_base_is_where_the_first_view_change_of_an_era_stands() -> None:
    one = new_replica(2)
    one.step(said(3, ViewChange(1, BASE, (certificate(CHAIN[1]),), ())))
    effects = one.step(said(4, ViewChange(1, BASE, (certificate(CHAIN[1]),), ())))
    assert sent(effects, ViewChange) == [ViewChange(1, BASE, (certificate(CHAIN[1]),), ())]
    assert [one.view for one in sent(effects, NewView)] == [1]
    backup = new_replica(4)
    (begun,) = [effect.signed for effect in effects if isinstance(effect, Broadcast) and effect.signed is one._new_view]
    backup.step(Received(Verified(one.key, sent(effects, NewView)[0], begun)))
    assert (backup.view, backup.active) == (1, True)


@pytest.mark.parametrize("stable", [None, certificate(CHAIN[0])])
def test_a_view_change_of_the_era_before_is_worth_nothing_and_held_against_nobody(stable: Certificate | None) -> None:
    one = new_replica(2)
    effects = [effect for index in (1, 3) for effect in one.step(Received(leave(index, 1, stable=stable)))]
    assert effects == [Ignore(signer(index).key, "view change of earlier validators") for index in (1, 3)]
    assert one.active


def test_a_new_view_of_the_era_before_is_worth_nothing_and_held_against_nobody() -> None:
    one = new_replica(2)
    shown = begin([leave(0), leave(1), leave(2)])
    assert one.step(Received(shown)) == [Ignore(shown.sender, "new view with a view change of earlier validators")]
    assert one.view == 0


def test_a_new_view_from_view_changes_of_two_eras_is_worth_nothing() -> None:
    """n2 is the primary of view 1 of the new set; two quorums of different sets need not meet."""
    one = new_replica(3)
    base = certificate(CHAIN[1])
    shown = [leave(1, 1), leave(2, 1, stable=base), leave(4, 1, stable=base)]
    changes = tuple(each.signed for each in sorted(shown, key=lambda each: each.sender))
    effects = one.step(said(2, NewView(1, changes, ())))
    assert effects == [Ignore(signer(2).key, "new view with a view change of earlier validators")]


def test_after_a_restart_a_view_of_an_earlier_era_is_forgotten() -> None:
    """The journal keeps the newest view change and new view of whatever era: we may have had a seat before."""
    before = [begin([leave(0, 5), leave(1, 5), leave(2, 5)], view=5).signed, leave(2, 7).signed]
    one = new_replica(2, before)
    assert (one.view, one.active) == (0, True)
    ours = signer(2).sign(ViewChange(1, BASE, (certificate(CHAIN[1]),), ()))
    again = new_replica(2, [*before, ours])
    assert (again.view, again.active) == (1, False)


@pytest.mark.parametrize("old", [leave(1), begin([leave(0), leave(1), leave(2)])], ids=["left", "began"])
def test_what_was_said_of_a_view_of_an_earlier_era_makes_no_start_silent(old: Verified[Any]) -> None:
    """A liar has kept it: of the first era it needs no certificate. The start's own home lacks nothing."""
    group = Group(NETWORK, keys(0, 1, 2, 4), BASE, keys(*OLD))  # n1 is the primary of view 1 in both
    one = Replica(signer(1), group, patience_ticks=PATIENCE, window=WINDOW)
    base = certificate(CHAIN[BASE - 1])
    one.restore(CHAIN[BASE - 1], base, (), BOOT)
    effects = one.step(recollected(one, 4, [old], base))
    assert [type(effect) for effect in effects] == [Reject]
    told_nothing(one, base)
    assert (one.view, one.active, one.silent) == (0, True, False)


def test_votes_of_the_era_before_are_untimely() -> None:
    one = new_replica(2)
    words = [PrePrepare(0, 2, batch_digest(B)), Commit(0, 2, batch_digest(B)), CHAIN[1], Status(0, False, 1, 1)]
    for word in words:
        assert [type(effect) for effect in one.step(said(0, word))] in ([Ignore], [Send])


def test_whoever_has_no_seat_is_false_only_about_heights_that_are_ours_for_sure() -> None:
    """Later validators may be known to others already."""
    one = new_replica(2)
    beyond = BASE + WINDOW + 1
    digest = batch_digest(A)
    for stranger in (0, 9):
        for ours in (
            Prepare(0, 3, digest, bytes(64)),
            Refusal(0, beyond - 1, digest, bytes(64), "no"),
            Status(0, False, BASE, BASE),
            ViewChange(1, BASE, (), ()),
            NewView(1, (leave(9, 1, stable=certificate(CHAIN[1])).signed,), ()),
        ):
            assert [type(effect) for effect in one.step(said(stranger, ours))] == [Reject], ours
        for others in (
            Commit(0, BASE, digest),
            Commit(0, beyond, digest),
            Status(0, False, beyond - 1, beyond),
            leave(9).body,
            NewView(1, (leave(9).signed,), ()),
        ):
            assert [type(effect) for effect in one.step(said(stranger, others))] == [Ignore], others


def test_a_strangers_word_that_is_not_for_consensus_raises_nothing() -> None:
    word = Report(bytes(32), 0, 0, (), (), ())
    assert [type(effect) for effect in new_replica(2).step(said(9, word))] == [Ignore]
    assert [type(effect) for effect in new_replica(2).step(said(3, word))] == [Reject]


def test_once_the_end_is_known_what_lies_beyond_is_others_and_what_does_not_is_ours() -> None:
    one = old_replica(1, ends=3)
    digest = batch_digest(A)
    assert [type(effect) for effect in one.step(said(4, Commit(0, 4, digest)))] == [Ignore]
    assert [type(effect) for effect in one.step(said(4, Commit(0, 3, digest)))] == [Reject]


def test_the_first_order_of_the_next_era_is_untimely_to_who_is_behind() -> None:
    """n1 is no primary of the old view 0, and is of the new one."""
    one = old_replica(2, ends=BASE, executed=BASE)
    assert [type(effect) for effect in one.step(said(1, PrePrepare(0, 3, batch_digest(A))))] == [Ignore]


def test_what_view_changes_of_later_validators_show_need_not_be_told_from_lies() -> None:
    """Their certificates are signed by those whom we do not know."""
    far = Header(NETWORK, 1, 40, bytes(32), bytes(32), bytes(32), bytes(32), bytes(32), bytes(32))
    change = leave(2, 1, stable=certificate(far, by=(2, 3, 4)))
    one = old_replica(1, ends=None)
    assert [type(effect) for effect in one.step(Received(change))] == [Ignore]
    view = said(2, NewView(1, (change.signed,), ()))
    assert [type(effect) for effect in one.step(view)] == [Ignore]
    near = leave(2, 1, stable=certificate(CHAIN[1], by=(2, 3, 4)))
    assert [type(effect) for effect in one.step(Received(near))] == [Reject]


@pytest.mark.parametrize("peer", [0, 1])
def test_whoever_is_behind_by_an_era_is_shown_its_end_and_no_views(peer: int) -> None:
    """n0 has no seat any more; n1 has one, and does not know it."""
    one = new_replica(2)
    one.step(said(3, ViewChange(1, BASE, (certificate(CHAIN[1]),), ())))
    one.step(said(4, ViewChange(1, BASE, (certificate(CHAIN[1]),), ())))  # so that it has a view to show
    one.step(Ticked())
    effects = one.step(said(peer, Status(0, True, 1, 1)))
    assert effects == [Send(signer(peer).key, certificate(CHAIN[1]))]


# Whole networks


def changed(cluster: Cluster) -> bool:
    """Whether every honest member that is up has turned to the newest set that was agreed on."""
    return all(one.group.base == cluster.changes[-1].height for one in cluster.honest() if one.up)


def turn(cluster: Cluster, *indices: int, ticks: int = 2_000) -> None:
    """Give the seats to these, and wait until everybody has turned."""
    count = len(cluster.changes)
    cluster.request(seats(*indices) + b" %d" % count)
    cluster.run_until(lambda: len(cluster.changes) > count and changed(cluster), ticks, "every member has turned")


def test_validators_join_leave_and_rotate_while_operations_go_on() -> None:
    cluster = Cluster(1, 1, spare=5)
    sets = [(0, 1), (0, 1, 2), (0, 1, 2, 3), (4, 1, 2, 3), (4, 1, 2, 3, 5), (4, 2, 3, 5), (2, 3, 5), (3, 5), (5,), (0,)]
    for number, indices in enumerate(sets):
        for each in range(3):
            cluster.request(b"operation %d of %d" % (each, number))
        turn(cluster, *indices)
        assert {cluster.index(one.signer.key) for one in cluster.members if one.seat is not None} == set(indices)
    cluster.request(b"after all")
    cluster.settle()
    assert [cluster.index(change.keys[0]) for change in cluster.changes] == [one[0] for one in sets]
    executed = [one for batch in cluster.members[0].batches for one in operations_of(batch)]
    assert len(executed) == len(set(executed)) == len(cluster.open)


def test_an_idle_network_comes_to_the_end_and_orders_nothing_beyond() -> None:
    cluster = Cluster(4, 1, spare=1)
    turn(cluster, *NEW)
    cluster.run(300)
    (change,) = cluster.changes
    assert change.height == change.agreed + cluster.window
    assert {one.height for one in cluster.members} == {change.height}
    assert cluster.members[1].batches[change.agreed :] == [NULL] * cluster.window


def test_every_era_begins_in_view_0_whatever_the_view_before() -> None:
    cluster = Cluster(4, 1, spare=1, liars={0: mute_as_primary})
    turn(cluster, *OLD)
    assert len(cluster.enters(1)) == 1  # the mute n0 is primary of view 0
    turn(cluster, *NEW)
    assert [cluster.members[index].replica.view for index in NEW] == [0, 0, 0, 0]


def fill_nothing(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Orders operations, and nothing to come to an end."""
    message = cluster.verified(said.signed)
    return [] if message is not None and said.batch == NULL and isinstance(message.body, PrePrepare) else [said]


def test_a_primary_that_does_not_come_to_the_end_is_replaced() -> None:
    cluster = Cluster(4, 1, spare=1, liars={0: fill_nothing})
    turn(cluster, *NEW)
    assert [one.view for one in cluster.enters(1)] == [1]


def order_beyond(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """As soon as an end is known, orders what lies beyond it as well, and agrees to it and commits it, alone."""
    message = cluster.verified(said.signed)
    if not cluster.changes or message is None or not isinstance(message.body, PrePrepare):
        return [said]
    seq, digest = cluster.changes[-1].height + 1, batch_digest(A)
    order = member.signer.sign(PrePrepare(message.body.view, seq, digest))
    words = [Prepare(message.body.view, seq, digest, order.signature), Commit(message.body.view, seq, digest)]
    return [said, Said(order, A), *(Said(member.signer.sign(one), None) for one in words)]


def test_a_primary_that_orders_beyond_the_end_achieves_nothing() -> None:
    cluster = Cluster(4, 1, spare=1, liars={0: order_beyond})
    turn(cluster, *NEW)
    assert cluster.group_at(cluster.changes[0].height + 1).keys == keys(*NEW)
    assert all(one.height == cluster.changes[0].height for one in cluster.honest())
    assert not cluster.enters(1)


def replay(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Says with everything some of what anybody has ever said to leave or begin a view."""
    kinds = (ViewChange, NewView, Status)
    old = [one for one in cluster.heard if isinstance(getattr(cluster.verified(one.signed), "body", None), kinds)]
    return [said, *(cluster.chance.choice(old) for _ in range(3) if old)]


def test_views_of_one_era_replayed_in_the_next_move_nobody() -> None:
    cluster = Cluster(4, 1, spare=1, liars={1: replay})
    cluster.crash(0)
    cluster.request(b"operation")
    cluster.settle()
    assert len(cluster.enters(2)) > 0
    cluster.restart(0)
    turn(cluster, *NEW)
    entered = len(cluster.enters(2))
    for number in range(10):
        cluster.request(b"later %d" % number)
    cluster.settle()
    assert len(cluster.enters(2)) == entered


def recall_another_era(cluster: Cluster, member: Member, to: int, said: Said) -> Iterable[Said]:
    """Shows who starts what it said of a view of the first era, and says nothing else once others decide."""
    message = cluster.verified(said.signed)
    assert message is not None
    if not cluster.changes:
        return [said]
    if not isinstance(message.body, Recollected):
        return [said] if member.height < cluster.changes[0].height + 2 else []
    words = [one.signed for one in cluster.heard if one.signed.key == message.body.asker]
    left = [one for one in words if isinstance(getattr(cluster.verified(one), "body", None), ViewChange)]
    return [Said(member.signer.sign(replace(message.body, votes=tuple(left[:1]))), None)]


def test_a_liar_that_recalls_views_of_the_first_era_stops_nobody_who_starts_in_the_next() -> None:
    cluster = Cluster(4, 1, liars={3: recall_another_era})
    cluster.crash(0)
    cluster.request(b"operation")
    cluster.settle()  # all have left a view at height 0
    cluster.restart(0)
    turn(cluster, 1, 2, 0, 3)
    for number in range(2):
        cluster.request(b"later %d" % number)
        cluster.settle()
    cluster.crash(1)
    cluster.restart(1)
    cluster.request(b"with n3 mute, all others are needed")
    cluster.settle()
    assert cluster.members[1].journal.silent_until == 0


@pytest.mark.parametrize("away", [0, 1, 4])
def test_who_was_away_while_the_set_changed_follows_into_it(away: int) -> None:
    """n0 leaves, n1 stays, n4 joins; the others are a quorum of either set."""
    cluster = Cluster(4, away, spare=1)
    cluster.request(b"operation")
    cluster.settle()
    cluster.cut = lambda sender, to: away in (sender, to)
    cluster.request(seats(*NEW))
    cluster.request(b"another")
    others = [one for one in cluster.members if one.index != away]
    cluster.run_until(lambda: all(one.group.keys == keys(*NEW) for one in others), 2_000, "the others have turned")
    cluster.request(b"a third")
    cluster.run(200)
    cluster.heal()
    cluster.run_until(lambda: changed(cluster), 500, "it has turned")
    cluster.settle()


def test_who_was_away_for_three_eras_follows_through_all_of_them() -> None:
    cluster = Cluster(4, 3, spare=4)
    cluster.cut = lambda sender, to: 0 in (sender, to)
    wanted = [(0, 1, 2, 4), (5, 1, 2, 4), (5, 6, 2, 4), (5, 6, 0, 4)]
    for number, indices in enumerate(wanted):
        cluster.request(seats(*indices) + b" %d" % number)
        others = cluster.members[1:]
        cluster.run_until(lambda: all(one.group.keys == keys(*indices) for one in others), 3_000, "turned")  # noqa: B023  # run here
    cluster.request(b"at last")
    cluster.heal()
    cluster.run_until(lambda: changed(cluster), 1_000, "it has turned")
    cluster.settle()
    assert cluster.members[0].seat is not None


def run(seed: int, crashes: Mapping[int, int]) -> Cluster:
    """Join, then rotate, with operations between; each of `crashes` loses power at that boundary of a write."""
    cluster = Cluster(4, seed, spare=2, window=3, patience=30)
    for index, boundary in crashes.items():
        cluster.members[index].crash_at = boundary
    for operation in (b"one", seats(0, 1, 2, 3, 4), b"two", seats(5, 1, 2, 3, 4) + b" 2", b"three"):
        cluster.request(operation)
        cluster.run(12)
    for _ in range(40):
        cluster.run(5)
        for member in cluster.members:
            if not member.up:
                cluster.restart(member.index)
        if cluster.settled() and len(cluster.changes) == 2 and changed(cluster):
            break
    cluster.heal()
    cluster.request(b"after healing")
    cluster.settle()
    turn(cluster, 5, 1, 2, 3)
    return cluster


QUICK, ALL = 11, pytest.param(1, marks=pytest.mark.slow)  # every so many boundaries; 11 has no part in a vote's pattern


@pytest.mark.parametrize("stride", [QUICK, ALL])
@pytest.mark.parametrize("who", [0, 1, 4, 5])
def test_the_power_may_go_at_every_boundary_of_a_write_around_a_change(who: int, stride: int) -> None:
    """n0 leaves, n1 stays, n4 joins and leaves, n5 joins."""
    total = run(who, {}).members[who].boundaries
    assert total > 20
    for boundary in range(1, total + 1, stride):
        run(who, {who: boundary})


@pytest.mark.parametrize("stride", [QUICK, ALL])
def test_the_power_may_go_everywhere_at_once_around_a_change(stride: int) -> None:
    total = run(9, {}).members[1].boundaries
    for boundary in range(1, total + 1, stride):
        run(9, dict.fromkeys(range(6), boundary))


def drawn(chance: Random, old: tuple[int, ...], spare: list[int], faulty: set[int]) -> tuple[int, ...]:
    """Another set, with at most max(1, f) seats that differ and at most f of the new set faulty."""
    while True:
        new = list(old)
        for _ in range(chance.randint(1, max(1, (len(old) - 1) // 3))):
            kind = chance.choice(["join", "leave", "rotate", "rotate"])
            free = [one for one in spare if one not in new and one not in old]
            if kind == "leave" and len(new) > 1:
                new.remove(chance.choice(new))
            elif kind == "join" and free:
                new.append(chance.choice(free))
            elif free:
                new[chance.randrange(len(new))] = chance.choice(free)
        if len(faulty & set(new)) <= (len(new) - 1) // 3:
            return tuple(new)


def troubled(seed: int) -> Cluster:
    """A network whose validators change in the middle of trouble, drawn from the seed."""
    chance = Random(seed)
    size = chance.choice([1, 2, 4, 4, 5, 7])
    every = list(range(size + 3))
    liars: dict[int, Lie] = {}
    if size >= 4:
        liars = {index: any_lie(chance) for index in chance.sample(every[:size], (size - 1) // 3)}
    cluster = Cluster(
        size,
        seed,
        spare=3,
        liars=liars,
        patience=chance.choice([30, 60]),
        window=chance.choice([2, 4, 8]),
        delay=(0, chance.choice([1, 3])),
        judging=(0, chance.choice([0, 5])),
    )
    cluster.loss = chance.choice([0.0, 0.05, 0.2])
    cluster.twice = chance.choice([0.0, 0.2])
    for asked in range(400):
        cluster.run(1)
        if chance.random() < 0.05:
            cluster.request(b"operation %d" % asked)
        pending = sum(one.startswith(b"seats") for one in cluster.open) - len(cluster.changes)
        if chance.random() < 0.03 and not pending and not any(one.change for one in cluster.members):
            now = tuple(map(cluster.index, cluster.keys_at(2**40)))
            cluster.request(seats(*drawn(chance, now, every, set(liars))) + b" %d" % asked)
        if chance.random() < 0.01:
            side = set(chance.sample(every, chance.randint(0, size // 2)))
            cluster.cut = lambda sender, to, side=side: (sender in side) != (to in side)  # type: ignore[misc]  # lambda with defaults
        if chance.random() < 0.03:
            member = cluster.members[chance.randrange(len(every))]
            if member.up:
                member.crash_at = member.boundaries + chance.randint(1, 20)
        for member in cluster.members:
            if not member.up and chance.random() < 0.05:
                cluster.restart(member.index)
    return cluster


@pytest.mark.parametrize("first", [0, 10, *(pytest.param(one, marks=pytest.mark.slow) for one in range(20, 100, 10))])
def test_after_any_trouble_with_any_changes_the_honest_agree_and_make_progress(first: int) -> None:
    for seed in range(first, first + 10):
        cluster = troubled(seed)
        cluster.heal()
        cluster.request(b"after healing")
        cluster.settle(6_000)
        cluster.run_until(lambda: not cluster.changes or changed(cluster), 3_000, "every member has turned")  # noqa: B023  # run here
