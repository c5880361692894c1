"""The CPU cores on which a measurement's server and client run."""

import os
from dataclasses import dataclass

from pd_core.host.affinity import available_cores
from pd_core.host.cpu_quota import cpu_quota

__all__ = [
    "CoreSplit",
    "num_processors",
    "split_cores",
    "thread_environment",
]


@dataclass(frozen=True, slots=True)
class CoreSplit:
    """The server's cores and the client's; both empty when nothing is pinned."""

    server: tuple[int, ...] = ()
    client: tuple[int, ...] = ()


def split_cores(available: frozenset[int]) -> CoreSplit:
    """Give each side half of the cores; with one core, or none known, nothing is pinned.

    Without the split the client's timers would wait for the server's forward passes, which would
    distort the comparison of schemes.
    """
    cores = sorted(available)
    if len(cores) < 2:
        return CoreSplit()
    middle = (len(cores) + 1) // 2
    return CoreSplit(server=tuple(cores[:middle]), client=tuple(cores[middle:]))


def num_processors() -> float:
    """Return how many cores' worth of time this process and its children may use.

    A container may see every core and yet be stopped for most of the time (docker --cpus 1).
    """
    present, quota = len(available_cores()) or os.cpu_count() or 1, cpu_quota()
    return present if quota is None else min(present, quota)


def thread_environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Return environment variables for a side on `cores`, to be set before torch is imported.

    Loading a model also probes with two threads; on a single core these would spin against each
    other for ten seconds instead of one. With more cores nothing changes.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE"} if len(cores) == 1 else {}
