"""`pd-device chat`: its options, and what it does with them."""

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_core.errors import ConfigError
from pd_core.host.torch_environment import prepare_environment
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.commands import options
from pd_device_client.commands.options import env
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink
from pd_device_client.planning.profiles import device_profile

if TYPE_CHECKING:
    from pd_device_client.terminal.chat import ChatSettings

__all__ = ["chat"]


def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="The prompt; - reads it from standard input. Without one, a terminal gets a "
            "conversation."
        ),
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
    no_history: Annotated[
        bool,
        typer.Option(
            "--no-history",
            envvar=env("NO_HISTORY"),
            help="Do not keep a conversation's prompts for the arrow keys of the next one.",
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
    """Answer PROMPT, or converse; the cloud begins, this device goes on once it has caught up."""
    options.configure_logging(log_level)
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.cloud.egress import CloudAddress, way_out
    from pd_device_client.device.device import DeviceSettings
    from pd_device_client.terminal.chat import ChatSettings

    converses = prompt is None and sys.stdin is not None and sys.stdin.isatty()
    if not converses and (prompt is None or prompt == "-"):
        prompt = _standard_input()
    settings = ChatSettings(
        prompt=prompt or "",
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

    async def run() -> None:
        link = way_out(address, mode)  # the channel belongs to the loop that made it
        if converses:
            await _converse(settings, link, keep_history=not no_history)
        else:
            await _answer(settings, link)

    asyncio.run(run())


def _standard_input() -> str:
    if sys.stdin is None:  # it was closed by who started this
        raise ConfigError(
            "there is no standard input to read the prompt from; give the prompt as an argument"
        )
    return sys.stdin.read()


async def _answer(settings: "ChatSettings", link: CloudLink | None) -> None:
    from pd_device_client.terminal.chat import chat as answer
    from pd_device_client.terminal.chat import summary

    console, notices = Console(highlight=False), Console(stderr=True, highlight=False)
    outcome = await answer(settings, link, console)
    for note in outcome.notes:
        notices.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
    if settings.show_origin:
        console.print(summary(outcome), soft_wrap=True)


async def _converse(
    settings: "ChatSettings", link: CloudLink | None, *, keep_history: bool
) -> None:
    from pd_device_client.terminal.chat import load
    from pd_device_client.terminal.line_input import history_path, terminal_reader
    from pd_device_client.terminal.repl import COMMANDS, Repl

    repl: Repl | None = None
    read = terminal_reader(
        history_path() if keep_history else None,
        [*COMMANDS],
        lambda: "" if repl is None else f"{repl.mode.value}   Alt-Enter: a line   /help",
    )
    device = await load(settings, link)
    try:
        console = Console(highlight=False)
        repl = Repl(settings, device, console, read, has_cloud=link is not None)
        await repl.run()
    finally:
        await device.close()
