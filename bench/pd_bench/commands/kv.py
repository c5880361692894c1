"""The command `pd-bench kv`; torch is imported once its environment is set."""

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.kv.settings import KvSettings, ShapeOptions
from pd_bench.results.result_file import result_file
from pd_core.errors import ConfigError
from pd_core.host.torch_environment import prepare_environment
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

__all__ = ["KvAsked", "kv"]

_REDRAW_S = 0.25


@dataclass(frozen=True, slots=True)
class KvAsked:
    """The measurement's settings, and where the figures go."""

    shape: Annotated[ShapeOptions, Part()] = field(default_factory=ShapeOptions)
    run: Annotated[KvSettings, Part()] = field(default_factory=KvSettings)
    json_out: Annotated[Path | None, Option("Write figures here; - prints them last.", "json")] = (
        None
    )
    plot: Annotated[Path | None, Option("Draw the figures here, as PNG.")] = None


def kv(asked: KvAsked, _: Read) -> None:
    """Measure what the SkipV1 variants save of the KV cache, and what that costs in time.

    A SkipV1 layer keeps some of its values, half of them unless --skip-v1-keep
    says otherwise, and reads the others from the first layer's cache, in
    place. For each variant, beside the plain
    transformer of the same depth and width (SkipV1Former and SkipV1-YOCO: MHA,
    GQA+SkipV1: GQA, SkipV1-MLA: MLA), this shows

    - bytes of KV cache per token as allocated, by the papers' formula, and
    the share that is saved;

    - seconds of one decode step at growing contexts, and of whole prompts.

    The two models take turns step by step, so that other work on the machine
    slows both alike. A figure is the median of the rounds' ratios, with the
    median's 95 % confidence interval. The aim is 5 % above the plain model at
    most, 10 % for decode below 4096 tokens. Weights are random: speed depends
    on shapes alone.

    Examples:

      pd-bench kv

      pd-bench kv --fast --plot kv.png

      pd-bench kv --preset wide --only skipv1 --prefill none --json kv.json

    The default takes about ten minutes on a quiet core; --only, --rounds and
    fewer contexts make it shorter. On a busy machine use --clock cpu.
    """
    settings = replace(asked.run, shape=asked.shape.shape())
    if asked.plot is not None and find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; install pd-device[bench]")
    _measure(settings, asked.json_out, asked.plot)


def _measure(settings: KvSettings, json_out: Path | None, plot: Path | None) -> None:
    """Measure, print the tables, and write the requested files."""
    prepare_environment(fast=settings.fast)
    from pd_bench.kv.cost import measure_kv_cost, total_weight
    from pd_bench.kv.report import draw_kv_cost, print_kv_cost

    to_stdout = json_out is not None and str(json_out) == "-"
    with ExitStack() as files:
        write_json = write_plot = None
        if json_out is not None and not to_stdout:
            write_json = files.enter_context(result_file(json_out))
        if plot is not None:
            write_plot = files.enter_context(result_file(plot, option="--plot"))
        with _Bar(total_weight(settings)) as bar:
            cost = measure_kv_cost(settings, bar.tick)
        print_kv_cost(cost, Console())
        document = json.dumps(asdict(cost))
        if write_json is not None:
            write_json(document)
        if write_plot is not None:
            write_plot(draw_kv_cost(cost))
    if to_stdout:
        typer.echo(document)


class _Bar:
    """A progress bar, drawn only between rounds: a drawing thread would disturb the timing."""

    def __init__(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:22}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("building the models", total=total)
        self._drawn_s = 0.0

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tick(self, doing: str, weight: int) -> None:
        """Count a round."""
        now_s = time.perf_counter()
        redraw = now_s - self._drawn_s >= _REDRAW_S
        self._bar.update(self._task, advance=weight, description=doing, refresh=redraw)
        if redraw:
            self._drawn_s = now_s
