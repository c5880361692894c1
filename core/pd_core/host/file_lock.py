"""A lock on an open file, which ends with the process that has it."""

from typing import BinaryIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock_now"]


def lock_now(file: BinaryIO) -> None:
    """Lock a file for this process alone, until it is closed.

    Raises:
        BlockingIOError: another process has locked it.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    place = file.tell()
    file.seek(_FAR)  # Windows lets nobody else read what is locked, so a byte that never is
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, "another process has locked it") from error
    finally:
        file.seek(place)


_FAR = (1 << 31) - 2
