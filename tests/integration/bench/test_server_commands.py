"""`pd-bench streams` and `pd-bench gaps`, small, on real server processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pd_bench.cli import main
from tests.command_here import run_here

pytestmark = pytest.mark.heavy


def _bench(*words: str, out: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "pd_bench", *words, "--json", str(out)],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def test_streams_are_counted_and_their_tokens_timed(tmp_path: Path) -> None:
    words = ["--number", "60", "--step", "0.2", "--turns", "4", "--tokens", "3"]
    document = _bench("streams", *words, out=tmp_path / "streams.json")
    assert [row["num_streams"] for row in document["counts"]] == [1, 6, 60]
    for row in document["counts"]:
        assert row["num_tokens"] == 3 * row["num_streams"]
        # A token cannot arrive before it is made, and none is a whole minute old.
        assert 0 < row["p50_s"] <= row["p99_s"] <= row["max_s"] < 60
        assert row["rss_bytes"] > 2**20


def test_gaps_are_measured_while_prompts_are_prefilled(tmp_path: Path) -> None:
    words = ["--decodes", "2", "--prefills", "1", "--prompt-tokens", "600"]
    words += ["--tokens", "80", "--rounds", "1"]
    document = _bench("gaps", *words, out=tmp_path / "gaps.json")
    assert len(document["quiet_s"]) == len(document["busy_s"]) == 2 * (80 - 1 - 5)
    assert min(document["quiet_s"]) >= 0
    assert document["num_prefills"] >= 1
    assert document["ratio_p99"] > 0


def test_an_unwritable_result_is_found_before_the_run(tmp_path: Path) -> None:
    done = run_here(main, "gaps", "--json", str(tmp_path / "no" / "gaps.json"))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
