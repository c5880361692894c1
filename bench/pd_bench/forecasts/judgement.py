"""How well forecasts of the ready time hold on answers that they have not seen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pd_bench.forecasts.pass_series import Answer, PassSeries
from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.profiles import SpeedProfile
from pd_device_client.planning.speeds.ratios import Ratios
from pd_device_client.planning.speeds.speed_fit import PassTime

__all__ = ["METHODS", "Forecaster", "Judged", "judge"]


class Forecaster(Protocol):
    """Learns from passes and forecasts the ready time."""

    def observe(self, done: PassTime) -> None:
        """Learn from a pass."""
        ...

    def ready_s(self, done: int, end: int, q: float) -> float:
        """Seconds until tokens done .. end are prefilled and a token is decoded, in a share q."""
        ...


class SinglePasses:
    """The profile times the quantile of single passes' ratios."""

    def __init__(self, profile: SpeedProfile, chunk_tokens: int) -> None:
        self._profile = profile
        self._chunk_tokens = chunk_tokens
        self._prefill, self._decode = Ratios(), Ratios()

    def observe(self, done: PassTime) -> None:
        """Learn from a pass."""
        ratios = self._decode if done.num_tokens == 1 else self._prefill
        told_s = self._profile.pass_s(done.first_position, done.num_tokens)
        ratios.add(done.seconds, told_s)

    def ready_s(self, done: int, end: int, q: float) -> float:
        """See `Forecaster`."""
        step_s = self._profile.pass_s(end, 1) * self._decode.quantile(q)
        work_s = self._profile.prefill_s(end) - self._profile.prefill_s(done)
        passes = (end - done) / self._chunk_tokens
        return max(work_s * self._prefill.quantile(q), passes * step_s) + step_s


class ForecastErrors:
    """The device's own estimate: the present level times a quantile of earlier errors."""

    def __init__(self, profile: SpeedProfile, chunk_tokens: int) -> None:
        self._estimate = DeviceEstimate(profile, chunk_tokens)

    def observe(self, done: PassTime) -> None:
        """Learn from a pass."""
        self._estimate.observe_pass(done.first_position, done.num_tokens, done.seconds)

    def ready_s(self, done: int, end: int, q: float) -> float:
        """See `Forecaster`."""
        estimate = self._estimate
        estimate.context_tokens = end
        return estimate.work_s(done, end, q) + estimate.decode_s


METHODS: dict[str, Callable[[SpeedProfile, int], Forecaster]] = {
    "single-passes": SinglePasses,
    "forecast-errors": ForecastErrors,
}
"""What is compared; the last one is what a device uses."""


@dataclass(slots=True)
class Judged:
    """Forecasts beside what came.

    Attributes:
        held: how many were not exceeded.
        count: how many there are.
        pinball: the sum of their losses, each as a share of what came.
    """

    held: int = 0
    count: int = 0
    pinball: float = field(default=0.0)

    def add(self, forecast_s: float, came_s: float, q: float) -> None:
        """Add a forecast of the q-quantile."""
        over_s = came_s - forecast_s
        self.held += over_s <= 0
        self.count += 1
        self.pinball += (q * over_s if over_s > 0 else (q - 1) * over_s) / came_s

    def merge(self, other: "Judged") -> None:
        """Add the forecasts of another series."""
        self.held, self.count = self.held + other.held, self.count + other.count
        self.pinball += other.pinball

    def figures(self) -> dict[str, float]:
        """Return coverage, mean pinball loss and count."""
        count = max(self.count, 1)
        coverage, pinball = self.held / count, self.pinball / count
        return {"coverage": coverage, "pinball": pinball, "forecasts": self.count}


def judge(series: PassSeries, forecaster: Forecaster, q: float) -> tuple[Judged, Judged]:
    """Judge forecasts at each answer's start and halfway through its prefill.

    The forecaster learns from every pass once it is over. The first half of the answers is for
    learning; the forecasts of the second half are judged.

    Args:
        series: the answers.
        forecaster: knows nothing yet.
        q: the share of the forecasts that should hold.
    """
    at_start, halfway = Judged(), Judged()
    held_out = len(series.answers) // 2
    for number, answer in enumerate(series.answers):
        for forecast_s, came_s, begun in _forecasts(answer, forecaster, q):
            if number >= held_out:
                (halfway if begun else at_start).add(forecast_s, came_s, q)
    return at_start, halfway


def _forecasts(
    answer: Answer, forecaster: Forecaster, q: float
) -> Iterator[tuple[float, float, bool]]:
    passes: Sequence[PassTime] = answer.passes
    num_prefill = sum(each.num_tokens > 1 for each in passes)
    for index, each in enumerate(passes):
        if index == 0 or (index == num_prefill // 2 and index < num_prefill):
            came_s = sum(later.seconds for later in passes[index : num_prefill + 1])
            told_s = forecaster.ready_s(each.first_position, answer.prompt_tokens, q)
            yield told_s, came_s, index > 0
        forecaster.observe(each)
