"""The processor: what results and speeds depend on, and how many cores we may use."""

import os
from pathlib import Path

__all__ = ["cpu_description", "num_cores"]

_CPUINFO = Path("/proc/cpuinfo")
# Values of one core or of this moment.
_VARYING = {"apicid", "core id", "cpu mhz", "initial apicid", "physical id", "processor"}
_VARYING |= {"bogomips"}


def cpu_description() -> str | None:
    """Return the first processor's model, flags and caches, and the C library's version.

    None if the system does not tell (Linux does); then it cannot serve as a cache key.
    """
    try:
        first = _CPUINFO.read_text(errors="replace").partition("\n\n")[0]
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return None
    lines = [line for line in first.splitlines() if _name(line) not in _VARYING]
    return "\n".join([*lines, library])


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _name(line: str) -> str:
    return line.partition(":")[0].strip().lower()
