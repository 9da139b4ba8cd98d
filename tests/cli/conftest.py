"""Running commands, and a home whose path is short enough for a socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from potd.cli import main


class Command:
    """`command("init", "--home", folder)` runs it in this process."""

    def __call__(self, *words: object) -> Result:
        result = CliRunner().invoke(main, [str(word) for word in words], prog_name="potd")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


@pytest.fixture
def potd() -> Command:
    return Command()


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="potd-") as folder:
        yield Path(folder)
