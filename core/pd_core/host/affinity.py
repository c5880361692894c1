"""Which cores this process may use, where a system says so."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["available_cores", "pinned"]


def available_cores() -> frozenset[int]:
    """Return the cores this process may use; empty where the system does not report them."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Pin the calling thread, and threads and processes that it starts, to these cores.

    Without cores, or on systems without affinity (macOS), nothing changes.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
