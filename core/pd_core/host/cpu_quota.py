"""The limit of processor time that a container sets, in control groups of version 1 or 2."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_quota"]


def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return how many CPUs' time this process's control groups allow; None without a limit.

    The system reports all of the machine's cores in a container with a limit.

    Args:
        root: where control groups are mounted.
        own: the file that names this process's groups.
    """
    try:
        lines = own.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return None
    quotas: list[float | None] = []
    for line in lines:
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            for mounted in (root, root / "unified"):  # the latter beside version 1
                quotas += [_quota_v2(group) for group in _groups(mounted, name)]
        elif "cpu" in controllers.split(","):
            for mounted in (root / controllers, root / "cpu"):
                quotas += [_quota_v1(group) for group in _groups(mounted, name)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path, name: str) -> Iterator[Path]:
    """Yield a group and those around it; a container sees only its own, which is `root`."""
    group = root / name.lstrip("/")
    if ".." in group.parts:
        group = root
    while group.is_relative_to(root):
        yield group
        group = group.parent


def _quota_v2(group: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):  # there is none, or it is "max"
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _quota_v1(group: Path) -> float | None:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None  # -1: no limit
    return None
