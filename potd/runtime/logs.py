"""The daemon's log: a rotating file in its home, and standard error. Text for people, JSON lines on request."""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
import sys

from potd.config import Config

SAID = "said"  # marks a record that standard error has had already, as a plain sentence
QUIET = ("libp2p", "trio", "multiaddr", "async_service", "asyncio")  # libraries that talk about every stream


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told)


class _File(logging.handlers.RotatingFileHandler):
    """The log file of a home. On a full disk it ends; standard error goes on, and says that once."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._failed:
            self._failed = True
            print(f"{self.baseFilename}: cannot be written ({sys.exc_info()[1]})", file=sys.stderr)


def open_log(config: Config) -> None:
    """Begin to log as the operator chose. Raises OSError if the file cannot be written."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].addFilter(lambda record: not hasattr(record, SAID))
    if config.log_file_bytes_max:
        handlers.append(
            _File(
                config.home.log, maxBytes=config.log_file_bytes_max, backupCount=config.log_files_kept, encoding="utf-8"
            )
        )
    formatter = _Json() if config.log_json else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=level_of(config), handlers=handlers, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)


def set_level(config: Config) -> None:
    logging.getLogger().setLevel(level_of(config))


def level_of(config: Config) -> int:
    return logging.getLevelNamesMapping()[config.log_level.upper()]
