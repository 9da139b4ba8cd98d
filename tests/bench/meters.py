"""What the work of a run consists of: signatures made and checked, and where the processor's time goes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import process_time
from typing import Any
from unittest.mock import patch

import nacl.bindings

from potd.ledger import apply
from potd.wire import codec, merkle_map


@contextmanager
def counted_signatures() -> Iterator[Counter[str]]:
    """How often Ed25519 is at work inside the block: `signed` and `checked`. What a cache spares does not count."""
    counts: Counter[str] = Counter()

    def counting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            counts[name] += 1
            return work(*given)

        return counted

    with (
        patch.object(nacl.bindings, "crypto_sign", counting("signed", nacl.bindings.crypto_sign)),
        patch.object(nacl.bindings, "crypto_sign_open", counting("checked", nacl.bindings.crypto_sign_open)),
    ):
        yield counts


@contextmanager
def split_times() -> Iterator[dict[str, float]]:
    """CPU seconds inside the block by kind of work. Each counts without what is of another kind inside it."""
    seconds: dict[str, float] = {}
    running: list[list[float]] = []  # of each kind that is at work, the seconds that others took inside it

    def timing(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            inner = [0.0]
            running.append(inner)
            began = process_time()
            try:
                return work(*given, **named)
            finally:
                taken = process_time() - began
                running.pop()
                seconds[name] = seconds.get(name, 0.0) + taken - inner[0]
                if running:
                    running[-1][0] += taken

        return timed

    with ExitStack() as stack:
        stack.enter_context(patch.object(nacl.bindings, "crypto_sign", timing("sign", nacl.bindings.crypto_sign)))
        opened = timing("verify", nacl.bindings.crypto_sign_open)
        stack.enter_context(patch.object(nacl.bindings, "crypto_sign_open", opened))
        for name in ("updated", "root"):
            hashed = timing("state", getattr(merkle_map.MerkleMap, name))
            stack.enter_context(patch.object(merkle_map.MerkleMap, name, hashed))
        for name, function in (("encode", codec.encode), ("decode", codec.decode), ("execute", apply.execute)):
            replacement = timing(name, function)
            for module in _importers(function):
                stack.enter_context(patch.object(module, function.__name__, replacement))
        yield seconds


def _importers(function: Callable[..., Any]) -> list[Any]:
    """The modules of ours that call this function by its name, but for its own: what it asks of itself is its own."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("potd.")]
    return [
        module
        for module in modules
        if module.__name__ != function.__module__ and vars(module).get(function.__name__) is function
    ]
