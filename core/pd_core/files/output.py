"""Standard output and error of a command: no character and no full disk ends it in a traceback."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from pd_core.errors import ConfigError

__all__ = ["flush_outputs", "guard_outputs", "tell"]


def guard_outputs() -> None:
    """Replace the process's outputs by ones that survive what they cannot write.

    A character that the encoding lacks is replaced. When standard output cannot be written, writing
    raises ConfigError; a closed pipe is left to the caller. What standard error cannot write is
    lost, because there is nowhere to say so.
    """
    if sys.stdout is not None:
        sys.stdout = _guarded(sys.stdout, "replace", _refuse)
    if sys.stderr is not None:
        sys.stderr = _guarded(sys.stderr, "backslashreplace", _lose)


def flush_outputs() -> None:
    """Write what is buffered.

    Raises:
        ConfigError: standard output cannot be written.
        BrokenPipeError: nobody reads it.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def tell(line: str) -> None:
    """Write a line to standard error, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Guarded(io.FileIO):
    """A file that says what to do with a failed write."""

    def __init__(self, descriptor: int, failed: Callable[[OSError, int], int]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._failed = failed

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            return self._failed(error, len(data))


def _guarded(stream: TextIO, errors: str, failed: Callable[[OSError, int], int]) -> TextIO:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # it is no file
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Guarded(descriptor, failed)),
        encoding=stream.encoding,
        errors=errors,
        line_buffering=stream.isatty() or stream is sys.stderr,
        write_through=getattr(stream, "write_through", False),
    )


def _refuse(error: OSError, _: int) -> int:
    # What is still in the buffer goes nowhere, and no second error comes at the end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if error.errno == errno.EPIPE:
        raise error
    raise ConfigError(
        f"the output cannot be written ({error.strerror}); make room where it goes"
    ) from error


def _lose(_: OSError, num_bytes: int) -> int:
    return num_bytes
