"""Signals that are obeyed while a library holds the interpreter's lock for seconds."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pd_core.process.ending_signals import ending_signals
from pd_core.process.loading_thread import go_on_unless_left_behind, in_loading_thread_now

__all__ = ["ended_by_the_system"]

_BYTES = 1024  # more than any system's `struct sigaction` has
_HEARD_WITHIN_S = 0.01
_one_at_a_time = threading.Lock()  # or the later block would restore what the earlier one has set


@contextmanager
def ended_by_the_system() -> Iterator[None]:
    """Let Ctrl-C and the ending signals end the process in the block without Python, at once.

    A handler of Python's waits for the interpreter's lock. In the block the signals act as by
    default: the exit status is that of a process which the signal ended, 143 in a shell for
    SIGTERM, and nothing is said. To a container's first process the kernel sends no signal that
    acts by default; there C's `_exit` is the handler, which gets the signal's number as exit code.

    Outside a loading thread, where a command has something to end in order, and where the system is
    not Linux, the block changes nothing.

    Raises:
        LeftBehind: nobody waits for this thread, since a signal came just before. The block is not
            begun, or the command could not end before the block's end.
    """
    if sys.platform != "linux" or not in_loading_thread_now():
        yield
        return
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    first = os.getpid() == 1
    handler = ctypes.cast(libc._exit, ctypes.c_void_p) if first else None  # None: by default
    signals = (signal.SIGINT, *ending_signals())
    with _one_at_a_time:
        before = {n: ctypes.create_string_buffer(_BYTES) for n in signals if _is_handled(n)}
        for number, action in before.items():
            libc.sigaction(number, None, action)
            libc.signal(number, handler)
        try:
            time.sleep(_HEARD_WITHIN_S)  # Python's handler may have been called just before
            go_on_unless_left_behind()
            yield
        finally:
            for number, action in before.items():
                libc.sigaction(number, action, None)


def _is_handled(number: int) -> bool:
    """Whether a signal has a handler of Python's; one that is ignored stays so."""
    return callable(signal.getsignal(number))
