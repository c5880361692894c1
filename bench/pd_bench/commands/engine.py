"""The command `pd-bench engine`.

This process computes nothing, so it does not set torch's environment: the engines would inherit it.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut
from pd_bench.engines.settings import EngineSettings
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_core.errors import ConfigError
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

__all__ = ["EnginesAsked", "engine"]


@dataclass(frozen=True, slots=True)
class EnginesAsked:
    """The comparison's settings, and where the figures go."""

    run: Annotated[EngineSettings, Part()] = field(default_factory=EngineSettings)
    json_out: JsonOut = None
    plot: Annotated[Path | None, Option("Draw the figures here, as PNG.")] = None


def engine(asked: EnginesAsked, _: Read) -> None:
    """Compare our engine with llama.cpp: prefill, decode, load time and memory.

    Every engine runs the same weights in a process of its own; llama.cpp has
    them as Q8_0 and Q4_0. They take turns, prompt by prompt and context by
    context, so that other work on the machine slows all alike. Figures are
    medians of the rounds; a ratio is the median of the rounds' ratios. Decode
    is also shown as a share of what the measured memory bandwidth allows.

    Examples:

      pd-bench engine --against llama-cpp --model smollm2.gguf --json engine.json

      pd-bench engine --against llama-cpp --shape 0.5b --threads 1 --rounds 3

      pd-bench engine --shape tiny

    The random 1b shape needs about 9 GB of memory and of disk, and both random
    shapes take an hour; shorter --prefill and --decode make it quicker.
    """
    from pd_bench.engines.comparison import compare_engines
    from pd_bench.engines.report import draw_engines, print_engines

    json_out, plot = asked.json_out, asked.plot
    if plot is not None and find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib; install pd-device[bench]")
    refuse_same_file(("--json", json_out), ("--plot", plot))
    with ExitStack() as files:
        write = files.enter_context(result_file(json_out)) if json_out else None
        draw = files.enter_context(result_file(plot, option="--plot")) if plot else None
        with Console(stderr=True).status("starting") as status:
            document = compare_engines(asked.run, status.update)
        print_engines(document, Console())
        if write is not None:
            write(document.model_dump_json())
        if draw is not None:
            draw(draw_engines(document))
