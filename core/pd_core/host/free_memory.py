"""How much more of this machine's memory a process may use, and giving back what it does not."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from pd_core.host.control_groups import OWN_GROUPS, ROOT, groups_around

__all__ = ["available_bytes", "control_group_bytes", "trim_heap"]


def available_bytes() -> int:
    """Bytes that can be allocated without swapping, within a container's limit."""
    return min(int(psutil.virtual_memory().available), control_group_bytes())


def control_group_bytes(root: Path = ROOT, own: Path = OWN_GROUPS) -> int:
    """Bytes that this process's control groups (version 2) leave it; sys.maxsize without a limit.

    Needed because in a container with a limit the system reports the whole machine's memory.

    Args:
        root: where control groups are mounted.
        own: the file that names this process's group.
    """
    left = sys.maxsize
    with suppress(OSError):
        name = next((n[3:] for n in own.read_text().splitlines() if n.startswith("0::/")), "/")
        left = min(map(_group_bytes, groups_around(root, name)))
    return left


def trim_heap() -> None:
    """Return freed blocks to the system, which glibc keeps for later; other libraries do not.

    It takes milliseconds for each gigabyte, in which other threads may wait for memory.
    """
    try:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    except (OSError, TypeError):
        return  # some systems have no handle of the process itself
    if trim is not None:
        trim(0)


def _group_bytes(group: Path) -> int:
    """Return the bytes one group leaves; its inactive page cache counts as free."""
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(counted.get("inactive_file", 0)), 0)
    except (OSError, ValueError):  # there is none, or the limit is "max"
        return sys.maxsize
