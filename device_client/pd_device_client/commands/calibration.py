"""A calibration: this device's passes, timed and fitted, kept, and shown."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pd_core.process.loading_thread import in_loading_thread
from pd_device_client.client.calibration import calibration_tokens, time_passes
from pd_device_client.client.measure import keep_profile
from pd_device_client.device.local_engine import load_engine
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.planning.speeds.fit_table import FitRow, decode_rows, prefill_rows
from pd_device_client.planning.speeds.profile_values import profile_from, profile_values
from pd_device_client.planning.speeds.speed_fit import PassTime, SpeedFit, fit_speeds
from pd_device_client.terminal.columns import aligned
from pd_device_client.terminal.fit_plot import fit_svg, text_plot

__all__ = ["Calibration", "document", "measure", "picture", "show"]

_REDRAW = 20  # passes
_ROWS = 8  # of a table
_MS = 1e-3
_CALM = 0.15  # a larger error of a median is not the fit's


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Attributes:
        engine: the engine's name.
        passes: in the order in which they ran.
        fit: their fit.
        kept: whether a later start finds it.
    """

    engine: str
    passes: list[PassTime]
    fit: SpeedFit
    kept: bool


async def measure(settings: DeviceSettings, longest_tokens: int, rounds: int) -> Calibration:
    """Load the model, time its passes, and keep their fit.

    Args:
        settings: what to run.
        longest_tokens: of a prompt.
        rounds: each measures everything once.

    Raises:
        ModelError: the model cannot be loaded.
        EngineError: a pass failed.
        ConfigError: what was measured cannot be.
    """
    threads = torch.get_num_threads()
    # Guessed tokens would take no time, and kept ones no prefill.
    settings = replace(settings, speculate=0, kept_kv_mib=0)
    loaded = await in_loading_thread(lambda: load_engine(settings, threads, None, None))
    engine = loaded.engine
    longest, total = calibration_tokens(engine, longest_tokens, rounds)
    try:
        with _progress(total) as tick:
            passes = await time_passes(engine, longest, rounds, tick)
    finally:
        await engine.close()
    fit = fit_speeds(passes, "calibrated", f"{rounds} rounds up to {longest} tokens on this device")
    profile_from(profile_values(fit.profile), "the measured speeds")  # refuses what is absurd
    if loaded.speed_key is not None:
        keep_profile(loaded.speed_key, fit.profile)
    return Calibration(engine.card.name, passes, fit, loaded.speed_key is not None)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, drawn between passes only: a drawing thread disturbs the timing."""
    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=console, auto_refresh=False, disable=not console.is_terminal)
    with shown as progress:
        task = progress.add_task("", total=total)
        passes = 0

        def tick(tokens: int) -> None:
            nonlocal passes
            passes += 1
            progress.update(task, advance=tokens, refresh=passes % _REDRAW == 0)

        yield tick


def _rows(found: Calibration) -> tuple[list[FitRow], list[FitRow]]:
    profile = found.fit.profile
    return prefill_rows(found.passes, profile), decode_rows(found.passes, profile)


def _plots(found: Calibration) -> list[tuple[str, Sequence[FitRow], float, str]]:
    prefill, decode = _rows(found)
    return [("prefill of a prompt", prefill, 1.0, "s"), ("decode step", decode, _MS, "ms")]


def show(found: Calibration, console: Console) -> None:
    """Print tables, plots and the fit."""

    def say(*lines: str) -> None:
        console.print(*lines, sep="\n", soft_wrap=True, markup=False)

    fit, profile = found.fit, found.fit.profile
    prefill, decode = _rows(found)
    say(f"{found.engine}: {profile.source}")
    for table, what in ((prefill, "prompt"), (decode, "context")):
        say("", *_table(table, what))
    for title, rows, unit_s, unit in _plots(found):
        say("", *text_plot(title, rows, unit_s, unit))
    say(
        "",
        f"prefill of n tokens  {profile.prefill_a_s:.3g} + {profile.prefill_b_s:.3g} n "
        f"+ {profile.prefill_c_s:.3g} n^2 seconds; one pass strays by {fit.prefill_spread:.1%}",
        f"decode with l tokens {profile.decode_s:.3g} + {profile.decode_l_s:.3g} l "
        f"seconds; one step strays by {fit.decode_spread:.1%}",
        f"{fit.num_outliers} of {len(found.passes)} passes were disturbed, and count nothing",
    )
    if max(abs(row.error) for row in (*prefill, *decode)) > _CALM:
        say("other programs were busy meanwhile: better calibrate again when they are not")
    say("kept for later starts" if found.kept else "not kept: the processor does not say its name")


def _table(rows: Sequence[FitRow], what: str) -> list[str]:
    step = max(-(-len(rows) // _ROWS), 1)
    chosen = rows[::-1][::step][::-1]  # the longest among them
    lines = [(f"{what}, tokens", "measured, ms", "shortest - longest", "fitted, ms", "error")]
    for row in chosen:
        spread = f"{row.least_s / _MS:.1f} - {row.most_s / _MS:.1f}"
        measured, fitted = f"{row.measured_s / _MS:.1f}", f"{row.fitted_s / _MS:.1f}"
        lines.append((f"{row.num_tokens:,}", measured, spread, fitted, f"{row.error:+.1%}"))
    return aligned(lines)


def picture(found: Calibration) -> str:
    """Return the plots as SVG."""
    return fit_svg(_plots(found))


def document(found: Calibration) -> str:
    """Return profile and passes as JSON."""
    fit = found.fit
    rows = [[p.first_position, p.num_tokens, p.seconds] for p in found.passes]
    content = {
        "engine": found.engine,
        "profile": profile_values(fit.profile),
        "prefill_spread": fit.prefill_spread,
        "decode_spread": fit.decode_spread,
        "num_outliers": fit.num_outliers,
        "passes": rows,
    }
    return json.dumps(content)
