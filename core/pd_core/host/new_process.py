"""How a child process is started so that what is typed at the terminal is for us alone."""

import subprocess
from typing import Any

__all__ = ["apart"]


def apart() -> dict[str, Any]:
    """Return arguments of a subprocess whose Ctrl-C is not ours: we end it in order."""
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", None)  # on Windows, without sessions
    return {"start_new_session": True} if group is None else {"creationflags": group}
