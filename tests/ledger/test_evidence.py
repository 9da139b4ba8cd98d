"""Evidence: what proves a lie, and what a correct validator may have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from potd.ledger.evidence import Court, Guilt, guilt
from potd.wire.blocks import Certificate, Header
from potd.wire.consensus import Commit, NewView, Prepare, PrePrepare, Refusal, Status, ViewChange
from potd.wire.envelope import Signed, Signer, attestation_of
from potd.wire.ids import NOTHING, digest
from potd.wire.rounds import Draft, Report

NETWORK = digest("evidence")
SEEDS = sorted((bytes([i]) * 32 for i in range(1, 9)), key=lambda seed: Signer(seed, NETWORK).key)
SIGNERS = [Signer(seed, NETWORK) for seed in SEEDS]
LIAR, OTHER = SIGNERS[0], SIGNERS[1]
KEYS = tuple(one.key for one in SIGNERS[:4])
BEFORE = tuple(one.key for one in SIGNERS[:7])
COURT = Court(NETWORK, (0, 100, 200), KEYS, BEFORE)  # eras after 0, 100 and 200

A, B = digest("a"), digest("b")
HEADER = Header(NETWORK, 1, 7, NOTHING, A, A, A, A, A)
TASK = digest("task")


def view_change(view: int, stable: int, salt: int = 0) -> ViewChange:
    signed = OTHER.sign(replace(HEADER, height=stable, protocol=salt))
    return ViewChange(view, stable, (Certificate(replace(HEADER, height=stable), (attestation_of(signed),)),), ())


def new_view(view: int, *stable: int, salt: int = 0) -> NewView:
    return NewView(view, tuple(OTHER.sign(view_change(view, one, salt)) for one in stable), ())


def report(number: int, ticks: int, step: int = 1) -> Report:
    return Report(TASK, number, step, (A,), (), (), ticks=ticks)


def draft(ticks: int, base: int = 200, view: int = 3) -> Draft:
    return Draft(base, view, TASK, 1, 2, (OTHER.sign(report(1, ticks, step=2)),))


def signed(signer: Signer, *bodies: Any) -> list[Signed]:
    return [signer.sign(body) for body in bodies]


LIES = {
    "two orders": (PrePrepare(3, 250, A), PrePrepare(3, 250, B)),
    "two agreements": (Prepare(3, 250, A, bytes(64)), Prepare(3, 250, B, bytes(64))),
    "two commits": (Commit(3, 250, A), Commit(3, 250, B)),
    "an agreement to what it refused": (Prepare(3, 250, A, bytes(64)), Refusal(3, 250, A, bytes(64), "wrong")),
    "an agreement beside a refusal of another": (Refusal(3, 250, B, bytes(64), "wrong"), Prepare(3, 250, A, bytes(64))),
    "two refusals": (Refusal(3, 250, A, bytes(64), "wrong"), Refusal(3, 250, A, bytes(64), "very wrong")),
    "two states": (HEADER, replace(HEADER, state=B)),
    "two view changes": (view_change(3, 200), view_change(3, 210)),
    "two view changes of one stable height": (view_change(3, 210), view_change(3, 210, salt=1)),
    "two view changes of an era that is over": (view_change(3, 100), view_change(3, 199)),
    "two new views": (new_view(3, 200, 210), new_view(3, 210, 210)),
    "two reports": (report(3, 17), report(3, 18)),
    "two drafts": (draft(17), draft(18)),
}
HONEST = {
    "orders in two views": (PrePrepare(3, 250, A), PrePrepare(4, 250, B)),
    "orders of two heights": (PrePrepare(3, 250, A), PrePrepare(3, 251, B)),
    "an order and an agreement in another view": (PrePrepare(3, 250, A), Prepare(4, 250, B, bytes(64))),
    "agreements to one order that was signed in two ways": (
        Prepare(3, 250, A, bytes(64)),
        Prepare(3, 250, A, bytes(63) + b"\x01"),
    ),
    "commits in two views": (Commit(3, 250, A), Commit(4, 250, B)),
    "an agreement in the next view": (Refusal(3, 250, A, bytes(64), "wrong"), Prepare(4, 250, A, bytes(64))),
    "states of two heights": (HEADER, replace(HEADER, height=8, state=B)),
    "view changes to two views": (view_change(3, 200), view_change(4, 210)),
    "view changes to one view in two eras": (view_change(3, 199), view_change(3, 200)),
    "new views of one view in two eras": (new_view(3, 150, 199), new_view(3, 200, 210)),
    "a new view of who knows which era": (new_view(3, 150, 199), new_view(3, 150, 200)),
    "reports on two rounds": (report(3, 17), report(4, 18)),
    "reports on two steps": (report(3, 17), report(3, 18, step=2)),
    "drafts in two views": (draft(17), draft(18, view=4)),
    "drafts of one view in two eras": (draft(17), draft(18, base=100)),
    "a commit and an agreement": (Commit(3, 250, A), Prepare(3, 250, B, bytes(64))),
}


@pytest.mark.parametrize("words", LIES.values(), ids=LIES.keys())
def test_two_answers_to_one_question_prove_guilt(words: Sequence[Any]) -> None:
    for evidence in (signed(LIAR, *words), signed(LIAR, *reversed(words))):
        found = guilt(evidence, COURT)
        assert isinstance(found, Guilt), found
        assert found.key == LIAR.key


@pytest.mark.parametrize("words", HONEST.values(), ids=HONEST.keys())
def test_what_a_correct_validator_may_say_proves_nothing(words: Sequence[Any]) -> None:
    assert guilt(signed(LIAR, *words), COURT) == "a correct validator may have said both"


@pytest.mark.parametrize("words", LIES.values(), ids=LIES.keys())
def test_words_of_two_keys_or_said_twice_prove_nothing(words: Sequence[Any]) -> None:
    assert isinstance(guilt([LIAR.sign(words[0]), OTHER.sign(words[1])], COURT), str)
    assert guilt([LIAR.sign(words[0])] * 2, COURT) == "the same word twice"


@pytest.mark.parametrize("words", LIES.values(), ids=LIES.keys())
def test_a_forged_word_and_one_of_another_network_prove_nothing(words: Sequence[Any]) -> None:
    genuine = LIAR.sign(words[0])
    kind = type(words[1]).__name__
    elsewhere = Signer(SEEDS[0], digest("another network")).sign(words[1])
    assert elsewhere.key == LIAR.key
    for forged in (replace(OTHER.sign(words[1]), key=LIAR.key), elsewhere):
        assert guilt([genuine, forged], COURT) == f"evidence with a wrong signature on {kind}"
        assert guilt([forged, genuine], COURT) == f"evidence with a wrong signature on {kind}"


def test_view_changes_of_an_era_that_is_forgotten_prove_nothing() -> None:
    late = Court(NETWORK, (100, 200), KEYS, BEFORE)
    assert isinstance(guilt(signed(LIAR, *LIES["two view changes of an era that is over"]), late), Guilt)
    words = view_change(3, 98), view_change(3, 99)
    assert isinstance(guilt(signed(LIAR, *words), COURT), Guilt)
    assert guilt(signed(LIAR, *words), late) == "a correct validator may have said both"


def test_what_is_no_answer_proves_nothing() -> None:
    found = guilt(signed(LIAR, *(Status(0, False, 0, executed) for executed in (1, 2))), COURT)
    assert found == "evidence that is no word of a validator"
    assert guilt(signed(LIAR, HEADER), COURT) == "evidence of one word"


# An order that a quorum has refused


def refused(seq: int, *refusers: int, batch: bytes = A, view: int = 3) -> list[Signed]:
    by_key = sorted(
        (SIGNERS[who].sign(Refusal(view, seq, batch, bytes(64), f"wrong {who}")) for who in refusers), key=_key
    )
    return [LIAR.sign(PrePrepare(3, seq, A)), *by_key]


def _key(one: Signed) -> bytes:
    return one.key


def test_an_order_that_a_quorum_has_refused_proves_guilt() -> None:
    found = guilt(refused(250, 1, 2, 3), COURT)
    assert found == Guilt(LIAR.key, "its batch at 250 in view 3 was refused by a quorum")


def test_fewer_refusals_than_a_quorum_prove_nothing() -> None:
    assert guilt(refused(250, 1, 2), COURT) == "2 refusals of 3"


def test_refusals_count_by_those_who_decide_that_height() -> None:
    assert guilt(refused(200, 1, 2, 3), COURT) == "3 refusals of 5"
    assert isinstance(guilt(refused(200, 1, 2, 3, 4, 5), COURT), Guilt)
    assert isinstance(guilt(refused(101, 2, 3, 4, 5, 6), COURT), Guilt)
    assert isinstance(guilt(refused(201, 1, 2, 3), COURT), Guilt)
    stranger = f"a refusal by {SIGNERS[4].key.hex()[:8]}, who does not decide height 201"
    assert guilt(refused(201, 1, 2, 4), COURT) == stranger
    assert guilt(refused(100, 1, 2, 3, 4, 5), COURT) == "height 100 is too long ago to tell who decided it"


def test_refusals_twice_out_of_order_by_the_accused_or_of_something_else_prove_nothing() -> None:
    order, *others = refused(250, 1, 2, 3)
    wrong = "refusals out of order, twice, or by the accused"
    assert guilt([order, *reversed(others)], COURT) == wrong
    assert guilt([order, others[0], *others], COURT) == wrong
    assert guilt(refused(250, 0, 1, 2), COURT) == wrong
    assert guilt(refused(250, 1, 2, 3, batch=B), COURT) == "a refusal of something else"
    assert guilt(refused(250, 1, 2, 3, view=4), COURT) == "a refusal of something else"
    commits = [one.sign(Commit(3, 250, A)) for one in SIGNERS[1:4]]
    assert guilt([order, *commits], COURT) == "a refusal of something else"
    assert guilt(others, COURT) == "neither two words of one key nor an order that was refused"


def test_a_forged_refusal_proves_nothing() -> None:
    order, first, *others = refused(250, 1, 2, 3)
    forged = replace(LIAR.sign(Refusal(3, 250, A, bytes(64), "wrong")), key=first.key)
    assert guilt([order, forged, *others], COURT) == "evidence with a wrong signature on Refusal"
