"""Names: equal things share one, different things never do."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from potd.wire.blocks import NULL, Receipt, batch_digest, record_digest, validators_digest
from potd.wire.envelope import Signer
from potd.wire.genesis import Genesis, Parameters, genesis_digest
from potd.wire.ids import NOTHING, account_id, digest, short, task_id

parts = st.lists(st.binary(max_size=4), max_size=4)


@given(st.sampled_from(["a", "ab", ""]), parts, st.sampled_from(["a", "ab", ""]), parts)
def test_a_digest_tells_apart_domains_and_where_one_part_ends(
    one: str, first: list[bytes], other: str, second: list[bytes]
) -> None:
    assert (digest(one, *first) == digest(other, *second)) == ((one, first) == (other, second))


def test_a_digest_is_as_written() -> None:
    laid_out = (6).to_bytes(8, "big") + b"potd/x" + (2).to_bytes(8, "big") + b"ab"
    assert digest("x", b"ab") == hashlib.sha256(laid_out).digest()


def test_the_same_bytes_have_another_name_as_another_thing() -> None:
    key = bytes(range(32))
    names = {account_id(key), task_id(key), digest("batch", key), validators_digest([key])}
    assert len(names) == 4


def test_validators_are_named_with_their_order() -> None:
    one, other = bytes(32), b"\x01" * 32
    assert len({validators_digest(keys) for keys in ([one, other], [other, one], [one], [one, one])}) == 4


def test_a_record_and_a_batch_have_names_of_their_content() -> None:
    signed = Signer(bytes(32), NOTHING).sign(Receipt(NOTHING, ""))
    assert record_digest(signed) == record_digest(signed) != batch_digest(NULL)


def test_a_network_is_named_by_all_of_its_genesis() -> None:
    def network(name: str, created: int, patience: int) -> bytes:
        return genesis_digest(Genesis(name, 1, created, (bytes(32),), (), Parameters(patience_ticks=patience)))

    assert len({network("a", 0, 80), network("b", 0, 80), network("a", 1, 80), network("a", 0, 81)}) == 4


def test_people_see_the_first_eight_digits() -> None:
    assert short(bytes.fromhex("0123456789abcdef")) == "01234567"
