"""`pd-bench trace`: info, convert, fit, generate, from files to files."""

import json
from pathlib import Path

import pytest

from pd_bench.cli import main
from pd_bench.traces.reader import read_trace
from pd_bench.traces.row import TraceRow
from pd_bench.traces.slicing import TraceSlice, sorted_rows
from pd_core.errors import ConfigError

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.0,1025,4\n"
    "2023-11-16 18:17:04.5,40,8\n"
    "2023-11-16 18:17:05.0,700,6\n"
    "2023-11-16 18:17:09.0,9,600\n"
)
QWEN = (
    '{"chat_id": 7, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 33, '
    '"output_length": 132, "type": "text", "turn": 1, "hash_ids": [5, 6, 7]}\n'
    '{"chat_id": 9, "parent_chat_id": 7, "timestamp": 2.0, "input_length": 16, '
    '"output_length": 1, "type": "text", "turn": 2, "hash_ids": [5]}\n'
)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(AZURE)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", "trace", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_info_as_json_is_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    trace.write_text(AZURE + "broken\n")
    assert run(monkeypatch, "info", str(trace), "--json", "--skip-broken") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["format"], document["rows"], document["skipped_rows"]) == ("azure", 4, 1)
    assert document["prompt_tokens"]["max"] == 1025
    assert "1 broken rows of the trace left out (line 6 has 1 columns" in captured.err
    assert run(monkeypatch, "info", str(trace)) == 2
    assert "line 6" in capsys.readouterr().err


