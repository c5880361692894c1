"""What only some systems have is named in one room, which guards it: `pd_core.host`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
ROOM = REPO / "core/pd_core/host"
# vLLM itself runs on Linux alone.
LINUX_ONLY = (REPO / "server/pd_server/vllm_engine", REPO / "server/pd_server/vllm_plugin")
MODULES = {"fcntl", "grp", "msvcrt", "pty", "pwd", "resource", "termios", "tty", "winreg"}
NAMES = {
    *("SIGALRM", "SIGBREAK", "SIGCHLD", "SIGHUP", "SIGIO", "SIGKILL", "SIGPIPE", "SIGQUIT"),
    *("SIGUSR1", "SIGUSR2", "setitimer", "alarm", "pthread_sigmask", "sigwait"),
    *("add_signal_handler", "remove_signal_handler"),
    *("sched_getaffinity", "sched_setaffinity", "getpriority", "setpriority", "nice"),
    *("confstr", "sysconf", "getuid", "geteuid", "getgid", "getegid", "setsid", "killpg", "fork"),
    *("fchmod", "chown", "fsync", "O_ASYNC", "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY", "AF_UNIX"),
    *("CREATE_NEW_PROCESS_GROUP", "STARTUPINFO", "start_new_session"),
}
FOLDERS = ("/proc/", "/sys/", "/dev/shm")


def _named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield lines and names of what only some systems have."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [each.name for each in names if each.name in MODULES]
            case ast.ImportFrom(module=module, names=names):
                own = [str(module)] if module in MODULES else []
                found = [*own, *(each.name for each in names if each.name in NAMES)]
            case ast.Attribute(attr=name) if name in NAMES:
                found = [name]
            case ast.keyword(arg=name) if name in NAMES:
                found = [str(name)]
            case ast.Constant(value=str(text)) if text.startswith(FOLDERS):
                found = [text]
            case _:
                continue
        for name in found:
            yield getattr(node, "lineno", 0), name


def _modules() -> list[Path]:
    """Every module that some system but Linux may run."""
    found = [path for path in REPO.glob("*/pd_*/**/*.py") if "_pb2" not in path.name]
    apart = (ROOM, *LINUX_ONLY)
    return [path for path in found if not any(path.is_relative_to(folder) for folder in apart)]


@pytest.mark.slow
def test_only_one_room_names_what_some_systems_lack() -> None:
    modules = _modules()
    assert len(modules) > 400
    offenders = [
        f"{path.relative_to(REPO)}:{line}: {name}"
        for path in modules
        for line, name in _named(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not offenders, "put it into pd_core/host, with a guard"


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrlimit",
        "import signal\nsignal.SIGHUP",
        "from signal import SIGKILL",
        "loop.add_signal_handler(2, print)",
        "import os\nos.sched_getaffinity(0)",
        "from pathlib import Path\nPath('/proc/meminfo')",
        "Popen([], start_new_session=True)",
        "import os\nos.fsync(3)",
    ],
)
def test_each_is_found(source: str) -> None:
    assert list(_named(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["import signal\nsignal.SIGTERM", "from importlib import resources", "x = '/process'"]
)
def test_what_all_have_is_not(source: str) -> None:
    assert not list(_named(ast.parse(source)))
