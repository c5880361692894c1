"""What choosing tokens costs: `pd-bench sampler`."""

from dataclasses import asdict, dataclass
from typing import Annotated

from annotated_types import Ge
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file
from pd_bench.harness.command_run import prepare
from pd_core.settings.option import Option
from pd_core.settings.program import Read

__all__ = ["SamplerAsked", "sampler"]


@dataclass(frozen=True, slots=True)
class SamplerAsked:
    """How often to measure, and where the figures go."""

    rounds: Annotated[int, Ge(1), Option("Rounds of each case; the figures are medians.")] = 7
    json_out: JsonOut = None


def sampler(asked: SamplerAsked, _: Read) -> None:
    """Measure what choosing the tokens of 1, 16 and 64 rows costs, and that the choices agree."""
    prepare()
    import torch

    from pd_bench.overhead.sampler import measure_sampler, sampler_table

    torch.set_num_threads(1)
    with json_file(asked.json_out) as write:
        costs = measure_sampler(asked.rounds)
        Console().print(sampler_table(costs))
        write({"costs": [asdict(cost) for cost in costs]})
