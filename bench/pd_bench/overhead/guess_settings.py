"""What `pd-bench guesses` takes, checked before anything starts."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from annotated_types import Ge, Le

from pd_bench.kv.settings import parse_contexts
from pd_core.errors import ConfigError
from pd_core.host.cpu import MAX_THREADS
from pd_core.identity.numerics import NUMERICS
from pd_core.settings.option import Option
from pd_core.speculation.speculation import DEFAULT_DRAFT_TOKENS, MAX_DRAFT_TOKENS
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["GuessSettings"]

_MOST = 100_000


def _written(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values))


@dataclass(frozen=True, slots=True)
class GuessSettings:
    """Which answers are made, and with how many guesses."""

    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    numerics: Annotated[str, Option("Of the engine.", choices=NUMERICS)] = "auto"
    speculate: Annotated[
        tuple[int, ...],
        Option(
            "Most guesses of a pass, comma-separated; each is compared with none.",
            read=partial(parse_contexts, "--speculate"),
            written=_written,
        ),
    ] = (DEFAULT_DRAFT_TOKENS, 7)
    threads: Annotated[int, Ge(1), Le(MAX_THREADS), Option("Threads of the engine.")] = 1
    prompt_tokens: Annotated[int, Ge(8), Le(_MOST), Option("Length of the long prompts.")] = 400
    tokens: Annotated[int, Ge(2), Le(_MOST), Option("Length of the answers.")] = 128
    rounds: Annotated[int, Ge(1), Le(_MOST), Option("Rounds; figures are their medians.")] = 3

    def __post_init__(self) -> None:
        if not self.speculate or max(self.speculate) > MAX_DRAFT_TOKENS:
            raise ConfigError(
                f"--speculate must name numbers of guesses from 1 to {MAX_DRAFT_TOKENS}; none are "
                "measured too in any case"
            )
