"""The inputs of `pd-bench engine`, checked before anything runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from pd_bench.engines.contenders import OURS, THEIRS, Contender
from pd_bench.engines.shapes import parse_shapes
from pd_bench.kv.settings import parse_contexts
from pd_core.errors import ConfigError
from pd_core.host.cpu import MAX_THREADS
from pd_core.host.installed import is_installed
from pd_core.settings.option import Option
from pd_core.store.model_names import RANDOM_TINY

__all__ = ["EngineSettings"]

_MOST = 100_000


def _parse_names(option: str, known: Iterable[str], text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise ConfigError(f"{option}: unknown {name!r}; known: {', '.join(known)}")
    return names


def _parse_threads(text: str) -> tuple[int, ...]:
    counts = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit() and 0 < int(word) <= MAX_THREADS):
            raise ConfigError(
                f"--threads: {word!r} is no number of threads; give 1 to {MAX_THREADS}, "
                "comma-separated"
            )
        counts.append(int(word))
    return tuple(dict.fromkeys(counts))


def _written(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values))


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One comparison.

    Raises:
        ConfigError: there is nothing to measure, or an engine is not installed.
    """

    against: Annotated[
        tuple[str, ...],
        Option(
            f"Other programs to compare with, comma-separated: {', '.join(THEIRS)}.",
            read=partial(_parse_names, "--against", tuple(THEIRS)),
            written=_written,
        ),
    ] = ()
    numerics: Annotated[
        tuple[str, ...],
        Option(
            f"Which of our engines, comma-separated: {', '.join(OURS)}.",
            read=partial(_parse_names, "--numerics", tuple(OURS)),
            written=_written,
        ),
    ] = tuple(OURS)
    model: Annotated[
        str | None, Option("A real model: a GGUF file, or a plain Llama's name or directory.")
    ] = None
    shapes: Annotated[
        tuple[str, ...],
        Option(
            "Llamas with random weights, comma-separated: tiny, 0.5b, 1b; default without "
            "--model: 0.5b,1b.",
            "shape",
            read=parse_shapes,
            written=_written,
        ),
    ] = ()
    threads: Annotated[
        tuple[int, ...],
        Option("Numbers of threads, comma-separated.", read=_parse_threads, written=_written),
    ] = (1, 2)
    prefill: Annotated[
        tuple[int, ...],
        Option(
            "Lengths of prompts, in tokens.",
            read=partial(parse_contexts, "--prefill"),
            written=_written,
        ),
    ] = (128, 1024, 4096)
    decode: Annotated[
        tuple[int, ...],
        Option(
            "Contexts to decode at, in tokens.",
            read=partial(parse_contexts, "--decode"),
            written=_written,
        ),
    ] = (128, 1024, 4096)
    rounds: Annotated[int, Ge(1), Le(_MOST), Option("Rounds; figures are their medians.")] = 5
    steps: Annotated[int, Ge(1), Le(_MOST), Option("Decode steps of each context and round.")] = 16
    chunk: Annotated[int, Ge(1), Le(4096), Option("Tokens of a prefill pass, everywhere.")] = 128
    folder: Annotated[
        Path | None,
        Option("Keep the files made for the comparison here; default: none is kept."),
    ] = None
    seed: Annotated[int, Ge(0), Option("Seed of random weights.")] = 0

    def __post_init__(self) -> None:
        if not self.numerics:
            raise ConfigError(f"--numerics names none; known: {', '.join(OURS)}")
        if not (self.prefill or self.decode):
            raise ConfigError("there is nothing to measure: --prefill and --decode are both none")
        if self.model == RANDOM_TINY:
            raise ConfigError(f"{RANDOM_TINY} is no plain Llama; use --shape tiny")
        if "llama-cpp" in self.against and not is_installed("llama_cpp"):
            raise ConfigError(
                "--against llama-cpp needs llama-cpp-python; install pd-device[llama-cpp]"
            )

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The engines, ours first."""
        theirs = (tested for name in self.against for tested in THEIRS[name])
        return (*(OURS[name] for name in self.numerics), *theirs)

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the engines run: the model, then shapes."""
        model = () if self.model is None else (self.model,)
        return (*model, *(self.shapes or (() if model else ("0.5b", "1b"))))

    @property
    def context_tokens(self) -> int:
        """The room that a sequence needs."""
        return max(*self.prefill, *self.decode, self.chunk) + self.steps

    def as_values(self) -> Mapping[str, object]:
        """Return the settings as JSON values."""
        return {
            "against": [*self.against],
            "numerics": [*self.numerics],
            "subjects": [*self.subjects],
            "threads": [*self.threads],
            "prefill": [*self.prefill],
            "decode": [*self.decode],
            "rounds": self.rounds,
            "steps": self.steps,
            "chunk": self.chunk,
            "seed": self.seed,
        }
