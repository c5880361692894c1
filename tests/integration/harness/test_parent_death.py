"""A child whose parent is killed ends too."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PARENT = """
import subprocess, sys, time
from pd_core.process.parent_death import ending_with_parent
ending = ending_with_parent() if sys.argv[1] == "ends" else None
child = subprocess.Popen(["sleep", "300"], start_new_session=True, preexec_fn=ending)
print(child.pid, flush=True)
time.sleep(300)
"""


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"  # nobody may be there to read its exit code


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
@pytest.mark.parametrize("kind", ["ends", "stays"])
def test_a_child_ends_with_a_killed_parent(kind: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, kind], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until_s = time.monotonic() + (60 if kind == "ends" else 0.5)
    while _runs(child) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert _runs(child) == (kind == "stays")
    if kind == "stays":
        subprocess.run(["kill", str(child)], check=True)
