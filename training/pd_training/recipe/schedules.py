"""The learning rate of every step: linear warm-up, then cosine or UBA."""

import math
from dataclasses import dataclass

from pd_core.errors import ConfigError

__all__ = ["SCHEDULES", "RateSchedule", "cosine_factor", "uba_factor"]

SCHEDULES = ("cosine", "uba", "constant")


def cosine_factor(progress: float) -> float:
    """Return the share of the peak that is left: 1 at progress 0, 0 at progress 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def uba_factor(progress: float, phi: float) -> float:
    """Return the same for the budget-aware schedule (UBA, arXiv 2505.24452).

    phi = 2 is the cosine, a smaller phi stays high for longer, a larger one falls sooner.
    """
    wave = 1 + math.cos(math.pi * progress)
    rest = 2 * phi + (2 - phi) * wave
    return 2 * wave / rest if rest else 1.0  # phi = 0 at progress 1 exactly


@dataclass(frozen=True, slots=True)
class RateSchedule:
    """Learning rates of a run.

    Attributes:
        name: "cosine", "uba" or "constant" (warm-up only).
        peak: reached at the end of the warm-up.
        floor: where cosine and UBA end.
        steps, warmup_steps: of the whole run, and of its rise.
        phi: of UBA.

    Raises:
        ConfigError: a number is out of its range.
    """

    name: str
    peak: float
    floor: float
    steps: int
    warmup_steps: int
    phi: float = 2.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ConfigError(f"unknown schedule {self.name!r}; known: {', '.join(SCHEDULES)}")
        if not 0 <= self.floor <= self.peak:
            raise ConfigError(
                f"learning rates must satisfy 0 <= floor <= peak; got {self.floor} and {self.peak}"
            )
        if not 0 <= self.warmup_steps <= self.steps:
            raise ConfigError(
                f"a warm-up of {self.warmup_steps} steps does not fit a run of {self.steps}"
            )
        if not (math.isfinite(self.phi) and self.phi >= 0):
            raise ConfigError(f"phi is {self.phi}; UBA needs 0 or more")

    def rate(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ... steps - 1."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        if self.name == "constant":
            return self.peak
        factor = (
            cosine_factor(progress) if self.name == "cosine" else uba_factor(progress, self.phi)
        )
        return self.floor + (self.peak - self.floor) * factor
