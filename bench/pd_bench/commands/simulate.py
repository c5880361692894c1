"""`pd-bench simulate`: a trace on a virtual clock, scheme by scheme."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.commands.document_output import Outputs, document_into
from pd_bench.results.result_file import refuse_same_file
from pd_bench.simulation.settings import SimulationSettings
from pd_core.process.ending_signals import INTERRUPTED, ending_signals
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

if TYPE_CHECKING:
    from pd_bench.results.result import ResultDocument

__all__ = ["Simulated", "interruptible", "simulate"]


@dataclass(frozen=True, slots=True)
class Simulated:
    """The simulation's settings, and where the result goes."""

    run: Annotated[
        SimulationSettings, Part(defaults={"device_profile": "laptop", "cloud_profile": "gpu-8b"})
    ]
    validate: Annotated[
        Path | None,
        Option("A fleet replay's document: simulate its inputs and compare the figures."),
    ] = None
    outputs: Annotated[Outputs, Part()] = field(default_factory=Outputs)


def simulate(asked: Simulated, _: Read) -> None:
    """Simulate a trace on a virtual clock: the product's own code, with both engines emulated.

    With --validate all inputs but trace and cloud profile come from the replay.
    """
    from pd_bench.simulation.validation import (
        TOLERANCE,
        comparisons,
        read_replay,
        settings_of,
        table_of,
    )

    settings, outputs, replayed = asked.run, asked.outputs, None
    if asked.validate is not None:
        refuse_same_file(
            ("--validate", asked.validate),
            ("--json", outputs.json_out),
            ("--report", outputs.report_out),
        )
        replayed = read_replay(asked.validate)
        settings = settings_of(replayed, settings.trace, settings.cloud)
    document = document_into(settings.trace, outputs, lambda: _simulate(settings))
    if replayed is not None:
        found = comparisons(replayed, document)
        console = Console()
        for problem in replayed.invalid_because:
            console.print(f"the replay is INVALID: {problem}", soft_wrap=True, highlight=False)
        console.print(table_of(found))
        agree = sum(c.agrees for c in found)
        if replayed.valid:
            console.print(f"{agree} of {len(found)} figures agree within {TOLERANCE:.0%}")
        else:
            console.print("no verdict: such a replay neither confirms nor refutes a simulation")
    if document.partial:
        raise typer.Exit(INTERRUPTED)


def _simulate(settings: SimulationSettings) -> "ResultDocument":
    """Run a simulation, print its table, and return its document."""
    from pd_bench.commands.simulated_bars import SimulatedBars
    from pd_bench.reports.table import print_result
    from pd_bench.simulation.simulation import Simulation

    with SimulatedBars(Console(stderr=True)) as bars, interruptible():
        document = Simulation(settings, bars.ended).run()
    print_result(document, Console())
    return document


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and ending signals stop a simulation cleanly, between two of its calls.

    Further signals have no effect.
    """
    from pd_bench.emulation.virtual_loop import VirtualLoop

    heard = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            return
        heard = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # between two schemes
            raise KeyboardInterrupt from None
        assert isinstance(loop, VirtualLoop), "simulations run on virtual loops"
        loop.interrupt()

    signals = (signal.SIGINT, *ending_signals())
    before = [signal.signal(number, interrupt) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
