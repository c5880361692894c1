"""The output of `pd-bench capacity`: the rates tried, the table, and why a scheme has no rate."""

from dataclasses import dataclass

from rich.table import Table

from pd_bench.simulation.capacity import Capacity, TriedRate
from pd_bench.simulation.kept_promise import KeptPromise
from pd_bench.simulation.settings import SimulationSettings

__all__ = ["PARTIAL", "Gain", "capacity_table", "over", "progress_line", "reasons"]

PARTIAL = "interrupted: what had not been found by then is missing"


@dataclass(frozen=True, slots=True)
class Gain:
    """A scheme beside cloud-only in one regime."""

    scheme: str
    regime: str
    found: Capacity
    measured: float | None  # None for cloud-only itself, and beside one that is not bounded
    formula: float | None


def progress_line(words: str, tried: TriedRate, target: float) -> str:
    """Return a line on the rate tried in the regime called `words`, and its outcome."""
    first = "the first " if tried.left_early else ""
    verdict = "enough" if tried.good else "too few"
    return (
        f"{words}: {tried.scheme}: tried {tried.rate_per_s:.3g} requests/s: of {first}"
        f"{tried.measured} promises {tried.broken} broken; {100 * target:g} % are to be kept: "
        f"{verdict}{', left early' if tried.left_early else ''}"
    )


def capacity_table(
    settings: SimulationSettings,
    promise: KeptPromise,
    gains: list[Gain],
    *,
    partial: bool = False,
) -> Table:
    """Return one row for each scheme in each regime."""
    part = f"; {PARTIAL}" if partial else ""
    table = Table(
        title=f"{settings.trace.name}: requests/s at which {promise.target:.0%} see the first "
        f"token within {promise.ttft_s:g} s and no gap above {promise.largest_gap_s:g} s",
        caption=f"simulated: cloud {settings.cloud.name}, {settings.devices}, "
        f"pace {settings.pace_s:g} s{part}",
    )
    for column in ("regime", "scheme"):
        table.add_column(column)
    for column in ("requests/s", "cloud tokens", "gain", "by formula"):
        table.add_column(column, justify="right")
    for g in gains:
        table.add_row(
            g.regime,
            g.scheme,
            *_found_cells(g.found),
            "-" if g.measured is None else f"{over(g.found)}{g.measured:.1f}",
            "-" if g.formula is None else f"{g.formula:.1f}",
        )
    return table


def _found_cells(found: Capacity) -> tuple[str, str]:
    """Return the rate, and the cloud tokens per request at that rate."""
    if found.curve.none_because is not None:
        return "none", "-"
    return f"{over(found)}{found.curve.capacity_per_s:.2f}", f"{found.cloud_tokens:.1f}"


def over(found: Capacity) -> str:
    """Return a mark for a rate that is only the highest tried, as none broke the promise."""
    return "" if found.curve.bounded else "over "


def reasons(gains: list[Gain]) -> list[str]:
    """Return why each scheme without a rate, or without a bound, has none."""
    unbounded = [
        f"{g.regime}: {g.scheme}: no rate up to {g.found.curve.capacity_per_s:.3g} requests/s "
        "broke the promise, and none above was tried: what it carries is more than that"
        for g in gains
        if not g.found.curve.bounded
    ]
    return unbounded + [
        f"{g.regime}: {g.scheme}: {g.found.curve.none_because}; promise less, or take a faster "
        "device or cloud"
        for g in gains
        if g.found.curve.none_because is not None
    ]
