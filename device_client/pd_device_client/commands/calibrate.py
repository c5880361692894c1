"""`pd-device calibrate`: measures this device, shows the fit, and keeps it for later starts."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from annotated_types import Ge, Le
from rich.console import Console

from pd_core.files.atomic import ordinary_file, replace_text
from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.terminal.columns import aligned

if TYPE_CHECKING:
    from collections.abc import Callable

    from pd_device_client.planning.fit_table import FitRow
    from pd_device_client.planning.speed_fit import PassTime, SpeedFit

__all__ = ["CalibrateSettings", "calibrate"]

_OFFERED = (
    *("model", "num_threads", "numerics", "fast_numerics", "polite"),
    *("engine", "context_tokens", "local_seqs"),
)
_REDRAW = 20  # passes
_ROWS = 8  # of a table
_MS = 1e-3
_CALM = 0.15  # a larger error of a median is not the fit's


@dataclass(frozen=True, slots=True)
class CalibrateSettings:
    """What is measured, how thoroughly, and where it is written besides."""

    device: Annotated[DeviceSettings, Part("Device", _OFFERED)] = field(
        default_factory=DeviceSettings
    )
    longest_tokens: Annotated[
        int, Ge(64), Le(1 << 20), Option("Tokens of the longest prompt.", "longest", only_flag=True)
    ] = 2048
    rounds: Annotated[
        int, Ge(2), Le(1000), Option("Each measures everything once.", only_flag=True)
    ] = 5
    json_out: Annotated[
        Path | None, Option("Write profile and passes here; - prints them.", "json", only_flag=True)
    ] = None
    plot: Annotated[Path | None, Option("Draw the fit here, as SVG.", only_flag=True)] = None


@dataclass(frozen=True, slots=True)
class _Calibration:
    """What was found; `kept` is False where a start could not find it again."""

    engine: str
    passes: "list[PassTime]"
    fit: "SpeedFit"
    kept: bool


def calibrate(settings: CalibrateSettings, _: Read) -> None:
    """Measure how fast this device is, show how well that fits, and keep it for later starts."""
    for path in (settings.json_out, settings.plot):
        if path is not None and str(path) != "-":
            ordinary_file(path)
    prepare_environment(fast=settings.device.fast_numerics)
    with quick_imports():
        import pd_device_client.device.local_engine  # noqa: F401

    found = run_until_signal(_measure(settings))
    printed = str(settings.json_out) == "-"
    _show(found, Console(highlight=False, stderr=printed))
    if printed:
        typer.echo(_document(found))
    elif settings.json_out is not None:
        replace_text(settings.json_out, _document(found))
    if settings.plot is not None:
        from pd_device_client.terminal.fit_plot import fit_svg

        replace_text(settings.plot, fit_svg(_plots(found)))


async def _measure(settings: CalibrateSettings) -> _Calibration:
    import torch

    from pd_core.process.loading_thread import in_loading_thread
    from pd_device_client.client.calibration import calibration_tokens, time_passes
    from pd_device_client.client.measure import keep_profile
    from pd_device_client.device.local_engine import load_engine
    from pd_device_client.planning.profile_values import profile_from, profile_values
    from pd_device_client.planning.speed_fit import fit_speeds

    threads, rounds = torch.get_num_threads(), settings.rounds
    # Guessed tokens would take no time, and kept ones no prefill.
    device = replace(settings.device, speculate=0, kept_kv_mib=0)
    loaded = await in_loading_thread(lambda: load_engine(device, threads, None, None))
    engine = loaded.engine
    longest, total = calibration_tokens(engine, settings.longest_tokens, rounds)
    try:
        with _progress(total) as tick:
            passes = await time_passes(engine, longest, rounds, tick)
    finally:
        await engine.close()
    fit = fit_speeds(passes, "calibrated", f"{rounds} rounds up to {longest} tokens on this device")
    profile_from(profile_values(fit.profile), "the measured speeds")  # refuses what is absurd
    if loaded.speed_key is not None:
        keep_profile(loaded.speed_key, fit.profile)
    return _Calibration(engine.card.name, passes, fit, loaded.speed_key is not None)


@contextmanager
def _progress(total: int) -> "Iterator[Callable[[int], None]]":
    """Show a bar on a terminal, drawn between passes only: a drawing thread disturbs the timing."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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


def _rows(found: _Calibration) -> "tuple[list[FitRow], list[FitRow]]":
    from pd_device_client.planning.fit_table import decode_rows, prefill_rows

    profile = found.fit.profile
    return prefill_rows(found.passes, profile), decode_rows(found.passes, profile)


def _plots(found: _Calibration) -> "list[tuple[str, Sequence[FitRow], float, str]]":
    prefill, decode = _rows(found)
    return [("prefill of a prompt", prefill, 1.0, "s"), ("decode step", decode, _MS, "ms")]


def _show(found: _Calibration, console: Console) -> None:
    from pd_device_client.terminal.fit_plot import text_plot

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


def _table(rows: "Sequence[FitRow]", what: str) -> list[str]:
    step = max(-(-len(rows) // _ROWS), 1)
    chosen = rows[::-1][::step][::-1]  # the longest among them
    lines = [(f"{what}, tokens", "measured, ms", "shortest - longest", "fitted, ms", "error")]
    for row in chosen:
        spread = f"{row.least_s / _MS:.1f} - {row.most_s / _MS:.1f}"
        measured, fitted = f"{row.measured_s / _MS:.1f}", f"{row.fitted_s / _MS:.1f}"
        lines.append((f"{row.num_tokens:,}", measured, spread, fitted, f"{row.error:+.1%}"))
    return aligned(lines)


def _document(found: _Calibration) -> str:
    from pd_device_client.planning.profile_values import profile_values

    fit = found.fit
    rows = [[p.first_position, p.num_tokens, p.seconds] for p in found.passes]
    document = {
        "engine": found.engine,
        "profile": profile_values(fit.profile),
        "prefill_spread": fit.prefill_spread,
        "decode_spread": fit.decode_spread,
        "num_outliers": fit.num_outliers,
        "passes": rows,
    }
    return json.dumps(document)
