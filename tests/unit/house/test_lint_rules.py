"""The linters' rules bite: each is shown a file that breaks it."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
RUFF = Path(sys.executable).with_name("ruff")


def _ruff_codes(source: str, pretended_path: str) -> set[str]:
    """Lint a source as if it were that file, and return the codes of what is found."""
    done = subprocess.run(
        [RUFF, "check", "--output-format=concise", "--stdin-filename", pretended_path, "-"],
        input=source,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=REPO,
    )
    assert done.returncode in (0, 1), done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(pretended_path)]
    return {line.split()[1] for line in lines}


@pytest.mark.parametrize(
    ("source", "path", "code"),
    [
        (
            "import time\n\nNOW = time.monotonic()\n",
            "device_client/pd_device_client/x.py",
            "TID251",
        ),
        ("from time import sleep\n\nsleep(1)\n", "device_client/pd_device_client/x.py", "TID251"),
        ("from time import sleep\n\nsleep(1)\n", "bench/pd_bench/emulation/x.py", "TID251"),
        ("import time\n\nNOW = time.time()\n", "server/pd_server/x.py", "TID251"),
        ('print("x")\n', "core/pd_core/x.py", "T201"),
        ("from . import y\n", "core/pd_core/x.py", "TID252"),
        ("from .y import z\n", "device_client/pd_device_client/x.py", "TID252"),
    ],
    ids=[
        *("clock-in-session", "sleep-in-session", "sleep-in-emulation", "wall-clock", "print"),
        *("relative", "relative-in-session"),
    ],
)
def test_ruff_refuses(source: str, path: str, code: str) -> None:
    assert code in _ruff_codes(source, path)


def test_ruff_lets_a_server_measure() -> None:
    source = "import time\n\nNOW_S = time.perf_counter()\n"
    assert _ruff_codes(source, "server/pd_server/x.py") == set()
