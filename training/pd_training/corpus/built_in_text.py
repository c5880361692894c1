"""Text that is on every machine: the reference of the Python language, as `help()` prints it."""

from pydoc_data.topics import topics

__all__ = ["calibration_text", "quality_text"]


def calibration_text() -> str:
    """Return every second topic: half a million letters of prose, grammars and examples."""
    return _half(0)


def quality_text() -> str:
    """Return the other topics."""
    return _half(1)


def _half(which: int) -> str:
    return "\n".join(topics[name] for name in sorted(topics)[which::2])
