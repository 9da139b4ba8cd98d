"""The control socket, from the side that asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from potd.cli.control import ask, stream
from potd.cli.exits import Exit, Failure
from tests.cli.daemon_double import daemon


def test_a_question_is_one_object_and_so_is_its_answer(home: Path) -> None:
    with daemon(home, {"task": [{"ok": True, "round": 3}]}) as asked:
        assert ask(home, "task", task="ab") == {"ok": True, "round": 3}
    assert asked == [{"command": "task", "task": "ab", "patience_s": 9.0}]


@pytest.mark.parametrize("patience_s", [0.1, 10.0, 60.0])
def test_a_question_says_how_long_it_waits_and_the_daemon_may_answer_just_before(home: Path, patience_s: float) -> None:
    with daemon(home, {"enrol": [{"ok": True}]}) as asked:
        ask(home, "enrol", patience_s=patience_s)
    assert 0.9 * patience_s <= asked[0]["patience_s"] < patience_s


def test_a_stream_without_end_says_nothing_of_patience(home: Path) -> None:
    with daemon(home, {"watch": [{"ok": True, "done": True}]}) as asked:
        assert len(list(stream(home, "watch"))) == 1
    assert asked == [{"command": "watch"}]


def test_a_stream_ends_when_it_says_so(home: Path) -> None:
    lines = [{"ok": True, "round": 1}, {"ok": True, "round": 2, "done": True}, {"ok": True, "round": 3}]
    with daemon(home, {"watch": lines}):
        assert [line["round"] for line in stream(home, "watch")] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        ([{"ok": False, "error": "no balance", "code": 4}], Exit.REFUSED, "no balance"),
        ([{"ok": False, "error": "too late", "code": 5}], Exit.TIMEOUT, "too late"),
        ([{"ok": False, "error": "odd", "code": 0}], Exit.REFUSED, "odd"),
        ([{"ok": False, "error": "odd", "code": 77}], Exit.REFUSED, "odd"),
        ([{"ok": False}], Exit.REFUSED, "without a reason"),
        (b"", Exit.NOT_RUNNING, "hung up"),
        (b"[]\n", Exit.NOT_RUNNING, "not potd"),
        (b'{"ok": tr', Exit.NOT_RUNNING, "mid-sentence"),
        (b"\xff\n", Exit.NOT_RUNNING, "not potd"),
    ],
)
def test_whatever_is_not_yes_ends_with_its_status(
    home: Path, answer: bytes | list[dict[str, object]], code: Exit, reason: str
) -> None:
    with daemon(home, {"status": answer}), pytest.raises(Failure, match=reason) as caught:
        ask(home, "status")
    assert caught.value.code == code


def test_a_silent_daemon_is_given_up_on(home: Path) -> None:
    with daemon(home, {"status": []}), pytest.raises(Failure, match="no answer within 0.1 s") as caught:
        ask(home, "status", patience_s=0.1)
    assert caught.value.code == Exit.TIMEOUT


def test_no_daemon_and_a_dead_ones_socket_are_the_same(home: Path) -> None:
    for _ in range(2):
        with pytest.raises(Failure, match="`potd start --home .*` starts one") as caught:
            ask(home, "status")
        assert caught.value.code == Exit.NOT_RUNNING
        (home / "potd.sock").touch()
