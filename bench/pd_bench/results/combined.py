"""Few real runs and many simulated ones: means over a whole trace, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pd_bench.results.bootstrap import Interval, Values, bootstrap_pair
from pd_bench.results.result import RequestRecord, ResultDocument
from pd_bench.results.safe_mean import LEAST_MEASURED, SafeMean, safe_mean
from pd_core.errors import ConfigError

__all__ = ["CombinedFigure", "CombinedResult", "combine_results"]

_REAL = ("real", "fleet")
_FAR = 3.0  # standard errors


@dataclass(frozen=True, slots=True)
class CombinedFigure:
    """One mean of one scheme over all rows.

    Attributes:
        scheme: the scheme.
        name: the figure's name.
        mean: measured alone, and combined.
        bootstrap: the measured rows' mean with a bootstrap interval; None: not finite.
    """

    scheme: str
    name: str
    mean: SafeMean
    bootstrap: Interval | None


@dataclass(frozen=True, slots=True)
class CombinedResult:
    """A real result combined with simulated ones.

    Attributes:
        real_rows: rows that were measured.
        rows: all rows.
        figures: by scheme and figure.
        notes: reasons to doubt it, in words.
    """

    real_rows: int
    rows: int
    figures: tuple[CombinedFigure, ...]
    notes: tuple[str, ...]


_FIGURES: tuple[tuple[str, Callable[[RequestRecord, float], float | None]], ...] = (
    ("TTFT, s", lambda r, _: r.ttft_s),
    ("TPOT, s", lambda r, _: r.tpot_s),
    ("largest gap, s", lambda r, _: r.largest_gap_s),
    ("E2E, s", lambda r, _: r.e2e_s),
    ("cloud tokens", lambda r, _: r.cloud_tokens_generated),
    ("stalled, share", lambda r, pace_s: float(r.stalled(pace_s))),
)


def combine_results(real: ResultDocument, simulated: Sequence[ResultDocument]) -> CombinedResult:
    """Estimate the means over all rows of the simulations, from the rows of the real run.

    Args:
        real: a replay with real forward passes (fidelity real or fleet), of a random part of the
            rows.
        simulated: one or more simulations of all rows; each is a predictor.

    Raises:
        ConfigError: the documents cannot be combined; the message says why.
    """
    _check(real, simulated)
    figures, notes = [], list[str]()
    shared = [s for s in real.schemes if all(s in d.schemes for d in simulated)]
    if not shared:
        raise ConfigError("the real run and the simulations have no scheme in common")
    real_rows = rows = 0
    for scheme in shared:
        for name, of in _FIGURES:
            parts = _values(real, simulated, scheme, of)
            if len(parts[0]) < LEAST_MEASURED:
                continue
            measured, predicted, others = parts
            real_rows = max(real_rows, len(measured))
            rows = max(rows, len(measured) + len(others))
            mean = safe_mean(measured, predicted, others)
            figures.append(CombinedFigure(scheme, name, mean, _bootstrap(measured)))
            if _differ(predicted, others):
                notes.append(
                    f"{scheme}: {name}: by the simulation the real run's rows differ from the "
                    "others by more than chance; were they drawn at random?"
                )
    if not figures:
        raise ConfigError(
            f"the results share fewer than {LEAST_MEASURED} answered rows of any scheme; simulate "
            "the trace of the real run with --keep-requests of at least its rows"
        )
    return CombinedResult(real_rows, rows, tuple(figures), tuple(notes))


def _check(real: ResultDocument, simulated: Sequence[ResultDocument]) -> None:
    if real.fidelity not in _REAL:
        raise ConfigError(
            f"the first result is of the fidelity {real.fidelity}; give a replay first (fidelity "
            "real or fleet), then simulations"
        )
    if not real.valid:
        raise ConfigError(f"the real run is not valid ({'; '.join(real.invalid_because)})")
    shapes = {r.line: (r.prompt_tokens, r.output_tokens) for r in real.requests}
    for document in simulated:
        if document.fidelity != "simulated":
            raise ConfigError(f"a result of the fidelity {document.fidelity} is no simulation")
        if document.trace_sha256 != real.trace_sha256:
            raise ConfigError(
                f"the simulation is of another trace ({document.trace}) than the real run "
                f"({real.trace}); simulate the same file"
            )
        if document.pace_s != real.pace_s:
            raise ConfigError(
                f"the paces differ: {real.pace_s:g} s in the real run and {document.pace_s:g} s in "
                "a simulation"
            )
        for r in document.requests:
            if shapes.get(r.line, (r.prompt_tokens, r.output_tokens)) != (
                r.prompt_tokens,
                r.output_tokens,
            ):
                raise ConfigError(
                    f"line {r.line} of the trace was cut differently: use the same limits in both"
                )


def _values(
    real: ResultDocument,
    simulated: Sequence[ResultDocument],
    scheme: str,
    of: Callable[[RequestRecord, float], float | None],
) -> tuple[Values, Values, Values]:
    """Return (n,) measured, (n, K) predicted for the same rows, and (N - n, K) for the others."""
    measured = _by_line(real, scheme, of)
    predictions = [_by_line(document, scheme, of) for document in simulated]
    predicted = set.intersection(*(set(p) for p in predictions))
    both = sorted(predicted & measured.keys())
    left = sorted(predicted - measured.keys())
    rows = [[p[line] for p in predictions] for line in both]
    others = [[p[line] for p in predictions] for line in left]
    num = len(simulated)
    return (
        np.array([measured[line] for line in both], dtype=np.float64),
        np.array(rows, dtype=np.float64).reshape(-1, num),
        np.array(others, dtype=np.float64).reshape(-1, num),
    )


def _by_line(
    document: ResultDocument, scheme: str, of: Callable[[RequestRecord, float], float | None]
) -> dict[int, float]:
    """Return each row's mean over its repeats, by its line in the trace; none where one failed."""
    values: dict[int, list[float]] = {}
    broken = set[int]()
    for r in document.requests:
        if r.scheme != scheme:
            continue
        value = of(r, document.pace_s)
        if r.error is not None or value is None:
            broken.add(r.line)
        else:
            values.setdefault(r.line, []).append(value)
    return {line: sum(v) / len(v) for line, v in values.items() if line not in broken}


def _bootstrap(measured: Values) -> Interval | None:
    def mean(values: Values) -> Values:
        return np.asarray(values.mean(axis=-1), dtype=np.float64)

    return bootstrap_pair(measured, measured, mean, lambda first, _: first)


def _differ(predicted: Values, others: Values) -> bool:
    """Whether the rows differ from the others in any prediction by more than chance."""
    if len(others) < LEAST_MEASURED:
        return False
    error = np.sqrt(
        predicted.var(axis=0, ddof=1) / len(predicted) + others.var(axis=0, ddof=1) / len(others)
    )
    means = predicted.mean(axis=0), others.mean(axis=0)
    rounding = 1e-9 * np.abs(means[0])
    return bool((np.abs(means[0] - means[1]) > _FAR * error + rounding).any())
