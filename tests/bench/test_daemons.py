"""The benchmark of real daemons: that it measures them, and that a dead primary costs them no operation."""

from __future__ import annotations

from pathlib import Path

import pytest

from potd.cli.fleet import Fleet
from tests.bench import daemons
from tests.bench.load import enough

pytestmark = pytest.mark.slow


def test_daemons_whose_primary_dies_lose_nothing_accepted_and_recover_within_two_timeouts(
    tmp_path: Path,
) -> None:
    with Fleet(daemons.write_homes(tmp_path / "net", 4, 8)) as fleet:
        daemons.start(fleet)
        found = daemons.measure(fleet, 8, 1024, 0.0)
        assert found["operations"] >= enough(8)
        assert found["bytes"] > 3 * 1024  # each operation goes to three in its batch
        assert found["cpu_ms"] > found["cpu_clients_ms"] > 0
        recovery = daemons.recover(fleet, 8)
    assert recovery["lost"] == 0
    assert recovery["view_changes"] == 1
    assert recovery["recovery_timeouts"] <= 2
