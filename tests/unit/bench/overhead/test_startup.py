"""Parts of a start are timed by the lines of a process that says what it does."""

import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.overhead.startup import Start, startup_table, timed_start
from pd_core.errors import EngineError

MARKS = {"import": "loading", "probe": "known"}
SAYS = """
import sys, time
def say(text, seconds):
    time.sleep(seconds)
    print(text, file=sys.stderr, flush=True)
say("DEBUG a: loading it", 0)
say("DEBUG a: of no concern", 0.1)
say("DEBUG b: all is known", 0.9)
"""
SHOWS = "print(end='a', flush=True); time.sleep(0.2); print('b')"
WAITS = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODE))
say("serving", 0)
time.sleep(60)
"""


async def _timed(script: str, folder: Path, *, shows: bool) -> dict[str, float]:
    command = [sys.executable, "-c", SAYS + script]
    marks = MARKS if shows else MARKS | {"serve": "serving"}
    return await timed_start(command, marks, folder, shows=shows)


async def test_a_part_lasts_from_line_to_line(tmp_path: Path) -> None:
    began_s = time.perf_counter()
    parts_s = await _timed(SHOWS, tmp_path, shows=True)
    whole_s = time.perf_counter() - began_s
    assert [*parts_s] == ["import", "probe", "first token"]
    assert parts_s["probe"] > 0.1  # of the second that it takes: a busy machine reads lines late
    assert all(seconds >= 0 for seconds in parts_s.values())
    assert sum(parts_s.values()) <= whole_s, "nothing is counted twice"


async def test_a_server_is_ended_in_order_once_it_serves(tmp_path: Path) -> None:
    parts_s = await _timed(WAITS.replace("CODE", "0"), tmp_path, shows=False)
    assert [*parts_s] == ["import", "probe", "serve"]


@pytest.mark.parametrize(
    ("script", "shows", "message"),
    [
        ("", True, "ended with code 0, after the parts: import, probe; the end of its log:"),
        ("sys.exit('no model')", True, "code 1, after the parts: import, probe.*no model"),
        ("print('a'); sys.exit(3)", True, "code 3, after the parts: import, probe, first token"),
        (WAITS.replace("CODE", "1"), False, "code 1, after the parts: import, probe, serve"),
    ],
)
async def test_a_command_that_fails_has_no_figures(
    script: str, shows: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=f"(?s){message}"):
        await _timed(script, tmp_path, shows=shows)


async def test_the_user_s_own_settings_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PD_DEVICE_MODEL", "another")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    code = "import os; sys.exit('PD_DEVICE_MODEL' in os.environ or "
    code += f"os.environ['XDG_CACHE_HOME'] != {str(tmp_path)!r})"
    assert await _timed(f"print('a'); {code}", tmp_path, shows=True)


def test_the_table_has_medians_and_judges_warm_starts() -> None:
    starts = [Start("chat", "cold", {"import": 3.0, "first token": 1.0})]
    starts += [Start("chat", "warm", {"import": i, "first token": 0.5}) for i in (1.0, 1.25, 9.0)]
    starts += [Start("server", "warm", {"import": 2.0, "serve": 1.0})]
    table = startup_table(starts)
    assert [str(column.header) for column in table.columns[1:]] == [
        *("chat, cold", "chat, warm", "server, warm"),
    ]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    figures = {name: list(cells) for name, *cells in rows}
    assert figures["import"] == ["3.00", "1.25", "2.00"]
    assert figures["probe"] == ["", "", ""]
    assert figures["total"] == ["4.00", "1.75", "3.00"]
    assert figures["least"] == ["4.00", "1.50", "3.00"]
    assert figures["goal"] == ["", "2 met", "2.5 MISSED"]


def test_the_table_fits_a_terminal_and_cuts_nothing() -> None:
    kinds = [(command, cache) for command in ("chat", "server") for cache in ("cold", "warm")]
    parts = {"import": 31.25, "probe": 15.5, "load": 10.25, "hash": 10.5, "measure": 12.25}
    starts = [Start(*kind, {**parts, "first token": 10.25, "serve": 10.5}) for kind in kinds]
    console = Console(width=80, file=StringIO())
    console.print(startup_table(starts))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\u2026" not in printed
    assert all(
        words in printed for words in ("server, warm", "first token", "100.50", "2.5 MISSED")
    )
