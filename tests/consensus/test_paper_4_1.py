"""The paper's claims of section 4.1, the client, and what holds here instead: there are no clients with replies.

An account's nonce stands for the timestamp, a certificate for f + 1 equal replies, and a receipt for the reply. That a
backup relays to the primary what it was asked for, and that whoever was asked says it again, is in
tests/node/test_operations.py: the replica itself knows of no operations.
"""

from __future__ import annotations

import pytest

from potd.consensus.quorum import certificate_fault
from potd.wire.blocks import Header
from tests.consensus.cluster import Cluster, group, headers, operations_of, signer
from tests.consensus.liars import equivocate, mute_as_primary
from tests.consensus.parts import A, certificate
from tests.ledger.world import World


def test_an_operation_is_executed_once_however_often_it_is_ordered() -> None:
    """4.1: timestamps ensure exactly-once semantics. Here it is the account's nonce."""
    world = World()
    operation = world.transfer(5, world.ids[6], 7)
    before = world.account(6).balance_micro
    first, again = world.reasons(operation, operation)
    (later,) = world.reasons(operation)
    assert first == ""
    assert "nonce" in again
    assert "nonce" in later
    assert world.account(6).balance_micro == before + 7


def test_operations_of_one_account_are_executed_in_the_order_in_which_they_were_made() -> None:
    """4.1: timestamps of later requests are higher than those of earlier ones."""
    world = World()
    first, second = (world.transfer(5, world.ids[6], 7, nonce=nonce) for nonce in (0, 1))
    assert "nonce" in world.reasons(second)[0]
    assert world.reasons(first, second) == ["", ""]


@pytest.mark.parametrize("size", [4, 5, 6, 7, 10])
def test_a_result_is_believed_on_the_signatures_of_a_quorum(size: int) -> None:
    """4.1: f + 1 equal replies. Here a quorum's signatures over the header: worth as much to whoever hears it late."""
    members = group(size)
    (header,) = headers(A)
    by = tuple(range(members.quorum))
    assert certificate_fault(certificate(header, by), members) == ""
    assert f"of {members.quorum}" in certificate_fault(certificate(header, by[1:]), members)
    assert f"of {members.quorum}" in certificate_fault(certificate(header, by[: members.some_honest]), members)


def test_one_signature_given_twice_is_one() -> None:
    """4.1: replies from different replicas."""
    (header,) = headers(A)
    assert isinstance(header, Header)
    assert "twice" in certificate_fault(certificate(header, by=(0, 1, 1)), group(4))


def test_a_request_that_the_primary_does_not_order_costs_it_its_view_and_is_executed() -> None:
    """4.1: the primary will eventually be suspected to be faulty by enough replicas to cause a view change."""
    cluster = Cluster(4, liars={0: mute_as_primary})
    cluster.request(b"operation")
    cluster.settle()
    assert {one.replica.primary for one in cluster.honest()} == {signer(1).key}


@pytest.mark.parametrize("lie", [mute_as_primary, equivocate])
def test_a_request_that_every_replica_has_heard_is_executed_once_over_all_views(lie: object) -> None:
    """4.1: the client broadcasts the request to all replicas; each executes it once."""
    cluster = Cluster(4, liars={0: mute_as_primary if lie is mute_as_primary else equivocate})
    for number in range(6):
        cluster.request(b"operation %d" % number)
        cluster.run(3)
    cluster.settle()
    for member in cluster.honest():
        executed = [one for batch in member.batches for one in operations_of(batch) if one.startswith(b"operation")]
        assert sorted(executed) == sorted(cluster.open)
