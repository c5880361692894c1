"""The search of `pd-bench capacity`, scheme by scheme and regime by regime, and its document."""

from dataclasses import asdict, replace

from rich.console import Console

from pd_bench.commands.simulate import interruptible
from pd_bench.results.provenance import file_sha256, hardware, versions
from pd_bench.results.result import CutRows, Distribution, EqualRows, ResultDocument
from pd_bench.results.series import CapacityCurve
from pd_bench.simulation.capacity import Capacity, TriedRate, find_capacity
from pd_bench.simulation.capacity_table import (
    PARTIAL,
    Gain,
    capacity_table,
    progress_line,
    reasons,
)
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.fleet import workload_of
from pd_bench.simulation.kept_promise import KeptPromise
from pd_bench.simulation.overlay import Overlay
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.slot_formula import MeanLoad, compute_gain, slot_gain
from pd_bench.traces.row import TraceRow

__all__ = ["capacity_document", "num_slots_of", "search"]

_MANY_SLOTS = 512


def search(
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
        for scheme in settings.parsed_schemes:
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


def capacity_document(
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
