"""Whether a library is installed, for what an extra of this package leaves out."""

import importlib.util

__all__ = ["is_installed"]


def is_installed(library: str) -> bool:
    """Return whether a library can be found, without importing it."""
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):  # something hides it
        return False
