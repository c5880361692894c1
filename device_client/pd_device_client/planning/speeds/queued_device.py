"""A device's forecast for one request: after its wait, and with its cached tokens."""

from dataclasses import dataclass, field

from pd_device_client.planning.speeds.estimates import DeviceEstimate

__all__ = ["QueuedDevice"]


@dataclass(frozen=True, slots=True)
class QueuedDevice:
    """A forecast for one request, made at one instant: a plan asks the same many times.

    Attributes:
        estimate: the device's speeds.
        wait_s: seconds until the request's turn at the engine.
        num_cached: tokens of the prompt that need no prefill.
        context_tokens: of the prompt, whose length decides what a decode step takes; None: as now.
    """

    estimate: DeviceEstimate
    wait_s: float
    num_cached: int
    context_tokens: int | None = None
    _known_s: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def decode_s(self) -> float:
        """D."""
        return self.estimate.decode_s * self._longer

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is."""
        return self.estimate.usual_decode_s * self._longer

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of each pass of the prefill."""
        return self.estimate.chunk_tokens

    def prefill_s(self, num_tokens: int) -> float:
        """P(n), from submit."""
        known_s = self._known_s.get(num_tokens)
        if known_s is None:
            known_s = self.wait_s + self.estimate.work_s(self.num_cached, num_tokens)
            self._known_s[num_tokens] = known_s
        return known_s

    def prefill_quantile_s(self, num_tokens: int, q: float) -> float:
        """Seconds from submit within which a share q of the prefills of n tokens end."""
        return self.wait_s + self.estimate.work_s(self.num_cached, num_tokens, q)

    def decode_quantile_s(self, q: float) -> float:
        """Seconds that a share q of the decode steps do not exceed."""
        return self.estimate.decode_quantile_s(q) * self._longer

    @property
    def _longer(self) -> float:
        """How many times as long a decode step takes with this prompt as with the last one."""
        profile, now = self.estimate.profile, self.estimate.context_tokens
        if self.context_tokens is None or profile.decode_l_s == 0:
            return 1.0
        return profile.pass_s(self.context_tokens, 1) / profile.pass_s(now, 1)
