"""`pd-bench chaos`: the command on a virtual clock, and through real processes."""

import json
from pathlib import Path

import pytest

from pd_bench.cli import main
from tests.command_here import run_here


def test_a_simulated_campaign_writes_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    run = run_here(main, "chaos", "--requests", "48", "--seed", "9", "--json", str(out))
    assert run.returncode == 0, run.stderr
    found = json.loads(out.read_text())
    assert found["requests"] == 48
    assert [found[key] for key in ("lost", "doubled", "wrong", "unanswered", "leaked")] == [0] * 5
    assert sum(found[key] for key in ("right", "failed", "left")) == 48
    assert found["settings"]["seed"] == 9


@pytest.mark.heavy
@pytest.mark.timeout(180)
def test_a_campaign_through_real_processes_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    words = ("chaos", "--requests", "60", "--fidelity", "real", "--seed", "4", "--json", str(out))
    run = run_here(main, *words)
    assert run.returncode == 0, run.stdout
    found = json.loads(out.read_text())
    assert [found[key] for key in ("lost", "doubled", "wrong", "unanswered", "leaked")] == [0] * 5
    assert found["handoffs"] > 0
    assert {"cut", "flipped", "stalled"} <= found["faults"].keys()
