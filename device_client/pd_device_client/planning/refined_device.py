"""A device's forecast for a prompt of which it reads only a part, once the cloud says which."""

import bisect
from dataclasses import dataclass, replace

from pd_device_client.contract.ask import Mode
from pd_device_client.planning.planner import DeviceForecast, Plan

__all__ = ["RefinedDevice", "better_plan"]


@dataclass(frozen=True, slots=True)
class RefinedDevice:
    """A forecast for one request.

    What is read when the refined prompt comes stays read; of the rest, a share is kept.

    Attributes:
        device: the forecast for the whole prompt.
        prompt_tokens: n.
        keep_ratio: the share of the prompt that is kept.
        comes_s: when the refined prompt comes, from submit.
        chunk_tokens: of a pass, which is not broken off.
    """

    device: DeviceForecast
    prompt_tokens: int
    keep_ratio: float
    comes_s: float
    chunk_tokens: int

    @property
    def decode_s(self) -> float:
        """D."""
        return self.device.decode_s

    @property
    def usual_decode_s(self) -> float:
        """D as it usually is."""
        return self.device.usual_decode_s

    @property
    def left_out_tokens(self) -> int:
        """Tokens of the prompt that are not read."""
        passes = range(self.chunk_tokens, self.prompt_tokens, self.chunk_tokens)
        done = bisect.bisect_right(passes, self.comes_s, key=self.device.prefill_s)
        num_read = min((done + 1) * self.chunk_tokens, self.prompt_tokens)
        return int((1.0 - self.keep_ratio) * (self.prompt_tokens - num_read))

    def prefill_s(self, num_tokens: int) -> float:
        """P(n) of the first tokens without those left out, from submit."""
        return self.device.prefill_s(max(num_tokens - self.left_out_tokens, 0))


def better_plan(exact: Plan, refined: Plan, keep_ratio: float) -> Plan:
    """Return the refined plan if it leaves the cloud less to do, else the exact one.

    Args:
        exact: made for the whole prompt.
        refined: made for a `RefinedDevice`.
        keep_ratio: what it was made for.
    """
    if refined.mode is not Mode.PD_DEVICE or refined.cloud_tokens >= exact.cloud_tokens:
        return exact
    return replace(refined, keep_ratio=keep_ratio)
