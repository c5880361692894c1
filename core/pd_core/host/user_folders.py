"""The user's own folders, as the XDG base directory specification names them."""

import os
from pathlib import Path

__all__ = ["expanded", "user_folder"]


def user_folder(variable: str, below_home: str) -> Path | None:
    """Return a folder; None if neither the variable nor a home names one.

    A container may run as a user without an entry in the user database and without HOME, and HOME
    may be another user's, which this one cannot enter.

    Args:
        variable: such as "XDG_CACHE_HOME"; only an absolute path counts.
        below_home: where it is if the variable is not set, such as ".cache".
    """
    named = Path(os.environ.get(variable, ""))
    if named.is_absolute():
        return named
    home = _home()
    return None if home is None else home / below_home


def expanded(path: Path) -> Path:
    """Return a path with ~ replaced by the home it names; as it is if there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _home() -> Path | None:
    """Return the home; None if there is none, or it is no place that this user can enter."""
    try:
        home = Path.home()
        os.stat(f"{home}/.")  # noqa: PTH116  (a Path drops the dot, which needs the right to enter)
    except (RuntimeError, PermissionError):
        return None
    except OSError:
        pass  # it may still be made
    return home if home.is_absolute() else None
