"""Options that several commands share: one name, one variable, one explanation."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from pd_core.errors import ConfigError
from pd_core.host.api_key import checked_api_key, key_exposure, read_api_key
from pd_core.store.model_names import MODEL_HELP
from pd_device_client.commands.config_file import apply_config
from pd_device_client.contract.ask import Mode

__all__ = [
    "DEFAULT_KEPT_KV_MIB",
    "DEFAULT_PORT",
    "ApiKeyFile",
    "ClientKeyFile",
    "Cloud",
    "Config",
    "FastNumerics",
    "Host",
    "Insecure",
    "InsecureListen",
    "KeptKvMib",
    "LogLevel",
    "ModeOption",
    "Model",
    "Pace",
    "Port",
    "Threads",
    "Throttle",
    "Tls",
    "TlsCa",
    "Ttft",
    "api_key",
    "configure_logging",
    "env",
]


def env(name: str) -> str:
    """Return the variable that sets an option."""
    return f"PD_DEVICE_{name}"


Config = Annotated[
    Path | None,
    typer.Option(
        envvar=env("CONFIG"),
        callback=apply_config,
        is_eager=True,
        help="Settings file; default: pd-device/config.toml in your configuration directory.",
    ),
]
Cloud = Annotated[
    str | None,
    typer.Option(envvar=env("CLOUD"), help="The cloud's HOST:PORT; without one, all is local."),
]
Host = Annotated[str, typer.Option(envvar=env("HOST"), help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(envvar=env("PORT"), min=0, max=65535, help="0 picks a free one.")
]
DEFAULT_PORT = 8088
ModeOption = Annotated[Mode, typer.Option(envvar=env("MODE"), help="Who carries the answer.")]
Model = Annotated[str, typer.Option(envvar=env("MODEL"), help=MODEL_HELP)]
Pace = Annotated[
    float,
    typer.Option(
        envvar=env("PACE"),
        min=0.001,
        max=60,
        help="Seconds between shown tokens; 0.2 is reading pace.",
    ),
]
Ttft = Annotated[
    float | None,
    typer.Option(
        envvar=env("TTFT"),
        min=0.001,
        max=3600,
        help="Seconds within which the first token will do; default: the earliest.",
    ),
]
Throttle = Annotated[
    str | None,
    typer.Option(
        envvar=env("THROTTLE"),
        help="Slow the local engine to a device profile: slow, phone, laptop, ...",
    ),
]
Threads = Annotated[
    int | None, typer.Option(envvar=env("THREADS"), min=1, help="Threads of the local engine.")
]
FastNumerics = Annotated[
    bool,
    typer.Option(
        "--fast-numerics",
        envvar=env("FAST_NUMERICS"),
        help="Faster, but no longer bit-equal with the cloud.",
    ),
]
TlsCa = Annotated[
    Path | None, typer.Option(envvar=env("TLS_CA"), help="PEM file of the authority to trust.")
]
Tls = Annotated[
    bool, typer.Option("--tls", envvar=env("TLS"), help="TLS with this system's authorities.")
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("API_KEY_FILE"),
        help=f"File with the cloud's bearer key; or the variable {env('API_KEY')}.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure", envvar=env("INSECURE"), help="Allow plaintext to a cloud on another machine."
    ),
]
ClientKeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("CLIENT_KEY_FILE"),
        help=f"File with the bearer key clients must send; or {env('CLIENT_KEY')}.",
    ),
]
InsecureListen = Annotated[
    bool,
    typer.Option(
        "--insecure-listen",
        envvar=env("INSECURE_LISTEN"),
        help="Listen beyond this machine without a key.",
    ),
]
KeptKvMib = Annotated[
    int,
    typer.Option(
        envvar=env("KEPT_KV_MIB"), min=0, help="KV cache kept for conversations' next turns."
    ),
]
DEFAULT_KEPT_KV_MIB = 256
LogLevel = Annotated[
    str, typer.Option(envvar=env("LOG_LEVEL"), help="debug, info, warning or error.")
]


def api_key(path: Path | None, variable: str, *, warn: bool = True) -> str | None:
    """Return the key in a file, or else in a variable; None where neither is given.

    Args:
        path: the file.
        variable: the variable's name.
        warn: say on standard error that others can read the file.

    Raises:
        ConfigError: the key cannot be read or used.
    """
    if path is not None:
        # Not logged: chat shows errors alone.
        if warn and (exposed := key_exposure(path)):
            typer.echo(f"warning: {exposed}", err=True)
        return read_api_key(path)
    key = os.environ.get(variable)
    return checked_api_key(key, variable) if key else None


def configure_logging(level: str) -> None:
    """Log to standard error from a level on.

    Raises:
        ConfigError: there is no such level.
    """
    numeric = logging.getLevelNamesMapping().get(level.upper())
    if numeric is None:
        raise ConfigError(f"unknown log level {level!r}; use debug, info, warning or error")
    logging.basicConfig(level=numeric, format="%(levelname)s %(name)s: %(message)s")
