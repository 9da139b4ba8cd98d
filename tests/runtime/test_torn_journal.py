"""A journal that was cut or torn, wherever, is a consistent earlier one or is refused with one sentence, untouched."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from potd.node.events import Forget, Keep, Note, Store, StoreCertificate
from potd.runtime import journal as journal_module
from potd.runtime.journal import Journal, JournalError, Recovered, open_journal
from potd.wire.consensus import Commit, Prepare, Prepared, PrePrepare, ViewChange
from potd.wire.envelope import attestation_of
from tests.runtime.chain import NETWORK, SIGNER, batch, certificate, header

HEIGHTS = 24
LOG_BYTES = 200_000  # so that the log is moved into the file a few times
NAMES = ("journal.sqlite", "journal.sqlite-wal")


def height_writes(height: int) -> list[list[Keep | Forget | Store | StoreCertificate | Note]]:
    """What a validator writes for one height, a list for each transaction; some of it is longer than a page."""
    order = SIGNER.sign(PrePrepare(0, height, header(height).batch))
    agreed = SIGNER.sign(Prepare(0, height, header(height).batch, order.signature))
    proof = Prepared(0, height, header(height).batch, attestation_of(order), (attestation_of(agreed),) * 60)
    entries = tuple(
        (bytes([number]), random.Random(height * number).randbytes(700)) for number in range(height % 7 + 3)
    )
    return [
        [Keep(height, batch(height)), Keep(height, order)],
        [Keep(height, proof), Keep(height, SIGNER.sign(Commit(0, height, header(height).batch)))],
        [Store(header(height), batch(height), entries), Keep(height, SIGNER.sign(header(height)))],
        [StoreCertificate(certificate(height)), Forget(height), Note("report", bytes([height]) * 9000)],
    ]


@dataclass
class Lived:
    """A journal's files after each of its transactions, and what could be recovered then."""

    folder: Path
    states: list[Recovered]
    logs: list[int]  # the length of the log after each transaction


def opened(folder: Path) -> Journal:
    return open_journal(folder / NAMES[0], NETWORK, SIGNER.key)


def recovered(folder: Path) -> Recovered:
    with opened(folder) as journal:
        return journal.recover()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    home = tmp_path_factory.mktemp("lived")
    life = Lived(home, [Recovered(None, None, (), (), {})], [])
    patch = pytest.MonkeyPatch()
    patch.setattr(journal_module, "LOG_BYTES_MAX", LOG_BYTES)
    with opened(home) as journal:
        for height in range(1, HEIGHTS + 1):
            for number, writes in enumerate(height_writes(height)):
                if number == 0 and height % 9 == 0:
                    writes = [*writes, Keep(2**62, SIGNER.sign(ViewChange(height, 0, (), ())))]
                journal.commit(writes)
                life.states.append(journal.recover())
                copy_of(home, home / str(len(life.logs)))
                life.logs.append((home / NAMES[1]).stat().st_size)
    patch.undo()
    return life


