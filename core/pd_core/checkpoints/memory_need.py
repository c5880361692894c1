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
from pd_core.integer.sizes import LAYERS, integer_sizes
from pd_core.models.config import ModelConfig
from pd_core.models.kv_cache import KVCache
from pd_core.store.model_names import RANDOM_TINY, model_path

__all__ = ["MemoryNeed", "check_memory", "memory_need"]

_CONTEXT_TOKENS = 4096  # one conversation; the cache grows on demand
_SPARE_BYTES = 28 << 20  # code that is first run, activations, the kernels' working space
_TOKEN_BYTES = 400  # of the tokenizer, for each token
_SPARE = 1.05  # floats: what is freed while they are packed is not all of use


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a model is expected to take at most, in bytes.

    Attributes:
        numerics: "float32" or another dtype, or "integer".
        loading: while the weights are read; the KV cache comes after.
        weights: from then on.
        context: the KV cache of one conversation of up to 4,096 tokens.
        spare: of all else that comes with a model, at any time.
    """

    numerics: str
    loading: int
    weights: int
    context: int
    spare: int

    def total(self, kept_bytes: int) -> int:
        """Return the most at any time, with so many bytes of KV cache kept besides."""
        return max(self.loading, self.weights + self.context + kept_bytes) + self.spare


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
    parameters = sum(tensor.numel() for tensor in files.shapes.values())
    plain = dtype == "float32" and not fast
    spare = _SPARE_BYTES + _TOKEN_BYTES * config.vocab_size
    tokens = min(config.max_context_tokens, _CONTEXT_TOKENS)
    if chosen_numerics(numerics, config, parameters, plain=plain) == "integer":
        sizes = integer_sizes(config, files.shapes, files.checkpoint.bits)
        return MemoryNeed(
            "integer", sizes.loading, sizes.held, _context_bytes(config, tokens), spare
        )
    item = DTYPES[dtype].itemsize
    weights, beside = parameters, 0
    if item == 4:  # they are packed one after another, each beside its plain form
        head = config.vocab_size * config.hidden_size
        inner = (t.numel() for name, t in files.shapes.items() if name.startswith(LAYERS))
        beside = max(2 * max(inner), 0 if config.tie_word_embeddings else head)
        weights += head * config.tie_word_embeddings  # the output layer packs a copy of its own
    return MemoryNeed(
        dtype,
        int((weights + beside) * item * _SPARE),
        int(weights * item * _SPARE),
        _context_bytes(config, tokens, DTYPES[dtype]),
        spare,
    )


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
