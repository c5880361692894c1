"""Forecasts of answers' lengths, scored."""

import json
import random
from pathlib import Path

import pytest

from pd_bench.cli import main
from pd_bench.traces.length_forecasts import forecast_scores
from pd_bench.traces.row import TraceRow
from pd_core.errors import TraceError


def _rows(count: int) -> list[TraceRow]:
    drawn = random.Random(0)
    prompts = [drawn.choice((200, 2000)) for _ in range(count)]
    return [
        TraceRow(i + 2, float(i), n, drawn.randrange(1, 100 if n > 1000 else 1000))
        for i, n in enumerate(prompts)
    ]


@pytest.mark.slow
def test_coverage_is_near_the_quantile_and_the_prompt_helps() -> None:
    scores = forecast_scores(_rows(2000))
    assert [s.rows for s in scores if s.quantile == 0.9] == [999, 1000, 1000]
    for score in scores:
        assert score.coverage == pytest.approx(score.quantile, abs=0.05)
        assert score.pinball_tokens < score.pinball_of_one


def test_no_answer_is_part_of_its_own_forecast() -> None:
    """Every answer is longer than all before it, so none can be covered."""
    rows = [TraceRow(i + 2, float(i), 100, 2 ** (i // 2) * (2 + i % 2)) for i in range(40)]
    assert all(score.coverage == 0 for score in forecast_scores(rows))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(TraceError, match="forecasts need"):
        forecast_scores(_rows(19))


def test_the_command_writes_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "lengths.json"
    trace.write_text(
        "".join(
            json.dumps({
                "timestamp": i * 1000,
                "input_length": row.prompt_tokens,
                "output_length": row.output_tokens,
                "hash_ids": [],
            })
            + "\n"
            for i, row in enumerate(_rows(60))
        )
    )  # fmt: skip
    monkeypatch.setattr("sys.argv", ["pd-bench", "lengths", str(trace), "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "coverage" in capsys.readouterr().out
    scores = json.loads(out.read_text())["scores"]
    assert len(scores) == 6
    assert {score["quantile"] for score in scores} == {0.5, 0.9}
