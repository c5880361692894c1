"""The processor: what results and speeds depend on, and how many cores we may use."""

import os
from pathlib import Path

from pd_core.host.affinity import available_cores
from pd_core.host.cpu_quota import cpu_quota

__all__ = [
    "MAX_THREADS",
    "cores_in_words",
    "cpu_description",
    "cpu_flags",
    "cpu_name",
    "limits_threads",
    "num_cores",
]

MAX_THREADS = 1024
"""The most threads that torch may be told to use: many more end the process without a word."""

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
    except (AttributeError, OSError, ValueError):
        return None
    lines = [line for line in first.splitlines() if _name(line) not in _VARYING]
    return "\n".join([*lines, library])


def cpu_name() -> str | None:
    """Return the processor's name as Linux gives it; None elsewhere."""
    return _first("model name")


def cpu_flags() -> frozenset[str]:
    """Return the instructions that the processor has, as Linux names them; none elsewhere."""
    return frozenset((_first("flags") or "").split())


def num_cores() -> int:
    """Return how many cores this process may keep busy: at least one.

    A container's quota of processor time counts too, rounded down: threads beyond it would all be
    stopped for the rest of each period, in the middle of a pass.
    """
    quota = cpu_quota()
    return _present() if quota is None else max(1, min(_present(), int(quota)))


def limits_threads() -> bool:
    """Return whether a container's quota leaves fewer cores than the system reports."""
    return num_cores() < _present()


def cores_in_words() -> str:
    """Return how many cores may be used, and the container's quota if that decides."""
    if not limits_threads():
        return f"{_present()} {'core' if _present() == 1 else 'cores'}"
    return f"{num_cores()} of {_present()} cores, because this container may use {cpu_quota():.3g}"


def _first(name: str) -> str | None:
    """Return what Linux says of the first core under a name; None if it says nothing."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((each.partition(":")[2].strip() for each in lines if _name(each) == name), None)


def _present() -> int:
    return len(available_cores()) or os.cpu_count() or 1


def _name(line: str) -> str:
    return line.partition(":")[0].strip().lower()
