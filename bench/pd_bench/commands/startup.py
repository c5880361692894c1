"""`pd-bench startup`: the parts of a start."""

from dataclasses import asdict, dataclass, field
from typing import Annotated

from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_bench.overhead.settings import StartupSettings
from pd_core.settings.option import Part
from pd_core.settings.program import Read

__all__ = ["StartupAsked", "startup"]


@dataclass(frozen=True, slots=True)
class StartupAsked:
    """What to start, and where the figures go."""

    run: Annotated[StartupSettings, Part()] = field(default_factory=StartupSettings)
    json_out: JsonOut = None


def startup(asked: StartupAsked, _: Read) -> None:
    """Measure how long `pd-device chat` takes to its first token, and `pd-server` to be ready.

    Runs real commands in fresh processes, with and without results kept from
    earlier starts, and times their parts by their log lines.
    """
    from pd_bench.overhead.startup import measure_startup, startup_table

    settings = asked.run
    with json_file(asked.json_out) as write:
        starts = run_measurement(lambda tick: measure_startup(settings, tick), two_sides=False)
        Console().print(startup_table(starts))
        found = [asdict(start) | {"total_s": start.total_s} for start in starts]
        write({"settings": asdict(settings), "starts": found})
