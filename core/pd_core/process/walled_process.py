"""A program of ours in a child process that can be killed: for work that strangers' data steers.

In this process nothing can stop an operation in C or take its memory back; a child can always be
killed. It is a fresh interpreter, as a fork of a process with threads may hang. It gets no secrets:
its environment is empty, and its requests and replies are lines of JSON over pipes.
"""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pd_core.errors import EngineError
from pd_core.host.new_process import apart
from pd_core.host.signals import KILLED
from pd_core.process.start_failure import start_failure

__all__ = ["WalledProcess"]

_START_WITHIN_S = 30.0
_ENDED_WITHIN_S = 1.0
_MOST_SAID_BYTES = 1 << 16
# What an interpreter itself may need to start.
_KEPT_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class WalledProcess:
    """A child process that calls one function of ours with each request.

    It ends when this object is no longer referenced, and with this process, in whatever way that
    ends: it waits for requests on a pipe that breaks then.

    Args:
        module: the module of the function; the child imports nothing else.
        function: called without arguments; it calls `serve_behind_wall`.
        most_reply_bytes: a longer reply is an error.

    Raises:
        EngineError: the system starts no process.
    """

    def __init__(self, module: str, function: str, most_reply_bytes: int) -> None:
        begin = f"import sys; sys.path[:] = sys.argv[1:]; import {module} as m; m.{function}()"
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", begin, *_places()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                **apart(),
            )
        except OSError as error:
            raise start_failure(error, sys.executable or "") from error
        self._process = process
        self._most_reply_bytes = most_reply_bytes
        self._ready = False
        self.end: Callable[[], object] = weakref.finalize(self, _end, process)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        """Return the reply to a request. After an error the child is dead: call `end`.

        Args:
            request: what JSON can hold.
            within_s: most seconds for the reply; the child's own start does not count.

        Raises:
            EngineError: it did not start.
            TimeoutError: there was none in time.
            ConnectionError: the child ended without one, or the reply is too long or no JSON.
        """
        if not self._ready:
            self._begin()
        return self._exchange(json.dumps(request).encode() + b"\n", within_s)

    def _begin(self) -> None:
        """Wait until it is ready. What it says on standard error until then is why it is not."""
        said = self._process.stderr
        assert said is not None, "asked for in Popen"
        try:
            self._exchange(b"", _START_WITHIN_S)
        except (TimeoutError, ConnectionError) as error:
            self._process.kill()
            self._process.wait()
            lines = said.read(_MOST_SAID_BYTES).decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else str(error)
            raise EngineError(
                f"a process was started, but is not ready ({why}); free memory, or allow more of "
                "it (ulimit -v); or else install pd-device anew"
            ) from error
        said.close()  # from now on what it says is lost
        self._ready = True

    def _exchange(self, line: bytes, within_s: float) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "asked for in Popen"
        assert stdout is not None, "asked for in Popen"
        late = threading.Event()

        def kill() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(within_s, kill)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:  # no thread can be started, for the same reasons
            self._process.kill()
            raise start_failure(OSError(errno.EAGAIN, str(error)), sys.executable) from error
        try:
            with contextlib.suppress(BrokenPipeError):  # then the reply is missing too
                stdin.write(line)
                stdin.flush()
            reply = stdout.readline(self._most_reply_bytes)
        finally:
            timer.cancel()
        if reply.endswith(b"\n"):
            return dict(json.loads(reply))
        if late.is_set():
            raise TimeoutError(f"it took more than {within_s:g} s")
        if len(reply) >= self._most_reply_bytes:
            raise ConnectionError(f"its reply is too long: over {self._most_reply_bytes} bytes")
        raise ConnectionError(f"its process ended {self._manner()}")

    def _manner(self) -> str:
        """Say how the process ended."""
        try:
            code = self._process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:  # it has only closed its output
            return "its output"
        if code == KILLED:
            return "by a kill, as the system does when memory is short"
        return f"by signal {-code}" if code < 0 else f"with code {code}"


def _places() -> list[str]:
    """Return where we find modules, for the child; "" is the folder we were started in."""
    places = [place for place in sys.path if place]
    if len(places) < len(sys.path):
        with contextlib.suppress(OSError):  # it may be gone
            places.insert(sys.path.index(""), str(Path.cwd()))
    return places


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
