"""The control groups of a process, by which a container limits it."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["OWN_GROUPS", "ROOT", "groups_around"]

ROOT = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""

OWN_GROUPS = Path("/proc/self/cgroup")
"""The file that names this process's groups."""


def groups_around(root: Path, name: str) -> Iterator[Path]:
    """Yield a group and those around it; a container sees only its own, which is `root`."""
    group = root / name.lstrip("/")
    if ".." in group.parts:
        group = root
    while group.is_relative_to(root):
        yield group
        group = group.parent
