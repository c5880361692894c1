"""The key figures of a comparison, each with a confidence interval over the rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pd_bench.results.bootstrap import Interval, Statistic, Values, bootstrap_pair
from pd_bench.results.quantiles import quantiles
from pd_bench.results.result import RequestRecord, ResultDocument

__all__ = ["MEASURES", "Headline", "Measure", "headlines", "paired_values"]


def _quantile(share: float) -> Statistic:
    def statistic(values: Values) -> Values:
        return quantiles(values, share)

    return statistic


def _total(values: Values) -> Values:
    return np.asarray(values.sum(axis=-1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a scheme; lower is better.

    Attributes:
        name: its name in tables.
        of: returns a request's value; None if it has none.
        statistic: the statistic over the rows.
        tail: whether it depends on only a few rows.
    """

    name: str
    of: Callable[[RequestRecord], float | None]
    statistic: Statistic
    tail: bool = False


MEASURES: dict[str, Measure] = {
    m.name: m
    for m in (
        Measure("TTFT p50", lambda r: r.ttft_s, _quantile(0.5)),
        Measure("TTFT p99", lambda r: r.ttft_s, _quantile(0.99), tail=True),
        Measure("TPOT p50", lambda r: r.tpot_s, _quantile(0.5)),
        Measure("largest gap p50", lambda r: r.largest_gap_s, _quantile(0.5)),
        Measure("largest gap p99", lambda r: r.largest_gap_s, _quantile(0.99), tail=True),
        Measure("E2E p50", lambda r: r.e2e_s, _quantile(0.5)),
        Measure("cloud tokens generated", lambda r: r.cloud_tokens_generated, _total),
    )
}

# Which measures are reported against which reference; the two that share nothing come first.
_AGAINST = {
    "device-only": ("TTFT p50", "TTFT p99"),
    "cloud-only": ("TTFT p50", "largest gap p99", "cloud tokens generated"),
}


@dataclass(frozen=True, slots=True)
class Headline:
    """A scheme's figure over another's.

    Attributes:
        measure: the figure's name.
        scheme: the scheme.
        against: the scheme it is compared with.
        ratio: scheme over against; less than 1 is better.
    """

    measure: str
    scheme: str
    against: str
    ratio: Interval


def paired_values(
    first: list[RequestRecord], second: list[RequestRecord], measure: Measure
) -> tuple[Values, Values]:
    """Return a measure's values for the rows that both lists answered, in the same order.

    A row's repeats are averaged. A row that failed in any of them is left out.
    """
    ours, theirs = _by_row(first, measure), _by_row(second, measure)
    rows = sorted(ours.keys() & theirs.keys())
    return np.array([ours[row] for row in rows]), np.array([theirs[row] for row in rows])


def _by_row(records: list[RequestRecord], measure: Measure) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    broken: set[int] = set()
    for r in records:
        value = measure.of(r)
        if r.error is not None or value is None:
            broken.add(r.id)
        else:
            values.setdefault(r.id, []).append(value)
    return {row: sum(v) / len(v) for row, v in values.items() if row not in broken}


def _ratio(first: Values, second: Values) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(first, second), dtype=np.float64)


def headlines(document: ResultDocument) -> list[Headline]:
    """Return the key ratios of every scheme that is not itself a reference."""
    by_scheme: dict[str, list[RequestRecord]] = {}
    for r in document.requests:
        by_scheme.setdefault(r.scheme, []).append(r)
    found = []
    for scheme in document.schemes:
        for against, names in _AGAINST.items():
            if scheme in _AGAINST or against not in by_scheme or scheme not in by_scheme:
                continue
            for name in names:
                measure = MEASURES[name]
                pair = paired_values(by_scheme[scheme], by_scheme[against], measure)
                interval = bootstrap_pair(*pair, measure.statistic, _ratio)
                if interval is not None:
                    found.append(Headline(name, scheme, against, interval))
    return found
