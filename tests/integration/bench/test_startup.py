"""`pd-bench startup`, one round, on the real commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy


def test_the_parts_of_a_start_are_timed(tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    done = subprocess.run(
        [sys.executable, "-m", "pd_bench", "startup", "--rounds", "1", "--json", str(out)],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    starts = json.loads(out.read_text(encoding="utf-8"))["starts"]
    loading = ["import", "probe", "load", "hash", "measure"]
    for start in starts:
        last = "first token" if start["command"] == "chat" else "serve"
        assert [*start["parts_s"]] == [*loading, last]
        assert sum(start["parts_s"].values()) == start["total_s"]
    kinds = {(start["command"], start["cache"]): start["parts_s"] for start in starts}
    assert len(kinds) == len(starts) == 4
    # Nine times as much is found cold; the parts are summed, as one may meet a busy moment.
    found = dict.fromkeys(("cold", "warm"), 0.0)
    for (_, cache), parts_s in kinds.items():
        found[cache] += parts_s["probe"] + parts_s["hash"] + parts_s["measure"]
    assert found["warm"] < found["cold"], "what was found is checked, not found again"
