"""`pd-bench forecasts`: do the stated quantiles of the ready time hold?"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le
from rich.console import Console
from rich.table import Table

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.harness.command_run import prepare
from pd_bench.results.result_file import result_file
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read
from pd_device_client.device.settings import DeviceSettings

if TYPE_CHECKING:
    from pd_bench.forecasts.pass_series import PassSeries

__all__ = ["ForecastsAsked", "forecasts"]


@dataclass(frozen=True, slots=True)
class ForecastsAsked:
    """Which series are judged, and the engine whose passes are recorded."""

    device: Annotated[
        DeviceSettings,
        Part("Recording", ("model", "num_threads", "numerics", "throttle", "polite")),
    ] = field(default_factory=DeviceSettings)
    record_to: Annotated[
        Path | None,
        Option("Record passes of --model to this file first, and judge them.", "record"),
    ] = None
    busy: Annotated[bool, Option("While recording, make the machine busy in two parts.")] = False
    longest_tokens: Annotated[int, Ge(64), Option("Longest prompt recorded.", "longest")] = 1500
    recorded: Annotated[
        Path | None, Option("Judge this recording instead of those in the package.")
    ] = None
    answers: Annotated[int, Ge(20), Le(100_000), Option("Answers of a series.")] = 400
    quantile: Annotated[float, Ge(0.01), Le(0.99), Option("The share that should hold.")] = 0.9
    seed: Annotated[int, Option("Of the simulated series and of the recorded lengths.")] = 0
    json_out: JsonOut = None


def forecasts(asked: ForecastsAsked, _: Read) -> None:
    """Judge forecasts of the ready time, on recorded and simulated passes that come later.

    Half of each series is for learning; forecasts of the other half are compared with what came: at
    an answer's start, and halfway through its prefill. The pinball loss is a share of the time that
    came: the smaller, the better the quantile.
    """
    from pd_bench.forecasts.pass_series import RECORDED, SIMULATED, read_series, simulated_series

    with json_file(asked.json_out) as write:
        if asked.record_to is not None:
            series = [_recorded(asked, asked.record_to)]
        elif asked.recorded is not None:
            series = [read_series(asked.recorded)]
        else:
            series = [simulated_series(name, asked.seed, asked.answers) for name in SIMULATED]
            series += map(read_series, RECORDED)
        found = judged(series, asked.quantile)
        Console().print(_table(found))
        write(found)


def judged(series: "list[PassSeries]", q: float) -> dict[str, Any]:
    """Return coverage and pinball loss by series and method, and over all series."""
    from pd_bench.forecasts.judgement import METHODS, Judged, judge

    rows: list[dict[str, Any]] = []
    pooled = {name: (Judged(), Judged()) for name in METHODS}
    for each in series:
        profile = each.profile()
        row: dict[str, Any] = {"series": each.name, "conditions": each.conditions}
        row["simulated"] = each.simulated
        for name, method in METHODS.items():
            results = judge(each, method(profile, each.chunk_tokens), q)
            row[name] = {"start": results[0].figures(), "halfway": results[1].figures()}
            for total, result in zip(pooled[name], results, strict=True):
                total.merge(result)
        rows.append(row)
    overall = {
        name: {"start": start.figures(), "halfway": halfway.figures()}
        for name, (start, halfway) in pooled.items()
    }
    return {"quantile": q, "series": rows, "overall": overall}


def _recorded(asked: ForecastsAsked, path: Path) -> "PassSeries":
    prepare()
    import torch

    from pd_bench.forecasts.recording import record
    from pd_device_client.device.local_engine import load_engine
    from pd_device_client.engine.throttled import ThrottledEngine

    device = asked.device
    with result_file(path, "--record") as write:
        loaded = load_engine(device, torch.get_num_threads(), None, None)
        slow = device.slowed_to
        engine = loaded.engine if slow is None else ThrottledEngine(loaded.engine, slow)
        series = run_measurement(
            lambda say: record(
                engine,
                asked.answers,
                asked.longest_tokens,
                busy=asked.busy,
                seed=asked.seed,
                say=say,
            ),
            two_sides=False,
        )
        write(json.dumps(series.document()))
    return series


def _table(found: dict[str, Any]) -> Table:
    methods = list(found["overall"])
    table = Table(
        title=f"the {found['quantile']:.0%} quantile of the ready time: how often it held, "
        "and its pinball loss"
    )
    table.add_column("series")
    for name in methods:
        for when in ("start", "halfway"):
            table.add_column(f"{name}, {when}", justify="right")
    rows = [(f"{row['series']}: {row['conditions']}", row) for row in found["series"]]
    for name, row in [*rows, ("all", found["overall"])]:
        cells = [row[method][when] for method in methods for when in ("start", "halfway")]
        table.add_row(name, *(f"{c['coverage']:.1%}  {c['pinball']:.2%}" for c in cells))
    return table
