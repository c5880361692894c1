"""Stretching RoPE over a longer context than a model was first trained on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pd_core.errors import ModelError

__all__ = ["RopeScaling"]

# Outside of these, float32 would compute infinite frequencies, or none.
_MOST_FACTOR = 2**20
_LEAST_FREQ_FACTOR = 1e-3


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the frequencies of RoPE are lowered.

    Attributes:
        kind: "linear" divides all of them; "llama3" (Llama 3.1) only those whose wavelength is
            long, with a smooth transition between short and long.
        factor: the divisor, 1 or more.
        low_freq_factor: llama3: wavelengths above original_context_tokens / this are long.
        high_freq_factor: llama3: those below original_context_tokens / this are short.
        original_context_tokens: llama3: the context of the first training.

    Raises:
        ModelError: a number is out of its range.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_tokens: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "llama3"):
            raise ModelError(
                f"config.json: RoPE of type {self.kind!r} is not supported; "
                "supported are 'default', 'linear' and 'llama3'"
            )
        if not 1 <= self.factor <= _MOST_FACTOR:
            raise ModelError(
                f"config.json: RoPE's factor is {self.factor}; it must be 1 or more, and at most "
                f"{_MOST_FACTOR}"
            )
        low, high = self.low_freq_factor, self.high_freq_factor
        if not (_LEAST_FREQ_FACTOR <= low < high <= _MOST_FACTOR and high - low > 1e-6 * high):
            raise ModelError(
                f"config.json: RoPE's low_freq_factor {low} must be positive and below "
                f"high_freq_factor {high}, and both from {_LEAST_FREQ_FACTOR:g} to {_MOST_FACTOR}"
            )
        if not 1 <= self.original_context_tokens < 2**31:
            raise ModelError(
                "config.json: RoPE's original_max_position_embeddings is "
                f"{self.original_context_tokens}; it must be 1 or more, and below {2**31}"
            )

    def apply(self, frequency: Tensor) -> Tensor:
        """Lower the frequencies, (D / 2,) float32, by the operations `transformers` uses."""
        if self.kind == "linear":
            return frequency / self.factor
        low, high = self.low_freq_factor, self.high_freq_factor
        wavelength = 2 * math.pi / frequency
        smooth = (self.original_context_tokens / wavelength - low) / (high - low)
        between = (1 - smooth) * frequency / self.factor + smooth * frequency
        scaled = torch.where(smooth < 0, frequency / self.factor, between)
        return torch.where(smooth > 1, frequency, scaled)
