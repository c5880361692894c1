"""Every error of the command line is one clear line and an exit code of its class."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pd_bench.cli import main
from pd_bench.commands import capacity_search
from pd_bench.commands.report import read_result
from pd_bench.replay.schemes import Scheme
from pd_bench.results.series import CapacityCurve
from pd_bench.simulation.capacity import Capacity

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--schemes", "pd-device,magic"], "unknown scheme 'magic'; known: device-only"),
        (["--fidelity", "dream"], "unknown fidelity 'dream'; known: real, fleet"),
        (["--device-profile", "fridge"], "known profiles: arm-board-1b, edge-box, laptop"),
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
        (["--endpoint", "http://localhost:1", "--tls", "--max-num-seqs", "3"], "-seqs, --tls says"),
        (["--endpoint", "http://localhost:1", "--max-prompt-tokens", "0"], "-prompt-tokens is 0"),
        (["--fidelity", "real", "--endpoint-plain"], "--endpoint-plain says nothing without --end"),
        (["--fidelity", "real", "--tls-ca", "x"], "--tls-ca says nothing without --cloud"),
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
    monkeypatch.setattr("pd_bench.replay.replay.own_server", None)  # starting one would be an error
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
        (["--json", "{trace}"], "the trace and --json are one file"),
        (["--json", "/dev/null"], "not a plain file"),
        (["--json", "{trace}.x", "--report", "{trace}.x"], "--json and --report are one file"),
        (["--cloud-profile", "cloud9"], "'cloud9' is no cloud profile"),
        (["--link", "string"], "unknown link profile 'string'"),
        (["--keep-requests", "-1"], "--keep-requests is -1"),
        (["--pace", "1e300"], "--pace is 1e+300; it must lie between 0.001 and 60 seconds"),
        (["--timeout", "0.001"], "--timeout is 0.001; it must lie between 0.1 and 1e+06 seconds"),
        (["--timeout", "1.2"], "--timeout is 1.2; at --pace 0.1 the 16 tokens of a warm-up"),
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
    before = trace.read_bytes()
    named = [argument.format(trace=trace) for argument in arguments]
    assert run(monkeypatch, "simulate", str(trace), *named) == 2
    assert trace.read_bytes() == before
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


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--ttft", "nan"], "--ttft is nan"),
        (["--ttft", "0"], "--ttft is 0.0"),
        (["--ttft", "1e300"], "--ttft is 1e+300; it must lie between 0.001 and 3600 seconds"),
        (["--largest-gap", "1e300"], "--largest-gap is 1e+300; it must lie between --pace, 0.2"),
        (["--pace", "1e300"], "--pace is 1e+300; it must lie between 0.001 and 60 seconds"),
        (["--largest-gap", "nan"], "--largest-gap is nan"),
        (["--largest-gap", "0.1", "--pace", "0.2"], "is 0.1; it must lie between --pace, 0.2"),
        (["--regimes", ","], "name one or both of slots, compute"),
        (["--regimes", "slots,slots"], "name one or both of slots, compute"),
        (["--json", "{trace}"], "the trace and --json are one file"),
    ],
)
def test_a_search_that_could_find_nothing_is_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trace: Path,
    arguments: list[str],
    why: str,
) -> None:
    named = [argument.format(trace=trace) for argument in arguments]
    assert run(monkeypatch, "capacity", str(trace), *named) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert why in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("found_before", [0, 1])
def test_a_search_that_is_interrupted_keeps_what_it_found(
    monkeypatch: pytest.MonkeyPatch, trace: Path, tmp_path: Path, found_before: int
) -> None:
    with trace.open("a") as file:
        file.write("2023-11-16 18:17:04.0000000,40,8\n")
    calls: list[str] = []

    def find(settings: object, scheme: Scheme, *rest: object, **named: object) -> Capacity:
        if len(calls) == found_before:
            raise KeyboardInterrupt
        calls.append(scheme.name)
        return Capacity(
            CapacityCurve(regime="slots: 4 slots", capacity_per_s=2.5, points=()), 8.0, 0.1
        )

    monkeypatch.setattr(capacity_search, "find_capacity", find)
    out = tmp_path / "out.json"
    assert run(monkeypatch, "capacity", str(trace), "--json", str(out)) == 130
    assert out.exists() == bool(found_before)
    if found_before:
        document = read_result(out)
        assert document.partial
        assert not document.valid
        assert list(document.capacity) == ["cloud-only"]


def test_a_help_waits_for_nothing_that_only_a_run_needs() -> None:
    heavy = ("numpy", "torch", "grpc", "httpx", "matplotlib", "pd_device_client.session.session")
    asked = f"import sys, pd_bench.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
