"""Bounds that the system enforces on a process of ours, as far as it has them."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

try:
    import fcntl
    import resource
except ImportError:  # on Windows
    fcntl = resource = None  # type: ignore[assignment]

__all__ = ["confine", "end_after", "ended_with_the_writer", "resident_bytes"]


def confine(memory_bytes: int) -> None:
    """Let this process open no file, start no process and use no more memory from here on."""
    if resource is None:
        return
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS knows no limit of memory
            resource.setrlimit(limit, (value, value))


@contextlib.contextmanager
def ended_with_the_writer(pipe: int) -> Iterator[None]:
    """Let the system end this process in the block when a pipe's writer is gone, even within C.

    In the block nothing else may happen to that pipe, as whatever happens sends the signal. Where
    a system does not know that for pipes, the block changes nothing.

    Args:
        pipe: the descriptor from which this process reads.
    """
    if fcntl is None:
        yield
        return
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends the process
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        if not os.read(pipe, 1):  # it broke before; else there is nothing to read yet
            os._exit(0)
    try:
        yield
    finally:
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def end_after(seconds: float) -> None:
    """Let the system end this process after some seconds, even within C; 0: not any more."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def resident_bytes() -> Callable[[], int]:
    """Return what tells this process's resident bytes, even when no file can be opened any more."""
    try:
        file = open("/proc/self/statm", "rb", buffering=0)  # noqa: PTH123, SIM115  (never closed)
    except OSError:  # only Linux has it
        return lambda: 0
    page = os.sysconf("SC_PAGE_SIZE")

    def read() -> int:
        file.seek(0)
        return int(file.read().split()[1]) * page

    return read