def copy_of(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in NAMES:
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    return target


def outcome(folder: Path, states: list[Recovered]) -> str:
    """What becomes of it: the number of the state it is in, or why it is refused; anything else fails."""
    before = {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}
    try:
        found = recovered(folder)
    except JournalError as error:
        text = str(error)
        assert "Nothing was changed" in text
        assert "\n" not in text
        after = {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}
        assert after == before or "signature" in text or "batch of height" in text
        return text
    assert found in states, "neither an earlier state nor refused"
    return str(states.index(found))


def trial(lived: Lived, at: int, place: Path, damage: Callable[[Path], None]) -> str:
    folder = copy_of(lived.folder / str(at), place)
    damage(folder)
    told = outcome(folder, lived.states)
    if told.isdigit():
        with opened(folder) as journal:
            journal.commit([Note("again", b"1")])
        assert recovered(folder).notes["again"] == b"1", "what was recovered can be gone on with"
    shutil.rmtree(folder)
    return told


def truncated(name: str, size: int) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return cut


def test_the_runs_below_see_a_log_that_was_moved_into_the_file(lived: Lived) -> None:
    moved = sum(1 for before, after in zip(lived.logs, lived.logs[1:], strict=False) if after < before)
    assert moved >= 3
    assert max(lived.logs) > LOG_BYTES / 2


@pytest.mark.parametrize("part", range(4))
def test_a_log_that_was_cut_at_any_byte_is_an_earlier_journal(lived: Lived, tmp_path: Path, part: int) -> None:
    """Page by page, and anywhere in between. It never has less than the file alone."""
    for at in range(part, len(lived.logs), 20):
        last = -1
        frames = list(range(0, lived.logs[at] + 1, 4096 + 24))
        anywhere = random.Random(at).sample(range(lived.logs[at] + 1), min(12, lived.logs[at]))
        cuts = sorted({0, *anywhere, *frames[:: max(1, len(frames) // 8)]})
        for size in cuts:
            told = trial(lived, at, tmp_path / "cut", truncated(NAMES[1], size))
            assert told.isdigit(), told
            assert last <= int(told) <= at + 1
            last = int(told)


@pytest.mark.parametrize("part", range(4))
def test_a_file_that_was_cut_at_any_byte_is_an_earlier_journal_or_refused(
    lived: Lived, tmp_path: Path, part: int
) -> None:
    for at in range(part * 3, len(lived.logs), 24):
        size = (lived.folder / str(at) / NAMES[0]).stat().st_size
        for cut in [0, 1, 99, 100, 4095, 4096, size - 4096, size - 1, *random.Random(at).sample(range(size), 12)]:
            trial(lived, at, tmp_path / "cut", truncated(NAMES[0], max(0, cut)))


@pytest.mark.parametrize("closed", [False, True])
def test_a_file_whose_last_page_is_torn_is_an_earlier_journal_or_refused(
    lived: Lived, tmp_path: Path, closed: bool
) -> None:
    """Also a page in the middle. Of old blocks it is noticed when they are read."""
    for at in range(7, len(lived.logs), 5):
        home = copy_of(lived.folder / str(at), tmp_path / "home")
        if closed:
            opened(home).__exit__(None, None, None)
        size = (home / NAMES[0]).stat().st_size
        for page in {size // 4096 - 1, *random.Random(at).sample(range(size // 4096), 4)}:
            folder = copy_of(home, tmp_path / "torn")
            with (folder / NAMES[0]).open("r+b") as file:
                file.seek(page * 4096)
                file.write(random.Random(at + page).randbytes(4096))
            try:
                found = recovered(folder)
            except JournalError as error:
                assert "the journal is damaged" in str(error)  # one of two good ends
            else:
                known = [replace_notes(one) for one in lived.states]
                assert replace_notes(found) in known
            shutil.rmtree(folder)
        shutil.rmtree(home)


def replace_notes(one: Recovered) -> tuple[object, ...]:
    return one.header, one.certificate, one.entries, one.records, sorted(one.notes)


def test_a_file_without_its_log_is_an_earlier_journal(lived: Lived, tmp_path: Path) -> None:
    for at in range(0, len(lived.logs), 2):
        told = trial(lived, at, tmp_path / "lost", lambda folder: (folder / NAMES[1]).unlink())
        assert told.isdigit()


def test_a_log_without_its_file_is_refused(lived: Lived, tmp_path: Path) -> None:
    """sqlite would throw it away."""
    folder = copy_of(lived.folder / "3", tmp_path / "lost")
    (folder / NAMES[0]).unlink()
    assert "Put the journal back" in outcome(folder, lived.states)


def test_an_older_file_with_a_newer_log_is_refused_and_the_other_way_round(lived: Lived, tmp_path: Path) -> None:
    """sqlite would take the one for the other's, and mix two states."""
    refused = 0
    for at in range(0, len(lived.logs), 5):
        for other in range(0, len(lived.logs), 7):
            folder = copy_of(lived.folder / str(at), tmp_path / "mixed")
            shutil.copy(lived.folder / str(other) / NAMES[1], folder / NAMES[1])
            told = outcome(folder, lived.states)
            refused += "another copy of this home" in told
            shutil.rmtree(folder)
    assert refused > 50


def test_damage_in_an_old_block_is_said_when_it_is_read(lived: Lived, tmp_path: Path) -> None:
    folder = copy_of(lived.folder, tmp_path / "old")
    size = (folder / NAMES[0]).stat().st_size
    said = 0
    for page in range(size // 4096):
        torn = copy_of(folder, tmp_path / "torn")
        with (torn / NAMES[0]).open("r+b") as file:
            file.seek(page * 4096)
            file.write(bytes(4096))
        try:
            with opened(torn) as journal:
                blocks = journal.blocks(1, 10**9)
                assert [one.header.height for one in blocks] == list(range(1, len(blocks) + 1))
        except JournalError as error:
            said += "damaged" in str(error)  # one of two good ends
        shutil.rmtree(torn)
    assert said > 3
