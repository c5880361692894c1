"""CPU seconds of a server's processes: what a pass cost, however busy the machine was."""

import os
from pathlib import Path

__all__ = ["session_cpu_s"]

# Places in /proc/PID/stat behind the command's name, from 0 (proc(5)).
_SESSION, _USER, _SYSTEM = 3, 11, 12


def session_cpu_s(session: int) -> float | None:
    """Return the CPU seconds so far of all living processes of a session, all threads.

    A process that a server of ours starts stays in the server's session, whose id is the
    server's. None where the system does not tell (there is no /proc).
    """
    if not Path("/proc/self/stat").exists():
        return None
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(fields[_SESSION]) == session:
            ticks += int(fields[_USER]) + int(fields[_SYSTEM])
    return ticks / os.sysconf("SC_CLK_TCK")
