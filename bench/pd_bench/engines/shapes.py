"""Shapes of Llamas whose weights are made at random: speed depends on shapes alone."""

from dataclasses import dataclass

from pd_core.errors import ConfigError

__all__ = ["SHAPES", "LlamaShape", "parse_shapes"]


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """A plain Llama with tied embeddings and heads of one size."""

    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    context: int = 8192


SHAPES = {
    # For tests: two layers whose rows divide into blocks of 32.
    "tiny": LlamaShape(1024, 64, 128, 2, 4, 2, 16),
    # The layers and the vocabulary of Qwen2.5-0.5B, and of Llama-3.2-1B.
    "0.5b": LlamaShape(151936, 896, 4864, 24, 14, 2, 64),
    "1b": LlamaShape(128256, 2048, 8192, 16, 32, 8, 64),
}


def parse_shapes(names: str) -> tuple[str, ...]:
    """Read a comma-separated list of SHAPES.

    Raises:
        ConfigError: a name is unknown.
    """
    shapes = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in shapes:
        if name not in SHAPES:
            raise ConfigError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    return shapes
