"""The callback that reports how far a model has loaded."""

from collections.abc import Callable

__all__ = ["Progress"]

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all), from any thread."""
