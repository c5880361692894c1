"""`pd-bench schemas` on a real server and a real engine, with few answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ANSWERS = 4


def test_answers_with_the_cloud_cut_are_equal_and_of_their_schemas(tmp_path: Path) -> None:
    out = tmp_path / "schemas.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pd_bench", "schemas", "--answers", str(ANSWERS)),
            *("--new-forms", "2", "--json", str(out)),
        ],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    answers, masks, first = found["answers"], found["masks"], found["first_tokens"]
    assert answers["answers"] == answers["equal"] == ANSWERS
    assert answers["valid"] + answers["unfinished"] == ANSWERS
    assert answers["by_both"] >= 1
    assert masks["tokens"] == answers["tokens"] > ANSWERS
    assert 0 < masks["p50_ms"] <= masks["p99_ms"]
    assert min(first["with_ms"], first["without_ms"]) > 0
    assert "are of their schema" in done.stdout
