"""Speed estimates: a profile's prediction, corrected by observations.

Each estimate keeps the last ratios of observed to predicted time. A forecast of one pass is the
prediction times a quantile of those ratios. A forecast of many passes is the prediction times the
present level of the ratios, times a quantile of what such forecasts were off by: noise of single
passes cancels out in their sum, and a spell in which the machine is busy does not, so that neither
can be told from single passes. A single stall at the seam breaks the promise, so forecasts that
guard it use a high quantile, never the mean (DESIGN 3).
"""

from dataclasses import dataclass, field, replace

from pd_core.generation import Load
from pd_device_client.planning.planner import CloudForecast
from pd_device_client.planning.speeds.forecast_errors import ForecastErrors
from pd_device_client.planning.speeds.profiles import TOKEN_BYTES, SpeedProfile
from pd_device_client.planning.speeds.ratios import GUARD_QUANTILE, Ratios

__all__ = ["GUARD_QUANTILE", "CloudEstimate", "DeviceEstimate", "Ratios"]

_USUAL_AFTER = 3  # observations
_LEAST_SENT_BYTES = 4096  # less takes no time that could be told from jitter
_SPREAD_AFTER = 8  # observations
_NO_PASS = 0.1  # of a pass's time: less is none
_FADES = 2  # of the window's observations, for each answer without the device
# A longer time, that is so many times the expected one too, is a clock that jumped: the machine
# slept, or was stopped.
_JUMP_S, _JUMP_FACTOR = 60.0, 100.0


