"""C compilers: where one may be found, and how it is run."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["Compiler", "find_compilers", "zig"]

_VARIABLE = "CC"
_NAMES = ("cc", "gcc", "clang")
_PATIENCE_S = 600
_TOLD_LINES = 12  # of a compiler's complaint: the first names the cause


@dataclass(frozen=True, slots=True)
class Compiler:
    """A command that compiles C.

    Attributes:
        command: its words.
        is_zig: it takes zig's names of targets and processors.
    """

    command: tuple[str, ...]
    is_zig: bool = False

    def __str__(self) -> str:
        return shlex.join(self.command)

    def run(self, arguments: Iterable[str | Path]) -> None:
        """Run it.

        Raises:
            ConfigError: it cannot be run or fails; the message has its own words.
        """
        words = [*self.command, *map(str, arguments)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"the compiler {self} cannot be run: {error}") from error
        if done.returncode:
            told = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_TOLD_LINES])
            raise ConfigError(f"the compiler {self} failed ({done.returncode}):\n{told}")


def zig() -> Compiler | None:
    """Return the compiler of the package ziglang, if that is installed."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    return Compiler((sys.executable, "-m", "ziglang", "cc"), is_zig=True)


def find_compilers() -> list[Compiler]:
    """Return the compilers for this machine, in the order in which they are tried.

    The variable CC names the only one; without it these are cc, gcc and clang, as far as they are
    installed, and then zig.
    """
    told = os.environ.get(_VARIABLE, "")
    try:
        named = shlex.split(told)
    except ValueError:  # a quotation without end; that it cannot be run is said later
        named = [told]
    if named:
        return [Compiler(tuple(named))]
    found = [Compiler((name,)) for name in _NAMES if shutil.which(name)]
    last = zig()
    return found if last is None else [*found, last]
