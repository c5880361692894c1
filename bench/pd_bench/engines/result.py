"""The result of `pd-bench engine`: one JSON document, a part for each model."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Self

from pydantic import Field

from pd_bench.results.document_part import DocumentPart

__all__ = ["EngineDocument", "EngineFigures", "Measured", "SubjectResult", "Summary", "ThreadsRun"]


class Measured(DocumentPart):
    """A phase at one length.

    Attributes:
        tokens: of the prompt, or of the context decoded at.
        tokens_per_s: median of the rounds.
        rounds: each round's, in order; those of all engines ran one after another.
        limit_share: of decode: tokens_per_s over what the measured bandwidth allows; None of
            prefill, which bandwidth does not limit.
    """

    tokens: int
    tokens_per_s: float
    rounds: tuple[float, ...]
    limit_share: float | None = None

    @classmethod
    def of(cls, tokens: int, rounds: Sequence[float], limit_tokens_per_s: float | None) -> Self:
        """Summarise the rounds."""
        rate = median(rounds)
        share = None if limit_tokens_per_s is None else rate / limit_tokens_per_s
        return cls(tokens=tokens, tokens_per_s=rate, rounds=tuple(rounds), limit_share=share)

    def over(self, other: "Measured") -> float:
        """Return the median of the rounds' ratios to another engine's."""
        return median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


class EngineFigures(DocumentPart):
    """One engine on one model with some number of threads.

    Attributes:
        load_s: from the first byte to the first token; the files may be in the system's cache.
        weight_bytes: what a decode step reads of the weights.
        kv_bytes_per_token: of keys and values.
        peak_bytes: most resident memory of its process, mapped files included; None where the
            system does not tell.
        memory_ratio: that, without what it had before loading and without the sequence's keys and
            values, over the weights.
    """

    load_s: float
    weight_bytes: int
    kv_bytes_per_token: int
    peak_bytes: int | None
    memory_ratio: float | None
    prefill: tuple[Measured, ...]
    decode: tuple[Measured, ...]


class ThreadsRun(DocumentPart):
    """All engines in turns, with one number of threads.

    Attributes:
        bandwidth_bytes_per_s: median of reading a large array with so many threads.
        load_average: over the last minute, before and after; None if the system does not report it.
        engines: by name.
    """

    threads: int
    bandwidth_bytes_per_s: float
    load_average: tuple[float, float] | None
    engines: dict[str, EngineFigures]


class Summary(DocumentPart):
    """The lowest figures over all lengths and numbers of threads, so that a goal is met everywhere.

    Attributes:
        prefill_ratio: ours over llama.cpp's Q8_0; None without it.
        decode_ratio: ours over llama.cpp's, at equal bits ("int8": Q8_0, "int4": Q4_0); an engine
            of ours with wider weights stands for the widths that there is none of.
        compared: which of ours stands in each of these.
        limit_share: of decode by our engine of the fewest bits.
        memory_ratio: the highest of that engine; None where the system does not tell.
    """

    prefill_ratio: float | None = None
    decode_ratio: dict[str, float] = Field(default_factory=dict)
    compared: dict[str, str] = Field(default_factory=dict)
    limit_share: float | None = None
    memory_ratio: float | None = None


class SubjectResult(Summary):
    """One model.

    Attributes:
        name: a shape's name, or the last part of the model's.
        random_weights: they are made at random.
        runs: one for each number of threads.
    """

    name: str
    random_weights: bool
    runs: tuple[ThreadsRun, ...]


class EngineDocument(DocumentPart):
    """A comparison of engines."""

    schema_version: int = 1
    settings: Mapping[str, Any]
    versions: dict[str, str]
    hardware: dict[str, str | int]
    subjects: tuple[SubjectResult, ...]
