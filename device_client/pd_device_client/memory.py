"""This machine's memory: whether a model fits into it, and giving back what one took."""

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from pd_core.errors import ModelError
from pd_core.model_names import RANDOM_TINY
from pd_core.models import inspect_model

__all__ = ["available_bytes", "check_memory", "control_group_bytes", "give_memory_back"]

_FLOAT32_BYTES = 4
_CONTEXT_TOKENS = 4096  # a conversation; the cache grows with it, so more is not needed at once
_SPARE = 1.1  # activations, the tokenizer, what Python and torch take along


def available_bytes() -> int:
    """Bytes that can be taken without swapping, within what a container may take."""
    return min(int(psutil.virtual_memory().available), control_group_bytes())


def control_group_bytes(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes that this process' control groups (version 2) leave it; a huge number where any.

    Of a container with a limit the system tells the whole machine's memory.

    Args:
        root: where control groups are mounted.
        own: the file that names this process' group.
    """
    left = sys.maxsize
    with suppress(OSError):
        name = next((n[3:] for n in own.read_text().splitlines() if n.startswith("0::/")), "/")
        group = root / name.lstrip("/")
        while group.is_relative_to(root):
            left = min(left, _group_bytes(group))
            group = group.parent
    return left


def _group_bytes(group: Path) -> int:
    """Return what one group leaves; files of the page cache in it can be let go."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(counted.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # there is none, or the limit is "max"
        return sys.maxsize


def check_memory(
    model: str, kept_kv_bytes: int, available: Callable[[], int] = available_bytes
) -> None:
    """Refuse a model whose weights and one conversation's KV cache do not fit.

    Args:
        model: as `load_model` takes it.
        kept_kv_bytes: what is to be kept of finished answers besides.
        available: says how many bytes there are.

    Raises:
        ModelError: it does not fit, or could not be loaded anyway; the message says why.
    """
    if model == RANDOM_TINY:
        return  # it is made on the spot, of a few megabytes
    report = inspect_model(model)
    context = min(report.config.max_context_tokens, _CONTEXT_TOKENS) * report.kv_bytes_per_token
    needed = int(report.num_parameters * _FLOAT32_BYTES * _SPARE) + context + kept_kv_bytes
    there = available()
    if needed > there:
        raise ModelError(
            f"{report.name} needs {_mib(needed)} MiB of memory (weights as float32, KV cache "
            f"of one conversation, {_mib(kept_kv_bytes)} MiB kept for conversations), and "
            f"{_mib(there)} MiB are free; close other programs, lower --kept-kv-mib, or choose a "
            "smaller model"
        )


def give_memory_back() -> None:
    """Give the system what this process has freed.

    Without it most of an unloaded model's memory stays with the process: sessions and their caches
    refer to each other in circles, and glibc keeps freed blocks of the size of weights for itself.
    """
    gc.collect()
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    except (OSError, TypeError):
        return  # nor have other systems a handle of the process itself
    if trim is not None:
        trim(0)


def _mib(num_bytes: int) -> int:
    return -(-num_bytes // (1 << 20))
