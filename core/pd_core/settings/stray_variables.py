"""Variables that look like a program's and set nothing, such as misspelt ones."""

import re
from collections.abc import Iterable, Mapping

__all__ = ["stray_variables"]

_OURS = "PD_"
_PROGRAMS = ("PD_DEVICE_", "PD_SERVER_")  # an environment may be for both
_SHOWN = 5
_SHOWN_CHARACTERS = 100
_CLOSE = 0.8

# Read by the native kernels and their build, by the folder of pulled models, and by what lies
# beside the programs: the Compose file, the scripts and the tests.
_ELSEWHERE = frozenset(
    f"{_OURS}{name}"
    for name in (
        *(
            "KERNEL",
            "KERNEL_TARGET",
            "MODELS_DIR",
            "MODEL",
            "PUBLISH",
            "GRPC_PORT",
            "HTTP_PORT",
            "BALANCER_PORT",
            "SECRETS",
        ),
        *("BASE", "DTYPE", "GPUS", "KV_CACHE_MIB", "SHM_SIZE", "TENSOR_PARALLEL_SIZE"),
        *("GRAFANA_PORT", "PROMETHEUS_PORT", "METRICS_KEPT", "REPOSITORY_URL"),
        *("TRACE", "TRACE_DIR", "TRACES", "CHROMIUM", "SCREENSHOTS"),
    )
)
# Kubernetes sets these for each service; one may be called like a program.
_OF_A_SERVICE = re.compile(r"_(SERVICE_(HOST|PORT)|PORT)(_[A-Z0-9_]+)?$")


def stray_variables(prefix: str, known: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that seems to be meant for a program, and is not read.

    A line has the variable's name and never its value, which may be a secret.

    Args:
        prefix: of the program's variables, such as PD_DEVICE_; that of another program's are left
            alone.
        known: the variables that the program reads.
        environment: all variables.
    """
    known = {*known, *_ELSEWHERE}
    others = tuple(each for each in _PROGRAMS if each != prefix)
    strays = sorted(
        name
        for name in environment
        if name.upper().startswith(_OURS)
        and name not in known
        and not name.startswith(others)
        and not _of_a_service(name, environment)
    )
    lines = [_line(name, known) for name in strays[:_SHOWN]]
    if (more := len(strays) - _SHOWN) > 0:
        lines.append(f"{more} more variables that begin with {_OURS} set nothing here")
    return lines


def _line(name: str, known: Iterable[str]) -> str:
    from pd_core.store.nearest_name import nearest_name  # seldom needed

    near = nearest_name(name[:_SHOWN_CHARACTERS].upper(), known, _CLOSE)
    shown = ascii(name[:_SHOWN_CHARACTERS])[1:-1]
    meant = f"did you mean {near}?" if near else "no option has this name"
    return f"the variable {shown} sets nothing; {meant}"


def _of_a_service(name: str, environment: Mapping[str, str]) -> bool:
    found = _OF_A_SERVICE.search(name)
    return found is not None and f"{name[: found.start()]}_SERVICE_HOST" in environment
