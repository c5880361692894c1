"""The parent's side of a measuring process: started, asked line by line, always ended."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pd_bench.engines.files import Subject
from pd_bench.engines.worker import Job
from pd_core.errors import EngineError, ModelError
from pd_core.process.parent_death import ending_with_parent

__all__ = ["WorkerProcess", "made_files", "worker_process"]

_WORKER = (sys.executable, "-m", "pd_bench.engines.worker")
_FILES = (sys.executable, "-m", "pd_bench.engines.files")


class WorkerProcess:
    """A running worker.

    Attributes:
        loaded: what it said when it was ready.
    """

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self._process = process
        self._name = name
        self.loaded = self._answer()

    def ask(self, **asked: object) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            EngineError: the process has ended.
        """
        assert self._process.stdin is not None, "stdin is a pipe"
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last tells why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise EngineError(f"the process of {self._name} ended with code {code}")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:  # what it says as it breaks down
            raise EngineError(f"the process of {self._name} said: {line.strip()}") from None
        if "error" in answer:
            raise ModelError(f"{self._name}: {answer['error']}")
        return answer


@contextmanager
def worker_process(job: Job, name: str) -> Iterator[WorkerProcess]:
    """Start a worker, yield it when its engine is ready, and end it.

    Args:
        job: what it loads.
        name: the engine's, for errors.

    Raises:
        ModelError: the engine cannot be loaded.
        EngineError: the process ended.
    """
    process = subprocess.Popen(
        [*_WORKER, json.dumps(asdict(job))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=ending_with_parent(),
    )
    try:
        yield WorkerProcess(process, name)
    finally:
        process.kill()
        process.communicate()


def made_files(subject: Subject) -> dict[str, str]:
    """Make a comparison's files in a process of its own; see `make_files`.

    Raises:
        ModelError: they cannot be made.
    """
    done = subprocess.run(
        [*_FILES, json.dumps(asdict(subject))],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=ending_with_parent(),
    )
    if done.returncode or not done.stdout:
        raise ModelError(f"the files of {subject.name} could not be made: see above")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ModelError(answer["error"])
    files: dict[str, str] = answer["files"]
    return files
