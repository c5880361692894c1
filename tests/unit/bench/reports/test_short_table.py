"""The README's table is what `make bench` prints, and measured with the options it runs."""

import os
import re
import subprocess
from pathlib import Path

from pd_bench.reports.short_table import short_table
from tests.result_documents import document, full_document, record

ROOT = Path(__file__).parents[4]


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_readme_s_rows_are_the_table_s() -> None:
    readme = (ROOT / "README.md").read_text()
    told = re.search(r"measured:begin.*?\n(\|.*?)\n<!-- measured:end", readme, re.DOTALL)
    assert told is not None
    bare = full_document().model_copy(update={"labels": ()})
    ours, theirs = rows(short_table(bare)), rows(told[1])
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert ours[:2] == theirs[:2]  # schemes, and the line below them


def test_what_stands_in_and_what_is_not_to_be_quoted_is_said_below() -> None:
    told = full_document().model_copy(
        update={
            "labels": ("devices: emulated, slow", "cloud: real server process"),
            "valid": False,
            "invalid_because": ("one core",),
        }
    )
    assert short_table(told).splitlines()[-3:] == [
        "",
        "- devices: emulated, slow",
        "- INVALID: one core",
    ]


def test_figures_are_whole_milliseconds_and_what_is_not_known_is_empty() -> None:
    table = short_table(full_document())
    assert "| TTFT p50 / p99 | 4900 / 7742 ms | 490 / 774 ms | **490 / 774 ms** |" in table
    assert "| gap at the handoff p50 / max | | | |" in table
    assert "| rows with the same answer in all three | | | **30 of 30** |" in table
    two = document([record(0, "cloud-only"), record(0, "pd-device")])
    assert "the same answer in both | |" in short_table(two)


def _replay_flags(command: str) -> dict[str, str]:
    return dict(re.findall(r"(--[a-z-]+) +([^\s\\]+)", command.partition("pd-bench replay")[2]))


def test_make_bench_replays_with_the_options_of_the_documented_table() -> None:
    done = subprocess.run(
        ["make", "-n", "bench", "TRACE=t.csv", "RUN_STAMP="],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.match(r'echo "make bench takes \d+ minutes', done.stdout.strip())
    run = re.search(r"pd-bench replay.*?results/bench.json", done.stdout, re.DOTALL)
    page = (ROOT / "docs/background/benchmarks.md").read_text()
    documented = re.search(r"```console\n(pd-bench replay .*?)```", page, re.DOTALL)
    assert run is not None
    assert documented is not None
    flags = _replay_flags(run[0])
    assert flags.pop("--json") == "results/bench.json"
    assert flags == _replay_flags(documented[1])
    assert "pd-bench report results/bench.json --markdown" in done.stdout
