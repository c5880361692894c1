"""Importing large libraries without collecting garbage: there is none, and looking takes long."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import in the block a fifth faster, for commands; a library leaves this to who uses it.

    What is there at the end stays for good, so the collector never looks at it again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
