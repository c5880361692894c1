"""What must be in the environment before torch is loaded: equal results, and threads that sleep."""

import os
import platform
import sys
from pathlib import Path

from pd_core.errors import ConfigError
from pd_core.host.cpu import num_cores

__all__ = ["prepare_environment"]

_VARIABLE = "MKL_CBWR"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_FEW_CORES = 16


def prepare_environment(*, fast: bool = False) -> None:
    """Ask MKL for strict reproducibility. Call it before anything imports torch.

    A value that is already in the environment is kept: `AVX2,STRICT` on a machine with AVX-512,
    say, makes the bits of one without. What the value is worth is for `probe` to find out.

    Threads of torch that wait for each other sleep rather than spin: where another process keeps a
    core busy, spinning makes every pass wait until the system takes turns. With many cores waking
    them all costs more than that, so there the choice is left to torch.

    Args:
        fast: do without reproducibility, for the fast mode that promises no equal bits.

    Raises:
        ConfigError: torch is imported already, and was not asked to be reproducible.
    """
    if num_cores() <= _FEW_CORES and not any(name in os.environ for name in _WAITING):
        os.environ[_WAITING[0]] = "PASSIVE"
    setting = _strictest_setting()
    if fast or setting is None or os.environ.get(_VARIABLE):
        return
    if "torch" in sys.modules:
        raise ConfigError(
            f"torch was imported before {_VARIABLE} was set, so its results would not be "
            f"reproducible; call prepare_environment() first, or set {_VARIABLE}={setting}"
        )
    os.environ[_VARIABLE] = setting


def _strictest_setting() -> str | None:
    """Return the MKL_CBWR value for this CPU; None where torch does not use MKL."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    return "AVX512,STRICT" if " avx512f " in flags else "AVX2,STRICT"
