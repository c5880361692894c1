"""What other processes take: CPU seconds, however busy the machine was, and memory."""

import os
from contextlib import suppress

import psutil

from pd_core.errors import CloudUnavailable

__all__ = ["rss_bytes", "session_cpu_s"]


def rss_bytes(pid: int) -> int:
    """Return a process's resident memory.

    Raises:
        CloudUnavailable: it has ended.
    """
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess as error:
        raise CloudUnavailable(f"the measured process {pid} has ended; see its log") from error


def session_cpu_s(session: int) -> float:
    """Return the CPU seconds so far of all living processes of a session, all threads.

    A process that a server of ours starts stays in the server's session, whose id is the
    server's.
    """
    spent_s = 0.0
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended meanwhile, or is not for us to see
            if os.getsid(process.pid) == session:
                times = process.cpu_times()
                spent_s += times.user + times.system
    return spent_s
