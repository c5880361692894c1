"""Which CPU cores the server and the client of a measurement run on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["CoreSplit", "pinned", "split_cores"]


@dataclass(frozen=True, slots=True)
class CoreSplit:
    """The server's cores and the client's; both empty when nothing is pinned."""

    server: tuple[int, ...] = ()
    client: tuple[int, ...] = ()


def split_cores(available: frozenset[int]) -> CoreSplit:
    """Give each side half of the cores; with one core (or none known) nothing is pinned.

    Without the split, the client's timers would wait for the server's forward passes and a
    scheme that spares the cloud would look better than it is, or worse.
    """
    cores = sorted(available)
    if len(cores) < 2:
        return CoreSplit()
    middle = (len(cores) + 1) // 2
    return CoreSplit(server=tuple(cores[:middle]), client=tuple(cores[middle:]))


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Run the calling thread, and the threads and processes it starts meanwhile, on these cores.

    No cores: nothing changes. Platforms without affinity (macOS) run unpinned too.
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
