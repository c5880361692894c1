"""Python as other systems have it: without what only Linux has, for processes of a test.

What is taken away is taken after the libraries are imported, which choose by system themselves.
"""

_LIBRARIES = """
import asyncio, os, platform, signal, socket, subprocess, sys, sysconfig
import filelock, grpc.aio, httpx2, huggingface_hub, prometheus_client, prompt_toolkit, psutil
import rich.console, safetensors, tokenizers, torch, typer.rich_utils, uvicorn

sysconfig.get_config_vars(), platform.uname()  # of the system that it really is

def without(owner, *names):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)

def block(*modules):
    sys.modules.update(dict.fromkeys(modules))
"""

MACOS = f"""{_LIBRARIES}
without(os, "sched_getaffinity", "sched_setaffinity")
sys.platform = "darwin"
"""
"""Statements that leave a process what macOS has."""

WINDOWS = f"""{_LIBRARIES}
block("fcntl", "grp", "pwd", "resource", "termios", "tty")
without(os, "sched_getaffinity", "sched_setaffinity", "getpriority", "setpriority", "confstr")
without(os, "sysconf", "getuid", "geteuid", "getgid", "getloadavg", "fork", "O_ASYNC", "O_NONBLOCK")
subprocess.Popen.kill = lambda self: self.send_signal(9)
signal.SIGBREAK = signal.SIGUSR2
without(signal, "SIGHUP", "SIGKILL", "SIGIO", "SIGALRM", "SIGUSR1", "SIGQUIT", "setitimer")

def refuse(*_):
    raise NotImplementedError

from asyncio.unix_events import _UnixSelectorEventLoop as Loop
Loop.add_signal_handler = Loop.remove_signal_handler = refuse
sys.platform = "win32"
"""
"""Statements that leave a process what Windows has."""

SYSTEMS = {"macos": MACOS, "windows": WINDOWS}
