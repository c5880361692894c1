"""The command `pd-device`: settings from flags and environment."""

import asyncio
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_core.api_key import checked_api_key, read_api_key
from pd_core.errors import ConfigError, PdError, status_of
from pd_core.model_names import DEFAULT_MODEL, MODEL_HELP
from pd_core.numerics import prepare_environment
from pd_core.planner import Mode
from pd_core.profiles import device_profile

__all__ = ["app", "main"]

app = typer.Typer(
    help="P/D-Device on your machine: one answer, carried by the cloud and this device together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _env(name: str) -> str:
    return f"PD_DEVICE_{name}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pd-device {version('pd-device')}")
        raise typer.Exit


@app.callback()
def _commands(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    # With a callback, typer keeps `chat` a subcommand although it is the only one yet.
    pass


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    cloud: Annotated[
        str | None,
        typer.Option(
            envvar=_env("CLOUD"), help="The cloud's HOST:PORT; without one, all is local."
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(envvar=_env("MODE"), help="Who carries the answer.")
    ] = Mode.PD_DEVICE,
    model: Annotated[str, typer.Option(envvar=_env("MODEL"), help=MODEL_HELP)] = DEFAULT_MODEL,
    max_tokens: Annotated[int, typer.Option(min=1, help="Token limit of the answer.")] = 128,
    pace: Annotated[
        float,
        typer.Option(
            envvar=_env("PACE"),
            min=0.001,
            help="Seconds between shown tokens; 0.2 is reading pace.",
        ),
    ] = 0.05,
    ttft: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Seconds within which the first token will do; default: the earliest."
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; default: what the model asks for.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep the k most likely tokens; 0 keeps all.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the most likely tokens up to this mass.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same answer; drawn when not given.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End the answer before this text; may be repeated.")
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Continue PROMPT as it is, without the model's chat template."),
    ] = False,
    show_origin: Annotated[
        bool,
        typer.Option("--show-origin", help="Tint tokens by their maker; end with the figures."),
    ] = False,
    throttle: Annotated[
        str | None,
        typer.Option(help="Slow the local engine to a device profile: slow, phone, laptop, ..."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(envvar=_env("THREADS"), min=1, help="Threads of the local engine.")
    ] = None,
    fast_numerics: Annotated[
        bool,
        typer.Option("--fast-numerics", help="Faster, but no longer bit-equal with the cloud."),
    ] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(envvar=_env("TLS_CA"), help="PEM file of the authority to trust.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS with this system's authorities.")] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar=_env("API_KEY_FILE"),
            help=f"File with the bearer key; or the variable {_env('API_KEY')}.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plaintext to another machine.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "error",
) -> None:
    """Answer PROMPT: the cloud's tokens first, this device's as soon as it has caught up."""
    _configure_logging(log_level)
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.chat import ChatSettings, summary
    from pd_device_client.chat import chat as answer
    from pd_device_client.cloud_link import GrpcCloudLink
    from pd_device_client.device import DeviceSettings

    settings = ChatSettings(
        prompt=sys.stdin.read() if prompt == "-" else prompt,
        device=DeviceSettings(
            model=model,
            pace_s=pace,
            ttft_s=ttft,
            throttle=device_profile(throttle) if throttle else None,
            num_threads=threads,
            fast_numerics=fast_numerics,
        ),
        mode=mode,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_strings=tuple(stop or ()),
        show_origin=show_origin,
        raw=raw,
    )
    key = _api_key(api_key_file)
    console, notices = Console(highlight=False), Console(stderr=True, highlight=False)

    async def run() -> None:
        # The channel belongs to the loop that made it.
        link = None
        if cloud is not None and mode is not Mode.DEVICE_ONLY:
            link = GrpcCloudLink(cloud, tls_ca=tls_ca, tls=tls, api_key=key, insecure=insecure)
        outcome = await answer(settings, link, console)
        for note in outcome.notes:
            notices.print(f"note: {note}", style="yellow", soft_wrap=True)
        if show_origin:
            console.print(summary(outcome), soft_wrap=True)

    if cloud is None and mode is Mode.CLOUD_ONLY:
        raise ConfigError("--mode cloud-only needs --cloud HOST:PORT")
    asyncio.run(run())


def _api_key(path: Path | None) -> str | None:
    if path is not None:
        return read_api_key(path)
    key = os.environ.get(_env("API_KEY"))
    return checked_api_key(key, _env("API_KEY")) if key else None


def _configure_logging(level: str) -> None:
    numeric = logging.getLevelNamesMapping().get(level.upper())
    if numeric is None:
        raise ConfigError(f"unknown log level {level!r}; use debug, info, warning or error")
    logging.basicConfig(level=numeric, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command; errors end in one clear line and their exit code."""
    try:
        app()
    except PdError as error:
        print(f"pd-device: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
