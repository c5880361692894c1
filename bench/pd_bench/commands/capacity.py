"""`pd-bench capacity`: the arrival rate a cloud sustains, per scheme, in two regimes."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge
from rich.console import Console

from pd_bench.commands.simulate import interruptible
from pd_bench.harness.bounds import check_between
from pd_bench.replay.schemes import parse_schemes
from pd_bench.results.provenance import file_sha256, hardware, versions
from pd_bench.results.result import CutRows, Distribution, EqualRows, ResultDocument
from pd_bench.results.result_file import refuse_same_file, result_file
from pd_bench.results.series import CapacityCurve
from pd_bench.simulation.capacity import Capacity, KeptPromise, TriedRate, find_capacity
from pd_bench.simulation.capacity_table import (
    PARTIAL,
    Gain,
    capacity_table,
    progress_line,
    reasons,
)
from pd_bench.simulation.cloud_profile import CloudProfile
from pd_bench.simulation.fleet import workload_of
from pd_bench.simulation.overlay import Overlay
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.slot_formula import MeanLoad, compute_gain, slot_gain
from pd_bench.traces.reader import SkippedRows
from pd_bench.traces.row import TraceRow
from pd_core.errors import ConfigError
from pd_core.host.ending_signals import INTERRUPTED
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read

__all__ = ["CapacityAsked", "capacity", "num_slots_of"]

REGIMES = ("slots", "compute")
_BASELINE = "cloud-only"
_MANY_SLOTS = 512
_TTFT_S = (0.001, 3600.0)
_MOST_GAP_S = 3600.0
_OFFERED = (
    *("trace", "columns", "limit", "pace_s", "device", "link_profile", "cloud"),
    *("max_prompt_tokens", "max_output_tokens", "seed", "skip_broken"),
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
        return replace(self.run, schemes=(_BASELINE, *names), keep_requests=0)


def capacity(asked: CapacityAsked, _: Read) -> None:
    """Find the highest arrival rate whose promise is kept, by simulation, scheme by scheme.

    The rate is raised by overlaying shifted copies of the trace; each rate
    runs for ten residence times after a warm-up.
    """
    wanted = asked.wanted
    if not 0 < asked.target < 1:
        raise ConfigError(f"--target is {asked.target}; it must lie above 0 and below 1")
    settings, slots, json_out = asked.settings, asked.num_slots, asked.json_out
    promise = _promise(asked.ttft_s, asked.largest_gap_s, asked.target, settings.pace_s)
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
        gains, partial = _search(settings, rows, promise, wanted, slots)
        document = _document(settings, rows, promise, gains, partial)
        document = document.model_copy(update={"skipped_rows": skipped.count})
        if write is not None:
            write(document.model_dump_json())
    if printed:
        typer.echo(document.model_dump_json())
    if partial:
        raise typer.Exit(INTERRUPTED)


def _promise(ttft: float, largest_gap: float | None, target: float, pace: float) -> KeptPromise:
    """Return the promise.

    Raises:
        ConfigError: it cannot be kept at any rate.
    """
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


def _search(
    settings: SimulationSettings,
    rows: list[TraceRow],
    promise: KeptPromise,
    regimes: tuple[str, ...],
    slots: int,
) -> tuple[list[Gain], bool]:
    """Search every scheme in every regime and print the table; return it, and whether partial.

    Raises:
        KeyboardInterrupt: interrupted before anything was found.
    """
    gains: list[Gain] = []
    partial = False
    try:
        with interruptible():
            _search_all(settings, rows, promise, regimes, slots, gains)
    except KeyboardInterrupt:
        if not gains:
            raise
        partial = True
    console = Console()
    console.print(capacity_table(settings, promise, gains, partial=partial))
    for reason in reasons(gains):
        console.print(f"- {reason}", soft_wrap=True, markup=False, highlight=False)
    return gains, partial


def _search_all(
    settings: SimulationSettings,
    rows: list[TraceRow],
    promise: KeptPromise,
    regimes: tuple[str, ...],
    slots: int,
    gains: list[Gain],
) -> None:
    """Search every scheme in every regime; append each result to `gains`."""
    status = Console(stderr=True)

    def told(tried: TriedRate) -> None:
        status.print(progress_line(words, tried, promise.target), highlight=False, soft_wrap=True)

    overlay = Overlay(rows)
    load = _load(settings, rows)
    for regime in regimes:
        num_slots = num_slots_of(regime, slots, settings.cloud)
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
                guess_per_s=2 * baseline.curve.capacity_per_s or guess if baseline else guess,
                progress=told,
            )
            if baseline is None:
                baseline = found
                gains.append(Gain(scheme.name, words, found, None, None))
                continue
            gains.append(_gain(scheme.name, words, found, baseline, cloud, load))


def _gain(
    scheme: str,
    words: str,
    found: Capacity,
    baseline: Capacity,
    cloud: CloudProfile,
    load: MeanLoad,
) -> Gain:
    """Compare a scheme with cloud-only; without a rate on both sides there is no gain."""
    ours, theirs = found.curve.capacity_per_s, baseline.curve.capacity_per_s
    if not ours:
        return Gain(scheme, words, found, 0.0 if theirs else None, None)
    share = replace(load, output_tokens=found.cloud_tokens)
    formula = (
        slot_gain(cloud, load, share, cloud.max_num_seqs).gain
        if words.startswith("slots")
        else compute_gain(cloud, load, share)
    )
    comparable = theirs and baseline.curve.bounded
    return Gain(scheme, words, found, ours / theirs if comparable else None, formula)


def num_slots_of(regime: str, slots: int, cloud: CloudProfile) -> int:
    """Return the slots of a regime; a step must have room for one token of each, and prefill."""
    if regime == "slots":
        return slots
    most = cloud.max_num_batched_tokens
    return _MANY_SLOTS if most is None else min(_MANY_SLOTS, most - 1)


def _load(settings: SimulationSettings, rows: list[TraceRow]) -> MeanLoad:
    workload = workload_of(settings)
    prompts = [min(row.prompt_tokens, workload.max_prompt_tokens) for row in rows]
    outputs = [min(row.output_tokens, workload.max_output_tokens) for row in rows]
    return MeanLoad(sum(prompts) / len(rows), sum(outputs) / len(rows))


def _document(
    settings: SimulationSettings,
    rows: list[TraceRow],
    promise: KeptPromise,
    gains: list[Gain],
    partial: bool,
) -> ResultDocument:
    workload = workload_of(settings)
    curves: dict[str, tuple[CapacityCurve, ...]] = {}
    figures: dict[str, str | int | float | bool | None] = {}
    for g in gains:
        curves[g.scheme] = (*curves.get(g.scheme, ()), g.found.curve)
        regime = g.regime.partition(":")[0]
        kind = "gain" if g.found.curve.bounded else "gain over"
        figures[f"{kind} {g.scheme} {regime}"] = g.measured
        figures[f"gain by formula {g.scheme} {regime}"] = g.formula
    return ResultDocument(
        trace=settings.trace.name,
        trace_sha256=file_sha256(settings.trace),
        fidelity="simulated",
        arrivals="overlaid shifted copies of the trace",
        pace_s=settings.pace_s,
        exactness="identical",
        valid=not partial,
        invalid_because=(PARTIAL,) if partial else (),
        partial=partial,
        labels=("a search for capacity: no request is held here", *reasons(gains)),
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
