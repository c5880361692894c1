"""What must be in the environment before torch is loaded, for results that can be reproduced."""

import os
import platform
import sys
from pathlib import Path

from pd_core.errors import ConfigError

__all__ = ["prepare_environment"]

_VARIABLE = "MKL_CBWR"


def prepare_environment(*, fast: bool = False) -> None:
    """Ask MKL for strict reproducibility. Call it before anything imports torch.

    A value that is already in the environment is kept: `AVX2,STRICT` on a machine with AVX-512,
    say, makes the bits of one without. What the value is worth is for `probe` to find out.

    Args:
        fast: leave the environment as it is, for the fast mode that promises no equal bits.

    Raises:
        ConfigError: torch is imported already, and was not asked to be reproducible.
    """
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
