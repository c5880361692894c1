"""What is written reaches the disk, and who may read it, as far as a system lets us decide."""

import os
from pathlib import Path

__all__ = ["force_to_disk", "has_permission_bits"]


_WINDOWS = os.name == "nt"


def force_to_disk(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk.

    Windows opens no folder, and forces only what is open for writing; it keeps the entries itself.

    Raises:
        OSError: the disk refuses.
    """
    if _WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def has_permission_bits() -> bool:
    """Whether a file's mode says who may read it; on Windows access lists do."""
    return not _WINDOWS
