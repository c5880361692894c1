"""Which CPU cores the server and the client of a measurement run on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["CoreSplit", "available_cores", "pinned", "split_cores", "thread_environment"]


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


def available_cores() -> frozenset[int]:
    """Return the cores this process may use; none if the system cannot say."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def thread_environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Return what to set in the environment, before torch is imported, of a side on `cores`.

    Loading a model probes two threads as well; on a single core these would spin against each
    other for ten seconds instead of one. With more cores nothing is changed.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE"} if len(cores) == 1 else {}


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
