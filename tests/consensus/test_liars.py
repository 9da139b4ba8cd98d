"""Members with their own keys and no others: whatever they send, the honest agree, and go on without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from potd.consensus.events import Suspect
from tests.consensus import liars
from tests.consensus.cluster import BAD as BAD_OPERATION
from tests.consensus.cluster import ELSEWHERE, Cluster, Lie, Said, operations_of, signer
from tests.consensus.parts import A, order

LIES: list[Lie] = [
    liars.mute,
    liars.mute_as_primary,
    liars.equivocate,
    liars.order_bad_batches,
    liars.withhold_batches,
    liars.sign_in_two_ways,
    liars.order_to_one,
    liars.forge_view_changes,
    liars.begin_with_nothing,
    liars.do_anything,
]


def told(cluster: Cluster) -> Cluster:
    """Some operations, one after the other, all of them executed."""
    for number in range(8):
        cluster.request(b"operation %d" % number)
        cluster.run(4)
    cluster.settle()
    return cluster


@pytest.mark.parametrize("size", [4, 6, 7])
@pytest.mark.parametrize("lie", LIES)
def test_with_f_liars_among_them_the_honest_agree_and_go_on(lie: Lie, size: int) -> None:
    """4.1: the first primaries are the liars, so that every lie is told."""
    told(Cluster(size, 1, liars=dict.fromkeys(range((size - 1) // 3), lie)))


def test_an_equivocating_primary_is_accused_by_its_own_two_signatures_and_replaced() -> None:
    cluster = told(Cluster(4, liars={0: liars.equivocate}))
    assert {one.key for one in cluster.accusations} == {signer(0).key}
    for accusation in cluster.accusations:
        bodies = [cluster.verified(one) for one in accusation.evidence]
        assert len({(one.body.view, one.body.seq) for one in bodies if one is not None}) == 1
        assert len({one.body.batch for one in bodies if one is not None}) == 2
    assert {one.replica.view for one in cluster.honest()} == {1}


def test_a_refused_batch_is_never_executed_and_its_primary_is_replaced() -> None:
    cluster = told(Cluster(4, liars={0: liars.order_bad_batches}))
    for member in cluster.honest():
        assert not any(BAD_OPERATION in operations_of(batch) for batch in member.batches)
        assert member.replica.view == 1
    reasons = [one.reason for member in cluster.honest() for one in member.seen if isinstance(one, Suspect)]
    assert any("a bad operation" in one for one in reasons)


@pytest.mark.parametrize("lie", [liars.mute, liars.mute_as_primary, liars.withhold_batches])
def test_a_primary_that_orders_nothing_usable_is_replaced(lie: Lie) -> None:
    cluster = told(Cluster(4, liars={0: lie}))
    assert {one.replica.view for one in cluster.honest()} == {1}


def test_a_second_signature_made_by_hand_is_valid_and_differs() -> None:
    """Else the lie of signing in two ways would test nothing."""
    odd = liars.sign_with_nonce(0, order(A).body, 5)
    cluster = Cluster(4)
    assert cluster.verified(odd) is not None
    assert odd.signature != order(A).signed.signature


def _foreign(cluster: Cluster, index: int, said: Said) -> Said:
    message = cluster.verified(said.signed)
    assert message is not None
    return Said(signer(index, ELSEWHERE).sign(message.body), said.batch)


@pytest.mark.parametrize(
    "twist",
    [
        lambda cluster, said: [said, *cluster.chance.sample(cluster.heard, min(3, len(cluster.heard)))],
        lambda cluster, said: [_foreign(cluster, 3, said)],
        lambda cluster, said: [said, *cluster.heard[:2]],
    ],
)
def test_replays_from_other_views_heights_and_networks_move_nothing(
    twist: Callable[[Cluster, Said], list[Said]],
) -> None:
    cluster = told(Cluster(4, 2, liars={3: lambda cluster, member, to, said: twist(cluster, said)}))
    assert {one.replica.view for one in cluster.honest()} == {0}
    assert not cluster.accusations
