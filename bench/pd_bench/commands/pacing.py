"""`pd-bench pacing`: the speed controller against naive pacing and the best possible."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file
from pd_bench.commands.report import read_result
from pd_bench.pacing.settings import PacingSettings
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

__all__ = ["PacingAsked", "pacing"]


@dataclass(frozen=True, slots=True)
class PacingAsked:
    """Which answers, and where the figures go."""

    run: Annotated[PacingSettings, Part()] = field(default_factory=PacingSettings)
    json_out: JsonOut = None
    svg: Annotated[Path | None, Option("Draw one answer here, as SVG.")] = None


def pacing(asked: PacingAsked, _: Read) -> None:
    """Compare the speed controller with naive pacing and with the best possible.

    The product's own sessions answer on a virtual clock, in situations drawn
    at random: a handoff, a fixed k, slow devices, jitter, bursts, stalls,
    throttling. Every speed varies, and the device's benchmark is off as much.
    Then each controller shows the same arrivals: at once; at a fixed pace;
    after a buffer, then at a fixed pace (as DiSCo does); as the product did;
    and with hindsight, which is the best possible.
    """
    from pd_bench.pacing.comparison import compare_controllers
    from pd_bench.pacing.report import document_of, picture, print_comparison

    named = [("--recorded", path) for path in asked.run.recorded]
    refuse_same_file(*dict.fromkeys(named), ("--json", asked.json_out), ("--svg", asked.svg))
    documents = [(path.stem, read_result(path)) for path in asked.run.recorded]
    with ExitStack() as files:
        write = files.enter_context(json_file(asked.json_out))
        draw = None
        if asked.svg is not None:
            draw = files.enter_context(result_file(asked.svg, option="--svg"))
        with Console(stderr=True).status("starting") as status:
            comparison = compare_controllers(asked.run, documents, status.update)
        print_comparison(comparison, Console())
        write(document_of(comparison))
        if draw is not None:
            draw(picture(comparison.example))
