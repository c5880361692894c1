"""One request on a timeline of its own: what would have worked, found by trying every k.

The timeline is that of DESIGN 4, with every pass, step and arrival off its forecast by a drawn
amount. What is drawn does not depend on k, so that the numbers of cloud tokens can be compared. The
reader is shown tokens at the pace, and waits for one that is late: no gap is spread over others.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pd_device_client.planning.speeds.profiles import SpeedProfile

__all__ = ["CHUNK_TOKENS", "Drawn", "VirtualTimeline"]

CHUNK_TOKENS = 128

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """How far off one request's forecasts are, as factors.

    Attributes:
        passes: of the device's prefill passes.
        absorbing: of the passes that absorb the cloud's tokens.
        steps: of the device's decode steps.
        first: of the cloud's first token.
        arrivals: of the seconds between the cloud's tokens.
    """

    passes: _Floats
    absorbing: float
    steps: _Floats
    first: float
    arrivals: _Floats

    @classmethod
    def of(
        cls, rng: np.random.Generator, prompt_tokens: int, output_tokens: int, spread: float,
        jitter: float,
    ) -> "Drawn":  # fmt: skip
        """Draw a request's factors; spread is the device's, jitter the cloud's and the link's."""

        def factors(count: int, deviation: float) -> _Floats:
            return np.maximum(1 + deviation * rng.standard_normal(count), 0.05)

        return cls(
            factors(-(-prompt_tokens // CHUNK_TOKENS), spread),
            float(factors(1, spread)[0]),
            factors(output_tokens, spread),
            float(factors(1, jitter)[0]),
            factors(output_tokens, jitter),
        )


class VirtualTimeline:
    """One request.

    Args:
        device: the device's speeds, as forecast.
        first_token_s: the cloud's first token, as forecast.
        step_s: seconds between the cloud's tokens, as forecast.
        prompt_tokens: n.
        output_tokens: the answer's length.
        drawn: how far off the forecasts are.
    """

    def __init__(
        self,
        device: SpeedProfile,
        first_token_s: float,
        step_s: float,
        prompt_tokens: int,
        output_tokens: int,
        drawn: Drawn,
    ) -> None:
        self._device = device
        self._drawn = drawn
        self._prompt_tokens = prompt_tokens
        self._output_tokens = output_tokens
        self.first_s = first_token_s * drawn.first
        between = step_s * drawn.arrivals
        self._arrivals = self.first_s + np.concatenate(([0.0], np.cumsum(between[1:])))
        self._made = np.concatenate(([0.0], np.cumsum(device.decode_s * drawn.steps[1:])))
        ends = np.minimum(
            CHUNK_TOKENS * np.arange(1, len(drawn.passes) + 1), prompt_tokens
        ).tolist()
        begins = [0, *ends[:-1]]
        passes = [device.pass_s(b, e - b) for b, e in zip(begins, ends, strict=True)]
        self._prefilled_s = float(np.dot(passes, drawn.passes))
        self.alone_s = self._prefilled_s + device.decode_s * float(drawn.steps[0])

    def ready_s(self, k: int) -> float:
        """R(k): when the device can show token k + 1."""
        if k == 0:
            return self.alone_s
        device, n = self._device, self._prompt_tokens
        last_s = float(self._arrivals[k - 1])
        late = k
        if last_s > self._prefilled_s:
            between_s = (last_s - self.first_s) / max(k - 1, 1)
            late = min(k, 1 + math.ceil(device.decode_s / between_s)) if between_s > 0 else k
        absorb_s = device.prefill_s(n + late) - device.prefill_s(n)
        begins_s = max(self._prefilled_s, last_s)
        return (
            begins_s
            + absorb_s * self._drawn.absorbing
            + device.decode_s * float(self._drawn.steps[0])
        )

    def worst_gap_s(self, k: int, pace_s: float) -> float:
        """Return the longest gap if the cloud makes the first k tokens and the device the rest."""
        num = self._output_tokens
        k = min(k, num)
        left = num - k
        arrivals = self._arrivals[:k]
        if left:
            arrivals = np.concatenate((arrivals, self.ready_s(k) + self._made[:left]))
        return _worst_gap_s(arrivals, pace_s)


def _worst_gap_s(arrivals: _Floats, pace_s: float) -> float:
    if len(arrivals) < 2:
        return 0.0
    # Shown at the latest of: its arrival, and a pace after each earlier one.
    paced = pace_s * np.arange(len(arrivals))
    shown = np.maximum.accumulate(arrivals - paced) + paced
    return float(np.max(shown[1:] - shown[:-1]))
