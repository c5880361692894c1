"""What `pd-bench kv` is asked to measure, checked before anything runs."""

from dataclasses import dataclass

from pd_bench.harness.bounds import check_between
from pd_core.errors import ConfigError

__all__ = [
    "CLOCKS",
    "MAX_CONTEXT_TOKENS",
    "PAIR_NAMES",
    "PRESETS",
    "KvSettings",
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
_MOST_THREADS = 1024


@dataclass(frozen=True, slots=True)
class VariantShape:
    """The sizes that all variants share.

    Attributes:
        width: hidden_size; a head has width / heads elements.
        inner: of the MLP.
        kv_heads: of the GQA variants; MHA has as many as query heads.
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


@dataclass(frozen=True, slots=True)
class KvSettings:
    """One measurement.

    Attributes:
        pairs: which of PAIR_NAMES, in order.
        decode_contexts: tokens that a step attends to, its own included; may be empty.
        prefill_contexts: lengths of prompts; may be empty.
        decode_rounds: pairs of steps behind each figure.
        prefill_rounds: pairs of prompts behind each figure.
        fast: plain kernels instead of the reproducible path.
        num_threads: of torch.
        clock: "wall", or "cpu": the seconds that this process computed.
        seed: of weights, caches and tokens.
    """

    shape: VariantShape
    pairs: tuple[str, ...]
    decode_contexts: tuple[int, ...]
    prefill_contexts: tuple[int, ...]
    decode_rounds: int
    prefill_rounds: int
    fast: bool
    num_threads: int
    clock: str
    seed: int

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
        check_between("--threads", self.num_threads, 1, _MOST_THREADS)


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
        ConfigError: one is no number from 1 to the largest that is measured.
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
