"""What one operator may choose: the files of a HOME as frozen, checked values, with every mistake listed at once."""

from potd.config.genesis import read_genesis, write_genesis
from potd.config.home import Home, locked, public_key, read_key
from potd.config.mistakes import ConfigError
from potd.config.settings import Config, load_config, reread

__all__ = [
    "Config",
    "ConfigError",
    "Home",
    "load_config",
    "locked",
    "public_key",
    "read_genesis",
    "read_key",
    "reread",
    "write_genesis",
]
