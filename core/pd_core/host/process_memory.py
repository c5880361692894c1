"""What this process's memory is and was, where a system says so; Linux does."""

from contextlib import suppress
from pathlib import Path

__all__ = ["forget_peak", "memory_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def forget_peak() -> None:
    """Let the peak count from here."""
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def memory_bytes(name: str) -> int | None:
    """Return a figure of this process's memory; None where the system does not tell.

    Args:
        name: as Linux names it: "VmRSS" is what is resident, "VmHWM" the most that ever was.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{name}:")), None)
    return None if found is None else int(found.split()[1]) << 10
