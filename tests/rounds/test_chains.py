"""Our hash chains are the same again after a restart, nobody else's, and published anew in time."""

from __future__ import annotations

from potd.rounds.chains import MARGIN_ROUNDS, SPREAD_ROUNDS, Chained, Chains
from potd.wire.audits import CHAIN_AHEAD_ROUNDS, CHAIN_RENEW_ROUNDS, CHAIN_ROUNDS, Chain, hashed
from potd.wire.envelope import Signer
from potd.wire.ids import account_id, digest

NETWORK = digest("network")
SIGNER = Signer(bytes([1]) * 32, NETWORK)
OTHER = Signer(bytes([2]) * 32, NETWORK)
ACCOUNT = account_id(SIGNER.key)
TASK = digest("task")


def chains(signer: Signer = SIGNER) -> Chains:
    return Chains(signer, ACCOUNT, TASK)


def taken(chain: Chain) -> Chained:
    """What the ledger has of it when it has been published."""
    return Chained(chain.begins, chain.begins - 1, chain.seeds, chain.begins - 1, chain.lots)


def published(number: int = 3) -> Chained:
    chain = chains().due(number, None)
    assert chain is not None
    return taken(chain)


def test_a_link_hashed_as_often_as_its_round_is_after_the_beginning_is_the_tip() -> None:
    known = published()
    for number in (known.begins, known.begins + 5, known.begins + CHAIN_ROUNDS - 1):
        seed, lot = chains().seed(known, number), chains().lot(known, number)
        assert seed is not None
        assert lot is not None
        assert hashed(seed, number - known.begins + 1) == known.seeds
        assert hashed(lot, number - known.begins + 1) == known.lots


def test_a_chain_has_no_link_before_it_begins_nor_after_its_end() -> None:
    known = published()
    for number in (known.begins - 1, known.begins + CHAIN_ROUNDS):
        assert chains().seed(known, number) is None
        assert chains().lot(known, number) is None
    assert chains().seed(None, known.begins) is None


def test_a_chain_begins_late_enough_that_its_seeds_are_unknown_and_is_asked_for_once() -> None:
    ours = chains()
    first = ours.due(3, None)
    assert first is not None
    assert first.begins == 3 + CHAIN_AHEAD_ROUNDS + MARGIN_ROUNDS
    assert [ours.due(number, None) for number in range(3, 4 + MARGIN_ROUNDS)] == [None] * (1 + MARGIN_ROUNDS)
    again = ours.due(4 + MARGIN_ROUNDS, None)
    assert again is not None, "too late for the first to be taken"
    assert again.begins > first.begins


def test_a_chain_is_the_same_after_a_restart_and_the_two_differ() -> None:
    assert chains().due(3, None) == chains().due(3, None)
    known = published()
    assert known.seeds != known.lots


def test_a_chain_gives_way_to_the_next_before_it_ends() -> None:
    known = published()
    last = renewed(chains(), known)
    left = known.begins + CHAIN_ROUNDS - (last + 1)
    assert CHAIN_RENEW_ROUNDS - SPREAD_ROUNDS < left <= CHAIN_RENEW_ROUNDS
    assert chains().due(last, known) is None
    assert chains().due(last + 1, known) is not None


def renewed(ours: Chains, known: Chained) -> int:
    """The last round in which this pair will do."""
    return next(number for number in range(known.begins, known.begins + CHAIN_ROUNDS) if ours.due(number + 1, known))


def test_validators_whose_chains_began_together_do_not_change_them_together() -> None:
    """Who changes its pair draws nothing for a while; if all did, a miner would know when nobody looks."""
    rounds = []
    for index in range(30):
        signer = Signer(bytes([index]) * 32, NETWORK)
        ours = Chains(signer, account_id(signer.key), TASK)
        chain = ours.due(0, None)
        assert chain is not None
        rounds.append(renewed(ours, taken(chain)))
    assert max(sum(first <= one < first + 16 for one in rounds) for first in rounds) <= len(rounds) // 5


def test_links_that_the_ledger_has_seen_since_leave_the_chain_ours() -> None:
    known = published()
    seed, lot = chains().seed(known, known.begins + 7), chains().lot(known, known.begins + 4)
    assert seed is not None
    assert lot is not None
    later = Chained(known.begins, known.begins + 7, seed, known.begins + 4, lot)
    assert chains().due(20, later) is None
    assert chains().lot(later, known.begins + 2) == chains().lot(known, known.begins + 2)


def test_after_a_change_of_keys_the_old_chain_is_not_ours_and_a_new_one_is_due() -> None:
    known = published()
    assert chains(OTHER).lot(known, known.begins) is None
    assert chains(OTHER).seed(known, known.begins) is None
    assert chains(OTHER).due(known.begins, known) is not None
