"""The inputs of `pd-bench kv`, checked before anything runs."""

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated

from annotated_types import Ge

from pd_bench.harness.bounds import check_between
from pd_core.errors import ConfigError
from pd_core.host.cpu import MAX_THREADS
from pd_core.settings.option import Option

__all__ = [
    "CLOCKS",
    "MAX_CONTEXT_TOKENS",
    "PAIR_NAMES",
    "PRESETS",
    "KvSettings",
    "ShapeOptions",
    "VariantShape",
    "parse_contexts",
    "parse_pairs",
]

PAIR_NAMES = ("skipv1", "yoco", "gqa-skipv1", "mla-skipv1")
"""The SkipV1 variants by the names of the command line; each is compared with its plain one."""

CLOCKS = ("wall", "cpu")

MAX_CONTEXT_TOKENS = 131072  # a cache of more would not fit most machines
_MIN_ROUNDS = 2
_MOST_ROUNDS = 1_000_000


@dataclass(frozen=True, slots=True)
class VariantShape:
    """The sizes that all variants share.

    Attributes:
        width: hidden_size; a head has width / heads elements.
        inner: width of the MLP.
        kv_heads: KV heads of the GQA variants; MHA has as many as query heads.
    """

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % (4 * self.heads):
            raise ConfigError(
                f"a width of {self.width} cannot be shared by {self.heads} heads: each needs a "
                "multiple of 4 (MLA rotates half of it, in pairs); change --width or --heads"
            )


PRESETS = {
    # About the 5.5M parameters of a small model for a device.
    "small": VariantShape(width=256, inner=736, layers=8, heads=8, kv_heads=4),
    "wide": VariantShape(width=1024, inner=2816, layers=8, heads=16, kv_heads=8),
}


_SIZE = "Instead of the preset's."


@dataclass(frozen=True, slots=True)
class ShapeOptions:
    """A preset, and the sizes that differ from it.

    Raises:
        ConfigError: there is no such preset.
    """

    preset: Annotated[str, Option(f"Shape: {', '.join(PRESETS)}.")] = "small"
    width: Annotated[int | None, Option(_SIZE)] = None
    inner: Annotated[int | None, Option(_SIZE)] = None
    layers: Annotated[int | None, Option(_SIZE)] = None
    heads: Annotated[int | None, Option(_SIZE)] = None
    kv_heads: Annotated[int | None, Option(_SIZE)] = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"unknown preset {self.preset!r}; known: {', '.join(PRESETS)}")

    def shape(self) -> VariantShape:
        """Return the sizes.

        Raises:
            ConfigError: they do not fit together.
        """
        sizes = {each.name: getattr(self, each.name) for each in fields(VariantShape)}
        return replace(PRESETS[self.preset], **{k: v for k, v in sizes.items() if v is not None})


def parse_pairs(names: str) -> tuple[str, ...]:
    """Read a comma-separated list of PAIR_NAMES.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """
    wanted = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in wanted:
        if name not in PAIR_NAMES:
            raise ConfigError(f"unknown variant {name!r}; known: {', '.join(PAIR_NAMES)}")
    if not wanted:
        raise ConfigError(f"--only names no variant; known: {', '.join(PAIR_NAMES)}")
    return wanted


def parse_contexts(option: str, text: str) -> tuple[int, ...]:
    """Read a comma-separated list of contexts in tokens; "none" is an empty one.

    Raises:
        ConfigError: one is not a number from 1 to MAX_CONTEXT_TOKENS.
    """
    if text.strip() == "none":
        return ()
    contexts = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit() and 0 < int(word) <= MAX_CONTEXT_TOKENS):
            raise ConfigError(
                f"{option}: {word!r} is no context; give tokens from 1 to {MAX_CONTEXT_TOKENS}, "
                "comma-separated, or none"
            )
        contexts.append(int(word))
    return tuple(contexts)


def _written(contexts: tuple[int, ...]) -> str:
    return ",".join(map(str, contexts))


@dataclass(frozen=True, slots=True)
class KvSettings:
    """One measurement.

    The seed is for weights, caches and tokens; the "cpu" clock counts this process's CPU time.
    """

    shape: VariantShape = PRESETS["small"]
    pairs: Annotated[
        tuple[str, ...],
        Option("Which variants, comma-separated.", "only", read=parse_pairs, written=",".join),
    ] = PAIR_NAMES
    skip_v1_keep: Annotated[
        float, Option("A SkipV1 layer's share of own values, in whole heads.")
    ] = 0.5
    decode_contexts: Annotated[
        tuple[int, ...],
        Option(
            "Contexts to decode at, in tokens; or none.",
            "decode",
            read=partial(parse_contexts, "--decode"),
            written=_written,
        ),
    ] = (512, 1024, 2048, 4096, 8192, 16384)
    prefill_contexts: Annotated[
        tuple[int, ...],
        Option(
            "Lengths of prompts, in tokens; or none.",
            "prefill",
            read=partial(parse_contexts, "--prefill"),
            written=_written,
        ),
    ] = (512, 1024, 2048, 4096)
    decode_rounds: Annotated[int, Option("Pairs of decode steps for each figure.", "rounds")] = 100
    prefill_rounds: Annotated[int, Option("Pairs of prompts for each figure.")] = 7
    fast: Annotated[bool, Option("Plain kernels, not the reproducible path.")] = False
    num_threads: Annotated[int, Option("Threads of torch.", "threads")] = 1
    clock: Annotated[
        str, Option(f"One of {', '.join(CLOCKS)}; cpu leaves waiting for a core out.")
    ] = "wall"
    seed: Annotated[int, Ge(0), Option("Seed of weights and caches.")] = 0

    def __post_init__(self) -> None:
        for option, rounds in (
            ("--rounds", self.decode_rounds),
            ("--prefill-rounds", self.prefill_rounds),
        ):
            if rounds < _MIN_ROUNDS:
                raise ConfigError(f"{option} is {rounds}; a median needs {_MIN_ROUNDS} or more")
            check_between(option, rounds, _MIN_ROUNDS, _MOST_ROUNDS)
        if self.clock not in CLOCKS:
            raise ConfigError(f"unknown clock {self.clock!r}; known: {', '.join(CLOCKS)}")
        check_between("--threads", self.num_threads, 1, MAX_THREADS)
