"""Importing large libraries without garbage collection: it would find nothing, and takes long."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Make imports in the block a fifth faster; for commands only, as it affects the whole process.

    All objects at the end of the block are kept for good, so the collector never scans them again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
