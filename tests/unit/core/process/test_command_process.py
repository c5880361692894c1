"""A command's process: what becomes of outputs, errors, signals and work left behind."""

import os
import signal
import subprocess
import sys

import pytest

from tests.first_process import AS_FIRST_PROCESS, child_of, needs_namespaces

HEAD = """
import sys, time, threading
from pd_core.process.command_process import run_command

def load():
    return command

def main():
    run_command("pd-test", "some", load)
"""


def _script(body: str) -> list[str]:
    return [sys.executable, "-c", f"{HEAD}\n{body}\nmain()"]


def _run(
    body: str, shell: str = 'exec "$@"', **variables: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", shell, "sh", *_script(body)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
        check=False,
    )


PRINTS = "def command(): print('caf\\u00e9 \\u3053' * {times})"


@pytest.mark.parametrize("times", [1, 100_000])
def test_a_full_disk_under_the_output_is_one_clear_line(times: int) -> None:
    done = _run(PRINTS.format(times=times), 'exec "$@" >/dev/full')
    assert done.returncode == 2
    assert done.stderr == (
        "pd-test: the output cannot be written (No space left on device); make room where it goes\n"
    )


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("ascii", "caf? ?\n"), ("latin-1", "café ?\n"), ("utf-8", "café こ\n")],
)
def test_a_character_that_the_encoding_lacks_is_replaced(encoding: str, text: str) -> None:
    done = subprocess.run(
        _script(PRINTS.format(times=1)),
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    assert done.stdout.decode(encoding) == text


def test_an_error_that_cannot_be_shown_keeps_its_exit_code() -> None:
    body = "def command():\n from pd_core.errors import PortInUse\n raise PortInUse('taken')"
    done = _run(body, 'exec "$@" 2>/dev/full')
    assert done.returncode == 2
    assert _run(body).stderr == "pd-test: taken\n"
    assert _run(body, 'exec "$@" >&- 2>&-').returncode == 2


def test_a_reader_that_left_is_no_traceback() -> None:
    done = _run(PRINTS.format(times=100_000), '"$@" | head -c 1')
    assert done.stderr == ""


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    done = _run("def command(): import not_there.part")
    assert done.returncode == 2
    assert done.stderr == (
        "pd-test: not_there is not installed; get what it needs: pip install 'pd-device[some]'\n"
    )
    broken = _run("def command(): import json.not_there")
    assert "Traceback" in broken.stderr, "a part of an installed library is a fault of ours"


def test_work_left_behind_does_not_delay_the_end() -> None:
    body = (
        "def command():\n"
        "    threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "    print('done')\n"
        "    sys.exit(7)"
    )
    done = _run(body)
    assert (done.returncode, done.stdout) == (7, "done\n")


WAITS = """
def load():
    print('importing', flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGINT, {130}), (signal.SIGTERM, {-signal.SIGTERM})],
)
def test_a_signal_while_it_is_imported_ends_it(number: int, codes: set[int]) -> None:
    with subprocess.Popen(
        _script(WAITS), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert process.wait(60) in codes
        assert "Traceback" not in process.stderr.read()


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_first_process_of_a_container_obeys_too(number: int) -> None:
    # The kernel drops signals to process 1 that have no handler, so this one must have some.
    waits = WAITS.replace("'importing'", "__import__('os').getpid()")
    before = signal.signal(number, signal.SIG_DFL)  # under nohup children would ignore SIGHUP
    parent = subprocess.Popen(
        [*AS_FIRST_PROCESS, *_script(waits)], stdout=subprocess.PIPE, text=True
    )
    signal.signal(number, before)
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "1\n"
        os.kill(child_of(parent.pid), number)
        assert parent.wait(60) == 128 + number
