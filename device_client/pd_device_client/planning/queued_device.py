"""A device's forecast for one request: after its wait, and with its cached tokens."""

from dataclasses import dataclass

from pd_device_client.planning.estimates import DeviceEstimate

__all__ = ["QueuedDevice"]


@dataclass(frozen=True, slots=True)
class QueuedDevice:
    """A forecast for one request.

    Attributes:
        estimate: the device's speeds.
        wait_s: seconds until the request's turn at the engine.
        num_cached: tokens of the prompt that need no prefill.
    """

    estimate: DeviceEstimate
    wait_s: float
    num_cached: int

    @property
    def decode_s(self) -> float:
        """D."""
        return self.estimate.decode_s

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is."""
        return self.estimate.usual_decode_s

    def prefill_s(self, num_tokens: int) -> float:
        """P(n), from submit."""
        done_s = self.estimate.prefill_s(self.num_cached)
        return self.wait_s + max(self.estimate.prefill_s(num_tokens) - done_s, 0.0)
