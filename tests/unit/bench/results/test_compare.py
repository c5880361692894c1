"""Comparing two results: what is worse is found, and noise is not."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pd_bench.cli import main
from pd_bench.commands.report import read_result
from pd_bench.results.compare import compare_results
from pd_bench.results.result import EqualRows, RequestRecord, ResultDocument
from pd_core.errors import ConfigError
from tests.result_documents import document, full_document, record


def noisy(
    seed: int,
    num_rows: int = 80,
    change: Callable[[int, RequestRecord], RequestRecord] = lambda _, r: r,
) -> ResultDocument:
    """Runs of the same rows: each row has a time of its own, and each run its noise."""
    rows = np.random.default_rng(1).lognormal(-1.5, 0.8, num_rows)
    noise = np.random.default_rng(seed)
    records = []
    for row, ttft_s in enumerate(rows):
        jitter = noise.normal(0, 0.01, 3)
        made = record(
            row,
            "pd-device",
            ttft_s=float(ttft_s * np.exp(noise.normal(0, 0.1))),
            gaps_s=[0.1 + abs(float(j)) for j in jitter],
            cloud_tokens=2,
        )
        records.append(change(row, made))
    return document(records)


def slower(factor: float) -> Callable[[int, RequestRecord], RequestRecord]:
    def change(row: int, r: RequestRecord) -> RequestRecord:
        gaps = [float(g) for g in r.gaps_s]
        assert r.ttft_s is not None
        return record(row, r.scheme, ttft_s=r.ttft_s * factor, gaps_s=gaps, cloud_tokens=2)

    return change


def test_a_result_equals_itself() -> None:
    same = full_document()
    comparison = compare_results(same, same)
    assert comparison.rows == 30
    assert {f.verdict for f in comparison.figures} == {"same"}
    assert comparison.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 22))
def test_noise_is_no_regression(seed: int) -> None:
    assert compare_results(noisy(1), noisy(seed)).regressions == ()


def test_a_slower_first_token_is_found_and_named() -> None:
    comparison = compare_results(noisy(1), noisy(2, change=slower(1.3)))
    assert "TTFT p50" in {f.name for f in comparison.regressions}
    (ttft,) = [f for f in comparison.regressions if f.name == "TTFT p50"]
    assert ttft.ratio is not None
    assert ttft.ratio.low > 1.05
    assert "B / A lies in" in ttft.why
    back = compare_results(noisy(2, change=slower(1.3)), noisy(1))
    assert back.regressions == ()
    assert "better" in {f.verdict for f in back.figures if f.name == "TTFT p50"}


def test_a_difference_within_the_tolerance_is_none() -> None:
    assert compare_results(noisy(1), noisy(2, change=slower(1.3)), 0.6).regressions == ()


def test_a_seam_in_a_few_requests_is_found_although_the_median_is_the_same() -> None:
    def stall(row: int, r: RequestRecord) -> RequestRecord:
        if row % 6:
            return r
        assert r.ttft_s is not None
        return record(row, r.scheme, ttft_s=r.ttft_s, gaps_s=(0.1, 0.9, 0.1), cloud_tokens=2)

    comparison = compare_results(noisy(1), noisy(2, change=stall))
    found = {f.name: f for f in comparison.regressions}
    assert {"largest gap p99", "stalled rows"} <= found.keys()
    assert "largest gap p50" not in found
    assert "14 rows stall anew, 0 no longer" in found["stalled rows"].why


def test_more_failures_and_other_answers_are_regressions_without_noise() -> None:
    def fail(row: int, r: RequestRecord) -> RequestRecord:
        return r.model_copy(update={"error": "QueueFull: full"}) if row == 3 else r

    worse = noisy(1, change=fail).model_copy(update={"equal_rows": EqualRows(equal=79, rows=80)})
    found = {f.name: f.why for f in compare_results(noisy(1), worse).regressions}
    assert found == {
        "failed": "0 of 80 to 1 of 80 requests",
        "rows with equal answers": "80 of 80 to 79 of 80",
    }


def test_what_speaks_against_the_comparison_is_said() -> None:
    other = full_document().model_copy(
        update={"valid": False, "invalid_because": ("late",), "pace_s": 0.2}
    )
    notes = compare_results(full_document(), other, even_invalid=True).notes
    assert notes[0] == "B is not valid (late)"
    assert "other pace: 0.1 in A, 0.2 in B" in notes
    faster = full_document().model_copy(
        update={"profiles": {"device": {"name": "slow", "decode_s": 0.01}, "link": {"name": "lte"}}}
    )
    assert compare_results(full_document(), faster).notes == (
        "the device's profile slow has other values in B",
        "other profile of the link: none in A, lte in B",
    )


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (document([record(0, "cloud-only")]), "no scheme in common"),
        (document([record(77, "pd-device")]), "no rows in common"),
        (document([record(0, "pd-device", gaps_s=[0.1] * 9)]), "row 0 has 100 prompt and 3 output"),
    ],
)
def test_results_of_other_requests_are_refused(second: ResultDocument, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        compare_results(document([record(0, "pd-device")]), second)
    with pytest.raises(ConfigError, match="--tolerance is -1"):
        compare_results(second, second, -1.0)


def test_a_simulation_is_no_better_or_worse_than_a_replay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    replayed, simulated = tmp_path / "a.json", tmp_path / "b.json"
    replayed.write_text(noisy(1).model_dump_json())
    slow = noisy(2, change=slower(1.5)).model_copy(update={"fidelity": "simulated"})
    simulated.write_text(slow.model_dump_json())
    for pair in ((replayed, simulated), (simulated, replayed)):
        assert run(monkeypatch, *map(str, pair)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "neither better nor worse; compare runs of one fidelity" in captured.err
        assert "simulate TRACE --validate" in captured.err
    # Two simulations are of one kind.
    assert run(monkeypatch, str(simulated), str(simulated)) == 0


def test_a_run_that_cannot_be_trusted_gets_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sound, late = tmp_path / "a.json", tmp_path / "b.json"
    sound.write_text(noisy(1).model_dump_json())
    invalid = {"valid": False, "invalid_because": ("sent too late",)}
    late.write_text(noisy(2, change=slower(1.5)).model_copy(update=invalid).model_dump_json())
    for pair, name in (((sound, late), "B"), ((late, sound), "A")):
        assert run(monkeypatch, *map(str, pair)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert f"{name} is not valid (sent too late), so nothing can be called" in captured.err
        assert captured.err.count("\n") == 1
    assert run(monkeypatch, str(sound), str(late), "--even-invalid") == 0
    shown = capsys.readouterr().out
    assert "TTFT p50" in shown
    assert "no verdict" in shown
    assert "- B is not valid (sent too late)" in shown
    assert "worse:" not in shown
    assert run(monkeypatch, str(sound), str(late), "--even-invalid", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {figure["verdict"] for figure in told["figures"]} == {"none"}
    # The option takes no verdict from results that are valid.
    slow = tmp_path / "c.json"
    slow.write_text(noisy(2, change=slower(1.5)).model_dump_json())
    assert run(monkeypatch, str(sound), str(slow), "--even-invalid") == 1


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", "compare", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_exit_code_tells_of_a_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(noisy(1).model_dump_json())
    b.write_text(noisy(2, change=slower(1.5)).model_dump_json())
    assert run(monkeypatch, str(a), str(a)) == 0
    capsys.readouterr()
    assert run(monkeypatch, str(a), str(b)) == 1
    captured = capsys.readouterr()
    assert "regression: pd-device: TTFT p50: B / A lies in" in captured.err
    assert run(monkeypatch, str(a), str(b), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 80
    assert told["regressions"] >= 1
    assert {f["verdict"] for f in told["figures"]} >= {"worse", "same"}
    assert run(monkeypatch, str(a), str(tmp_path)) == 2


def test_a_single_row_s_times_are_shown_in_milliseconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    one = document([record(0, "pd-device", ttft_s=0.0745, gaps_s=[0.1], cloud_tokens=2)])
    path.write_text(one.model_dump_json())
    monkeypatch.setattr("sys.argv", ["pd-bench", "compare", str(path), str(path)])
    with pytest.raises(SystemExit):
        main()
    assert "74.5 ms" in capsys.readouterr().out


def test_a_document_of_another_version_is_not_read_as_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "later.json"
    later = json.loads(full_document().model_dump_json()) | {"schema_version": 2}
    path.write_text(json.dumps(later | {"a_later_field": 1}))
    with pytest.raises(ConfigError, match="has the schema version 2, and this pd-bench reads 1"):
        read_result(path)


def test_a_search_for_a_capacity_has_nothing_to_compare() -> None:
    search = full_document().model_copy(update={"schemes": {}, "requests": ()})
    with pytest.raises(ConfigError, match=r"^A has no scheme .*: it is a search for a capacity"):
        compare_results(search, full_document())
    with pytest.raises(ConfigError, match=r"^B has no scheme"):
        compare_results(full_document(), search)


def test_too_few_rows_and_a_missing_scheme_are_said() -> None:
    def of(scheme: str, rows: int, ttft_s: float) -> list[RequestRecord]:
        return [record(row, scheme, ttft_s=ttft_s * (1 + row / 100)) for row in range(rows)]

    few = compare_results(document(of("a", 6, 1.0)), document(of("a", 6, 10.0)))
    assert any("6 rows are too few" in note for note in few.notes)
    enough = compare_results(document(of("a", 12, 1.0)), document(of("a", 12, 10.0)))
    assert not any("too few" in note for note in enough.notes)
    assert "TTFT p50" in {f.name for f in enough.regressions}, "twelve rows, ten times as long"
    both, one = document([*of("a", 12, 1.0), *of("b", 12, 1.0)]), document(of("a", 12, 1.0))
    assert any("only A has b" in note for note in compare_results(both, one).notes)
    assert any("only B has b" in note for note in compare_results(one, both).notes)


def test_answers_that_nobody_could_compare_are_no_regression() -> None:
    cut = noisy(1).model_copy(update={"equal_rows": EqualRows(equal=0, rows=0)})
    assert compare_results(noisy(1), cut).regressions == ()
