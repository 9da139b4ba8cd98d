"""Amounts, sizes, durations and tables as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MICRO = 10**6  # micro-units in a unit


def amount(micro: int) -> str:
    """Micro-units as units: 2500000 is 2.5."""
    whole, part = divmod(abs(micro), MICRO)
    return ("-" if micro < 0 else "") + f"{whole:,}" + (f".{part:06d}".rstrip("0") if part else "")


def size(count: int) -> str:
    """Bytes, in the largest binary unit that gives at least one."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds, with the two largest units that matter."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def number(value: float | None, decimals: int = 4) -> str:
    """A measured number, or a dash where nothing was measured yet."""
    return "-" if value is None else f"{value:.{decimals}f}"


def accuracy(task: Mapping[str, Any]) -> str:
    """A task's newest accuracy, with the round whose model it is of if that is not the newest."""
    measured = task.get("measured_round")
    late = task.get("accuracy") is not None and measured is not None and measured != task["round"]
    return number(task.get("accuracy")) + (f" at round {measured}" if late else "")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; those of numbers to the right."""
    cells = [list(heads), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    # The first column is a name, though its digits may all be decimal.
    right = [column > 0 and all(row[column][:1] in "0123456789-." for row in rows) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they are, in two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)
