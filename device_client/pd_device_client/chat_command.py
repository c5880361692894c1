"""`pd-device chat`: its options, and what it does with them."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from pd_core.errors import ConfigError
from pd_core.model_names import DEFAULT_MODEL
from pd_core.numerics import prepare_environment
from pd_core.planner import Mode
from pd_core.profiles import device_profile
from pd_device_client import options
from pd_device_client.options import env

__all__ = ["chat"]


def chat(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; - reads it from standard input.")
    ] = None,
    config: options.Config = None,
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.PD_DEVICE,
    model: options.Model = DEFAULT_MODEL,
    max_tokens: Annotated[
        int, typer.Option(envvar=env("MAX_TOKENS"), min=1, help="Token limit of the answer.")
    ] = 128,
    pace: options.Pace = 0.05,
    ttft: options.Ttft = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            envvar=env("TEMPERATURE"), help="0 is greedy; default: what the model asks for."
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(envvar=env("TOP_K"), help="Keep the k most likely tokens; 0 keeps all."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(envvar=env("TOP_P"), help="Keep the most likely tokens up to this mass."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            envvar=env("SEED"), help="The same seed gives the same answer; drawn when not given."
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(envvar=env("STOP"), help="End the answer before this text; may be repeated."),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            envvar=env("RAW"),
            help="Continue PROMPT as it is, without the model's chat template.",
        ),
    ] = False,
    show_origin: Annotated[
        bool,
        typer.Option(
            "--show-origin",
            envvar=env("SHOW_ORIGIN"),
            help="Tint tokens by their maker; end with the figures.",
        ),
    ] = False,
    throttle: options.Throttle = None,
    threads: options.Threads = None,
    fast_numerics: options.FastNumerics = False,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    api_key_file: options.ApiKeyFile = None,
    insecure: options.Insecure = False,
    log_level: options.LogLevel = "error",
) -> None:
    """Answer PROMPT: the cloud's tokens first, this device's as soon as it has caught up."""
    options.configure_logging(log_level)
    if prompt is None and sys.stdin.isatty():
        raise ConfigError("there is no prompt; give one, or - to read it from standard input")
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.chat import ChatSettings, summary
    from pd_device_client.chat import chat as answer
    from pd_device_client.device import DeviceSettings
    from pd_device_client.egress import CloudAddress, way_out

    settings = ChatSettings(
        prompt=sys.stdin.read() if prompt in (None, "-") else prompt,
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
    key = options.api_key(api_key_file, env("API_KEY"))
    address = CloudAddress(cloud, tls_ca, tls, key, insecure) if cloud is not None else None
    console, notices = Console(highlight=False), Console(stderr=True, highlight=False)

    async def run() -> None:
        # The channel belongs to the loop that made it.
        outcome = await answer(settings, way_out(address, mode), console)
        for note in outcome.notes:
            notices.print(f"note: {note}", style="yellow", soft_wrap=True)
        if show_origin:
            console.print(summary(outcome), soft_wrap=True)

    asyncio.run(run())
