"""Where a result goes: a file that is known to be writable before the measurement begins."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["result_file"]


@contextmanager
def result_file(
    path: Path, option: str = "--json"
) -> Iterator[Callable[[str | bytes | Iterable[str]], None]]:
    """Yield a function that writes the file; an older file stays as it is until then.

    The function takes text, bytes, or lines that are made while they are written.

    Args:
        path: of the file; its folder exists.
        option: by which the reader named it.

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
            f"{option}"
        ) from None

    def write(content: str | bytes | Iterable[str]) -> None:
        lines = [content] if isinstance(content, str | bytes) else content
        with part.open("wb") as file:
            for line in lines:
                file.write(line if isinstance(line, bytes) else f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    try:
        yield write
    finally:
        part.unlink(missing_ok=True)
