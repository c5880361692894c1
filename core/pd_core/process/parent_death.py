"""A child process that ends when its parent ends, however the parent ends."""

import ctypes
import signal
import sys
from collections.abc import Callable

__all__ = ["ending_with_parent"]

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h


def ending_with_parent() -> Callable[[], None] | None:
    """Return the `preexec_fn` of a subprocess that must end with its parent.

    The child gets SIGTERM when the thread that started it is gone, even after SIGKILL. None where
    the system does not support this; only Linux does.
    """
    if sys.platform != "linux":
        return None
    # Looked up before the fork: after it, a lock may be held by a thread that no longer exists.
    prctl = ctypes.CDLL(None).prctl
    arguments = (ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGTERM))

    def ask_for_sigterm() -> None:
        prctl(*arguments)

    return ask_for_sigterm
