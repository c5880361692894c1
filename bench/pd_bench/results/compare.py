"""Compares two results: what has become worse beyond noise.

Where both hold the same rows, each scheme's requests are compared row by row:

- Medians and totals have become worse if the whole 95 % bootstrap interval of the ratio B / A is
  above 1 + tolerance and a rank test of the rows' differences finds them different too. The
  interval alone would be misled by a few rows, the test alone by many small differences.
- Tails (p99) depend on a few rows, to which a rank test over all rows is blind: there the interval
  alone decides, at the test's level instead of 5 %.
- Stalls: rows that stalled in only one result, by the exact sign test.

Results of different fidelities are refused: a simulation is no better or worse than a replay. So is
a result that is not valid, since a run that cannot be trusted proves nothing better or worse.

Because many figures are tested, the tests' level is divided among them (Bonferroni). Failures,
disagreeing tokens and equal answers are compared directly: they have no noise.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pd_bench.results.bootstrap import (
    CONFIDENCE,
    Interval,
    Values,
    bootstrap_pair,
    rows_to_tell,
    sign_p,
    signed_rank_p,
)
from pd_bench.results.headlines import MEASURES, Measure, paired_values
from pd_bench.results.result import RequestRecord, ResultDocument, SchemeResult
from pd_core.errors import ConfigError

__all__ = ["LEVEL", "Comparison", "Figure", "compare_results"]

LEVEL: Final = 0.05
"""Probability that the rank tests call equal results different in any figure."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one scheme in both results.

    Attributes:
        scheme: the scheme.
        name: the figure's name.
        first: value in A; None if it has none.
        second: value in B; None if it has none.
        ratio: B / A over the rows, with its interval; None for counts.
        p: the rank test's p-value; None for counts.
        verdict: "worse", "better", "same" (no difference beyond noise), or "none" (a result is not
            valid).
        why: the reason for a verdict other than "same", in words.
    """

    scheme: str
    name: str
    first: float | None
    second: float | None
    ratio: Interval | None
    p: float | None
    verdict: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        rows: number of rows that both results have.
        figures: all figures, by scheme and measure.
        notes: reasons to doubt the comparison, in words.
    """

    rows: int
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Figure, ...]:
        """The figures that became worse."""
        return tuple(f for f in self.figures if f.verdict == "worse")


