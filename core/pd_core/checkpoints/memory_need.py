"""How much memory a model will take, and refusing one that does not fit before it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.loading import DTYPES
from pd_core.checkpoints.model_files import ModelFiles
from pd_core.errors import ModelError
from pd_core.host.free_memory import available_bytes
from pd_core.integer.choice import chosen_numerics
from pd_core.integer.integer_cache import IntegerKVCache
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache
from pd_core.store.model_names import RANDOM_TINY, model_path

__all__ = ["MemoryNeed", "check_memory", "memory_need"]

_CONTEXT_TOKENS = 4096  # one conversation; the cache grows on demand
_SPARE_BYTES = 48 << 20  # tokenizer, activations, the kernels' working space
_SPARE = 1.05  # scales, norms, blocks that do not fill their pages
_ROUNDING_BYTES = 15  # a number while it is rounded to 8 bits: floats as read, scaled, rounded

# Floats are packed layer by layer; what is freed meanwhile is not always of use for the next.
_PACKING = 1.7


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model is expected to take at most, in bytes.

    Attributes:
        numerics: "float32" or another dtype, or "integer".
        loading: while the weights are read; the KV cache comes after.
        weights: from then on.
        context: the KV cache of one conversation of up to 4,096 tokens.
    """

    numerics: str
    loading: int
    weights: int
    context: int

    def total(self, kept_bytes: int) -> int:
        """Return the most at any time, with so many bytes of KV cache kept besides."""
        return max(self.loading, self.weights + self.context + kept_bytes) + _SPARE_BYTES


def memory_need(
    files: ModelFiles, numerics: str, dtype: str = "float32", *, fast: bool = False
) -> MemoryNeed:
    """Predict what a model takes in this process.

    Args:
        files: the model.
        numerics: one of NUMERICS.
        dtype: of a model in floats.
        fast: without bit-equality; then "auto" are floats.
    """
    config = files.config
    sizes = [tensor.numel() for tensor in files.shapes.values()]
    parameters, largest = sum(sizes), max(sizes)
    kind = chosen_numerics(numerics, config, parameters) if dtype == "float32" else "float32"
    context = min(config.max_context_tokens, _CONTEXT_TOKENS)
    if kind == "integer":
        # The largest tensor, usually the embedding, is rounded first, or second as the output.
        loading = _ROUNDING_BYTES * largest + (largest if not config.tie_word_embeddings else 0)
        weights = int(parameters * _SPARE)
        return MemoryNeed(kind, max(loading, weights), weights, _context_bytes(config, context))
    # The output layer packs its own copy of an embedding that it shares.
    tied = config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
    item = DTYPES[dtype].itemsize
    weights = int((parameters + tied * (item == 4)) * item * _SPARE)
    loading = int(weights * _PACKING) if item == 4 else weights
    return MemoryNeed(dtype, loading, weights, _context_bytes(config, context, DTYPES[dtype]))


def check_memory(
    model: str,
    kept_bytes: int,
    numerics: str = "float32",
    *,
    dtype: str = "float32",
    fast: bool = False,
    kept_for: str = "conversations",
    mend: str = "--kept-kv-mib",
    available: Callable[[], int] = available_bytes,
) -> ModelFiles | None:
    """Refuse a model whose weights and one conversation's KV cache do not fit.

    Args:
        model: as `load_model` takes it.
        kept_bytes: KV cache kept besides.
        numerics: one of NUMERICS.
        dtype: of a model in floats.
        fast: it gives up bit-equality for speed, as `load_model` takes it.
        kept_for: what that is for, in words.
        mend: the option that says how much is kept.
        available: returns the free memory in bytes.

    Returns:
        The model's files, read once for `load_model` too; None for a model without files.

    Raises:
        ModelError: it does not fit, or could not be loaded anyway; the message says why.
    """
    if model == RANDOM_TINY:
        return None  # generated, a few megabytes
    files = read_model_files(model_path(model))
    need = memory_need(files, numerics, dtype, fast=fast)
    total, there = need.total(kept_bytes), available()
    if total > there:
        kept, lower = "", ""
        if kept_bytes:
            kept = f", {_mib(kept_bytes)} MiB kept for {kept_for}"
            lower = f"lower {mend}, "
        raise ModelError(
            f"{files.name} needs {_mib(total)} MiB of memory (weights as {need.numerics}: "
            f"{_mib(need.weights)} MiB, and {_mib(need.loading)} MiB while they are loaded; KV "
            f"cache of one conversation: {_mib(need.context)} MiB{kept}), and {_mib(there)} MiB "
            f"are free; close other programs, {lower}or choose a smaller model"
        )
    return files


def _context_bytes(config: ModelConfig, tokens: int, dtype: torch.dtype | None = None) -> int:
    """Return a cache's bytes as it would be allocated; dtype None: in integers."""
    heads, dim, device = config.layer_heads(), config.head_dim, torch.device("meta")
    cache = (
        IntegerKVCache(heads, dim, tokens, device=device)
        if dtype is None
        else KVCache(heads, dim, tokens, dtype=dtype, device=device)
    )
    return cache.allocated_bytes + cache.growth_bytes


def _mib(num_bytes: int) -> int:
    return -(-num_bytes // (1 << 20))
