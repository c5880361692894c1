"""`pd-bench simulate`: a trace on a virtual clock, scheme by scheme."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pd_bench.commands.document_output import document_into
from pd_bench.emulation.virtual_loop import VirtualLoop
from pd_bench.replay.schemes import SCHEMES
from pd_bench.results.result import ResultDocument
from pd_bench.results.result_file import refuse_same_file
from pd_bench.simulation.cloud_profile import CLOUD_PROFILES, read_cloud_profile
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.validation import (
    TOLERANCE,
    comparisons,
    read_replay,
    settings_of,
    table_of,
)
from pd_core.host.ending_signals import INTERRUPTED, ending_signals
from pd_device_client.planning.profiles import DEVICE_PROFILES, LINK_PROFILES, device_profile

__all__ = ["interruptible", "simulate"]

_CLOUDS = ", ".join(sorted(CLOUD_PROFILES))


def simulate(
    trace: Annotated[Path, typer.Argument(help="A trace, as `pd-bench replay` takes it.")],
    schemes: Annotated[
        str, typer.Option(help="Which, comma-separated; also pd-device-kN, race-only.")
    ] = ",".join(SCHEMES),
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
    pace: Annotated[float, typer.Option(help="Seconds between shown tokens.")] = 0.1,
    device: Annotated[
        str,
        typer.Option("--device-profile", help=f"One of {', '.join(sorted(DEVICE_PROFILES))}."),
    ] = "laptop",
    link: Annotated[
        str, typer.Option("--link", help=f"One of {', '.join(sorted(LINK_PROFILES))}.")
    ] = "wifi",
    cloud: Annotated[
        str,
        typer.Option(
            "--cloud-profile", help=f"One of {_CLOUDS}, or a file made by `pd-bench profile`."
        ),
    ] = "gpu-8b",
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Cut longer prompts; the context's room when not given.")
    ] = None,
    max_output_tokens: Annotated[
        int, typer.Option(help="Cut longer answers; also every request's token limit.")
    ] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, sampling and every spread.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a request has failed.")] = 600,
    keep_requests: Annotated[
        int, typer.Option(help="Hold so many requests of a scheme in the document.")
    ] = 256,
    validate: Annotated[
        Path | None,
        typer.Option(help="A fleet replay's document: simulate its inputs, compare the figures."),
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave broken rows of the trace out; count them.")
    ] = False,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the document here; - prints it last.")
    ] = None,
    report_out: Annotated[
        Path | None, typer.Option("--report", help="Write the result as one page here, too.")
    ] = None,
) -> None:
    """Simulate a trace on a virtual clock: the product's own code, with both engines emulated.

    With --validate all inputs but the trace and the cloud's profile are the replay's own.
    """
    settings = SimulationSettings(
        trace=trace,
        device=device_profile(device),
        cloud=read_cloud_profile(cloud),
        link_profile=link,
        schemes=tuple(name.strip() for name in schemes.split(",") if name.strip()),
        pace_s=pace,
        limit=limit,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        seed=seed,
        timeout_s=timeout,
        keep_requests=keep_requests,
        skip_broken=skip_broken,
    )
    replayed = None
    if validate is not None:
        refuse_same_file(("--validate", validate), ("--json", json_out), ("--report", report_out))
        replayed = read_replay(validate)
        settings = settings_of(replayed, trace, settings.cloud)
    document = document_into(trace, json_out, report_out, lambda: _simulate(settings))
    if replayed is not None:
        found = comparisons(replayed, document)
        console = Console()
        for problem in replayed.invalid_because:
            console.print(f"the replay is INVALID: {problem}", soft_wrap=True, highlight=False)
        console.print(table_of(found))
        agree = sum(c.agrees for c in found)
        console.print(f"{agree} of {len(found)} figures agree within {TOLERANCE:.0%}")
    if document.partial:
        raise typer.Exit(INTERRUPTED)


def _simulate(settings: SimulationSettings) -> ResultDocument:
    """Run a simulation, print its table, and return its document."""
    from pd_bench.reports.table import print_result
    from pd_bench.simulation.simulation import Simulation

    with _Bars(Console(stderr=True)) as bars, interruptible():
        document = Simulation(settings, bars.ended).run()
    print_result(document, Console())
    return document


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and ending signals end a simulation in order, between two of its calls.

    One is enough: a second one comes while the first is being heard, and changes nothing.
    """
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


class _Bars(Progress):
    """How far each scheme is, and how much faster than the traffic it goes; on a terminal only."""

    _REDRAWS_PER_S = 4

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description:16}"),
            BarColumn(),
            TextColumn("{task.completed} requests"),
            TextColumn("{task.fields[traffic_s]:.0f} s of traffic in"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self._scheme = ""
        self._task = self.add_task("", total=None, traffic_s=0.0, visible=False)
        self._drawn_s = 0.0

    def ended(self, scheme: str, arrival_s: float) -> None:
        """A request that arrived then has ended."""
        if self.disable:
            return
        if scheme != self._scheme:
            self._scheme = scheme
            self._task = self.add_task(scheme, total=None, traffic_s=0.0)
        self.update(self._task, advance=1, traffic_s=arrival_s)
        now = time.perf_counter()
        if now - self._drawn_s > 1 / self._REDRAWS_PER_S:
            self._drawn_s = now
            self.refresh()
