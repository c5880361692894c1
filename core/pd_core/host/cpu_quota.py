"""The limit of processor time that a container sets, in control groups of version 1 or 2."""

from contextlib import suppress
from pathlib import Path

from pd_core.host.control_groups import OWN_GROUPS, ROOT, groups_around

__all__ = ["cpu_quota"]


def cpu_quota(root: Path = ROOT, own: Path = OWN_GROUPS) -> float | None:
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
                quotas += [_quota_v2(group) for group in groups_around(mounted, name)]
        elif "cpu" in controllers.split(","):
            for mounted in (root / controllers, root / "cpu"):
                quotas += [_quota_v1(group) for group in groups_around(mounted, name)]
    return min((quota for quota in quotas if quota is not None), default=None)


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
