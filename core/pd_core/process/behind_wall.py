"""The inside of a WalledProcess: it answers requests within bounds that the system enforces."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pd_core.host.confinement import confine, end_after, ended_with_the_writer, resident_bytes

__all__ = ["serve_behind_wall"]


def serve_behind_wall(
    answer: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    memory_bytes: int,
    within_s: float,
    most_kept_bytes: int,
) -> None:
    """Answer requests until the parent is gone; for the function that a WalledProcess calls.

    From here on the process can open no file, start no process and use no more memory than allowed,
    as far as the system has such limits.

    Args:
        answer: from request to reply.
        memory_bytes: most memory of the process; beyond it Python raises MemoryError.
        within_s: a request that takes longer ends the process, even without a parent to kill it.
        most_kept_bytes: a process that holds more after a request ends with its reply, which then
            has a key "last".
    """
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    resident = resident_bytes()
    confine(memory_bytes)
    replies.write(b"{}\n")  # ready
    replies.flush()
    for line in requests:
        end_after(within_s)
        # The parent is gone when the pipe of requests breaks; it sends nothing before the reply.
        with ended_with_the_writer(sys.stdin.fileno()):
            reply = dict(answer(json.loads(line)))
        line = b""
        if last := resident() > most_kept_bytes:
            reply["last"] = True
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
        end_after(0)
        if last:
            return
