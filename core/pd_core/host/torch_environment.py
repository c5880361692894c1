"""Environment variables to set before torch is loaded: equal results, and threads that sleep."""

import os
import platform
import sys

from pd_core.errors import ConfigError
from pd_core.host.cpu import cpu_flags, limits_threads, num_cores

__all__ = ["limit_threads", "prepare_environment"]

_VARIABLE = "MKL_CBWR"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_FEW_CORES = 16


def prepare_environment(*, fast: bool = False) -> None:
    """Ask MKL for strict reproducibility. Call it before anything imports torch.

    A value that is already set is kept: `AVX2,STRICT` on a machine with AVX-512, for example, gives
    the bits of a machine without. `probe` finds out what the value achieves.

    Also let torch's threads sleep rather than spin while they wait for each other: if another
    process keeps a core busy, spinning delays every pass until the scheduler switches. With many
    cores, waking the threads costs more than that, so there the choice is left to torch.

    And limit its threads as `limit_threads` does.

    Args:
        fast: do not ask for reproducibility, for the fast mode, which promises no equal bits.

    Raises:
        ConfigError: torch is already imported, without the variable being set.
    """
    if num_cores() <= _FEW_CORES and not any(name in os.environ for name in _WAITING):
        os.environ[_WAITING[0]] = "PASSIVE"
    limit_threads()
    setting = _strictest_setting()
    if fast or setting is None or os.environ.get(_VARIABLE):
        return
    if "torch" in sys.modules:
        raise ConfigError(
            f"torch was imported before {_VARIABLE} was set, so its results would not be "
            f"reproducible; call prepare_environment() first, or set {_VARIABLE}={setting}"
        )
    os.environ[_VARIABLE] = setting


def limit_threads() -> None:
    """Let torch have no more threads than a container's quota of processor time keeps busy.

    Call it before anything imports torch. A number that is already set is kept.
    """
    if limits_threads() and not any(name in os.environ for name in _THREADS):
        os.environ[_THREADS[0]] = str(num_cores())


def _strictest_setting() -> str | None:
    """Return the MKL_CBWR value for this CPU; None where torch does not use MKL."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    return "AVX512,STRICT" if "avx512f" in cpu_flags() else "AVX2,STRICT"
