"""A device's forecast where the cloud tells which positions of the prompt matter (DESIGN 4)."""

import bisect
from dataclasses import dataclass

from pd_device_client.planning.handoff_time import DeviceForecast
from pd_device_client.planning.spread import USUAL_PASS_TOKENS

__all__ = ["KEEP_RATIOS", "RefinedDevice", "refined"]

KEEP_RATIOS = (1.0, 0.75, 0.5, 0.25)
"""The keep ratios that are tried; 1 is exact."""


@dataclass(frozen=True, slots=True)
class RefinedDevice:
    """A forecast for a prompt of which only a part is prefilled.

    Attributes:
        device: the device's speeds.
        prompt_tokens: the whole prompt.
        kept_tokens: what is prefilled of it.
    """

    device: DeviceForecast
    prompt_tokens: int
    kept_tokens: int

    @property
    def decode_s(self) -> float:
        """D."""
        return self.device.decode_s

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is."""
        return self.device.usual_decode_s

    @property
    def chunk_tokens(self) -> int | None:
        """Tokens of each pass of the prefill."""
        return self.device.chunk_tokens

    def prefill_s(self, num_tokens: int) -> float:
        """P of the kept positions, and of what follows the prompt."""
        left_out = self.prompt_tokens - self.kept_tokens
        return self.device.prefill_s(max(num_tokens - left_out, 0))


def refined(
    device: DeviceForecast, prompt_tokens: int, keep_ratio: float, known_s: float
) -> RefinedDevice:
    """Return the device's forecast with a refined prompt.

    Args:
        device: the device's speeds.
        prompt_tokens: n.
        keep_ratio: rho, of the positions that are not prefilled yet.
        known_s: when the kept positions are known, from submit; progress until then is kept.
    """
    chunk = device.chunk_tokens or USUAL_PASS_TOKENS
    passes = range(chunk, prompt_tokens, chunk)
    # A pass that has begun is not broken off.
    begun = bisect.bisect_right(passes, known_s, key=device.prefill_s) + 1
    done = min(begun * chunk, prompt_tokens)
    kept = done + round(keep_ratio * (prompt_tokens - done))
    return RefinedDevice(device, prompt_tokens, max(kept, 1))
