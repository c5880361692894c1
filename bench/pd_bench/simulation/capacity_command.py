"""`pd-bench capacity`: the arrival rate a cloud carries, scheme by scheme, in two regimes."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pd_bench.provenance import file_sha256, hardware, versions
from pd_bench.result import CutRows, Distribution, EqualRows, ResultDocument
from pd_bench.result_file import result_file
from pd_bench.schemes import parse_schemes
from pd_bench.series import CapacityCurve
from pd_bench.simulation.capacity import Capacity, KeptPromise, find_capacity
from pd_bench.simulation.cloud_profile import CLOUD_PROFILES, read_cloud_profile
from pd_bench.simulation.commands import interruptible
from pd_bench.simulation.fleet import workload_of
from pd_bench.simulation.overlay import Overlay
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.slot_formula import Load, compute_gain, slot_gain
from pd_bench.trace_row import TraceRow
from pd_bench.traces import SkippedRows, read_trace
from pd_core.errors import ConfigError
from pd_core.profiles import DEVICE_PROFILES, LINK_PROFILES, device_profile

__all__ = ["capacity"]

REGIMES = ("slots", "compute")
_BASELINE = "cloud-only"
_MANY_SLOTS = 512


@dataclass(frozen=True, slots=True)
class _Gain:
    """A scheme beside cloud-only in one regime."""

    scheme: str
    regime: str
    found: Capacity
    measured: float | None  # None for cloud-only itself
    formula: float | None


def capacity(
    trace: Annotated[Path, typer.Argument(help="A trace, as `pd-bench replay` takes it.")],
    schemes: Annotated[
        str, typer.Option(help="Compared with cloud-only, comma-separated.")
    ] = "pd-device",
    regimes: Annotated[str, typer.Option(help="What bounds the cloud: slots, compute.")] = (
        ",".join(REGIMES)
    ),
    slots: Annotated[int, typer.Option(min=1, help="Slots where slots bound the cloud.")] = 4,
    ttft: Annotated[float, typer.Option(help="Promised: the first token within seconds.")] = 2.0,
    largest_gap: Annotated[
        float | None, typer.Option(help="Promised: no gap longer; two paces when not given.")
    ] = None,
    target: Annotated[float, typer.Option(help="For this share of the requests.")] = 0.99,
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
    pace: Annotated[float, typer.Option(help="Seconds between shown tokens.")] = 0.2,
    device: Annotated[
        str,
        typer.Option("--device-profile", help=f"One of {', '.join(sorted(DEVICE_PROFILES))}."),
    ] = "laptop",
    link: Annotated[
        str, typer.Option("--link", help=f"One of {', '.join(sorted(LINK_PROFILES))}.")
    ] = "wifi",
    cloud: Annotated[
        str,
        typer.Option("--cloud-profile", help=f"One of {', '.join(sorted(CLOUD_PROFILES))}, or a "
                     "file made by `pd-bench profile`."),
    ] = "small-gpu-8b",
    max_prompt_tokens: Annotated[
        int | None, typer.Option(help="Cut longer prompts; the context's room when not given.")
    ] = None,
    max_output_tokens: Annotated[
        int, typer.Option(help="Cut longer answers; also every request's token limit.")
    ] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, sampling and spread.")] = 0,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave broken rows of the trace out; count them.")
    ] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the curves here.")] = None,
) -> None:  # fmt: skip
    """Find the highest arrival rate whose promise is kept, by simulation, scheme by scheme.

    The rate is raised by overlaying shifted copies of the trace; each rate
    runs for ten residence times after a warm-up.
    """
    names = [name.strip() for name in schemes.split(",") if name.strip() != _BASELINE]
    wanted = tuple(name.strip() for name in regimes.split(",") if name.strip())
    if unknown := set(wanted) - set(REGIMES):
        raise ConfigError(f"unknown regime {min(unknown)!r}; known: {', '.join(REGIMES)}")
    if not 0 < target < 1:
        raise ConfigError(f"--target is {target}; it must lie between 0 and 1")
    settings = SimulationSettings(
        trace=trace,
        device=device_profile(device),
        cloud=read_cloud_profile(cloud),
        link_profile=link,
        schemes=(_BASELINE, *names),
        pace_s=pace,
        limit=limit,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
        seed=seed,
        keep_requests=0,
    )
    promise = KeptPromise(ttft, 2 * pace if largest_gap is None else largest_gap, target)
    skipped = SkippedRows()
    rows = list(read_trace(trace, limit, skipped=skipped if skip_broken else None))
    if skipped.count:
        Console(stderr=True).print(skipped.label, highlight=False)
    if json_out is None:
        _search(settings, rows, promise, wanted, slots)
        return
    with result_file(json_out) as write:
        gains = _search(settings, rows, promise, wanted, slots)
        document = _document(settings, rows, promise, gains)
        write(document.model_copy(update={"skipped_rows": skipped.count}).model_dump_json())


def _search(
    settings: SimulationSettings,
    rows: list[TraceRow],
    promise: KeptPromise,
    regimes: tuple[str, ...],
    slots: int,
) -> list[_Gain]:
    """Search every scheme in every regime, and print the table."""
    status = Console(stderr=True)

    def told(scheme: str, rate_per_s: float, kept: float) -> None:
        status.print(f"{scheme}: {rate_per_s:.3g} requests/s keep {kept:.2%}", highlight=False)

    overlay = Overlay(rows)
    load = _load(settings, rows)
    gains: list[_Gain] = []
    with interruptible():
        for regime in regimes:
            num_slots = slots if regime == "slots" else _MANY_SLOTS
            cloud = settings.cloud.model_copy(update={"max_num_seqs": num_slots})
            bounded = replace(settings, cloud=cloud)
            words = f"{regime}: {num_slots} slots"
            guess = num_slots / slot_gain(cloud, load, load, num_slots).seconds
            baseline: Capacity | None = None
            for scheme in parse_schemes(settings.schemes):
                found = find_capacity(
                    bounded,
                    scheme,
                    overlay,
                    promise,
                    regime=words,
                    mean_output_tokens=load.output_tokens,
                    guess_per_s=guess if baseline is None else baseline.curve.capacity_per_s * 2,
                    progress=told,
                )
                if baseline is None:
                    baseline = found
                    gains.append(_Gain(scheme.name, words, found, None, None))
                    continue
                ours = replace(load, output_tokens=found.cloud_tokens)
                formula = (
                    slot_gain(cloud, load, ours, num_slots).gain
                    if regime == "slots"
                    else compute_gain(cloud, load, ours)
                )
                measured = found.curve.capacity_per_s / baseline.curve.capacity_per_s
                gains.append(_Gain(scheme.name, words, found, measured, formula))
    Console().print(_table(settings, promise, gains))
    return gains


def _load(settings: SimulationSettings, rows: list[TraceRow]) -> Load:
    workload = workload_of(settings)
    prompts = [min(row.prompt_tokens, workload.max_prompt_tokens) for row in rows]
    outputs = [min(row.output_tokens, workload.max_output_tokens) for row in rows]
    return Load(sum(prompts) / len(rows), sum(outputs) / len(rows))


def _table(settings: SimulationSettings, promise: KeptPromise, gains: list[_Gain]) -> Table:
    table = Table(
        title=f"{settings.trace.name}: requests/s at which {promise.target:.0%} see the first "
        f"token within {promise.ttft_s:g} s and no gap above {promise.largest_gap_s:g} s",
        caption=f"simulated: cloud {settings.cloud.name}, {settings.device.name} over "
        f"{settings.link.name}, pace {settings.pace_s:g} s",
    )
    for column in ("regime", "scheme"):
        table.add_column(column)
    for column in ("requests/s", "cloud tokens", "gain", "by formula"):
        table.add_column(column, justify="right")
    for g in gains:
        table.add_row(
            g.regime,
            g.scheme,
            f"{'' if g.found.bounded else 'over '}{g.found.curve.capacity_per_s:.2f}",
            f"{g.found.cloud_tokens:.1f}",
            "-" if g.measured is None else f"{g.measured:.1f}",
            "-" if g.formula is None else f"{g.formula:.1f}",
        )
    return table


def _document(
    settings: SimulationSettings, rows: list[TraceRow], promise: KeptPromise, gains: list[_Gain]
) -> ResultDocument:
    workload = workload_of(settings)
    curves: dict[str, tuple[CapacityCurve, ...]] = {}
    figures: dict[str, str | int | float | bool | None] = {}
    for g in gains:
        curves[g.scheme] = (*curves.get(g.scheme, ()), g.found.curve)
        regime = g.regime.partition(":")[0]
        figures[f"gain {g.scheme} {regime}"] = g.measured
        figures[f"gain by formula {g.scheme} {regime}"] = g.formula
    return ResultDocument(
        trace=settings.trace.name,
        trace_sha256=file_sha256(settings.trace),
        fidelity="simulated",
        arrivals="overlaid shifted copies of the trace",
        pace_s=settings.pace_s,
        exactness="identical",
        valid=True,
        labels=("a search for capacity: no request is held here",),
        dispatch_lag_s=Distribution.of(()),
        cut_rows=CutRows(
            rows=len(rows),
            prompt=sum(row.prompt_tokens > workload.max_prompt_tokens for row in rows),
            output=sum(row.output_tokens > workload.max_output_tokens for row in rows),
            max_prompt_tokens=workload.max_prompt_tokens,
            max_output_tokens=workload.max_output_tokens,
            max_context_tokens=workload.max_context_tokens,
        ),
        equal_rows=EqualRows(equal=0, rows=0),
        profiles={
            "cloud": settings.cloud.model_dump(),
            "device": asdict(settings.device),
            "link": asdict(settings.link),
        },
        settings={
            "limit": settings.limit,
            "promised_ttft_s": promise.ttft_s,
            "promised_largest_gap_s": promise.largest_gap_s,
            **figures,
        },
        versions=versions(),
        hardware=hardware(),
        seed=settings.seed,
        schemes={},
        requests=(),
        capacity=curves,
    )
