"""How far loading is, as whoever loads a model tells it."""

from collections.abc import Callable

__all__ = ["Progress"]

Progress = Callable[[int, int], None]
"""Called with how many bytes of how many are read, from any thread."""