def test_our_own_format_keeps_all_there_is(
    monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own.jsonl"
    for content in (AZURE, QWEN):
        trace.write_text(content)
        assert run(monkeypatch, "convert", str(trace), "-o", str(out)) == 0
        rows, again = list(read_trace(trace)), list(read_trace(out))
        assert [(r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in again] == [
            (r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in rows
        ]
        assert [(r.block_hashes, r.block_tokens) for r in again] == [
            (r.block_hashes, r.block_tokens) for r in rows
        ]
        assert json.loads(out.read_text().splitlines()[0])["source"] == "trace.csv"


def test_mooncake_s_format_is_read_back_and_rows_without_hashes_share_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "moon.jsonl"
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--to", "mooncake") == 0
    rows = list(read_trace(out))
    assert [(r.arrival_s, r.prompt_tokens) for r in rows] == [
        (0.0, 1025),
        (1.5, 40),
        (2.0, 700),
        (6.0, 9),
    ]
    blocks = [block for r in rows for block in r.block_hashes or ()]
    assert len(set(blocks)) == len(blocks) == 3 + 1 + 2 + 1
    trace.write_text(QWEN)
    out.unlink()
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--to", "mooncake") == 2
    assert "blocks of 512 tokens, and these rows blocks of 16" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [trace]  # nothing half-written is left


def test_a_part_of_a_trace(monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.jsonl"
    cuts = (
        "--from-s",
        "1",
        "--to-s",
        "6",
        "--max-prompt-tokens",
        "512",
        "--max-output-tokens",
        "7",
    )
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), *cuts) == 0
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in read_trace(out)] == [
        (0.0, 40, 7),
        (0.5, 512, 6),
    ]
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--every", "3") == 0
    assert [r.arrival_s for r in read_trace(out)] == [0.0, 6.0]
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--limit", "1") == 0
    assert len(list(read_trace(out))) == 1


def test_an_unsorted_trace_is_sorted_on_demand(
    monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path
) -> None:
    header, *rows = AZURE.splitlines(keepends=True)
    trace.write_text("".join([header, rows[2], rows[0], rows[3], rows[1]]))
    out = tmp_path / "sorted.jsonl"
    assert run(monkeypatch, "convert", str(trace), "-o", str(out)) == 2
    assert not out.exists()
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--sort") == 0
    assert [(r.arrival_s, r.prompt_tokens) for r in read_trace(out)] == [
        (0.0, 1025),
        (1.5, 40),
        (2.0, 700),
        (6.0, 9),
    ]


def test_equal_arrivals_stay_in_order_when_sorted() -> None:
    rows = [TraceRow(1, 5.0, 1, 1), TraceRow(2, -1.0, 2, 2), TraceRow(3, 5.0, 3, 3)]
    assert [(r.line, r.arrival_s) for r in sorted_rows(rows)] == [(2, 0.0), (1, 6.0), (3, 6.0)]
    assert list(sorted_rows([])) == []


def test_cut_prompts_keep_the_hashes_of_what_is_left() -> None:
    row = TraceRow(1, 0.0, 1025, 5, (7, 8, 9))
    (cut,) = TraceSlice(max_prompt_tokens=513).of([row])
    assert (cut.prompt_tokens, cut.block_hashes) == (513, (7, 8))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"from_s": 5.0, "to_s": 5.0}, "no stretch of time"),
        ({"from_s": -1.0}, "no stretch of time"),
        ({"from_s": float("nan")}, "no stretch of time"),
        ({"every": 0}, "--every is 0"),
        ({"max_prompt_tokens": 0}, "--max-prompt-tokens is 0"),
        ({"limit": -2}, "--limit is -2"),
    ],
)
def test_a_wrong_part_is_refused(values: dict[str, float], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        TraceSlice(**values)  # type: ignore[arg-type]


def test_fit_and_generate_from_file_to_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    tmp_path: Path,
) -> None:
    fitted, made = tmp_path / "fit.json", tmp_path / "made.jsonl"
    assert run(monkeypatch, "fit", str(trace), "-o", str(fitted)) == 0
    assert "generated from the fit: 4 rows" in capsys.readouterr().out
    given = ("generate", str(fitted), "--rows", "300", "--seed", "4", "-o")
    assert run(monkeypatch, *given, str(made)) == 0
    rows = list(read_trace(made))
    assert len(rows) == 300
    assert all(9 <= row.prompt_tokens <= 1025 for row in rows)
    assert "seed 4" in made.read_text().splitlines()[0]
    first = made.read_bytes()
    assert run(monkeypatch, *given, str(made)) == 0
    assert made.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["convert", "{trace}", "-o", "{tmp}/none/x"], "cannot be written"),
        (["convert", "{trace}", "-o", "{tmp}"], "it is a directory"),
        (
            ["convert", "{trace}", "-o", "{tmp}/x", "--to", "csv"],
            "unknown format 'csv'; known: pd-",
        ),
        (["fit", "{trace}", "-o", "{tmp}/none/x"], "cannot be written"),
        (["convert", "{trace}", "-o", "{trace}"], "the trace and --out are one file"),
        (["fit", "{trace}", "-o", "{trace}"], "the trace and --out are one file"),
        (["generate", "{trace}", "--rows", "3", "-o", "{trace}"], "FIT and --out are one file"),
        (["generate", "{trace}", "--rows", "3", "-o", "{tmp}/x"], "is no fit of `pd-bench trace"),
        (["generate", "{tmp}/no", "--rows", "3", "-o", "{tmp}/x"], "the fit cannot be read"),
        (["fetch", "azure"], "no published trace is called 'azure'; known: azure-2023-code"),
        (["fetch", "https://example.org/"], "no published trace is called"),
    ],
)
def test_a_wrong_argument_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    arguments: list[str],
    why: str,
) -> None:
    places = {"trace": str(trace), "tmp": str(trace.parent)}
    assert run(monkeypatch, *(a.format(**places) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_a_part_without_rows_is_an_error_and_replaces_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    out = trace.parent / "part.jsonl"
    out.write_text("an older trace")
    assert run(monkeypatch, "convert", str(trace), "-o", str(out), "--from-s", "100") == 2
    assert "no row of trace.csv is left" in capsys.readouterr().err
    assert out.read_text() == "an older trace"
