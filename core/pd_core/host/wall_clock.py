"""The wall clock: for timestamps that other programs read, never for durations."""

from datetime import UTC, datetime

__all__ = ["unix_time_s"]


def unix_time_s() -> int:
    """Return whole seconds since 1970, as the OpenAI API stamps its objects."""
    return int(datetime.now(UTC).timestamp())
