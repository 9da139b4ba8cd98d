"""Key files, whole files and one daemon per home."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from potd.config.home import Home, locked, new_seed, public_key, read_key, write_atomically, write_key
from potd.config.mistakes import ConfigError

SEED = bytes(range(32))


def test_a_key_file_is_its_owners_alone_and_read_back(tmp_path: Path) -> None:
    write_key(tmp_path / "node.key", SEED)
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600
    assert read_key(tmp_path / "node.key") == SEED


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    write_key(tmp_path / "node.key", SEED)
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "node.key", new_seed())
    assert read_key(tmp_path / "node.key") == SEED


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    write_key(tmp_path / "node.key", SEED)
    (tmp_path / "node.key").chmod(mode)
    with pytest.raises(ConfigError, match=f"others may read this key .*chmod 600 {tmp_path}/node.key"):
        read_key(tmp_path / "node.key")


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, "00 " * 21 + "0", "\xff" * 64])
def test_a_key_file_that_holds_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        read_key(path)


def test_a_missing_key_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory; `potd init` makes one"):
        read_key(tmp_path / "node.key")


def test_a_public_key_follows_from_its_seed() -> None:
    # RFC 8032, section 7.1, test 1
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    assert public_key(seed).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_a_write_that_fails_leaves_the_older_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_atomically(target, b"old")
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"data")
    assert sorted(os.listdir(tmp_path)) == ["folder", "model"]


def test_a_home_in_use_says_by_whom(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with (
        locked(home),
        pytest.raises(ConfigError, match=rf"in use by another daemon \(process {os.getpid()}\)"),
        locked(home),
    ):
        raise AssertionError("two daemons in one home")
    with locked(home):
        pass


def test_the_home_of_a_killed_daemon_is_free(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from potd.config.home import Home, locked\n"
        "with locked(Home(pathlib.Path(sys.argv[1]))):\n"
        "    print('mine', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError, match=str(other.pid)), locked(Home(tmp_path)):
            raise AssertionError("two daemons in one home")
        other.kill()
    with locked(Home(tmp_path)):
        pass


def test_a_home_too_deep_for_a_socket_is_refused() -> None:
    assert Home(Path("/tmp/h")).problems() == ()
    (problem,) = Home(Path("/tmp/" + "h" * 90)).problems()
    assert "would have 105 bytes" in problem
