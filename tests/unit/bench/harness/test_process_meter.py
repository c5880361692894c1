"""CPU seconds of a session: those of its children too, and of nobody else; memory."""

import os
import subprocess
import sys

import pytest

from pd_bench.harness.process_meter import rss_bytes, session_cpu_s
from pd_core.errors import CloudUnavailable

WORKER = """
import time
while time.process_time() < 0.3:
    pass
print("done", flush=True)
input()
"""
# The leader does little; its child, of the same session, works.
LEADER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}])"


def test_a_session_s_children_count() -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"done\n"
    spent_s = session_cpu_s(leader.pid)
    leader.communicate(b"\n")
    assert 0.3 <= spent_s < 5.0
    assert session_cpu_s(leader.pid) == 0.0, "nobody of it lives"


def test_memory_of_a_process_and_of_one_that_has_ended() -> None:
    assert 2**20 < rss_bytes(os.getpid()) < 2**36
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(CloudUnavailable, match=f"process {ended.pid} has ended"):
        rss_bytes(ended.pid)
