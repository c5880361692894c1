"""A child process that ends when the process that started it does, whatever ended that one."""

import ctypes
import signal
import sys
from collections.abc import Callable

__all__ = ["ending_with_parent"]

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h


def ending_with_parent() -> Callable[[], None] | None:
    """Return what a child does before it becomes its program: `preexec_fn` of a subprocess.

    The child then gets SIGTERM when the thread that started it is gone, after SIGKILL too. None
    where the system has no such thing: only Linux does.
    """
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec a lock may be held by a thread that is no longer there.
    prctl = ctypes.CDLL(None).prctl
    arguments = (ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGTERM))

    def ask_for_sigterm() -> None:
        prctl(*arguments)

    return ask_for_sigterm
