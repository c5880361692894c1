"""This machine's memory: whether a model fits, and returning what a model used."""

import gc
from collections.abc import Callable

from pd_core.checkpoints.inspection import inspect_model
from pd_core.errors import ModelError
from pd_core.host.free_memory import available_bytes, trim_heap
from pd_core.integer.choice import chosen_numerics
from pd_core.store.model_names import RANDOM_TINY

__all__ = ["check_memory", "give_memory_back"]

_WEIGHT_BYTES = {"float32": 4, "integer": 1}
_CONTEXT_TOKENS = 4096  # one conversation; the cache grows on demand
_SPARE = 1.1  # activations, tokenizer, Python and torch themselves


def check_memory(
    model: str,
    kept_kv_bytes: int,
    numerics: str = "float32",
    available: Callable[[], int] = available_bytes,
) -> None:
    """Refuse a model whose weights and one conversation's KV cache do not fit.

    Args:
        model: as `load_model` takes it.
        kept_kv_bytes: KV cache kept for finished answers.
        numerics: one of NUMERICS.
        available: returns the free memory in bytes.

    Raises:
        ModelError: it does not fit, or could not be loaded anyway; the message says why.
    """
    if model == RANDOM_TINY:
        return  # generated, a few megabytes
    report = inspect_model(model)
    context = min(report.config.max_context_tokens, _CONTEXT_TOKENS) * report.kv_bytes_per_token
    numerics = chosen_numerics(numerics, report.config, report.num_parameters)
    weight_bytes = _WEIGHT_BYTES[numerics]
    needed = int(report.num_parameters * weight_bytes * _SPARE) + context + kept_kv_bytes
    there = available()
    if needed > there:
        raise ModelError(
            f"{report.name} needs {_mib(needed)} MiB of memory (weights as {numerics}, KV cache "
            f"of one conversation, {_mib(kept_kv_bytes)} MiB kept for conversations), and "
            f"{_mib(there)} MiB are free; close other programs, lower --kept-kv-mib, or choose a "
            "smaller model"
        )


def give_memory_back() -> None:
    """Return freed memory to the system.

    Otherwise most of an unloaded model's memory stays with the process: sessions and their caches
    form reference cycles, and glibc keeps freed blocks of the size of weights.
    """
    gc.collect()
    trim_heap()


def _mib(num_bytes: int) -> int:
    return -(-num_bytes // (1 << 20))
