"""The library llama.cpp, by way of llama-cpp-python: loaded once, and silent.

What it says goes to the debug log; its complaints are also kept for the message of the error that
they explain. It writes to standard error by itself otherwise, into the midst of an answer.
"""

import ctypes
import logging
import os
from collections import deque
from functools import cache
from typing import Any

from pd_core.errors import ConfigError, EngineError
from pd_core.host.installed import is_installed

__all__ = ["Library", "library"]

logger = logging.getLogger(__name__)

_PACKAGE = "llama_cpp"
_COMPLAINTS = (2, 3)  # ggml's levels: warning and error
_ERROR = 3
_MOST_KEPT = 8


class Library:
    """The loaded library.

    Attributes:
        api: the module with the functions of llama.h.
    """

    def __init__(self, api: Any) -> None:
        self.api = api
        self._line = ""
        self._level = 0
        self._errors: deque[str] = deque(maxlen=_MOST_KEPT)
        # The library keeps only the address, so the object must live as long.
        self._callback = api.llama_log_callback(self._said)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))
        api.llama_backend_init()

    def forget_errors(self) -> None:
        """Forget the complaints so far, before something that may fail."""
        self._errors.clear()

    @property
    def last_error(self) -> str:
        """The first complaint of the latest failure; "" without one."""
        return self._errors[0] if self._errors else ""

    def _said(self, level: int, text: bytes | None, _: object) -> None:
        """Take a piece of its log: a line, or a part of one; from any of its threads."""
        self._level = max(self._level, level if level in _COMPLAINTS else 0)
        self._line += (text or b"").decode(errors="replace")
        if not self._line.endswith("\n"):
            return
        line, level = self._line.strip(), self._level
        self._line, self._level = "", 0
        if line.strip("."):
            logger.debug("%s", line)
            if level == _ERROR:
                self._errors.append(line)


@cache
def library() -> Library:
    """Load llama.cpp; it stays for the life of the process.

    Raises:
        ConfigError: llama-cpp-python is not installed.
        EngineError: it is, and cannot be loaded.
    """
    if not is_installed(_PACKAGE):
        raise ConfigError(
            "the engine llama-cpp needs llama-cpp-python; install pd-device[llama-cpp], or leave "
            "--engine out"
        )
    # Where it finds itself wrong it ends the process; it need not start a debugger before.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise EngineError(
            f"llama-cpp-python cannot be loaded ({error}); install it again: "
            "pip install --force-reinstall 'pd-device[llama-cpp]'"
        ) from error
    return Library(llama_cpp)
