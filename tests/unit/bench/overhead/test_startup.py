"""Parts of a start are timed by the lines of a process that says what it does."""

import sys
from pathlib import Path

import pytest

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
say("DEBUG b: all is known", 0.2)
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
    parts_s = await _timed(SHOWS, tmp_path, shows=True)
    assert [*parts_s] == ["import", "probe", "first token"]
    assert 0.3 <= parts_s["probe"] < 2
    assert all(seconds >= 0 for seconds in parts_s.values())


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
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["start"] == ["chat, cold", "chat, warm", "server, warm"]
    assert columns["import"] == ["3.00", "1.25", "2.00"]
    assert columns["probe"] == ["", "", ""]
    assert columns["total"] == ["4.00", "1.75", "3.00"]
    assert columns["least"] == ["4.00", "1.50", "3.00"]
    assert columns["goal"] == ["", "2 met", "2.5 MISSED"]
