"""`pd-bench startup`: the parts of a start."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from pd_bench.commands.measuring import JsonOut, json_file, run_measurement
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["startup"]


def startup(
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = DEFAULT_MODEL,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Starts of each kind.")] = 5,
    json_out: JsonOut = None,
) -> None:
    """Measure how long `pd-device chat` takes to its first token, and `pd-server` to be ready.

    Runs real commands in fresh processes, with and without results kept from
    earlier starts, and times their parts by their log lines.
    """
    from pd_bench.overhead.startup import StartupSettings, measure_startup, startup_table

    settings = StartupSettings(model, rounds)
    with json_file(json_out) as write:
        starts = run_measurement(lambda tick: measure_startup(settings, tick))
        Console().print(startup_table(starts))
        found = [asdict(start) | {"total_s": start.total_s} for start in starts]
        write({"settings": asdict(settings), "starts": found})
