"""A node's HOME: which files lie in it, who may read them, and that one daemon at a time uses it.

config.toml    what the operator chose            journal.sqlite   what this node said and executed
genesis.toml   the network                        blobs/           models, shards and payloads, by digest
node.key       the seed of its Ed25519 key        potd.sock        where commands reach the daemon
node.key.next  of the key that is to replace it   lock             held by the daemon that runs
node.key.old   of the key that it replaced        potd.log         its log, and older ones
account        its account, once its key is not the one that this is made from any more
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from potd.config.mistakes import ConfigError, why
from potd.wire.ids import AccountId, account_id

SOCKET_PATH_BYTES_MAX = 103  # sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included


@dataclass(frozen=True)
class Home:
    """Where a node's files lie."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def genesis(self) -> Path:
        return self.path / "genesis.toml"

    @property
    def key(self) -> Path:
        return self.path / "node.key"

    @property
    def key_next(self) -> Path:
        return self.path / "node.key.next"

    @property
    def key_old(self) -> Path:
        return self.path / "node.key.old"

    @property
    def account(self) -> Path:
        return self.path / "account"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def socket(self) -> Path:
        return self.path / "potd.sock"

    @property
    def log(self) -> Path:
        return self.path / "potd.log"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    def problems(self) -> tuple[str, ...]:
        """What keeps a daemon from living here, as far as names go."""
        length = len(os.fsencode(self.socket.absolute()))
        if length > SOCKET_PATH_BYTES_MAX:
            return (
                f"{self.path}: the path of the control socket in it would have {length} bytes, "
                f"and systems take {SOCKET_PATH_BYTES_MAX}; choose a shorter home",
            )
        return ()


def new_seed() -> bytes:
    """The seed of a new Ed25519 key, 32 bytes of the system's chance."""
    return secrets.token_bytes(32)


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed, 32 bytes."""
    return bytes(SigningKey(seed).verify_key)


def write_key(path: Path, seed: bytes) -> None:
    """A new key file, readable by its owner alone. Raises FileExistsError rather than lose a key."""
    assert len(seed) == 32
    _write_new(path, seed.hex().encode() + b"\n", 0o600)


def read_key(path: Path) -> bytes:
    """The seed in a key file. Raises ConfigError, also if anybody but its owner may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(67)
    except OSError as error:
        raise ConfigError([f"{path}: {why(error)}; `potd init` makes one"]) from None
    if mode & 0o077:
        raise ConfigError(
            [f"{path}: others may read this key (mode {mode:04o}); `chmod 600 {path}` makes it yours alone"]
        )
    text = data.decode("ascii", "replace").strip()
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32 or len(text) != 64:
        raise ConfigError([f"{path}: a key file holds 64 hexadecimal digits and nothing else"])
    return seed


def read_account(home: Home) -> AccountId:
    """The account of a node, whose name outlives its keys. Raises ConfigError if it, or the key, cannot be read."""
    if not home.account.exists():
        return account_id(public_key(read_key(home.key)))
    text = home.account.read_text(errors="replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ConfigError([f"{home.account}: holds an account's 64 hexadecimal digits and nothing else"])
    return bytes.fromhex(text)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file wholly or not at all, over an older one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, data, mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Use this home alone. Raises ConfigError if another daemon does."""
    with home.lock.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read(20).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError([f"{home.path}: in use by another daemon (process {owner})"]) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield
        # The file stays: taking it away would let a third process lock another file of the same name.
        file.truncate(0)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
