"""The clock of everything a session does: the running loop's, real or virtual."""

import asyncio

__all__ = ["loop_time"]


def loop_time() -> float:
    """Return the running loop's present, in seconds.

    Before Python 3.12 asking for the running loop is a system call, so whoever needs the time for
    every token keeps the loop's own `time` from where it begins to run, and this until then.
    """
    return asyncio.get_running_loop().time()
