"""Controllers compared over many answers: largest gap against the best possible, and delay."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pd_bench.pacing.patterns import PATTERNS
from pd_bench.pacing.recording import Recording, recorded, recordings_of
from pd_bench.pacing.schedules import (
    at_once,
    best_possible,
    buffered,
    fixed_pace,
    largest_gap_s,
    least_gap_s,
)
from pd_bench.pacing.settings import PacingSettings
from pd_bench.results.quantiles import quantiles
from pd_bench.results.result import ResultDocument

__all__ = [
    "CONTROLLERS",
    "ControllerFigures",
    "PacingComparison",
    "PatternFigures",
    "compare_controllers",
    "figures_of",
    "schedules",
]

CONTROLLERS: Final = ("at once", "fixed pace", "buffer", "pd-device", "best possible")

# What the largest gap may be over the best possible one.
_AT_MEDIAN, _AT_P99 = 1.05, 1.5


@dataclass(frozen=True, slots=True)
class ControllerFigures:
    """One controller over the answers of a pattern.

    Attributes:
        largest_gap_over_optimum: p50 and p99 over answers.
        largest_gap_s: p50 and p99 over answers.
        gap_p99_s: p99 over all gaps of all answers.
        delay_s: mean over tokens and answers, against the fixed pace, which shows a token as early
            as the pace allows; negative: earlier, faster than the pace.
        first_token_delay_s: mean over answers, from the first token's arrival until it is shown.
    """

    largest_gap_over_optimum: dict[str, float]
    largest_gap_s: dict[str, float]
    gap_p99_s: float
    delay_s: float
    first_token_delay_s: float


@dataclass(frozen=True, slots=True)
class PatternFigures:
    """All controllers over the answers of a pattern.

    Attributes:
        pattern: its name.
        what: what happens, in words.
        answers: how many there are.
        counts: whether they count for the goals.
        controllers: by name.
    """

    pattern: str
    what: str
    answers: int
    counts: bool
    controllers: dict[str, ControllerFigures]


@dataclass(frozen=True, slots=True)
class PacingComparison:
    """A comparison.

    Attributes:
        pace_s, noise, seed: as asked.
        patterns: one by one.
        overall: all answers that count for the goals.
        goals_kept: whether pd-device's largest gap is within 5 % of the best possible at the
            median of those, and within 50 % at p99.
        example: one answer, for a picture.
    """

    pace_s: float
    noise: float
    seed: int
    patterns: tuple[PatternFigures, ...]
    overall: PatternFigures
    goals_kept: bool
    example: Recording


def compare_controllers(
    settings: PacingSettings,
    documents: Sequence[tuple[str, ResultDocument]] = (),
    doing: Callable[[str], None] = lambda _: None,
) -> PacingComparison:
    """Answer every pattern's requests and compare the controllers on the same arrivals.

    Args:
        settings: which answers.
        documents: results by name, whose answers were recorded elsewhere.
        doing: told what is being done.
    """
    found, counting = [], list[Recording]()
    example: Recording | None = None
    for pattern in PATTERNS.values():
        recordings = []
        for number in range(settings.requests):
            doing(f"{pattern.name}: answer {number + 1} of {settings.requests}")
            seed = settings.seed + number
            situation = pattern.draw(seed, settings.pace_s, settings.noise)
            recordings.append(recorded(situation, settings.pace_s, settings.noise))
        found.append(figures_of(pattern.name, pattern.what, recordings, counts=pattern.counts))
        if pattern.counts:
            counting += recordings
        if pattern.name == "fixed k":
            example = max(recordings, key=_telling)
    for name, document in documents:
        recordings = list(recordings_of(document))
        if recordings:
            what = f"{document.fidelity}: {document.trace}"
            found.append(figures_of(name, what, recordings, counts=False))
    overall = figures_of("all that count", "for the goals", counting, counts=True)
    ratio = overall.controllers["pd-device"].largest_gap_over_optimum
    kept = ratio["p50"] <= _AT_MEDIAN and ratio["p99"] <= _AT_P99
    assert example is not None, "a pattern shows a seam"
    return PacingComparison(
        settings.pace_s, settings.noise, settings.seed, tuple(found), overall, kept, example
    )


def _telling(recording: Recording) -> float:
    """How much a picture of this answer tells: a seam that pacing could and did avoid."""
    best_s = least_gap_s(recording.arrived_at_s, recording.pace_s)
    naive_s = largest_gap_s(fixed_pace(recording.arrived_at_s, recording.pace_s))
    return naive_s / largest_gap_s(recording.shown_at_s) if best_s > 1.2 * recording.pace_s else 0.0


def schedules(recording: Recording) -> dict[str, list[float]]:
    """Return when each controller shows the recording's tokens."""
    arrived, pace_s = recording.arrived_at_s, recording.pace_s
    return {
        "at once": at_once(arrived),
        "fixed pace": fixed_pace(arrived, pace_s),
        "buffer": buffered(arrived, pace_s, recording.buffer_tokens),
        "pd-device": list(recording.shown_at_s),
        "best possible": best_possible(arrived, pace_s),
    }


def figures_of(
    name: str, what: str, recordings: Iterable[Recording], *, counts: bool
) -> PatternFigures:
    """Return the controllers' figures over at least one recording."""
    rows: dict[str, list[_Row]] = {controller: [] for controller in CONTROLLERS}
    answers = 0
    for recording in recordings:
        answers += 1
        best_s = least_gap_s(recording.arrived_at_s, recording.pace_s)
        shown = schedules(recording)
        for controller in CONTROLLERS:
            rows[controller].append(_row(shown[controller], shown["fixed pace"], best_s))
    return PatternFigures(
        name, what, answers, counts, {name: _summary(rows[name]) for name in CONTROLLERS}
    )


@dataclass(frozen=True, slots=True)
class _Row:
    ratio: float
    largest_s: float
    gaps_s: list[float]
    delay_s: float
    first_s: float


def _row(shown: list[float], fixed: list[float], best_s: float) -> _Row:
    largest_s = largest_gap_s(shown)
    delay_s = float(np.mean(np.subtract(shown, fixed)))
    first_s = shown[0] - fixed[0]
    return _Row(largest_s / best_s, largest_s, np.diff(shown).tolist(), delay_s, first_s)


def _summary(rows: list[_Row]) -> ControllerFigures:
    gaps = np.concatenate([row.gaps_s for row in rows])
    return ControllerFigures(
        _spread([row.ratio for row in rows]),
        _spread([row.largest_s for row in rows]),
        float(quantiles(gaps, 0.99)) if len(gaps) else 0.0,
        float(np.mean([row.delay_s for row in rows])),
        float(np.mean([row.first_s for row in rows])),
    )


def _spread(values: list[float]) -> dict[str, float]:
    p50, p99 = quantiles(values, (0.5, 0.99)).tolist()
    return {"p50": p50, "p99": p99}
