"""A child process for strangers' work: bounded, killed when late, gone with its parent."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pd_core.errors import EngineError
from pd_core.process.walled_process import WalledProcess

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


@pytest.fixture
def child() -> Iterator[WalledProcess]:
    process = WalledProcess("tests.walled_programs", "serve", 1 << 16)
    yield process
    process.end()
    assert not process.alive


def test_it_answers_as_often_as_it_is_asked(child: WalledProcess) -> None:
    for text in ("a", "é\ud800\n\x00"):
        assert child.ask({"do": "echo", "text": text}, 60) == {"text": text}
    assert child.alive


def test_it_knows_none_of_our_variables(
    child: WalledProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PD_DEVICE_API_KEY", "secret")
    late = WalledProcess("tests.walled_programs", "serve", 1 << 16)
    assert "secret" not in json.dumps(late.ask({"do": "environment"}, 60))


@LINUX
def test_it_can_open_nothing_and_take_no_more_memory_than_allowed(child: WalledProcess) -> None:
    assert child.ask({"do": "open"}, 60) == {"errors": ["OSError", "OSError"]}
    assert child.ask({"do": "grow", "bytes": 32 << 20}, 60) == {"bytes": 32 << 20}
    assert child.ask({"do": "grow", "bytes": 512 << 20}, 60) == {"error": "MemoryError"}


@LINUX
def test_one_that_holds_much_ends_with_its_reply(child: WalledProcess) -> None:
    assert child.ask({"do": "keep", "bytes": 1 << 20}, 60) == {}
    assert child.ask({"do": "keep", "bytes": 100 << 20}, 60) == {"last": True}


def test_a_late_one_is_killed(child: WalledProcess) -> None:
    with pytest.raises(TimeoutError, match=r"more than 0\.2 s"):
        child.ask({"do": "sleep", "s": 100}, 0.2)
    child.end()


def test_one_that_ends_or_says_too_much_is_an_error(child: WalledProcess) -> None:
    other = WalledProcess("tests.walled_programs", "serve", 1 << 16)
    with pytest.raises(ConnectionError, match="ended with code 3"):
        other.ask({"do": "end"}, 60)
    with pytest.raises(ConnectionError, match="too long"):
        child.ask({"do": "echo", "text": "x" * (1 << 17)}, 60)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_one_that_is_killed_meanwhile_is_told_so(child: WalledProcess) -> None:
    child.ask({"do": "echo"}, 60)
    psutil.Process(child._process.pid).kill()
    with pytest.raises(ConnectionError, match="ended by a kill, as the system does when memory"):
        child.ask({"do": "echo"}, 60)


@pytest.mark.parametrize(
    ("number", "cause", "mend"),
    [
        (errno.EAGAIN, "Resource temporarily unavailable", "run more processes"),
        (errno.ENOMEM, "Cannot allocate memory", "free memory"),
        (errno.EMFILE, "Too many open files", "open more files"),
        (errno.ENFILE, "Too many open files in system", "let the system open more files"),
        (errno.EACCES, "Permission denied", "that this user may run"),
        (errno.ENOENT, "No such file or directory", "install Python anew"),
    ],
)
def test_what_the_system_refuses_is_told_with_its_mend(
    number: int, cause: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), sys.executable)

    monkeypatch.setattr("subprocess.Popen", refused)
    with pytest.raises(EngineError) as caught:
        WalledProcess("tests.walled_programs", "serve", 1 << 16)
    assert cause in str(caught.value)
    assert mend in str(caught.value)
    assert ("ulimit -u" in str(caught.value)) == (number == errno.EAGAIN)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_python_that_may_not_be_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(EngineError, match=rf"{python} cannot be run \(Permission denied\)"):
        WalledProcess("tests.walled_programs", "serve", 1 << 16)
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(EngineError, match="the Python that this process runs in cannot be run"):
        WalledProcess("tests.walled_programs", "serve", 1 << 16)


def test_one_that_does_not_come_up_is_told_with_its_last_words() -> None:
    process = WalledProcess("tests.no_such_module", "serve", 1 << 16)
    with pytest.raises(EngineError, match=r"not ready \(ModuleNotFoundError: No module named"):
        process.ask({"do": "echo"}, 60)
    assert not process.alive


def test_where_no_thread_can_be_started_none_is_left_behind(
    child: WalledProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(EngineError, match=r"can't start new thread.*run more processes"):
        child.ask({"do": "echo"}, 60)
    child.end()


PARENT = """
import sys, time
from pd_core.process.walled_process import WalledProcess
child = WalledProcess("tests.walled_programs", "serve_patiently", 1 << 16)
child.ask({"do": "echo"}, 100)
print(child._process.pid, flush=True)
asked = {"sleeps": {"do": "sleep", "s": 600}, "computes": {"do": "compute"}}.get(sys.argv[1])
if asked:
    child.ask(asked, 600)
time.sleep(600)
"""


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("state", ["idle", "sleeps", "computes"])
def test_it_ends_when_its_parent_is_ended(state: str, number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3 if state != "idle" else 0.0)  # it is asked; or not yet, and then it is idle
        parent.send_signal(number)
    psutil.wait_procs([child], timeout=60)  # of the hour that it may take
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@LINUX
def test_it_ends_when_its_parent_has_ended_before_it_begins(child: WalledProcess) -> None:
    """The request is in the pipe, which is broken when it is read."""
    child.ask({"do": "echo"}, 60)
    process = child._process
    assert process.stdin is not None
    process.send_signal(signal.SIGSTOP)
    process.stdin.write(b'{"do": "sleep", "s": 2}\n')
    process.stdin.flush()
    process.stdin.close()
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0
    assert process.stdout is not None
    assert process.stdout.read() == b"", "it was not begun"
