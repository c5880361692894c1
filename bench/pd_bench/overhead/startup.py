"""The parts of a start: from the command to the first token, or to a ready server.

The real commands run in fresh processes that log what they do. Each line is timed on arrival by
this process's clock, so the parts of a start add up to its total.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.table import Table

from pd_bench.overhead.settings import StartupSettings
from pd_core.errors import EngineError
from pd_core.process.parent_death import ending_with_parent

__all__ = ["Start", "measure_startup", "startup_table", "timed_start"]

# The log line at which each part ends. The import ends when the loading begins.
_LOADING = {
    "import": "loading ",
    "probe": "the numerics are known",
    "load": "the weights are in memory",
    "hash": "the fingerprints are known",
}
_CHAT = _LOADING | {"measure": "the device's speeds are known"}
_SERVER = _LOADING | {"measure": "steps of at most", "serve": "serving gRPC on"}
_FIRST_TOKEN = "first token"
_GOALS_S = {"chat": 2.0, "server": 2.5}
_OTHERS = ("PD_SERVER_", "PD_DEVICE_", "XDG_")
_PROMPT = "def read_lines(path):"


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        command: "chat" or "server".
        cache: "cold": nothing is kept from an earlier start; "warm": everything is. The system's
            file cache is warm in both.
        parts_s: seconds of each part, in order; the last ends with the first token, or when the
            server serves.
    """

    command: str
    cache: str
    parts_s: dict[str, float]

    @property
    def total_s(self) -> float:
        """Seconds from the command to the end of the start."""
        return sum(self.parts_s.values())


async def measure_startup(settings: StartupSettings, tick: Callable[[str], None]) -> list[Start]:
    """Start both commands cold and warm, alternately.

    Args:
        settings: what to start, and how often.
        tick: called with what is being done.

    Raises:
        EngineError: a command failed; the message has the end of its log.
    """
    python = [sys.executable, "-m"]
    model = ["--model", settings.model, "--log-level", "debug"]
    chat = [*python, "pd_device_client", "chat", _PROMPT, "--mode", "device-only", *model]
    chat += ["--max-tokens", "1"]
    server = [*python, "pd_server", "--grpc-port", "0", "--http-port", "0", *model]
    starts = []
    for round_number in range(settings.rounds):
        for name, command, marks in (("chat", chat, _CHAT), ("server", server, _SERVER)):
            with tempfile.TemporaryDirectory(prefix="pd-bench-") as folder:
                for cache in ("cold", "warm"):
                    tick(f"round {round_number + 1} of {settings.rounds}: {name}, {cache}")
                    shows = name == "chat"
                    parts_s = await timed_start(command, marks, Path(folder), shows=shows)
                    starts.append(Start(name, cache, parts_s))
    return starts


async def timed_start(
    command: Sequence[str], marks: Mapping[str, str], folder: Path, *, shows: bool
) -> dict[str, float]:
    """Run a command until it has started, stop it, and return each part's seconds.

    Args:
        command: the command line.
        marks: the parts in order, each with a text in the log line that ends it.
        folder: its cache and settings, instead of the user's own.
        shows: whether the start ends with the first character on stdout, not with the last mark.

    Raises:
        EngineError: it ended too early, or failed when stopped.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=_environment(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=ending_with_parent(),
    )
    assert process.stdout is not None, "stdout is a pipe"
    assert process.stderr is not None, "stderr is a pipe"
    try:
        lines: list[str] = []
        ends_s = await _ends(process.stderr, marks, lines)
        if shows and await process.stdout.read(1):
            ends_s[_FIRST_TOKEN] = loop.time()
        started = len(ends_s) == len(marks) + shows
        if started and not shows:
            process.terminate()
        _, rest = await process.communicate()
        if process.returncode or not started:
            log = "".join(lines) + rest.decode(errors="replace")
            raise EngineError(
                f"{' '.join(command[1:4])} ended with code {process.returncode}, after the parts: "
                f"{', '.join(ends_s) or 'none'}; the end of its log:\n{log[-2000:]}"
            )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    spans = zip(ends_s, pairwise([began_s, *ends_s.values()]), strict=True)
    return {part: end_s - start_s for part, (start_s, end_s) in spans}


async def _ends(
    log: asyncio.StreamReader, marks: Mapping[str, str], lines: list[str]
) -> dict[str, float]:
    """Read a log up to its last mark; return each mark's time, and append the lines to `lines`."""
    ends_s: dict[str, float] = {}
    for part, mark in marks.items():
        while line := (await log.readline()).decode(errors="replace"):
            lines.append(line)
            if mark in line:
                ends_s[part] = asyncio.get_running_loop().time()
                break
    return ends_s


def _environment(folder: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(_OTHERS)}
    return own | {"XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def startup_table(starts: Sequence[Start]) -> Table:
    """Return the medians of each kind of start, a column each, with its goal."""
    parts = [*_CHAT, _FIRST_TOKEN, "serve"]
    table = Table(
        title="seconds of a start: medians",
        caption="cold: nothing is kept of an earlier start; goals are for warm ones",
    )
    table.add_column("", no_wrap=True)
    columns = []
    for command, cache in dict.fromkeys((start.command, start.cache) for start in starts):
        table.add_column(f"{command}, {cache}", justify="right", no_wrap=True)
        runs = [start for start in starts if (start.command, start.cache) == (command, cache)]
        totals_s = [run.total_s for run in runs]
        cells = [_median([run.parts_s[p] for run in runs if p in run.parts_s]) for p in parts]
        goal_s = _GOALS_S[command]
        verdict = "met" if statistics.median(totals_s) <= goal_s else "MISSED"
        goal = f"{goal_s:g} {verdict}" if cache == "warm" else ""
        columns.append([*cells, _median(totals_s), f"{min(totals_s):.2f}", goal])
    for row in zip([*parts, "total", "least", "goal"], *columns, strict=True):
        table.add_row(*row)
    return table


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}" if values else ""
