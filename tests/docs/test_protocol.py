"""What the documents say of the code, as far as it can be compared: tables of messages, defaults, links."""

from __future__ import annotations

import ast
import dataclasses
import re
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from potd.wire.codec import I64, U8, U16, U32, U63, Range, Size, tag_of
from potd.wire.genesis import SUPPLY_MAX, Parameters
from tests.wire.values import all_messages

TOP = Path(__file__).resolve().parents[2]
PROTOCOL = (TOP / "docs" / "PROTOCOL.md").read_text()
PAGES = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]

NAMES_OF_RANGES = {"u8": U8, "u16": U16, "u32": U32, "u63": U63, "i64": I64}
RANGES = {get_args(hint)[1]: name for name, hint in NAMES_OF_RANGES.items()} | {Range(0, SUPPLY_MAX): "amount"}


def notation(hint: Any) -> str:
    """A field's type and limit as PROTOCOL.md writes them, with powers written out."""
    limit = None
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        limit = next(one for one in extras if isinstance(one, Range | Size))
    if hint is int:
        assert isinstance(limit, Range)
        return RANGES.get(limit, f"int {limit.low}..{limit.high}")
    if hint in (bytes, str):
        assert isinstance(limit, Size)
        if hint is bytes and limit.low == limit.high:
            return f"bytes{limit.low}"
        return f"{'bytes' if hint is bytes else 'text'} {limit.low}..{limit.high}"
    if get_origin(hint) is tuple:
        assert isinstance(limit, Size)
        return f"[{notation(get_args(hint)[0])}] {limit.low}..{limit.high}"
    if get_origin(hint) in (Union, types.UnionType):
        return r" \| ".join(one.__name__ for one in get_args(hint))
    return str(hint.__name__)


def fields(cls: type[Any]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    return ", ".join(f"`{one.name}` {notation(hints[one.name])}" for one in dataclasses.fields(cls))


def written_out(text: str) -> str:
    return re.sub(r"(\d+)\^(\d+)", lambda power: str(int(power[1]) ** int(power[2])), text)


def documented() -> list[tuple[int, str, str]]:
    """Tag, name and fields of every row of a table of messages."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*) \|$", PROTOCOL, re.MULTILINE)
    return [(int(tag), name, written_out(said)) for tag, name, said in rows]


def test_the_protocol_lists_every_message_once_and_no_other() -> None:
    listed = sorted((tag, name) for tag, name, _ in documented())
    assert listed == sorted((tag_of(cls), cls.__name__) for cls in all_messages())


@pytest.mark.parametrize("cls", all_messages(), ids=lambda cls: cls.__name__)
def test_the_protocol_gives_each_message_the_fields_and_limits_of_the_code(cls: type[Any]) -> None:
    assert [said for tag, _, said in documented() if tag == tag_of(cls)] == [fields(cls)]


def test_the_protocol_gives_the_parameters_of_genesis_their_defaults() -> None:
    table = PROTOCOL.split("| parameter | default | |", 1)[1].split("\n\n", 1)[0]
    listed = {name: int(default) for name, default in re.findall(r"^\| `(\w+)` \| (\d+) \|", table, re.MULTILINE)}
    assert listed == dataclasses.asdict(Parameters())


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have as targets of links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_decisions_are_numbered_without_gaps_and_say_their_own_number() -> None:
    pages = sorted((TOP / "docs" / "decisions").glob("*.md"))
    numbers = range(1, len(pages) + 1)
    assert [page.name[:5] for page in pages] == [f"{number:04}-" for number in numbers]
    assert [page.read_text().split(".", 1)[0] for page in pages] == [f"# {number}" for number in numbers]


def test_the_architecture_lists_every_module_and_no_other() -> None:
    page = (TOP / "docs" / "ARCHITECTURE.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z][a-z0-9.]*)` \| (.*`.*) \|$", page, re.MULTILINE))
    for folder in sorted(path.parent for path in (TOP / "potd").rglob("__init__.py")):
        package = ".".join(folder.relative_to(TOP / "potd").parts)
        if not package or package == "trainer.digits":
            continue  # the command, and a folder of data
        inside = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
        named = set(re.findall(r"`(\w+)/?`", listed[package]))
        assert named - {"__main__"} == inside - {"__init__", "__main__"}, package


# What the ledger's modules have in sentences that no receipt says.
NO_REASONS = {
    "nonce {} is far ahead of {}",  # to whom asks: it is not ordered
    "a {} that contradicts its {}",  # of whom is guilty
    "its batch at {} in view {} was refused by a quorum",
    "evidence with a {}",  # completed below by what a signature may be
    "rig class",
}


def sentences(module: str) -> set[str]:
    """The texts of a module that are more than a word, with {} where something is put in."""
    tree = ast.parse((TOP / "potd" / "ledger" / f"{module}.py").read_text())
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr | ast.Assert | ast.Raise):
            passed.update(ast.walk(node) if not isinstance(node, ast.Expr) else [node.value])
        elif isinstance(node, ast.JoinedStr):
            passed.update(one for one in ast.walk(node) if one is not node)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node not in passed:
            found.add("".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values))
        elif isinstance(node, ast.Constant) and node not in passed and isinstance(node.value, str):
            found |= {node.value} if " " in node.value.strip() else set()
    return found


def test_the_protocol_gives_every_reason_of_a_receipt_as_the_ledger_says_it() -> None:
    section = PROTOCOL.split("## 18. Receipts, word for word\n", 1)[1].split("\n## ", 1)[0]
    spans = re.findall(r"`([^`\n]+)`", section)
    said = {re.sub(r"\{[^}]*\}", "{}", one) for one in spans if " " in one.strip()}
    modules = ("accounts", "audits", "chains", "evidence", "seats", "tasks", "training")
    in_code = set().union(*map(sentences, modules))
    assert in_code >= NO_REASONS
    assert (in_code - NO_REASONS) - said == set()
    assert said - in_code == {"evidence with a wrong signature on {}"}
