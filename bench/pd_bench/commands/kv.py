"""The command `pd-bench kv`; torch is imported once its environment is set."""

import json
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pd_bench.kv.settings import (
    CLOCKS,
    PAIR_NAMES,
    PRESETS,
    KvSettings,
    VariantShape,
    parse_contexts,
    parse_pairs,
)
from pd_bench.results.result_file import result_file
from pd_core.errors import ConfigError
from pd_core.host.torch_environment import prepare_environment

__all__ = ["kv"]

_REDRAW_S = 0.25

Size = Annotated[int | None, typer.Option(help="Instead of the preset's.")]


def kv(
    preset: Annotated[str, typer.Option(help=f"Shape: {', '.join(PRESETS)}.")] = "small",
    width: Size = None,
    inner: Size = None,
    layers: Size = None,
    heads: Size = None,
    kv_heads: Size = None,
    only: Annotated[str, typer.Option(help="Which variants, comma-separated.")] = ",".join(
        PAIR_NAMES
    ),
    decode: Annotated[
        str, typer.Option(help="Contexts to decode at, in tokens; or none.")
    ] = "512,1024,2048,4096,8192,16384",
    prefill: Annotated[
        str, typer.Option(help="Lengths of prompts, in tokens; or none.")
    ] = "512,1024,2048,4096",
    rounds: Annotated[int, typer.Option(help="Pairs of decode steps for each figure.")] = 100,
    prefill_rounds: Annotated[int, typer.Option(help="Pairs of prompts for each figure.")] = 7,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    fast: Annotated[
        bool, typer.Option("--fast", help="Plain kernels, not the reproducible path.")
    ] = False,
    clock: Annotated[
        str, typer.Option(help=f"One of {', '.join(CLOCKS)}; cpu leaves waiting for a core out.")
    ] = "wall",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and caches.")] = 0,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write figures here; - prints them last.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures here, as PNG.")] = None,
) -> None:
    """Measure what the SkipV1 variants save of the KV cache, and what that costs in time.

    A SkipV1 layer keeps half of its values and reads the other half from the
    first layer's cache, in place. For each variant, beside the plain
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
    settings = KvSettings(
        shape=_shape(preset, width, inner, layers, heads, kv_heads),
        pairs=parse_pairs(only),
        decode_contexts=parse_contexts("--decode", decode),
        prefill_contexts=parse_contexts("--prefill", prefill),
        decode_rounds=rounds,
        prefill_rounds=prefill_rounds,
        fast=fast,
        num_threads=threads,
        clock=clock,
        seed=seed,
    )
    if plot is not None and find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; install pd-device[bench]")
    _measure(settings, json_out, plot)


def _shape(
    preset: str,
    width: int | None,
    inner: int | None,
    layers: int | None,
    heads: int | None,
    kv_heads: int | None,
) -> VariantShape:
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    sizes = {"width": width, "inner": inner, "layers": layers}
    sizes |= {"heads": heads, "kv_heads": kv_heads}
    return replace(PRESETS[preset], **{k: v for k, v in sizes.items() if v is not None})


def _measure(settings: KvSettings, json_out: Path | None, plot: Path | None) -> None:
    """Measure, print the tables, and write what was asked for."""
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
    """A progress bar that is drawn between rounds only: a thread of its own would be timed too."""

    def __init__(self, total: int) -> None:
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
