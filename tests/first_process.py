"""Processes with the id 1, as the first one of a container has it."""

import shutil
import subprocess
from pathlib import Path

import pytest

AS_FIRST_PROCESS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def child_of(pid: int) -> int:
    """Return the id, out here, of the process that `unshare` has started."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _possible() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*AS_FIRST_PROCESS, "true"], capture_output=True, check=False).returncode
        == 0
    )


needs_namespaces = pytest.mark.skipif(
    not _possible(), reason="this user may make no process namespace"
)
