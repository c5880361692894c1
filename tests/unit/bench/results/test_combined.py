"""Combining documents: what is refused, what is matched, what comes out."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pd_bench.cli import main
from pd_bench.results.combined import combine_results
from pd_bench.results.result import RequestRecord, ResultDocument
from pd_core.errors import ConfigError
from tests.result_documents import document, record

ROWS = 60
TIMES = np.random.default_rng(5).lognormal(0, 0.5, ROWS).tolist()


def _simulated(scale: float = 0.5, **changes: object) -> ResultDocument:
    records = [record(row, "pd-device", ttft_s=scale * TIMES[row]) for row in range(ROWS)]
    return document(records, **{"fidelity": "simulated", **changes})


def _real(rows: Sequence[int] = tuple(range(0, ROWS, 4)), **changes: object) -> ResultDocument:
    return document([_measured(row) for row in rows], **{"fidelity": "real", **changes})


def _measured(row: int) -> RequestRecord:
    return record(row, "pd-device", ttft_s=TIMES[row] + 0.01 * (row % 3))


def test_a_simulation_that_is_twice_too_fast_still_narrows_the_interval() -> None:
    found = combine_results(_real(), [_simulated()])
    assert (found.real_rows, found.rows) == (15, ROWS)
    (ttft,) = (f.mean for f in found.figures if f.name == "TTFT, s")
    truth = np.mean([TIMES[row] + 0.01 * (row % 3) for row in range(ROWS)])
    assert ttft.helped
    assert ttft.combined.low <= truth <= ttft.combined.high
    assert ttft.combined.high - ttft.combined.low < 0.6 * (ttft.alone.high - ttft.alone.low)
    assert not found.notes


def test_a_failed_row_counts_nowhere() -> None:
    broken = _real()
    records = (*broken.requests, record(1, "pd-device", ttft_s=99.0, error="gone"))
    found = combine_results(broken.model_copy(update={"requests": records}), [_simulated()])
    assert found.real_rows == 15


def test_rows_that_are_no_random_part_are_noted() -> None:
    longest = sorted(range(ROWS), key=lambda row: -TIMES[row])[:15]
    assert "drawn at random" in combine_results(_real(longest), [_simulated()]).notes[0]


@pytest.mark.parametrize(
    ("real", "simulated", "why"),
    [
        (_real(fidelity="simulated"), _simulated(), "give a replay first"),
        (_real(), _real(), "no simulation"),
        (_real(), _simulated(trace_sha256="1" * 64), "another trace"),
        (_real(), _simulated(pace_s=0.7), "paces differ"),
        (_real(rows=(1, 2)), _simulated(), "fewer than 3"),
        (_real(valid=False, invalid_because=("slow",)), _simulated(), "not valid"),
    ],
)
def test_what_cannot_be_combined(real: ResultDocument, simulated: ResultDocument, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        combine_results(real, [simulated])


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, simulated = tmp_path / "real.json", tmp_path / "simulated.json"
    real.write_text(_real().model_dump_json())
    simulated.write_text(_simulated().model_dump_json())
    assert _run(monkeypatch, "combine", str(real), str(simulated)) == 0
    assert "means over 60 rows, of which 15 were measured" in capsys.readouterr().out
    assert _run(monkeypatch, "combine", str(real), str(simulated), str(simulated), "--json") == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert len(figures[0]["mean"]["weights"]) == 2
