"""Links are released once the seal is final and not before, prove themselves, and cost a round next to no time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from potd.rounds.chains import Chained, Chains
from potd.rounds.events import Effect, Share, Tip, View
from potd.rounds.validator import LINK_TICKS, SAY_AGAIN_TICKS, Validator
from potd.wire.audits import CHAIN_ROUNDS
from potd.wire.codec import Malformed
from potd.wire.envelope import Verified, verify
from potd.wire.ids import Digest, digest
from potd.wire.rounds import Link, Named, Report, Step
from tests.rounds.bench import (
    KEYS,
    MINERS,
    NETWORK,
    SIGNERS,
    STRANGER,
    TASK,
    TRAIN,
    Bench,
    commitment,
    model_blobs,
    opened_after,
    revealing,
    update_report,
    why_not,
)
from tests.wire.chains import link_of, tip_of

ALL = [commitment(index) for index in range(4)]
PAYLOADS = tuple(one.body.payload for one in ALL)
BEGINS = 2


def chained(index: int, begins: int = BEGINS) -> Chained:
    """What the ledger has of a validator's chains before any of their links was released."""
    context = TASK, begins.to_bytes(8, "big")
    seeds, lots = (tip_of(SIGNERS[index].derive(f"chain of {name}", *context)) for name in ("seeds", "lots"))
    return Chained(begins, begins - 1, seeds, begins - 1, lots)


def link(index: int, number: int = 3) -> Digest:
    return link_of(SIGNERS[index].derive("chain of seeds", TASK, BEGINS.to_bytes(8, "big")), BEGINS, number)


def released(index: int, number: int = 3, **changes: object) -> Verified[Link]:
    known = changes.pop("link", None) or link(index, number)
    body = Link(TASK, number, MINERS[index], known)  # type: ignore[arg-type]  # a digest
    return SIGNERS[index].verified(replace(body, **changes))  # type: ignore[arg-type]  # fields of a link


def seen(number: int, index: int) -> Chained:
    """What it has once the links of a round were in its update."""
    return replace(chained(index), seeds_round=number, seeds=link(index, number))


def with_chains(view: View, *indices: int) -> View:
    return replace(view, tips=tuple(sorted((Tip(MINERS[at], chained(at)) for at in indices), key=lambda t: t.account)))


OPEN = with_chains(TRAIN, 0, 1, 2, 3)
SEALED = with_chains(revealing(TRAIN, *ALL), 0, 1, 2, 3)


def change(parts: Bench, validator: Validator, view: View) -> list[Effect]:
    return parts.keeper.on_changed(view) + validator.on_changed(view)


def training(view: View = OPEN) -> tuple[Bench, Validator]:
    parts = Bench(0, *model_blobs(TRAIN))
    validator = parts.validator()
    validator.on_entered(0, KEYS[1])
    change(parts, validator, view)
    return parts, validator


def certified(view: View = SEALED) -> tuple[Bench, Validator, list[Effect]]:
    parts, validator = training(replace(view, phase=TRAIN.phase, sealed=()))
    change(parts, validator, view)
    return parts, validator, validator.on_certified()


def ticks(validator: Validator, count: int) -> list[Effect]:
    return [effect for _ in range(count) for effect in validator.on_tick()]


def get_all(parts: Bench, validator: Validator) -> list[Effect]:
    parts.held.update(PAYLOADS)
    return [effect for ref in PAYLOADS for effect in validator.on_fetched(ref)]


def said(effects: list[Effect], kind: type[Link] | type[Report]) -> list[Link | Report]:
    found: list[Link | Report] = []
    for effect in effects:
        if isinstance(effect, Share):
            try:
                found.append(verify(effect.signed, NETWORK, kind).body)
            except Malformed:
                continue
    return found


def reported(effects: list[Effect]) -> Report:
    (report,) = said(effects, Report)
    assert isinstance(report, Report)
    return report


def named(*indices: int, number: int = 3) -> tuple[Named, ...]:
    return tuple(sorted(Named(MINERS[index], link(index, number)) for index in indices))


def test_a_validator_releases_its_link_once_the_seal_is_certified_and_not_before() -> None:
    parts, validator = training()
    assert said(validator.on_certified(), Link) == [], "what is certified is that the round is open"
    effects = change(parts, validator, SEALED) + get_all(parts, validator) + ticks(validator, 2 * SAY_AGAIN_TICKS)
    assert said(effects, Link) == []
    assert said(validator.on_certified(), Link) == [released(0).body]


def test_a_link_is_said_again_while_the_round_is_not_over() -> None:
    _, validator, _ = certified()
    assert said(ticks(validator, SAY_AGAIN_TICKS), Link) == [released(0).body]
    validator.on_changed(opened_after(OPEN, 4))
    assert said(ticks(validator, 2 * SAY_AGAIN_TICKS), Link) == []


