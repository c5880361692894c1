"""How fast a device probably is, and how sure that is: to be weighed, not guarded against.

A promise counts on slow passes (`DeviceEstimate`); that every pass will be slow is unlikely.
"""

import math
from dataclasses import dataclass

from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.ratios import Outlook

__all__ = ["DeviceOutlook", "device_outlook"]


@dataclass(frozen=True, slots=True)
class DeviceOutlook:
    """A device's speeds as they probably are.

    Attributes:
        estimate: the estimate, whose profile they correct.
        prefill: of passes with several tokens.
        decode: of passes with one token.
    """

    estimate: DeviceEstimate
    prefill: Outlook
    decode: Outlook

    @property
    def decode_s(self) -> float:
        """D, with the present context."""
        estimate, profile = self.estimate, self.estimate.profile
        step_s = profile.decode_s + profile.decode_l_s * estimate.context_tokens
        return step_s * self.decode.mean * estimate.slower_decode

    def work_s(self, done: int, end: int) -> float:
        """Seconds to feed tokens done .. end, as `DeviceEstimate.work_s`."""
        estimate = self.estimate
        num_tokens, chunk = end - done, estimate.chunk_tokens
        if num_tokens <= 0:
            return 0.0
        passes, rest = (0, num_tokens) if chunk is None else divmod(num_tokens, chunk)
        factor, prefill_s = self.prefill_factor, estimate.profile.prefill_s
        seconds, last = 0.0, end - rest
        if passes:
            seconds = max((prefill_s(last) - prefill_s(done)) * factor, passes * self.decode_s)
        if rest:
            seconds += max((prefill_s(end) - prefill_s(last)) * factor, self.decode_s)
        return seconds

    @property
    def prefill_factor(self) -> float:
        """By what to multiply the profile's seconds of passes with several tokens."""
        return self.prefill.mean * self.estimate.slower_prefill

    def pass_s(self, first_position: int, num_tokens: int) -> float:
        """Seconds of a pass over tokens first_position .. first_position + num_tokens."""
        estimate, single = self.estimate, num_tokens == 1
        seconds = estimate.profile.pass_s(first_position, num_tokens)
        if single:
            return seconds * self.decode.mean * estimate.slower_decode
        return seconds * self.prefill_factor

    def spread_s(self, seconds: float, num_passes: int, *, decodes: bool) -> float:
        """The standard deviation of `seconds` of work in this many passes."""
        kind = self.decode if decodes else self.prefill
        noise = math.sqrt(kind.spread**2 / max(num_passes, 1) + kind.drift**2)
        return seconds * noise / kind.mean if kind.mean > 0 else 0.0


def device_outlook(estimate: DeviceEstimate) -> DeviceOutlook:
    """Return the estimate's present outlook."""
    return DeviceOutlook(estimate, estimate.prefill.outlook(), estimate.decode.outlook())
