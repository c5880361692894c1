"""How far loading is, on a terminal: a line that goes when the device is ready."""

from typing import Self

from rich.console import Console

__all__ = ["LoadingLine"]

_LARGE_BYTES = 64 << 20  # less is there before anybody has read how much it is


class LoadingLine:
    """A `Progress` that shows a line while a block runs; at other times it does nothing.

    Args:
        console: where to; nothing is shown on what is no terminal.
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
