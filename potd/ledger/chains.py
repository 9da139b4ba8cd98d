"""Validators' hash chains: published, and moved on link by link. Knows nothing of what a link decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from potd.ledger.entries import Chains, Phase, Task, chains_key
from potd.ledger.working import Working
from potd.wire.audits import CHAIN_AHEAD_ROUNDS, CHAIN_RENEW_ROUNDS, CHAIN_ROUNDS, Chain, hashed
from potd.wire.ids import AccountId, Digest, TaskId, short
from potd.wire.rounds import Report

CHAIN_LATEST_ROUNDS = 8  # a chain begins no later than so many rounds after it was published


def publish(work: Working, operation: Chain) -> str:
    """The tips of a new pair, which takes the place of the present one at once."""
    task = work.task(operation.task)
    if task is None:
        return f"there is no task {short(operation.task)}"
    if task.phase == Phase.DONE:
        return f"task {short(task.id)} is done"
    first, last = task.round + CHAIN_AHEAD_ROUNDS, task.round + CHAIN_LATEST_ROUNDS
    if not first <= operation.begins <= last:
        return f"chains from round {operation.begins} on, not from one of {first} to {last}"
    known = work.chains(task.id, operation.account)
    key = next(seat.key for seat in work.seats if seat.account == operation.account)
    if known is not None and known.key == key and task.round + CHAIN_RENEW_ROUNDS < known.begins + CHAIN_ROUNDS:
        return f"its chains go on to round {known.begins + CHAIN_ROUNDS - 1}"
    before = operation.begins - 1
    entry = Chains(key, operation.begins, before, operation.seeds, before, operation.lots)
    work.put(chains_key(task.id, operation.account), entry)
    return ""


def named_links(work: Working, task: Task, reports: Sequence[Report]) -> dict[AccountId, Digest]:
    """The links for this round that f + 1 of the reports name and that are what they should be, by validator. The
    ledger knows them from now on."""
    named: dict[tuple[AccountId, Digest], int] = {}
    for report in reports:
        for one in sorted({(link.subject, link.digest) for link in report.links}):
            named[one] = named.get(one, 0) + 1
    seated = {seat.account for seat in work.seats}
    taken: dict[AccountId, Digest] = {}
    for (account, link), reporters in sorted(named.items()):
        chains = work.chains(task.id, account) if account in seated else None
        if reporters < work.some_honest or chains is None or not has_link(chains, task.round):
            continue
        if hashed(link, task.round - chains.seeds_round) == chains.seeds:
            work.put(chains_key(task.id, account), replace(chains, seeds_round=task.round, seeds=link))
            taken[account] = link
    return taken


def has_link(chains: Chains, number: int) -> bool:
    """Whether there is a link for this round."""
    return chains.begins <= number < chains.begins + CHAIN_ROUNDS


def is_lot(chains: Chains, number: int, link: Digest) -> bool:
    """Whether this is the link that draws what is replayed of a round. Older links follow from the newest one."""
    if not has_link(chains, number):
        return False
    if number > chains.lots_round:
        return hashed(link, number - chains.lots_round) == chains.lots
    return hashed(chains.lots, chains.lots_round - number) == link


def lot_told(work: Working, task: TaskId, account: AccountId, number: int, link: Digest) -> None:
    """The newest link is remembered, so that others are near to it."""
    chains = work.chains(task, account)
    assert chains is not None and is_lot(chains, number, link), "a link that was not checked"
    if number > chains.lots_round:
        work.put(chains_key(task, account), replace(chains, lots_round=number, lots=link))


def forget(work: Working, account: AccountId) -> None:
    """Who has no seat has no chains."""
    for task in work.task_ids():
        if work.chains(task, account) is not None:
            work.delete(chains_key(task, account))
