"""The process of a command, from its first instant to its exit code.

What this module imports is light, and more is imported only when signals are obeyed: the kernel
drops what the first process of a container gets before that.
"""

import os
import sys
from collections.abc import Callable

from pd_core.process.ending_signals import (
    INTERRUPTED,
    ended_at_once,
    is_ctrl_c,
    obeyed_as_first_process,
)

__all__ = ["run_command"]

# gRPC's log would only interrupt the output, since our own errors include its message, and
# strangers could fill it with bad headers and failed TLS handshakes; and nothing of gRPC is to run
# between the fork and the start of a child process. gRPC reads both when it is imported.
_GRPC = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}

_NOBODY_READS = 1
_NOT_INSTALLED = 2


def run_command(
    program: str,
    extra: str,
    load: Callable[[], Callable[[], object]],
    *,
    interrupted: str = "interrupted",
) -> None:
    """Run a command; an error is one line on standard error, and an exit code of its class.

    Args:
        program: its name, for messages.
        extra: what of pd-device must be installed for it.
        load: imports the command and returns it.
        interrupted: what to say after Ctrl-C.

    Raises:
        SystemExit: at its end.
    """
    # Not so for a caller within a process, which puts its own outputs in their place.
    owned = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
    if owned:
        obeyed_as_first_process()

    def run() -> None:
        if owned:
            with ended_at_once():
                command = load()
        else:
            command = load()
        command()

    if owned:
        with ended_at_once():
            from pd_core.files.output import guard_outputs

            guard_outputs()
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)
    code = _code(program, extra, run, interrupted)
    if owned:
        _end_without_delay(code)
    sys.exit(code)


def _code(program: str, extra: str, run: Callable[[], None], interrupted: str) -> int:
    """Run a command and return its exit code."""
    from pd_core.errors import PdError, status_of
    from pd_core.files.output import flush_outputs, tell

    try:
        try:
            run()
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
            if is_ctrl_c(ended):
                tell(f"{program}: {interrupted}")
        flush_outputs()
        if isinstance(code, int):
            return code
        tell(f"{program}: {code}")
        return 1
    except PdError as error:
        tell(f"{program}: {error}")
        return status_of(error).exit_code
    except KeyboardInterrupt:
        tell(f"{program}: {interrupted}")
        return INTERRUPTED
    except BrokenPipeError:
        return _NOBODY_READS
    except ModuleNotFoundError as error:
        if not _left_out(error):
            raise
        tell(
            f"{program}: {error.name} is not installed; get what it needs: "
            f"pip install 'pd-device[{extra}]'"
        )
        return _NOT_INSTALLED


def _left_out(error: ModuleNotFoundError) -> bool:
    """Whether a whole library is missing, and not a module of one that is there."""
    from pd_core.host.installed import is_installed

    library = (error.name or "").partition(".")[0]
    return bool(library) and not is_installed(library)


def _end_without_delay(code: int) -> None:
    """End the process, and what it started, if something would delay its end.

    That is work that cannot be stopped, such as loading a model, and after Ctrl-C the second that
    Python takes to put torch away.
    """
    import threading

    if threading.active_count() == 1 and code != INTERRUPTED:
        return
    import logging
    import multiprocessing

    for child in multiprocessing.active_children():  # such as vLLM's, still starting
        child.terminate()
    logging.shutdown()
    os._exit(code)
