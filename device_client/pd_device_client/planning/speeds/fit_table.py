"""What was measured of a device's speed beside what its profile says."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.speeds.speed_fit import PassTime

__all__ = ["FitRow", "decode_rows", "prefill_rows"]


@dataclass(frozen=True, slots=True)
class FitRow:
    """Seconds at one length.

    Attributes:
        num_tokens: of the prompt, or of the context of a decode step.
        measured_s: the median.
        least_s: the shortest.
        most_s: the longest.
        fitted_s: what the profile says.
    """

    num_tokens: int
    measured_s: float
    least_s: float
    most_s: float
    fitted_s: float

    @property
    def error(self) -> float:
        """How much longer than measured the profile says, as a share of the measured time."""
        return self.fitted_s / self.measured_s - 1


def prefill_rows(passes: Sequence[PassTime], profile: SpeedProfile) -> list[FitRow]:
    """Return the time of whole prompts, by their length so far."""
    seconds: dict[int, list[float]] = defaultdict(list)
    fitted_s: dict[int, float] = {}
    spent_s = told_s = 0.0
    for each in passes:
        if each.num_tokens == 1:
            continue
        if each.first_position == 0:
            spent_s = told_s = 0.0
        spent_s += each.seconds
        told_s += profile.pass_s(each.first_position, each.num_tokens)
        end = each.first_position + each.num_tokens
        seconds[end].append(spent_s)
        fitted_s[end] = told_s
    return _rows(seconds, fitted_s)


def decode_rows(passes: Sequence[PassTime], profile: SpeedProfile) -> list[FitRow]:
    """Return the time of a decode step by its context; steps that follow each other are one row."""
    seconds: dict[int, list[float]] = defaultdict(list)
    start, previous = 0, -2
    for each in passes:
        if each.num_tokens == 1:
            if each.first_position != previous + 1:
                start = each.first_position
            previous = each.first_position
            seconds[start].append(each.seconds)
    return _rows(seconds, {tokens: profile.pass_s(tokens, 1) for tokens in seconds})


def _rows(seconds: dict[int, list[float]], fitted_s: dict[int, float]) -> list[FitRow]:
    return [
        FitRow(tokens, statistics.median(all_s), min(all_s), max(all_s), fitted_s[tokens])
        for tokens, all_s in sorted(seconds.items())
    ]