def compare_results(
    first: ResultDocument,
    second: ResultDocument,
    tolerance: float = 0.05,
    *,
    even_invalid: bool = False,
) -> Comparison:
    """Compare result B with result A, row by row.

    Args:
        first: A, the old result.
        second: B, the new result.
        tolerance: share of A by which a figure may grow before it is worse.
        even_invalid: give the figures of results that are not valid, without a verdict.

    Raises:
        ConfigError: the results cannot be compared: different rows, no common scheme, one is
            simulated and the other is not, or one is not valid.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"--tolerance is {tolerance}; it must be 0 or more")
    schemes = [scheme for scheme in first.schemes if scheme in second.schemes]
    for name, document in (("A", first), ("B", second)):
        if not document.schemes:
            raise ConfigError(
                f"{name} has no scheme with requests to compare"
                + (": it is a search for a capacity" if document.capacity else "")
            )
    if not schemes:
        raise ConfigError(
            f"the results have no scheme in common: {', '.join(first.schemes)} against "
            f"{', '.join(second.schemes)}"
        )
    if first.fidelity != second.fidelity:
        raise ConfigError(
            f"A is of the fidelity {first.fidelity} and B of {second.fidelity}: what differs "
            "between them is neither better nor worse; compare runs of one fidelity. How well a "
            "simulation agrees with a replay: pd-bench simulate TRACE --validate REPLAY.json"
        )
    invalid = _invalid(first, second)
    if invalid and not even_invalid:
        raise ConfigError(
            f"{' and '.join(invalid)}, so nothing can be called better or worse; measure again, or "
            "see the figures without a verdict: --even-invalid"
        )
    rows = _common_rows(first, second)
    level = LEVEL / (len(schemes) * (len(MEASURES) + 1))  # + 1 for stalls
    figures: list[Figure] = []
    for scheme in schemes:
        ours, theirs = _records(first, scheme), _records(second, scheme)
        figures += [_measured(scheme, m, ours, theirs, tolerance, level) for m in MEASURES.values()]
        figures.append(_stalled(scheme, (ours, first.pace_s), (theirs, second.pace_s), level))
        figures += _counted(scheme, first.schemes[scheme], second.schemes[scheme])
    figures.append(_answers(first, second))
    notes = [*invalid, *_notes(first, second)]
    if invalid:
        figures = [replace(figure, verdict="none", why="") for figure in figures]
    elif rows < (needed := rows_to_tell(level)):
        notes.append(
            f"{rows} rows are too few to call any median different: at least {needed} are needed"
        )
    return Comparison(rows, tuple(figures), tuple(notes))


def _invalid(first: ResultDocument, second: ResultDocument) -> list[str]:
    """Say of each result that is not valid why."""
    return [
        f"{name} is not valid ({'; '.join(document.invalid_because) or 'it does not say why'})"
        for name, document in (("A", first), ("B", second))
        if not document.valid
    ]


def _common_rows(first: ResultDocument, second: ResultDocument) -> int:
    """Check that rows with the same id are the same request, and count them.

    Raises:
        ConfigError: they are not, or there is no common row.
    """
    ours, theirs = _shapes(first), _shapes(second)
    common = ours.keys() & theirs.keys()
    if not common:
        raise ConfigError("the results hold no rows in common; compare runs of the same trace")
    other = sorted(row for row in common if ours[row] != theirs[row])
    if other:
        row = other[0]
        raise ConfigError(
            f"the results are of other requests: row {row} has {ours[row][0]} prompt and "
            f"{ours[row][1]} output tokens in A, and {theirs[row][0]} and {theirs[row][1]} in B; "
            "compare runs of the same trace with the same limits"
        )
    return len(common)


def _shapes(document: ResultDocument) -> dict[int, tuple[int, int]]:
    return {r.id: (r.prompt_tokens, r.output_tokens) for r in document.requests}


def _records(document: ResultDocument, scheme: str) -> list[RequestRecord]:
    return [r for r in document.requests if r.scheme == scheme]


def _measured(
    scheme: str,
    measure: Measure,
    ours: list[RequestRecord],
    theirs: list[RequestRecord],
    tolerance: float,
    level: float,
) -> Figure:
    before, after = paired_values(ours, theirs, measure)
    if not len(before):
        return Figure(scheme, measure.name, None, None, None, None, "same")
    values = float(measure.statistic(before)), float(measure.statistic(after))

    def ratio(a: Values, b: Values) -> Values:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.divide(b, a), dtype=np.float64)

    confidence = 1 - level if measure.tail else CONFIDENCE
    interval = bootstrap_pair(before, after, measure.statistic, ratio, confidence=confidence)
    p = None if measure.tail else signed_rank_p(after - before)
    verdict = why = ""
    if interval is not None and (p is None or p < level):
        if interval.low > 1 + tolerance:
            verdict = "worse"
        elif interval.high < 1 / (1 + tolerance):
            verdict = "better"
    if verdict and interval is not None:
        tested = "" if p is None else f", p = {p:.1g}"
        why = f"B / A lies in [{interval.low:.3f}, {interval.high:.3f}]{tested}"
    return Figure(scheme, measure.name, *values, interval, p, verdict or "same", why)


def _stalled(
    scheme: str,
    first: tuple[list[RequestRecord], float],
    second: tuple[list[RequestRecord], float],
    level: float,
) -> Figure:
    """Compare which rows stalled in any repeat, each result by its own pace."""
    ours, theirs = (
        {r.id: False for r in records} | {r.id: True for r in records if r.stalled(pace_s)}
        for records, pace_s in (first, second)
    )
    common = ours.keys() & theirs.keys()
    fixed = sum(ours[row] and not theirs[row] for row in common)
    broken = sum(theirs[row] and not ours[row] for row in common)
    p = sign_p(fixed, broken)
    verdict = "same" if p >= level else "worse" if broken > fixed else "better"
    why = "" if verdict == "same" else f"{broken} rows stall anew, {fixed} no longer, p = {p:.1g}"
    before, after = (float(sum(rows[row] for row in common)) for rows in (ours, theirs))
    return Figure(scheme, "stalled rows", before, after, None, p, verdict, why)


def _counted(scheme: str, first: SchemeResult, second: SchemeResult) -> list[Figure]:
    """Compare shares of the requests, whose numbers may differ."""
    found = []
    for name, before, after in (
        ("failed", first.failed, second.failed),
        ("disagreed", first.disagreed, second.disagreed),
    ):
        ours, theirs = before / max(first.requests, 1), after / max(second.requests, 1)
        verdict = "worse" if theirs > ours else "better" if theirs < ours else "same"
        why = "" if verdict == "same" else f"{before} of {first.requests} to {after} of "
        why += "" if verdict == "same" else f"{second.requests} requests"
        found.append(Figure(scheme, name, float(before), float(after), None, None, verdict, why))
    return found


def _answers(first: ResultDocument, second: ResultDocument) -> Figure:
    """Compare the share of rows whose answers are equal in all schemes."""
    before, after = first.equal_rows, second.equal_rows
    ours, theirs = before.equal / max(before.rows, 1), after.equal / max(after.rows, 1)
    verdict = "worse" if theirs < ours else "better" if theirs > ours else "same"
    if not (before.rows and after.rows):  # one ended before any row had run in all schemes
        verdict = "same"
    words = f"{before.equal} of {before.rows} to {after.equal} of {after.rows}"
    why = "" if verdict == "same" else words
    return Figure(
        "all", "rows with equal answers", before.equal, after.equal, None, None, verdict, why
    )


def _notes(first: ResultDocument, second: ResultDocument) -> list[str]:
    notes = []
    for name, one, other in (("A", first, second), ("B", second, first)):
        if alone := [scheme for scheme in one.schemes if scheme not in other.schemes]:
            notes.append(f"only {name} has {', '.join(alone)}: not compared")
    for words, get in (
        ("pace", lambda d: d.pace_s),
        ("trace", lambda d: d.trace_sha256[:12]),
        ("seed", lambda d: d.seed),
        ("hardware", lambda d: d.hardware),
        ("model", lambda d: d.settings.get("model")),
        ("versions", lambda d: {k: v for k, v in d.versions.items() if k != "commit"}),
    ):
        if get(first) != get(second):
            notes.append(f"other {words}: {get(first)} in A, {get(second)} in B")
    return [*notes, *_profile_notes(first, second)]


def _profile_notes(first: ResultDocument, second: ResultDocument) -> list[str]:
    notes = []
    for kind in sorted(first.profiles.keys() | second.profiles.keys()):
        ours, theirs = first.profiles.get(kind, {}), second.profiles.get(kind, {})
        names = ours.get("name", "none"), theirs.get("name", "none")
        if names[0] != names[1]:
            notes.append(f"other profile of the {kind}: {names[0]} in A, {names[1]} in B")
        elif ours != theirs:
            notes.append(f"the {kind}'s profile {names[0]} has other values in B")
    return notes
