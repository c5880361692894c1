"""Returning to this machine the memory that a model used."""

import gc

from pd_core.host.free_memory import trim_heap

__all__ = ["give_memory_back"]


def give_memory_back() -> None:
    """Return freed memory to the system.

    Otherwise most of an unloaded model's memory stays with the process: sessions and their caches
    form reference cycles, and glibc keeps freed blocks of the size of weights.
    """
    gc.collect()
    trim_heap()
