"""Making a known mistake: a line of a function is replaced while a block runs. Knows none of the mistakes."""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Edit:
    """In the source of `where` ("module:function" or "module:Class.method") each `old`, which stands there once,
    becomes its `new`."""

    where: str
    lines: tuple[tuple[str, str], ...]


def edit(where: str, old: str, new: str, *more: tuple[str, str]) -> Edit:
    return Edit(where, ((old, new), *more))


@dataclass(frozen=True)
class Mutant:
    """A mistake that others have made, or that is easily made, and what it breaks."""

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    seen_by: str = "run"  # or "traces": one seed runs otherwise where sets have another order


@contextlib.contextmanager
def mistaken(mutant: Mutant) -> Iterator[None]:
    """The mistake is in force inside the block, wherever the function is known by name."""
    with contextlib.ExitStack() as stack:
        for one in mutant.edits:
            stack.enter_context(_edited(one))
        yield


@contextlib.contextmanager
def _edited(one: Edit) -> Iterator[None]:
    module_name, path = one.where.split(":")
    module = importlib.import_module(module_name)
    *owner_path, name = path.split(".")
    owner: Any = module
    for part in owner_path:
        owner = getattr(owner, part)
    original: Any = inspect.getattr_static(owner, name)
    written: Any = original.fget if isinstance(original, property) else original
    source = textwrap.dedent(inspect.getsource(written))
    for old, new in one.lines:
        assert source.count(old) == 1, f"{one.where} has {source.count(old)} times {old!r}"
        source = source.replace(old, new)
    room: dict[str, Any] = dict(vars(module))
    flags = __future__.annotations.compiler_flag
    code = compile(source, f"<{one.where}>", "exec", flags, dont_inherit=True)
    exec(code, room)
    changed = room[name]
    places = [(owner, name)] if owner_path else _known_as(original)
    for place, known in places:
        setattr(place, known, changed)
    try:
        yield
    finally:
        for place, known in places:
            setattr(place, known, original)


def _known_as(function: object) -> list[tuple[Any, str]]:
    """Every module of ours that has imported the function, and under which name; but those who check know it as
    it should be."""
    found = []
    for module_name, module in sorted(sys.modules.items()):
        if module_name.startswith("potd.") and module_name != "potd.simulation.checks":
            found += [(module, known) for known, value in sorted(vars(module).items()) if value is function]
    return found
