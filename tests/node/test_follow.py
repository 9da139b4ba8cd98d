"""Who is behind asks for blocks, one peer at a time; no peer can hold it up for long."""

from __future__ import annotations

from random import Random

from potd.node.follow import PATIENCE_TICKS, Follower

HONEST, SECOND, LIAR = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32


def ticks(follower: Follower, height: int, count: int) -> list[bytes]:
    asked = [follower.tick(height) for _ in range(count)]
    return [one for one in asked if one is not None]


def test_who_is_level_asks_nobody() -> None:
    follower = Follower(0)
    follower.up(HONEST, 5)
    assert ticks(follower, 5, 200) == []


def test_a_validator_waits_a_little_before_it_asks() -> None:
    follower = Follower(10)
    follower.up(HONEST, 6)
    assert ticks(follower, 5, 10) == []
    assert ticks(follower, 5, 1) == [HONEST]
    follower.answered(HONEST, 1)
    follower.progressed()
    assert ticks(follower, 5, 10) == []


def test_a_claim_is_asked_of_whoever_makes_it() -> None:
    follower = Follower(0)
    follower.up(HONEST, 2)
    follower.up(SECOND, 9)
    assert ticks(follower, 5, 1) == [SECOND]
    assert ticks(follower, 5, PATIENCE_TICKS - 1) == []


def test_a_claim_with_nothing_behind_it_is_forgotten() -> None:
    follower = Follower(0)
    follower.up(LIAR, 10**9)
    assert ticks(follower, 5, 1) == [LIAR]
    follower.answered(LIAR, 0)
    assert ticks(follower, 5, 200) == []


def test_a_peer_that_claims_much_and_never_answers_keeps_nobody_from_the_others() -> None:
    """What is certified, any peer may have: also those that said less when they connected."""
    follower = Follower(0)
    follower.up(HONEST, 5)
    follower.up(SECOND, 5)
    follower.up(LIAR, 10**9)
    follower.seen(8)
    assert HONEST in ticks(follower, 5, 2 * PATIENCE_TICKS + 2)


def test_a_silent_claimer_is_believed_once() -> None:
    follower = Follower(0)
    follower.up(LIAR, 10**9)
    assert ticks(follower, 5, 10 * PATIENCE_TICKS) == [LIAR]


def test_an_answer_that_comes_after_its_peer_has_gone_brings_nobody_back() -> None:
    follower = Follower(0)
    follower.up(HONEST, 9)
    assert ticks(follower, 5, 1) == [HONEST]
    follower.down(HONEST)
    follower.answered(HONEST, 0)
    follower.seen(9)
    assert ticks(follower, 5, 200) == []


def test_who_goes_is_not_waited_for() -> None:
    follower = Follower(0)
    follower.up(HONEST, 9)
    follower.up(SECOND, 9)
    (first,) = ticks(follower, 5, 1)
    follower.down(first)
    (second,) = ticks(follower, 5, 1)
    assert {first, second} == {HONEST, SECOND}


def test_the_highest_claim_counts_whoever_comes_goes_or_shows_nothing() -> None:
    follower, chance = Follower(0), Random(0)
    claims: dict[bytes, int] = {}
    for _ in range(2_000):
        peer, height = chance.choice((HONEST, SECOND, LIAR)), chance.randrange(6)
        match chance.randrange(4):
            case 0:
                follower.up(peer, height)
                claims[peer] = height
            case 1:
                follower.down(peer)
                claims.pop(peer, None)
            case 2 if peer in claims:
                follower.hinted(peer, height)
                claims[peer] = max(claims[peer], height)
            case _:
                follower.answered(peer, 0)
                claims |= {peer: 0} if peer in claims else {}
        assert follower.target() == max(claims.values(), default=0)
