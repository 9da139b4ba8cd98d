"""Audits: what validators promise, find and rule about contributions, and the hash chains behind their draws.

A validator has two hash chains for each task, whose tips it publishes before the rounds that they are for. The links
of one go into the seeds of rounds, those of the other draw which contributions it replays: nobody else knows that
before it tells, and everybody can check it afterwards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated

from potd.wire.codec import U8, U63, Size, encode, message
from potd.wire.ids import AccountId, Digest, TaskId, digest
from potd.wire.rounds import MINERS_MAX, Outcome

CHAIN_ROUNDS = 1024  # for which one pair of chains is good
CHAIN_RENEW_ROUNDS = 576  # with so many rounds left or fewer, a pair may give way to the next
CHAIN_AHEAD_ROUNDS = 2  # a chain counts from so many rounds after it was published on: their seeds are unknown then
PROBATION_PPM = 500_000  # of the contributions of miners on probation, that the honest validators replay
PPM = 1_000_000


class Status(IntEnum):
    """What an auditor says of a contribution."""

    GOOD = 0
    BAD = 1
    UNABLE = 2  # the replay could not be made


@message(130)
@dataclass(frozen=True)
class Chain:
    """A validator publishes the tips of its two hash chains for a task. They begin at round `begins`.

    The link of round r, hashed r - begins + 1 times, is the tip."""

    account: AccountId
    nonce: U63
    task: TaskId
    begins: U63
    seeds: Digest  # the tip of the chain whose links go into the seeds of rounds
    lots: Digest  # the tip of the chain whose links draw contributions to replay


@message(131)
@dataclass(frozen=True)
class Promise:
    """An auditor binds itself to what it has found in a round, before it can see what others have found."""

    account: AccountId
    nonce: U63
    task: TaskId
    round: U63
    findings: Digest  # `promised`


@message(132)
@dataclass(frozen=True, order=True)
class Finding:
    """What a replay has shown of one contribution."""

    miner: AccountId
    status: U8  # Status
    distance_nano: U63  # L2 norm of the excess, in billionths of the task's norm; 0 if UNABLE


@message(133)
@dataclass(frozen=True)
class Verdict:
    """What an auditor has promised: what it found of exactly those contributions that its link draws."""

    account: AccountId
    nonce: U63
    task: TaskId
    round: U63
    link: Digest  # of the chain of lots, for this round
    salt: Digest
    findings: Annotated[tuple[Finding, ...], Size(1, MINERS_MAX)]  # by miner


@message(134)
@dataclass(frozen=True)
class Ruling:
    """A validator's own replay of a contribution that a verdict calls bad."""

    account: AccountId
    nonce: U63
    task: TaskId
    round: U63
    finding: Finding  # GOOD or BAD


Audit = Chain | Promise | Verdict | Ruling


def promised(account: AccountId, task: TaskId, number: int, salt: Digest, findings: Sequence[Finding]) -> Digest:
    """What a promise binds an auditor to."""
    return digest("promise", account, task, number.to_bytes(8, "big"), salt, *(encode(one) for one in findings))


# Hash chains


def hashed(link: Digest, times: int) -> Digest:
    """The link that comes so many rounds before this one; once more than those, the tip."""
    for _ in range(times):
        link = digest("link", link)
    return link


# The lottery


@lru_cache(256)
def lot_ppm(audit_ppm: int, validators: int) -> int:
    """With what chance each validator draws a contribution, in millionths: the least with which one of the honest at
    least, of whom there are n - f, draws it with `audit_ppm`."""
    honest = validators - (validators - 1) // 3
    return bisect_left(range(PPM), -(PPM - audit_ppm) * PPM ** (honest - 1), key=lambda one: -((PPM - one) ** honest))


def is_drawn(link: Digest, seed: Digest, miner: AccountId, ppm: int) -> bool:
    """Whether a link draws the contribution of a miner. `seed` is that of the round, unknown when the chain was
    published."""
    number = int.from_bytes(digest("lot", link, seed, miner)[:8], "big")
    return number * PPM < ppm << 64  # as fractions of 2^64 and of a million


def drawn(
    link: Digest,
    seed: Digest,
    contributions: Iterable[tuple[AccountId, int]],  # miner and outcome, by miner
    own: AccountId,
    audit_ppm: int,
    validators: int,
) -> tuple[AccountId, ...]:
    """The miners whose contributions to a round its link has a validator replay, in order; never its own account's."""
    chance = {
        Outcome.COUNTED.value: lot_ppm(audit_ppm, validators),
        Outcome.PROBATION.value: lot_ppm(PROBATION_PPM, validators) if audit_ppm else 0,
    }
    return tuple(
        miner
        for miner, outcome in contributions
        if miner != own and outcome in chance and is_drawn(link, seed, miner, chance[outcome])
    )
