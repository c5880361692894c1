"""What `pd-bench handoffs` takes, checked before anything starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from pd_core.errors import ConfigError
from pd_core.integer.kernel_library import KERNELS
from pd_core.settings.option import Option
from pd_core.store.model_names import DEFAULT_MODEL, MODEL_HELP

__all__ = ["HandoffSettings"]

_NUMERICS = ("integer", "float32")
_MOST = 100_000


def _names(flag: str, known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
        for name in names:
            if name not in known:
                raise ConfigError(f"{flag} names {name!r}; known: {', '.join(known)}")
        if not names:
            raise ConfigError(f"{flag} names none; known: {', '.join(known)}")
        return names

    return read


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 1:
        raise ConfigError(f"--device-threads is {text!r}; give numbers of threads, as in 1,2")
    return counts


def _written(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values))


@dataclass(frozen=True, slots=True)
class HandoffSettings:
    """Which answers are handed over, between which sides.

    Attributes:
        numerics: of both sides, one after another.
        device_threads: threads of the device's engine, one number after another.
        positions: the last forced handoff; an answer has one token more.
    """

    model: Annotated[str, Option(MODEL_HELP)] = DEFAULT_MODEL
    numerics: Annotated[
        tuple[str, ...],
        Option(
            "Of both sides, comma-separated.",
            read=_names("--numerics", _NUMERICS),
            written=_written,
        ),
    ] = _NUMERICS
    device_kernel: Annotated[
        str,
        Option(
            "The device's kernels for integers; the cloud has this machine's best.",
            choices=KERNELS,
        ),
    ] = "auto"
    device_threads: Annotated[
        tuple[int, ...],
        Option("Threads of the device, comma-separated.", read=_counts, written=_written),
    ] = (1, 2)
    prompt_tokens: Annotated[int, Ge(1), Le(_MOST), Option("Length of the prompt.")] = 300
    positions: Annotated[
        int, Ge(1), Le(_MOST), Option("Hand over at each position from 0 to this one.")
    ] = 64
    seed: Annotated[int, Ge(0), Option("Of the sampled answer; another one is greedy.")] = 8
