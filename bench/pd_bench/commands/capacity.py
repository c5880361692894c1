"""`pd-bench capacity`: the arrival rate a cloud sustains, per scheme, in two regimes."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from annotated_types import Ge
from rich.console import Console

from pd_bench.harness.bounds import check_between
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.settings import SimulationSettings
from pd_core.errors import ConfigError
from pd_core.process.ending_signals import INTERRUPTED
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

if TYPE_CHECKING:
    from pd_bench.simulation.device_mix import DeviceMix
    from pd_bench.simulation.kept_promise import KeptPromise

__all__ = ["CapacityAsked", "capacity"]

REGIMES = ("slots", "compute")
_BASELINE = "cloud-only"
_TTFT_S = (0.001, 3600.0)
_MOST_GAP_S = 3600.0
_OFFERED = (
    *("trace", "columns", "limit", "pace_s", "device", "link_profile", "cloud"),
    *("max_prompt_tokens", "max_output_tokens", "seed", "skip_broken", "past"),
)


@dataclass(frozen=True, slots=True)
class CapacityAsked:
    """The promise, the cloud's bounds, and the simulation's settings."""

    run: Annotated[
        SimulationSettings,
        Part(
            only=_OFFERED,
            defaults={"device_profile": "laptop", "cloud_profile": "small-gpu-8b", "pace": 0.2},
        ),
    ]
    schemes: Annotated[str, Option("Compared with cloud-only, comma-separated.")] = "pd-device"
    regimes: Annotated[str, Option("What bounds the cloud: slots, compute.")] = ",".join(REGIMES)
    num_slots: Annotated[int, Ge(1), Option("Slots where slots bound the cloud.", "slots")] = 4
    ttft_s: Annotated[float, Option("Promised: the first token within seconds.", "ttft")] = 2.0
    largest_gap_s: Annotated[
        float | None,
        Option("Promised: no gap longer; two paces when not given.", "largest-gap"),
    ] = None
    target: Annotated[float, Option("For this share of the requests.")] = 0.99
    fleet_plan: Annotated[
        Path | None,
        Option("A plan by `pd-bench fleet-plan`: its classes of devices, and scheme planned."),
    ] = None
    json_out: Annotated[
        Path | None, Option("Write the curves here; - prints them last.", "json")
    ] = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The regimes to search.

        Raises:
            ConfigError: one is unknown or named twice, or there is none.
        """
        wanted = tuple(name.strip() for name in self.regimes.split(",") if name.strip())
        known = ", ".join(REGIMES)
        if unknown := set(wanted) - set(REGIMES):
            raise ConfigError(f"unknown regime {min(unknown)!r}; known: {known}")
        if not wanted or len(set(wanted)) < len(wanted):
            raise ConfigError(f"--regimes is {self.regimes!r}; name one or both of {known}")
        return wanted

    @property
    def settings(self) -> SimulationSettings:
        """The simulation's settings: cloud-only first, then the other schemes; no request kept."""
        names = [name.strip() for name in self.schemes.split(",") if name.strip() != _BASELINE]
        schemes = (_BASELINE, *names)
        return replace(self.run, schemes=schemes, keep_requests=0, mix=self._mix)

    @property
    def _mix(self) -> "DeviceMix | None":
        from pd_bench.fleet_planning.plan_document import read_plan
        from pd_bench.simulation.device_mix import DeviceMix

        return None if self.fleet_plan is None else DeviceMix(read_plan(self.fleet_plan).classes)

    def planned_for(self, promise: "KeptPromise") -> SimulationSettings:
        """The settings, with clients that plan for what is promised."""
        return replace(self.settings, ttft_s=promise.ttft_s, largest_gap_s=promise.largest_gap_s)


def capacity(asked: CapacityAsked, _: Read) -> None:
    """Find the highest arrival rate whose promise is kept, by simulation, scheme by scheme.

    The rate is raised by overlaying shifted copies of the trace; each rate
    runs for ten residence times after a warm-up.
    """
    from pd_bench.commands.capacity_search import capacity_document, search
    from pd_bench.traces.reader import SkippedRows

    wanted = asked.wanted
    if not 0 < asked.target < 1:
        raise ConfigError(f"--target is {asked.target}; it must lie above 0 and below 1")
    slots, json_out = asked.num_slots, asked.json_out
    promise = _promise(asked.ttft_s, asked.largest_gap_s, asked.target, asked.run.pace_s)
    settings = asked.planned_for(promise)
    _check_slots(wanted, slots, settings.cloud)
    printed = str(json_out) == "-"
    to_file = None if printed else json_out
    refuse_same_file(("the trace", settings.trace), ("--json", to_file))
    skipped = SkippedRows()
    rows = list(settings.rows(skipped))
    if skipped.count:
        Console(stderr=True).print(skipped.label, highlight=False)
    with ExitStack() as files:
        write = files.enter_context(result_file(to_file)) if to_file else None
        gains, partial = search(settings, rows, promise, wanted, slots)
        document = capacity_document(settings, rows, promise, gains, partial)
        document = document.model_copy(update={"skipped_rows": skipped.count})
        if write is not None:
            write(document.model_dump_json())
    if printed:
        typer.echo(document.model_dump_json())
    if partial:
        raise typer.Exit(INTERRUPTED)


def _promise(ttft: float, largest_gap: float | None, target: float, pace: float) -> "KeptPromise":
    """Return the promise.

    Raises:
        ConfigError: it cannot be kept at any rate.
    """
    from pd_bench.simulation.kept_promise import KeptPromise

    check_between("--ttft", ttft, *_TTFT_S, "seconds")
    gap = 2 * pace if largest_gap is None else largest_gap
    if not pace <= gap <= _MOST_GAP_S:
        raise ConfigError(
            f"--largest-gap is {gap}; it must lie between --pace, {pace:g}, and {_MOST_GAP_S:g} "
            "seconds"
        )
    return KeptPromise(ttft, gap, target)


def _check_slots(regimes: tuple[str, ...], slots: int, cloud: CloudProfile) -> None:
    """Refuse more slots than a step has tokens for.

    Raises:
        ConfigError: no tokens would be left for prefill while all slots decode.
    """
    most = cloud.max_num_batched_tokens
    if "slots" in regimes and most is not None and slots >= most:
        raise ConfigError(
            f"--slots is {slots}; a step of cloud {cloud.name} computes {most} tokens, which is "
            f"room for {most - 1} slots at most, or prefill could not go on while all decode"
        )
