"""Why a child process cannot be started: the cause and its mend, as an error of ours."""

import errno

from pd_core.errors import EngineError

__all__ = ["start_failure"]

_MENDS = {
    errno.EAGAIN: "let this user run more processes (ulimit -u), or end some",
    errno.ENOMEM: "free memory, or allow more of it",
    errno.EMFILE: "let this process open more files (ulimit -n)",
    errno.ENFILE: "let the system open more files, or end what holds them",
}


def start_failure(error: OSError, program: str) -> EngineError:
    """Return the error for a child process that the system does not start.

    Args:
        error: the system's.
        program: the file that was to be run; "" if it is not known.
    """
    why = error.strerror or str(error) or type(error).__name__
    if mend := _MENDS.get(error.errno or 0):
        return EngineError(f"no process can be started ({why}); {mend}")
    name = program or "the Python that this process runs in"
    return EngineError(
        f"no process can be started: {name} cannot be run ({why}); make it a file that this user "
        "may run, or install Python anew"
    )
