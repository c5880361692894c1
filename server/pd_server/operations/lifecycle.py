"""Where a server stands between its start and its end."""

from enum import StrEnum

__all__ = ["Phase"]


class Phase(StrEnum):
    """The server's phase; it is ready only in SERVING."""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    DEAD = "dead"  # the engine failed; the process is about to end
