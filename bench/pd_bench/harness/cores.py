"""The CPU cores on which a measurement's server and client run."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CoreSplit",
    "available_cores",
    "num_processors",
    "pinned",
    "processor_quota",
    "split_cores",
    "thread_environment",
]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


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


def available_cores() -> frozenset[int]:
    """Return the cores this process may use; empty where the system does not report them."""
    if not hasattr(os, "sched_getaffinity"):
        return frozenset()
    return frozenset(os.sched_getaffinity(0))


def num_processors() -> float:
    """Return how many cores' worth of time this process and its children may use."""
    return min(len(available_cores()) or os.cpu_count() or 1, processor_quota())


def processor_quota(root: Path = _GROUPS, own: Path = _OWN_GROUPS) -> float:
    """Return the processors that a container's limit leaves this process; infinity without one.

    A container may see every core and yet be stopped for most of the time (docker --cpus 1).

    Args:
        root: where control groups are mounted.
        own: the file that names this process's groups.
    """
    quota = math.inf
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            top = root / controllers  # version 2 has no controllers here, and one tree
            for group in (top / name.lstrip("/"), *(top / name.lstrip("/")).parents):
                if group.is_relative_to(top):
                    quota = min(quota, _group_quota(group))
    return quota


def _group_quota(group: Path) -> float:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        granted = int((group / "cpu.cfs_quota_us").read_text())
        period_us = int((group / "cpu.cfs_period_us").read_text())
        return math.inf if granted < 0 else granted / period_us
    return math.inf


def thread_environment(cores: tuple[int, ...]) -> dict[str, str]:
    """Return environment variables for a side on `cores`, to be set before torch is imported.

    Loading a model also probes with two threads; on a single core these would spin against each
    other for ten seconds instead of one. With more cores nothing changes.
    """
    return {"OMP_WAIT_POLICY": "PASSIVE"} if len(cores) == 1 else {}


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Pin the calling thread, and threads and processes that it starts, to these cores.

    Without cores, or on platforms without affinity (macOS), nothing changes.
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
