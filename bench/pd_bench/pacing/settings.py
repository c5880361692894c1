"""The inputs of a comparison of controllers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.settings.option import Option

__all__ = ["PacingSettings"]


@dataclass(frozen=True, slots=True)
class PacingSettings:
    """Which answers are paced."""

    requests: Annotated[int, Ge(1), Le(100_000), Option("Answers of each pattern.")] = 100
    pace_s: Annotated[
        float, *(Ge(0.001), Le(60)), Option("Seconds between shown tokens.", "pace")
    ] = 0.05
    noise: Annotated[
        float, *(Ge(0), Le(0.5)), Option("Relative standard deviation of every speed.")
    ] = 0.2
    seed: Annotated[int, Ge(0), Option("Seed of the first answer; the others count on.")] = 1
    recorded: Annotated[
        tuple[Path, ...],
        Option("Also the answers that this result document holds token by token; repeatable."),
    ] = ()
