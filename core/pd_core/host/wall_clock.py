"""The wall clock: for timestamps that other programs read, never for durations."""

from datetime import UTC, datetime

__all__ = ["unix_time_s", "utc_text"]


def unix_time_s() -> int:
    """Return whole seconds since 1970, as the OpenAI API stamps its objects."""
    return int(datetime.now(UTC).timestamp())


def utc_text(time_s: int) -> str:
    """Return seconds since 1970 as RFC 3339 writes them, such as "2023-11-14T22:13:20Z"."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
