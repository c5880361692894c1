"""The inside of a WalledProcess: it answers requests within bounds that the system enforces."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

try:
    import fcntl
    import resource
except ImportError:  # on Windows
    fcntl = resource = None  # type: ignore[assignment]

__all__ = ["serve_behind_wall"]


def serve_behind_wall(
    answer: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    memory_bytes: int,
    within_s: float,
    most_kept_bytes: int,
) -> None:
    """Answer requests until the parent is gone; for the function that a WalledProcess calls.

    From here on the process can open no file, start no process and use no more memory than allowed,
    as far as the system has such limits.

    Args:
        answer: from request to reply.
        memory_bytes: most memory of the process; beyond it Python raises MemoryError.
        within_s: a request that takes longer ends the process, even without a parent to kill it.
        most_kept_bytes: a process that holds more after a request ends with its reply, which then
            has a key "last".
    """
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    resident_bytes = _resident()
    _confine(memory_bytes)
    replies.write(b"{}\n")  # ready
    replies.flush()
    for line in requests:
        _alarm(within_s)
        with _ended_with_the_parent():
            reply = dict(answer(json.loads(line)))
        line = b""
        if last := resident_bytes() > most_kept_bytes:
            reply["last"] = True
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
        _alarm(0)
        if last:
            return


def _confine(memory_bytes: int) -> None:
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
def _ended_with_the_parent() -> Iterator[None]:
    """Let the system end this process in the block when its parent ends, even within C.

    The parent is gone when the pipe of requests breaks. In the block nothing else happens to that
    pipe, as whoever asks waits for the reply; so whatever happens sends the signal. Where a system
    does not know that for pipes, the alarm is left.
    """
    if fcntl is None:
        yield
        return
    requests = sys.stdin.fileno()
    flags = fcntl.fcntl(requests, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # which ends the process
        fcntl.fcntl(requests, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(requests, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        if not os.read(requests, 1):  # it broke before; else there is nothing to read yet
            os._exit(0)
    try:
        yield
    finally:
        fcntl.fcntl(requests, fcntl.F_SETFL, flags)


def _alarm(seconds: float) -> None:
    """Let the system end this process after some seconds, even within an operation in C."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _resident() -> Callable[[], int]:
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
