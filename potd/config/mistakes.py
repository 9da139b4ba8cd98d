"""What is said when the operator's files or options are wrong."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(Exception):
    """The operator's files or options are wrong. `problems` has every mistake found, a sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        assert self.problems, "a ConfigError without a problem"
        super().__init__("\n".join(self.problems))


def why(error: OSError) -> str:
    """The system's reason, without its number."""
    return (error.strerror or str(error) or type(error).__name__).lower()
