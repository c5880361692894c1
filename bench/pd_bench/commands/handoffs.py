"""`pd-bench handoffs`: one text, whichever side made which token, at every handoff."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.exactness.settings import HandoffSettings
from pd_bench.harness.command_run import prepare
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["HandoffsAsked", "handoffs"]


@dataclass(frozen=True, slots=True)
class HandoffsAsked:
    """Which answers to hand over, and where the result goes."""

    run: Annotated[HandoffSettings, Part()] = field(default_factory=HandoffSettings)
    json_out: JsonOut = None


def handoffs(asked: HandoffsAsked, _: Read) -> None:
    """Hand an answer over at every position, and compare it with the device's own.

    Uses a real server process and a real engine, greedy and seeded. With
    --device-kernel the device computes integers as another processor would.

    Example: pd-bench handoffs --model smollm2-135m --device-kernel avx2

    Exit code 1 if any answer differs although it was promised to be identical.
    """
    prepare()
    from pd_bench.exactness.handoffs import handoffs_table, measure_handoffs

    settings = asked.run
    with json_file(asked.json_out) as write:
        found = run_measurement(lambda tick: measure_handoffs(settings, tick), two_sides=False)
        Console().print(handoffs_table(found, settings))
        write({"settings": asdict(settings), "answers": [asdict(each) for each in found]})
    if any(each.differing and each.exactness == "identical" for each in found):
        raise typer.Exit(1)
