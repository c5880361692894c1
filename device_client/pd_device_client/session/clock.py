"""A session's clock: that of the running loop, real or virtual."""

import asyncio

__all__ = ["loop_time"]


def loop_time() -> float:
    """Return the running loop's time, in seconds.

    Before Python 3.12 looking up the running loop is a system call. Code that needs the time for
    every token therefore keeps the loop's `time` method once it runs.
    """
    return asyncio.get_running_loop().time()