@dataclass(slots=True)
class DeviceEstimate:
    """A device's speeds: its starting profile, corrected by observations.

    Attributes:
        profile: measured at start or given.
        chunk_tokens: tokens per prefill pass; each pass costs at least a decode step.
        prefill: ratios of passes with several tokens.
        decode: ratios of passes with one token.
        errors: what forecasts of many passes were off by.
        slower_prefill, slower_decode: how many times as long passes take now as the profile says,
            because the engine gives way to other programs.
        context_tokens: in the cache after the last pass; a decode step's time depends on them.
    """

    profile: SpeedProfile
    chunk_tokens: int | None = None
    prefill: Ratios = field(default_factory=Ratios)
    decode: Ratios = field(default_factory=Ratios)
    errors: ForecastErrors = field(default_factory=ForecastErrors)
    slower_prefill: float = 1.0
    slower_decode: float = 1.0
    context_tokens: int = 0

    def give_way(self, slower_prefill: float, slower_decode: float) -> None:
        """Forecast slower passes from now on; what was learned before holds for the rest."""
        self.slower_prefill, self.slower_decode = slower_prefill, slower_decode

    def observe_pass(self, first_position: int, num_tokens: int, seconds: float) -> None:
        """Add one finished forward pass.

        A token that an earlier pass had guessed took none: promises do not count on such luck. Nor
        does the time of a clock that jumped say anything.
        """
        ratios, slower = self._kind(num_tokens)
        expected_s = self.profile.pass_s(first_position, num_tokens) * slower
        jumped = not 0 < seconds <= _JUMP_S and not 0 < seconds <= _JUMP_FACTOR * expected_s
        if jumped or (num_tokens == 1 and seconds < _NO_PASS * expected_s):
            self.errors.broke_off()
            return
        if num_tokens > 1:
            level = ratios.level
            self.errors.passed(first_position, num_tokens, expected_s, seconds, level)
        else:
            self.errors.decoded(first_position, expected_s * ratios.guard, seconds)
        ratios.add(seconds, expected_s)
        self.context_tokens = first_position + num_tokens

    def not_used(self) -> None:
        """An answer was planned without this device, which therefore shows nothing of its speed.

        What it once showed fades with each such answer. Otherwise a device that was slow for a
        moment would never be asked again.
        """
        for seen in (self.prefill, self.decode, self.errors):
            seen.forget(_FADES)

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
            decode_l_s=profile.decode_l_s * decode,
        )

    @property
    def decode_s(self) -> float:
        """D, guarded, with the present context."""
        return self._step_s * self.decode.guard

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is, with which no single stall is taken for a slow device."""
        usual = self.decode.quantile(0.5) if self.decode.num_values >= _USUAL_AFTER else 1.0
        return self._step_s * usual

    @property
    def spread(self) -> float:
        """Relative standard deviation of passes as it was seen, or as the profile has it."""
        kinds = [each for each in (self.prefill, self.decode) if each.num_values >= _SPREAD_AFTER]
        seen = [each.upper_spread / each.quantile(0.5) for each in kinds]
        return max(seen, default=self.profile.spread)

    def decode_quantile_s(self, q: float) -> float:
        """Seconds that a share q of the decode steps do not exceed, with the present context."""
        return self._step_s * self.decode.quantile(q)

    def prefill_s(self, num_tokens: int) -> float:
        """P(n), guarded."""
        return self.work_s(0, num_tokens)

    def prefill_quantile_s(self, num_tokens: int, q: float) -> float:
        """Seconds within which a share q of the prefills of n tokens end."""
        return self.work_s(0, num_tokens, q)

    def work_s(self, done: int, end: int, q: float = GUARD_QUANTILE) -> float:
        """Seconds to feed tokens done .. end in as many passes as they take, guarded.

        Args:
            done: tokens in the cache.
            end: tokens in the cache afterwards.
            q: the share of the cases in which it takes no longer.
        """
        num_tokens, chunk = end - done, self.chunk_tokens
        if num_tokens <= 0:
            return 0.0
        passes, rest = (0, num_tokens) if chunk is None else divmod(num_tokens, chunk)
        factor = self.factor(done, passes + (rest > 0), q)
        seconds, last = 0.0, end - rest
        prefill_s = self.profile.prefill_s
        if passes:
            seconds = max((prefill_s(last) - prefill_s(done)) * factor, passes * self.decode_s)
        if rest:
            rest_s = (prefill_s(end) - prefill_s(last)) * factor
            seconds += max(rest_s, self.decode_s)
        return seconds

    def factor(self, done: int, num_passes: int, q: float = GUARD_QUANTILE) -> float:
        """By what to multiply the profile's seconds of so many passes after `done` tokens."""
        off_by = self.errors.factor(done, num_passes, q, self.profile.spread)
        return self.prefill.level * off_by * self.slower_prefill

    def pass_s(self, first_position: int, num_tokens: int) -> float:
        """Seconds for tokens first_position .. first_position + num_tokens, guarded."""
        ratios, slower = self._kind(num_tokens)
        return self.profile.pass_s(first_position, num_tokens) * ratios.guard * slower

    @property
    def _step_s(self) -> float:
        profile = self.profile
        step_s = profile.decode_s + profile.decode_l_s * self.context_tokens
        return step_s * self.slower_decode

    def _kind(self, num_tokens: int) -> tuple[Ratios, float]:
        if num_tokens == 1:
            return self.decode, self.slower_decode
        return self.prefill, self.slower_prefill


