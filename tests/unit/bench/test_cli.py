"""Every error of the command line is one clear line and an exit code of its class."""

from importlib.metadata import version
from pathlib import Path

import pytest

from pd_bench.cli import main

ROWS = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,40,4\n"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(ROWS)
    return path


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--schemes", "pd-device,magic"], "unknown scheme 'magic'; known: device-only"),
        (["--fidelity", "dream"], "unknown fidelity 'dream'; known: real, fleet"),
        (["--device-profile", "fridge"], "known profiles: edge-box, laptop, phone, slow"),
        ([], "name their --device-profile"),
        (["--fidelity", "real", "--link-profile", "x"], "unknown link profile 'x'"),
        (["--fidelity", "real", "--temperature", "-1"], "temperature is -1.0; it must"),
        (["--fidelity", "real", "--limit", "0"], "the limit of rows is 0"),
        (["--fidelity", "real", "--cloud", "h:1", "--api-key-file", "no"], "key file no cannot"),
        (["--fidelity", "real", "--json", "/"], "cannot be written"),
        (["--endpoint", "localhost:1"], "--endpoint is 'localhost:1'; such as http://"),
        (["--endpoint", "http://a.example"], "plaintext beyond this machine; use https"),
        (["--endpoint", "http://localhost:1", "--endpoint-prompts", "x"], "unknown prompts 'x'"),
        (["--endpoint", "http://localhost:1", "--cloud", "a:1"], "--cloud says nothing to --endp"),
        (["--endpoint", "http://localhost:1", "--json", "/"], "cannot be written"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    arguments: list[str],
    why: str,
) -> None:
    assert run(monkeypatch, "replay", str(trace), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pd-bench: ")
    assert why in captured.err
    assert captured.err.count("\n") == 1


def test_a_key_file_of_two_lines_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    key = trace.parent / "key"
    key.write_text("s3cret\nx: s3cret\n")
    given = ("--cloud", "localhost:1", "--api-key-file", str(key))
    assert run(monkeypatch, "replay", str(trace), "--fidelity", "real", *given) == 2
    error = capsys.readouterr().err
    assert "holds no usable key" in error
    assert "s3cret" not in error


def test_a_broken_trace_is_found_before_a_server_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    trace.write_text(ROWS + "2023-11-16 18:17:04.0,-3,4\n")
    monkeypatch.setattr("pd_bench.replay.own_server", None)  # starting one would be an error
    assert run(monkeypatch, "replay", str(trace), "--fidelity", "real") == 2
    assert "line 3: ContextTokens is '-3'" in capsys.readouterr().err


def test_trace_info_prints_lengths_and_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], trace: Path
) -> None:
    trace.write_text(ROWS + "2023-11-16 18:17:05.9799600,60,8\n")
    assert run(monkeypatch, "trace", "info", str(trace)) == 0
    out = capsys.readouterr().out
    assert "trace.csv: 2 rows over 2.0 s, 0.50 requests/s" in out
    prompt = next(line for line in out.splitlines() if "prompt" in line)
    assert [cell.strip() for cell in prompt.strip("│").split("│")][1:3] == ["50", "50"]
    assert run(monkeypatch, "trace", "info", str(trace.parent)) == 2
    assert "directory" in capsys.readouterr().err


def test_the_version_is_the_package_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"pd-bench {version('pd-device')}\n"


@pytest.mark.parametrize(
    "command",
    [(), ("replay",), ("report",), ("compare",), ("trace",), ("trace", "info"), ("trace", "fetch")],
)
def test_help_is_short_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    assert run(monkeypatch, *command, "-h") == 0
    assert "Usage: pd-bench" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--json", "/"], "another file with --json"),
        (["--report", "/"], "another file with --report"),
        (["--report", "no/folder/page.html"], "another file with --report"),
        (["--cloud-profile", "cloud9"], "'cloud9' is no cloud profile"),
        (["--link", "string"], "unknown link profile 'string'"),
        (["--keep-requests", "-1"], "--keep-requests is -1"),
        (["--validate", "no.json"], "no.json"),
    ],
)
def test_a_simulation_is_refused_before_it_runs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    arguments: list[str],
    why: str,
) -> None:
    assert run(monkeypatch, "simulate", str(trace), *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert why in captured.err
    assert captured.err.count("\n") == 1


def test_a_simulation_leaves_broken_rows_out_and_writes_its_page(
    monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path
) -> None:
    with trace.open("a") as file:
        file.write("2023-11-16 18:17:04.0000000,40,nan\n")
    page = tmp_path / "page.html"
    arguments = ["simulate", str(trace), "--schemes", "cloud-only", "--report", str(page)]
    assert run(monkeypatch, *arguments) != 0
    assert not page.exists()
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments, "--skip-broken"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    text = page.read_text()
    assert "1 broken rows of the trace left out (line 3 " in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "trace.csv"]
