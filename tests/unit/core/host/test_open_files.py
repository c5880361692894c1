import subprocess
import sys

_PROGRAM = """
import resource
from pd_core.host.open_files import raise_open_files
print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _raised(limits: str) -> list[str]:
    command = ["sh", "-c", f'{limits} && exec "$@"', "sh", sys.executable, "-c", _PROGRAM]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_the_soft_limit_becomes_the_hard_one() -> None:
    assert _raised("ulimit -Sn 128 && ulimit -Hn 512") == ["512", "512", "512"]


def test_a_limit_that_is_the_hard_one_stays() -> None:
    assert _raised("ulimit -n 256") == ["256", "256", "256"]
