"""The engine's measured speeds, as a device's planner needs them: at the present load."""

__all__ = ["SpeedMeter"]

# A step's weight halves after about seven later ones: quick to follow a change of load, slow
# enough to smooth one odd step.
_DECAY = 0.9


class SpeedMeter:
    """Decayed sums of tokens and seconds; long chunks weigh more than short tails."""

    def __init__(self) -> None:
        self._prefill_tokens = 0.0
        self._prefill_s = 0.0
        self._decode_steps = 0.0
        self._decode_s = 0.0

    def record(self, step_s: float, num_prefill_tokens: int, num_decode_tokens: int) -> None:
        """Count one step that computed these tokens together in step_s seconds."""
        if num_prefill_tokens:
            self._prefill_tokens = self._prefill_tokens * _DECAY + num_prefill_tokens
            self._prefill_s = self._prefill_s * _DECAY + step_s
        if num_decode_tokens:
            self._decode_steps = self._decode_steps * _DECAY + 1
            self._decode_s = self._decode_s * _DECAY + step_s

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prefilled tokens per second of steps that prefill; 0 when unknown."""
        return self._prefill_tokens / self._prefill_s if self._prefill_s else 0.0

    @property
    def decode_step_s(self) -> float:
        """Seconds of a step in which streams decode; 0 when unknown."""
        return self._decode_s / self._decode_steps if self._decode_steps else 0.0
