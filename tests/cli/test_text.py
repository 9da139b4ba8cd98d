"""Amounts, sizes, durations and tables."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potd.cli.options import parse_amount
from potd.cli.text import amount, duration, size, table


@given(st.integers(0, 10**18 - 1))
def test_an_amount_is_read_as_it_is_written(micro: int) -> None:
    assert parse_amount(amount(micro).replace(",", "")) == micro


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.", ".5", "1e3", "1,000", "0.0000001", "²", "1" * 13, "nan"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not an amount"):
        parse_amount(text)


def test_people_read_large_numbers_in_large_units() -> None:
    assert [size(count) for count in (0, 1023, 1024, 1536 * 1024, 5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "5.0 TiB",
    ]
    assert [duration(s) for s in (0.9, 61, 3725, 90_000)] == ["0 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]


def test_numbers_stand_to_the_right() -> None:
    assert table(("name", "n"), [("a", "1"), ("bcdef", "100")]) == "name     n\na        1\nbcdef  100"
