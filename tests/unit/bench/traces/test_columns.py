"""Any CSV or JSONL by --columns, in every command that reads a trace."""

import json
from pathlib import Path

import pytest

from pd_bench.cli import main
from pd_bench.clouds.settings import CloudSettings
from pd_bench.traces.columns import parse_columns
from pd_bench.traces.reader import TraceRow, format_name, read_trace
from pd_core.errors import ConfigError, TraceError

NAMES = "arrival=time,prompt=in,output=out,session=user"
CSV = 'user,out,time,in,note\nu,4,1.5,10,"a, b"\n,8.0,2,20,\n'
ROWS = [(0.0, 10, 4, "u"), (0.5, 20, 8, None)]
JSONL = (
    '{"time": "2026-01-01T00:00:00Z", "usage": {"in": 10, "out": "4"}, "user": 7}\n'
    '{"time": "2026-01-01T01:00:00.5+01:00", "usage": {"in": 20.0, "out": 8}, "user": null}\n'
)
NESTED = "arrival=time,prompt=usage.in,output=usage.out,session=user"


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "trace"
    path.write_text(content)
    return path


def read(path: Path, names: str) -> list[tuple[float, int, int, str | None]]:
    rows = read_trace(path, columns=parse_columns(names))
    return [(r.arrival_s, r.prompt_tokens, r.output_tokens, r.session) for r in rows]


def test_any_table_is_mapped(tmp_path: Path) -> None:
    path = write(tmp_path, CSV)
    assert read(path, NAMES) == ROWS
    assert format_name(path, parse_columns(NAMES)) == "CSV by --columns"
    assert read(write(tmp_path, CSV.replace("a, b", "a").replace(",", ";")), NAMES) == ROWS


def test_any_json_lines_are_mapped_also_by_keys_of_keys(tmp_path: Path) -> None:
    path = write(tmp_path, JSONL)
    assert read(path, NESTED) == [(0.0, 10, 4, "7"), (0.5, 20, 8, None)]
    assert format_name(path, parse_columns(NESTED)) == "JSONL by --columns"
    whole = JSONL.replace('"usage": {"in": 10, "out": "4"}', '"usage.in": 11, "usage": {"out": 4}')
    assert read(write(tmp_path, whole), NESTED)[0] == (0.0, 11, 4, "7")


def test_arrivals_in_milliseconds(tmp_path: Path) -> None:
    path = write(tmp_path, CSV.replace("1.5", "1700000000000").replace("2,", "1700000000250.5,"))
    names = NAMES.replace("arrival=", "arrival_ms=")
    assert [row[0] for row in read(path, names)] == [0.0, 0.2505]
    with pytest.raises(TraceError, match=r"line 2: time .* thousands of years; .*arrival_ms"):
        read(path, NAMES)


def test_columns_also_map_a_known_format_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path, '{"timestamp": 3, "input_length": 4, "output_length": 5}\n')
    rows = list(
        read_trace(
            path,
            columns=parse_columns("arrival=timestamp,prompt=output_length,output=input_length"),
        )
    )
    assert rows == [TraceRow(1, 0.0, 5, 4)]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("arrival=a,prompt=b", "needs one of arrival and arrival_ms, and prompt and output; such"),
        ("arrival=a,arrival_ms=a,prompt=b,output=c", "needs one of"),
        ("arrival=a,prompt=b,output=c,output=d", "has output twice"),
        ("time=a,prompt=b,output=c", "unknown key 'time'; known: arrival, arrival_ms, prompt"),
        ("arrival=a,prompt=,output=c", "'prompt=' is not KEY=NAME"),
        ("arrival", "'arrival' is not KEY=NAME"),
        ("", "needs one of"),
    ],
)
def test_names_that_are_not_complete_are_refused(names: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_columns(names)


def test_a_name_with_a_comma_is_quoted_with_its_key(tmp_path: Path) -> None:
    path = write(tmp_path, '"Start, UTC",in,out\n1,2,3\n')
    assert read(path, '"arrival=Start, UTC", prompt=in, output=out') == [(0.0, 2, 3, None)]


@pytest.mark.parametrize(
    ("content", "names", "why"),
    [
        (CSV, "arrival=when,prompt=in,output=out", "line 1: has no column 'when'; its columns are"),
        (CSV.replace("note", "in"), NAMES, "line 1: has more than one column 'in'"),
        (CSV + "u,4,1.0\n", NAMES, "line 4: has 3 columns; the header has 5"),
        (CSV + "u,4,x,1,\n", NAMES, "line 4: time is 'x'; it must be a date and time such as"),
        (CSV + "u,4,-3,1,\n", NAMES, "line 4: time is '-3'"),
        (JSONL + "[]\n", NESTED, "line 3: is no JSON object"),
        (JSONL + '{"time": 1}\n', NESTED, "line 3: has no key 'usage.in'; its keys are 'time'"),
        (JSONL.replace('"in": 10', '"in": true'), NESTED, "line 1: usage.in is True; it must be"),
        (JSONL.replace('"in": 10', '"in": NaN'), NESTED, "line 1: "),
        (JSONL.replace('"user": 7', '"user": [1]'), NESTED, "line 1: user is no text"),
        (JSONL + "{broken\n", NESTED, "line 3: "),
    ],
)
def test_what_the_names_do_not_fit_is_told_by_its_line(
    tmp_path: Path, content: str, names: str, why: str
) -> None:
    with pytest.raises(TraceError, match=why):
        read(write(tmp_path, content), names)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_every_command_that_reads_a_trace_takes_the_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, out = str(write(tmp_path, CSV + "u,3,4,30,\n")), tmp_path / "out"
    named = ("--columns", NAMES)
    assert run(monkeypatch, "trace", "info", path, *named, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    assert run(monkeypatch, "trace", "convert", path, *named, "-o", str(out)) == 0
    assert [row.output_tokens for row in read_trace(out)] == [4, 8, 3]
    assert run(monkeypatch, "trace", "fit", path, *named, "-o", str(out)) == 0
    assert run(monkeypatch, "simulate", path, *named, "--json", str(out)) == 0
    document = json.loads(out.read_text())
    assert document["settings"]["columns"] == NAMES
    assert document["cut_rows"]["rows"] == 3
    # Nothing of a replay starts before the trace is read.
    assert run(monkeypatch, "replay", path, "--columns", "x", "--device-profile", "slow") == 2
    assert "'x' is not KEY=NAME" in capsys.readouterr().err
    settings = CloudSettings(engines=("torch",), trace=Path(path), columns=NAMES)
    assert [row.prompt_tokens for row in settings.rows()] == [10, 20, 30]
