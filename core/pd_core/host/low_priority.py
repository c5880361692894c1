"""Threads that step back while other programs want the processor."""

import contextlib
import os
import sys
import threading

__all__ = ["NICENESS", "step_back"]

NICENESS = 5
"""Beside a program at 0 on the same core such a thread gets a quarter of the time; alone, all."""


def step_back() -> None:
    """Lower the priority of the calling thread and of those that it starts later.

    Only Linux has priorities of threads. It cannot be undone without privileges.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with contextlib.suppress(OSError):  # a sandbox forbids it
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