@dataclass(slots=True)
class CloudEstimate:
    """A cloud's speed and its link's: the published load, corrected by this device's requests.

    Attributes:
        rtt_s: round-trip time: the shortest of several small calls.
        rtts: the last calls' times, as ratios to a second.
        load: the load published last.
        first: ratios of the first token's arrival.
        step_s: seconds between tokens, a moving average; 0 when unknown.
        steps: the last times between tokens, as ratios to a second.
        uploads: the seconds that a byte of the last long prompts took.
    """

    rtt_s: float = 0.0
    load: Load = field(default_factory=Load)
    first: Ratios = field(default_factory=Ratios)
    step_s: float = 0.0
    steps: Ratios = field(default_factory=Ratios)
    rtts: Ratios = field(default_factory=Ratios)
    uploads: Ratios = field(default_factory=Ratios)

    @property
    def usual_step_s(self) -> float:
        """Seconds between tokens as they usually are: no stall is taken for a slow cloud."""
        known = self.steps.num_values >= _USUAL_AFTER
        return self.steps.quantile(0.5) if known else self.step_s

    def _first_token_s(self, prompt_tokens: int) -> float:
        rate = self.load.prefill_tokens_per_s
        prefill = (prompt_tokens + self.load.queued_prefill_tokens) / rate if rate > 0 else 0.0
        sent_s = prompt_tokens * TOKEN_BYTES * self._byte_s
        return self.rtt_s + sent_s + prefill + self.load.decode_step_s

    def forecast(self, prompt_tokens: int) -> CloudForecast:
        """F and c at the published load. F is a median: an early F makes k larger."""
        first = self._first_token_s(prompt_tokens) * self.first.quantile(0.5)
        return CloudForecast(first, self.step_s or self.load.decode_step_s)

    def first_token_quantile_s(self, prompt_tokens: int, q: float) -> float:
        """Seconds within which a share q of the first tokens arrive, at the published load."""
        return self._first_token_s(prompt_tokens) * self.first.quantile(q)

    def first_token_sd_s(self, prompt_tokens: int) -> float:
        """The standard deviation of the first token's arrival; 0 while it is not known."""
        if self.first.num_values < _USUAL_AFTER:
            return 0.0
        return self._first_token_s(prompt_tokens) * self.first.upper_spread

    def step_quantile_s(self, q: float) -> float:
        """Seconds that a share q of the times between tokens do not exceed."""
        return self.steps.quantile(q) if self.steps.num_values else self.load.decode_step_s

    def rtt_quantile_s(self, q: float) -> float:
        """Seconds that a share q of the round trips do not exceed."""
        return self.rtts.quantile(q) if self.rtts.num_values else self.rtt_s

    @property
    def jitter_s(self) -> float:
        """By how much one round trip in ten exceeds the usual one."""
        return self.rtt_quantile_s(GUARD_QUANTILE) - self.rtt_quantile_s(0.5)

    @property
    def upload_bytes_per_s(self) -> float | None:
        """The link's bandwidth to the cloud; None while no long prompts have told it."""
        return 1 / self._byte_s if self._byte_s > 0 else None

    @property
    def _byte_s(self) -> float:
        return self.uploads.quantile(0.5) if self.uploads.num_values >= _USUAL_AFTER else 0.0

    def observe_upload(self, num_tokens: int, seconds: float) -> None:
        """Add the time from sending a prompt until the cloud has taken it.

        What that takes beyond a round trip is the prompt's way. A short one tells nothing.
        """
        sent_bytes = num_tokens * TOKEN_BYTES
        if sent_bytes < _LEAST_SENT_BYTES or not 0 <= seconds <= _JUMP_S:
            return
        self.uploads.add(max(seconds - self.rtt_quantile_s(0.5), 0.0), sent_bytes)

    def observe_rtts(self, seconds: list[float]) -> None:
        """Add the times of small calls, one after another."""
        sound = [each for each in seconds if 0 <= each <= _JUMP_S]
        for each in sound:
            self.rtts.add(each, 1.0)
        if sound:
            self.rtt_s = min(sound)

    def observe_first(self, prompt_tokens: int, seconds: float) -> None:
        """Add a first token that arrived after `seconds`."""
        expected_s = self._first_token_s(prompt_tokens)
        if 0 < seconds <= max(_JUMP_S, _JUMP_FACTOR * expected_s):
            self.first.add(seconds, expected_s)

    def observe_step(self, seconds: float) -> None:
        """Add the time between two tokens' arrivals."""
        if not 0 <= seconds <= _JUMP_S:
            return
        self.steps.add(seconds, 1.0)
        self.step_s = seconds if self.step_s == 0 else 0.9 * self.step_s + 0.1 * seconds
