"""`pd-bench chaos`: answers beside faults of every kind."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.chaos.settings import ChaosSettings
from pd_bench.commands.measuring import JsonOut, json_file
from pd_bench.harness.command_run import prepare
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["ChaosAsked", "chaos"]


@dataclass(frozen=True, slots=True)
class ChaosAsked:
    """Which requests to disturb, and where the result goes."""

    run: Annotated[ChaosSettings, Part()] = field(default_factory=ChaosSettings)
    json_out: JsonOut = None


def chaos(asked: ChaosAsked, _: Read) -> None:
    """Break connections, servers and engines at random places, and judge every answer.

    Each must be complete and the same as without faults, or end with a typed error; and at the end
    nothing may be left: no slot, no task, no connection. What is drawn for a request comes from the
    seed and its number, so that --only shows it again.

    Example: pd-bench chaos --requests 10000 --json chaos.json

    Exit code 1 if an answer is lost, doubled, wrong or missing, or something is left.
    """
    prepare()
    from pd_bench.chaos.run import run_campaign
    from pd_bench.chaos.table import chaos_table

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_campaign(settings)
        Console().print(chaos_table(found, settings))
        for words in found.named:
            Console().print(words, soft_wrap=True, markup=False, highlight=False)
        write({"settings": asdict(settings), **found.document()})
    if not found.clean:
        raise typer.Exit(1)
