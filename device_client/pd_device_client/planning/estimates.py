"""Speed estimates: a profile's prediction, corrected by observations.

Each estimate keeps the last ratios of observed to predicted time; a forecast is the prediction
times a quantile of those ratios. A single stall at the seam breaks the promise, so forecasts that
guard it use a high quantile, never the mean (DESIGN 3).
"""

import bisect
from collections import deque
from dataclasses import dataclass, field, replace

from pd_core.generation import Load
from pd_device_client.planning.planner import CloudForecast
from pd_device_client.planning.profiles import SpeedProfile

__all__ = ["GUARD_QUANTILE", "CloudEstimate", "DeviceEstimate", "Ratios"]

# The quantile of past ratios with which a forecast guards a promise.
GUARD_QUANTILE = 0.9
_WINDOW = 32
_USUAL_AFTER = 3  # observations
_NO_PASS = 0.1  # of a pass's time: less is none
_FADES = 2  # of the window's observations, for each answer without the device


class Ratios:
    """The last ratios of observed to predicted time for one kind of work.

    Attributes:
        guard: their GUARD_QUANTILE; 1 before the first observation.
    """

    __slots__ = ("_ordered", "_values", "guard")

    def __init__(self) -> None:
        self.guard = 1.0
        self._values: deque[float] = deque()
        self._ordered: list[float] = []  # sorted: read far more often than added to

    def add(self, observed_s: float, predicted_s: float) -> None:
        """Add one observation; a prediction of zero is ignored."""
        if predicted_s <= 0:
            return
        values, ordered = self._values, self._ordered
        if len(values) == _WINDOW:
            del ordered[bisect.bisect_left(ordered, values.popleft())]
        ratio = observed_s / predicted_s
        values.append(ratio)
        bisect.insort(ordered, ratio)
        size = len(ordered)  # as quantile(GUARD_QUANTILE), without a call
        self.guard = ordered[min(int(GUARD_QUANTILE * size), size - 1)]

    def forget(self, count: int) -> None:
        """Drop the oldest observations."""
        for _ in range(min(count, len(self._values))):
            del self._ordered[bisect.bisect_left(self._ordered, self._values.popleft())]
        self.guard = self.quantile(GUARD_QUANTILE)

    @property
    def num_values(self) -> int:
        """Observations in the window."""
        return len(self._ordered)

    def quantile(self, q: float) -> float:
        """The q-quantile of the window (nearest rank); 1 before the first observation."""
        ordered = self._ordered
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else 1.0


@dataclass(slots=True)
class DeviceEstimate:
    """A device's speeds: its starting profile, corrected by observations.

    Attributes:
        profile: measured at start or given.
        chunk_tokens: tokens per prefill pass; each pass costs at least a decode step.
        prefill: ratios of passes with several tokens.
        decode: ratios of passes with one token.
        slower_prefill, slower_decode: how many times as long passes take now as the profile says,
            because the engine gives way to other programs.
    """

    profile: SpeedProfile
    chunk_tokens: int | None = None
    prefill: Ratios = field(default_factory=Ratios)
    decode: Ratios = field(default_factory=Ratios)
    slower_prefill: float = 1.0
    slower_decode: float = 1.0

    def give_way(self, slower_prefill: float, slower_decode: float) -> None:
        """Forecast slower passes from now on; what was learned before holds for the rest."""
        self.slower_prefill, self.slower_decode = slower_prefill, slower_decode

    def observe_pass(self, first_position: int, num_tokens: int, seconds: float) -> None:
        """Add one finished forward pass.

        A token that an earlier pass had guessed took none: promises do not count on such luck.
        """
        ratios, slower = self._kind(num_tokens)
        expected_s = self.profile.pass_s(first_position, num_tokens) * slower
        if num_tokens == 1 and seconds < _NO_PASS * expected_s:
            return
        ratios.add(seconds, expected_s)

    def not_used(self) -> None:
        """An answer was planned without this device, which therefore shows nothing of its speed.

        What it once showed fades with each such answer. Otherwise a device that was slow for a
        moment would never be asked again.
        """
        for ratios in (self.prefill, self.decode):
            ratios.forget(_FADES)

    @property
    def learned(self) -> SpeedProfile:
        """The profile, corrected by the observed medians."""
        prefill, decode = self.prefill.quantile(0.5), self.decode.quantile(0.5)
        profile = self.profile
        return replace(
            profile,
            prefill_a_s=profile.prefill_a_s * prefill,
            prefill_b_s=profile.prefill_b_s * prefill,
            prefill_c_s=profile.prefill_c_s * prefill,
            decode_s=profile.decode_s * decode,
        )

    @property
    def decode_s(self) -> float:
        """D, guarded."""
        return self.profile.decode_s * self.decode.guard * self.slower_decode

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is, with which no single stall is taken for a slow device."""
        usual = self.decode.quantile(0.5) if self.decode.num_values >= _USUAL_AFTER else 1.0
        return self.profile.decode_s * usual * self.slower_decode

    def prefill_s(self, num_tokens: int) -> float:
        """P(n), guarded."""
        work_s = self.profile.prefill_s(num_tokens) * self.prefill.guard * self.slower_prefill
        if self.chunk_tokens is None:
            return work_s
        return max(work_s, num_tokens / self.chunk_tokens * self.decode_s)

    def pass_s(self, first_position: int, num_tokens: int) -> float:
        """Seconds for tokens first_position .. first_position + num_tokens, guarded."""
        ratios, slower = self._kind(num_tokens)
        return self.profile.pass_s(first_position, num_tokens) * ratios.guard * slower

    def _kind(self, num_tokens: int) -> tuple[Ratios, float]:
        if num_tokens == 1:
            return self.decode, self.slower_decode
        return self.prefill, self.slower_prefill


@dataclass(slots=True)
class CloudEstimate:
    """A cloud's speed: its published load, corrected by this device's requests.

    Attributes:
        rtt_s: round-trip time: the shortest of several small calls.
        load: the load published last.
        first: ratios of the first token's arrival.
        step_s: seconds between tokens, a moving average; 0 when unknown.
        steps: the last times between tokens, as ratios to a second.
    """

    rtt_s: float = 0.0
    load: Load = field(default_factory=Load)
    first: Ratios = field(default_factory=Ratios)
    step_s: float = 0.0
    steps: Ratios = field(default_factory=Ratios)

    @property
    def usual_step_s(self) -> float:
        """Seconds between tokens as they usually are: no stall is taken for a slow cloud."""
        known = self.steps.num_values >= _USUAL_AFTER
        return self.steps.quantile(0.5) if known else self.step_s

    def _first_token_s(self, prompt_tokens: int) -> float:
        rate = self.load.prefill_tokens_per_s
        prefill = (prompt_tokens + self.load.queued_prefill_tokens) / rate if rate > 0 else 0.0
        return self.rtt_s + prefill + self.load.decode_step_s

    def forecast(self, prompt_tokens: int) -> CloudForecast:
        """F and c at the published load. F is a median: an early F makes k larger."""
        first = self._first_token_s(prompt_tokens) * self.first.quantile(0.5)
        return CloudForecast(first, self.step_s or self.load.decode_step_s)

    def observe_first(self, prompt_tokens: int, seconds: float) -> None:
        """Add a first token that arrived after `seconds`."""
        self.first.add(seconds, self._first_token_s(prompt_tokens))

    def observe_step(self, seconds: float) -> None:
        """Add the time between two tokens' arrivals."""
        self.steps.add(seconds, 1.0)
        self.step_s = seconds if self.step_s == 0 else 0.9 * self.step_s + 0.1 * seconds
