"""What a run is made of, checked before anything starts; imports no torch."""

import math
from dataclasses import dataclass, field
from typing import Annotated

from pd_core.errors import ConfigError
from pd_core.settings.option import Option, Part
from pd_training.recipe.schedules import RateSchedule

__all__ = [
    "DTYPES",
    "INITS",
    "OPTIMISERS",
    "SELECTIONS",
    "OptimiserSettings",
    "RunSettings",
    "check_count",
    "check_dtype",
    "check_seed",
    "check_share",
]

OPTIMISERS = ("adamw", "conda")
DTYPES = ("float32", "bfloat16")
# How documents are chosen for a budget; see pd_training.corpus.selection.
SELECTIONS = ("micro", "random")
# Where a converted layer's own values come from; see pd_training.model.conversion.
INITS = ("mean", "adjacent", "first", "top", "random")


def check_count(option: str, value: int) -> None:
    """Refuse what is no count.

    Raises:
        ConfigError: it is below 1.
    """
    if value < 1:
        raise ConfigError(f"{option} is {value}; it must be 1 or more")


def check_dtype(dtype: str) -> None:
    """Refuse a type that no forward pass runs in.

    Raises:
        ConfigError: it is unknown.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy or torch would.

    Raises:
        ConfigError: it is negative, or has more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(f"the seed is {seed}; it cannot be negative, nor 2^63 or more")


def check_share(option: str, value: float) -> None:
    """Refuse what is no share of documents.

    Raises:
        ConfigError: it is outside [0, 1).
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{option} is {value}; it must be in [0, 1)")


@dataclass(frozen=True, slots=True)
class OptimiserSettings:
    """An optimiser and its numbers.

    Raises:
        ConfigError: a number is out of its range.
    """

    name: Annotated[str, Option(f"One of {', '.join(OPTIMISERS)}.", "optimiser")] = "adamw"
    lr: Annotated[float, Option("Peak learning rate.")] = 2e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: Annotated[float, Option("Decoupled, for matrices.")] = 0.0
    conda_scale: float = 0.25
    conda_period: Annotated[int, Option("Steps between two bases; 0: 5 % of the run.")] = 0

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            raise ConfigError(f"unknown optimiser {self.name!r}; known: {', '.join(OPTIMISERS)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"the learning rate is {self.lr}; it must be positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are {self.betas}; both must be in [0, 1)")
        for name in ("weight_decay", "conda_period"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be a number of 0 or more")
        for name in ("conda_scale", "eps"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be a positive number")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """A training run; two runs with equal settings and data give equal losses.

    Weights, gradients, optimiser state and checkpoints are float32 always.

    Attributes:
        evaluate_tokens: of the held-out side, at most.

    Raises:
        ConfigError: a number is out of its range.
    """

    steps: Annotated[int, Option("Optimiser steps.")]
    batch_sequences: Annotated[int, Option("Sequences per step, over all processes.", "batch")] = 8
    accumulate: Annotated[int, Option("Micro-batches per step and process.")] = 1
    context_tokens: Annotated[int, Option("Tokens per sequence.", "context")] = 256
    clip: Annotated[float, Option("Largest norm of the gradient; 0: any.")] = 1.0
    schedule: Annotated[str, Option("cosine, uba or constant.")] = "cosine"
    phi: Annotated[float, Option("Parameter of uba; 2 is the cosine.")] = 2.0
    warmup: Annotated[float, Option("Share of the steps.")] = 0.1
    floor: Annotated[float, Option("Last learning rate as a share of the peak.")] = 0.1
    dtype: Annotated[str, Option(f"Dtype of the forward pass: {', '.join(DTYPES)}.")] = "float32"
    seed: Annotated[int, Option("Seed of everything random.")] = 0
    checkpoint_every: Annotated[int, Option("Steps; 0: only at the end.")] = 200
    evaluate_every: Annotated[int, Option("Steps between looks at held-out text.")] = 200
    evaluate_tokens: int = 65536
    save_dtype: Annotated[str, Option("Dtype of the finished model's weights.")] = "float32"
    optimiser: Annotated[OptimiserSettings, Part("Optimiser")] = field(
        default_factory=OptimiserSettings
    )

    def __post_init__(self) -> None:
        for name in ("steps", "batch_sequences", "accumulate", "context_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("checkpoint_every", "evaluate_every", "clip", "evaluate_tokens"):
            if not getattr(self, name) >= 0:  # NaN is not either
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be negative")
        check_seed(self.seed)
        if not 0 <= self.warmup <= 1 or not 0 <= self.floor <= 1:
            raise ConfigError("warm-up and floor are shares, between 0 and 1")
        for dtype in (self.dtype, self.save_dtype):
            check_dtype(dtype)
        self.rates()

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimiser step sees."""
        return self.batch_sequences * self.context_tokens

    def rates(self) -> RateSchedule:
        """Return the learning rates."""
        peak = self.optimiser.lr
        return RateSchedule(
            self.schedule,
            peak,
            peak * self.floor,
            self.steps,
            round(self.steps * self.warmup),
            self.phi,
        )
