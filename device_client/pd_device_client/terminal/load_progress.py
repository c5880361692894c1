"""A terminal line that shows loading progress, and disappears when the device is ready."""

from typing import Self

from rich.console import Console

__all__ = ["LoadingLine"]

_LARGE_BYTES = 64 << 20  # smaller models load before the figures could be read


class LoadingLine:
    """A `Progress` callback that shows a line inside its `with` block and else does nothing.

    Args:
        console: where to print; nothing is shown unless it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._status = console.status("loading the model")
        self._shown = False

    def __call__(self, read_bytes: int, size_bytes: int) -> None:
        if not self._shown:
            return
        if read_bytes == size_bytes:
            self._status.update("checking the model and measuring this device")
        elif size_bytes >= _LARGE_BYTES:
            read_mib, size_mib = read_bytes >> 20, size_bytes >> 20
            self._status.update(f"loading the model: {read_mib} of {size_mib} MiB")

    def __enter__(self) -> Self:
        self._shown = True
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown = False
        self._status.stop()
