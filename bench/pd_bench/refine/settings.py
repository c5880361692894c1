"""The inputs of `pd-bench refine`, checked before anything runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.host.cpu import MAX_THREADS
from pd_core.identity.numerics import NUMERICS
from pd_core.settings.option import Option
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["RefineSettings", "parse_ratios"]


def parse_ratios(text: str) -> tuple[float, ...]:
    """Read a comma-separated list of keep ratios.

    Raises:
        ConfigError: one is not a number above 0 and below 1, or there is none.
    """
    ratios = []
    for part in text.split(","):
        try:
            ratio = float(part)
        except ValueError:
            ratio = 0.0
        if not 0.0 < ratio < 1.0:
            raise ConfigError(
                f"--ratios: {part.strip()!r} is no keep ratio; give numbers between 0 and 1, "
                "comma-separated"
            )
        ratios.append(ratio)
    return tuple(dict.fromkeys(ratios))


def _written(ratios: tuple[float, ...]) -> str:
    return ",".join(f"{ratio:g}" for ratio in ratios)


@dataclass(frozen=True, slots=True)
class RefineSettings:
    """One measurement."""

    model: Annotated[str, Option(MODEL_HELP, may_be_path=True)] = DEFAULT_MODEL
    text: Annotated[
        Path | None,
        Option("A plain text to take prompts from; default: the Python language's help texts."),
    ] = None
    ratios: Annotated[
        tuple[float, ...],
        Option("Shares of a prompt to keep.", read=parse_ratios, written=_written),
    ] = (0.75, 0.5, 0.25)
    passages: Annotated[int, Ge(0), Le(10_000), Option("Prompts whose continuation is judged.")] = 8
    needles: Annotated[int, Ge(0), Le(10_000), Option("Prompts with a fact to be found.")] = 8
    prompt_tokens: Annotated[int, Ge(128), Le(1 << 17), Option("Length of a prompt.")] = 768
    answer_tokens: Annotated[int, Ge(1), Le(4096), Option("Length of a continuation.")] = 48
    refined_after_s: Annotated[
        float,
        *(Ge(0.0), Le(3600)),
        Option("When the refined prompt comes, in seconds; for the time to the handoff."),
    ] = 0.3
    rounds: Annotated[int, Ge(0), Le(1000), Option("Timed rounds; the figures are medians.")] = 3
    numerics: Annotated[str, Option("As of a device.", choices=NUMERICS)] = "auto"
    num_threads: Annotated[int, Ge(1), Le(MAX_THREADS), Option("Threads.", "threads")] = 1
    seed: Annotated[int, Ge(0), Option("Seed of random dropping and of the facts.")] = 0

    def __post_init__(self) -> None:
        if not self.passages and not self.needles and not self.rounds:
            raise ConfigError(
                "there is nothing to measure: --passages, --needles and --rounds are all 0"
            )