@pytest.mark.parametrize(
    "known",
    [
        None,
        chained(0, begins=4),
        chained(1),
    ],
    ids=["none", "one that begins later", "one by another key"],
)
def test_who_has_no_chain_for_the_round_releases_nothing_and_reports_all_the_same(known: Chained | None) -> None:
    tips = (Tip(MINERS[0], known),) if known is not None else ()
    parts, validator, effects = certified(replace(SEALED, tips=tips))
    effects += get_all(parts, validator) + ticks(validator, LINK_TICKS)
    assert said(effects, Link) == []
    assert reported(effects).links == ()


def test_a_chain_that_is_used_up_has_no_more_links_and_nobody_waits_for_them() -> None:
    number = BEGINS + CHAIN_ROUNDS
    later = replace(TRAIN, round=number)
    everybody = [commitment(index, later) for index in range(4)]
    parts, validator, effects = certified(with_chains(revealing(later, *everybody), 0, 1, 2, 3))
    assert why_not(validator.on_link(released(1, number, link=link(1)))) == (
        "untimely: link of a chain that is not known here"
    )
    parts.held.update(one.body.payload for one in everybody)
    for one in everybody:
        effects += validator.on_fetched(one.body.payload)
    assert said(effects, Link) == []
    assert reported(effects).links == ()


def test_a_validator_that_may_not_speak_releases_its_link_when_it_may() -> None:
    parts, validator = training()
    validator.hush()
    change(parts, validator, SEALED)
    assert said(validator.on_certified() + ticks(validator, SAY_AGAIN_TICKS), Link) == []
    assert said(validator.speak(restored=True), Link) == [released(0).body]


def test_a_report_on_payloads_names_the_links_that_are_held_by_subject() -> None:
    parts, validator, _ = certified()
    for index in (3, 1):
        assert validator.on_link(released(index)) == ([], "")
    assert said(get_all(parts, validator), Report) == [], "one is lacking yet"
    effects, reason = validator.on_link(released(2))
    assert reason == ""
    report = reported(effects)
    assert (report.step, report.links) == (Step.UPDATE, named(0, 1, 2, 3))


def test_a_report_waits_for_links_only_a_little() -> None:
    parts, validator, _ = certified()
    validator.on_link(released(1))
    effects = get_all(parts, validator) + ticks(validator, LINK_TICKS - 1)
    assert said(effects, Report) == []
    assert reported(ticks(validator, 1)).links == named(0, 1)


def test_a_link_that_comes_after_the_report_is_not_in_it() -> None:
    parts, validator, _ = certified()
    get_all(parts, validator)
    ticks(validator, LINK_TICKS)
    effects, reason = validator.on_link(released(1))
    assert (said(effects, Report), reason) == ([], "")


def test_links_that_came_while_payloads_were_lacking_are_not_waited_for_twice() -> None:
    parts, validator, _ = certified()
    ticks(validator, 9)
    for index in (1, 2, 3):
        validator.on_link(released(index))
    assert reported(get_all(parts, validator)).links == named(0, 1, 2, 3)


def test_patience_for_payloads_is_longer_by_that_for_links_at_most() -> None:
    _, validator, _ = certified()
    assert said(ticks(validator, 20 + LINK_TICKS - 1), Report) == []
    assert reported(ticks(validator, 1)).held == b"\0"


def after_silence(*silent: int) -> tuple[Bench, Validator, list[Effect]]:
    """In the round after one in which these released nothing, its seal certified and its payloads held."""
    parts, validator, _ = certified()
    loud = [index for index in (1, 2, 3) if index not in silent]
    for index in loud:
        validator.on_link(released(index))
    get_all(parts, validator)
    ticks(validator, LINK_TICKS)
    tips = [Tip(MINERS[at], seen(3, at) if at in (0, *loud) else chained(at)) for at in range(4)]
    later = replace(opened_after(TRAIN, 4), tips=tuple(sorted(tips, key=lambda one: one.account)))
    parts.held.update(model_blobs(later))
    change(parts, validator, later)
    everybody = [commitment(index, later) for index in range(4)]
    change(parts, validator, replace(revealing(later, *everybody), tips=later.tips))
    effects = validator.on_certified()
    for one in everybody:
        parts.held.add(one.body.payload)
        effects += validator.on_fetched(one.body.payload)
    return parts, validator, effects


def test_who_released_nothing_in_the_round_before_is_not_waited_for() -> None:
    """So the dead slow one round, by a little, and not every round."""
    _, validator, effects = after_silence(3)
    assert said(effects, Report) == []
    for index in (1, 2):
        effects += validator.on_link(released(index, 4))[0]
    assert reported(effects).links == named(0, 1, 2, number=4)


