"""What a refined prompt costs in quality and saves in time: `pd-bench refine`."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.harness.command_run import prepare
from pd_bench.refine.settings import RefineSettings
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["RefineAsked", "refine"]


@dataclass(frozen=True, slots=True)
class RefineAsked:
    """What to measure, and where the figures go."""

    run: Annotated[RefineSettings, Part()] = field(default_factory=RefineSettings)
    json_out: JsonOut = None


def refine(asked: RefineAsked, _: Read) -> None:
    """Measure what leaving out parts of prompts costs in quality, and saves in time.

    For each way of choosing what is kept, and each share, this shows

    - how much of the full prompt's answer stays the likeliest, token by token,
    and its perplexity; the perplexity of the text that really follows;

    - how often a fact that stands somewhere in a long prompt is still found;

    and, with the real local engine, how much sooner the device is ready. What
    the cloud sends is chosen by "attention".

    Examples:

      pd-bench refine --model smollm2-135m --json refine.json

      pd-bench refine --text notes.txt --ratios 0.5 --needles 0 --rounds 0
    """
    prepare()
    import torch

    from pd_bench.refine.measurement import measure_refined
    from pd_bench.refine.report import print_refined

    torch.set_num_threads(asked.run.num_threads)
    with json_file(asked.json_out) as write:
        measured = run_measurement(lambda tell: measure_refined(asked.run, tell), two_sides=False)
        print_refined(measured.quality, measured.times, Console())
        write(
            {
                "model": measured.model,
                "numerics": measured.numerics,
                "settings": {
                    **asdict(asked.run),
                    "text": None if asked.run.text is None else str(asked.run.text),
                },
                "rows": measured.quality.figures(),
                "passages": [asdict(row) for row in measured.quality.rows],
                "times": [asdict(time) for time in measured.times],
            }
        )
