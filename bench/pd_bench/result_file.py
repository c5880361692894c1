"""Where a result goes: a file that is known to be writable before the measurement begins."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["result_file"]


@contextmanager
def result_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes the file; an older file stays as it is until then.

    Raises:
        ConfigError: the file cannot be made there. Found out on entry, not after the run.
    """
    part = path.parent / f"{path.name}.part"
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a directory")
        part.touch()
    except OSError as error:
        raise ConfigError(
            f"the result cannot be written to {path}: {error.strerror}; name another file with "
            "--json"
        ) from None

    def write(content: str) -> None:
        with part.open("w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    try:
        yield write
    finally:
        part.unlink(missing_ok=True)