def test_who_releases_again_is_waited_for_again() -> None:
    parts, validator, _ = after_silence(3)
    for index in (1, 2, 3):
        validator.on_link(released(index, 4))
    later = opened_after(OPEN, 5)
    parts.held.update(model_blobs(later))
    change(parts, validator, later)
    everybody = [commitment(index, later) for index in range(4)]
    change(parts, validator, with_chains(revealing(later, *everybody), 0, 1, 2, 3))
    validator.on_certified()
    parts.held.update(one.body.payload for one in everybody)
    effects = [effect for one in everybody for effect in validator.on_fetched(one.body.payload)]
    for index in (1, 2):
        effects += validator.on_link(released(index, 5))[0]
    assert said(effects, Report) == []
    assert reported(validator.on_link(released(3, 5))[0]).links == named(0, 1, 2, 3, number=5)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (STRANGER.verified(released(1).body), "untimely: link by somebody who is not a validator now"),
        (released(1, 2), "untimely: link of another round"),
        (released(1, 5), "untimely: link of another round"),
        (released(1, account=digest("nobody")), "untimely: link of a chain that is not known here"),
        (released(1, link=link(1, 4)), "false: link that does not lead to its chain's tip"),
        (released(1, link=link(2)), "false: link that does not lead to its chain's tip"),
        (released(1, account=MINERS[2]), "false: link that does not lead to its chain's tip"),
    ],
)
def test_a_link_that_cannot_count_is_refused(message: Verified[Link], reason: str) -> None:
    parts, validator, _ = certified()
    assert why_not(validator.on_link(message)) == reason
    effects = get_all(parts, validator) + ticks(validator, LINK_TICKS)
    assert reported(effects).links == named(0)


def test_a_link_of_a_task_that_is_done_is_untimely() -> None:
    _, validator, _ = certified()
    validator.on_changed(replace(OPEN, phase=OPEN.phase.DONE))
    assert why_not(validator.on_link(released(1))) == "untimely: link for a task that is not open"


def test_a_false_link_does_not_displace_the_true_one_nor_keep_it_out() -> None:
    parts, validator, _ = certified()
    false = "link that does not lead to its chain's tip"
    assert validator.on_link(released(1, link=link(2))) == ([], false)
    assert validator.on_link(released(1)) == ([], "")
    assert validator.on_link(released(1, link=link(2))) == ([], false)
    assert validator.on_link(released(1)) == ([], ""), "the same again"
    effects = get_all(parts, validator) + ticks(validator, LINK_TICKS)
    assert reported(effects).links == named(0, 1)


def test_links_that_come_before_the_seal_or_the_round_are_kept_for_it() -> None:
    parts, validator = training(opened_after(OPEN, 2))
    for index in (1, 2):
        assert validator.on_link(released(index)) == ([], "")
    parts.held.update(model_blobs(OPEN))
    change(parts, validator, OPEN)
    assert validator.on_link(released(3)) == ([], "")
    change(parts, validator, SEALED)
    assert reported(validator.on_certified() + get_all(parts, validator)).links == named(0, 1, 2, 3)


def test_an_early_link_that_does_not_fit_the_chain_by_then_is_forgotten() -> None:
    """Its chain gave way to another one meanwhile."""
    parts, validator, _ = certified()
    validator.on_link(released(1))
    other = Tip(MINERS[1], chained(2))
    tips = tuple(sorted((Tip(MINERS[0], chained(0)), other), key=lambda one: one.account))
    change(parts, validator, replace(SEALED, tips=tips))
    effects = get_all(parts, validator) + ticks(validator, LINK_TICKS)
    assert reported(effects).links == named(0)


def test_no_more_links_than_validators_are_kept_for_two_rounds() -> None:
    _, validator, _ = certified()
    for number in (3, 4):
        for index in (0, 1, 2, 3):
            validator.on_link(released(index, number))
    for at in range(50):
        validator.on_link(released(1, 3 + at % 4, account=digest(str(at)), link=digest(str(at))))
    links = validator._links
    assert {number: len(each) for number, each in links._held.items()} == {3: 4, 4: 4}
    validator.on_changed(opened_after(OPEN, 4))
    assert {number: len(each) for number, each in links._held.items()} == {4: 4}


def test_our_own_link_is_that_of_our_chains() -> None:
    assert Chains(SIGNERS[0], MINERS[0], TASK).seed(chained(0), 3) == link(0)


@pytest.mark.parametrize("links", [named(1, 2) * 2, named(1, 2)[::-1]])
def test_a_report_that_names_a_link_twice_or_out_of_order_is_refused(links: tuple[Named, ...]) -> None:
    _, validator, _ = certified()
    report = SIGNERS[1].verified(replace(update_report(1, *ALL).body, links=links))
    assert why_not(validator.on_report(report)) == (
        "false: report that names a validator's link twice, or out of order"
    )


def test_a_report_that_names_more_links_than_there_can_be_is_refused() -> None:
    _, validator, _ = certified()
    links = tuple(sorted(Named(digest(str(at)), digest("link")) for at in range(2 * len(KEYS) + 1)))
    said = [SIGNERS[1].verified(replace(update_report(1, *ALL).body, links=each)) for each in (links, links[1:])]
    assert why_not(validator.on_report(said[0])) == "false: report on more than there can be"
    assert validator.on_report(said[1])[1] == ""
