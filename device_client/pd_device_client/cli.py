"""The command `pd-device`: settings from flags and environment."""

import asyncio
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_core.errors import PdError, status_of
from pd_core.model_names import DEFAULT_MODEL
from pd_core.numerics import prepare_environment
from pd_core.planner import Mode
from pd_core.profiles import device_profile
from pd_device_client import options
from pd_device_client.models_command import models
from pd_device_client.options import env
from pd_device_client.ports import CloudLink

__all__ = ["app", "main"]

app = typer.Typer(
    help="P/D-Device on your machine: one answer, carried by the cloud and this device together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models, name="models")


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
    pass


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.PD_DEVICE,
    model: options.Model = DEFAULT_MODEL,
    max_tokens: Annotated[int, typer.Option(min=1, help="Token limit of the answer.")] = 128,
    pace: options.Pace = 0.05,
    ttft: options.Ttft = None,
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
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.chat import ChatSettings, summary
    from pd_device_client.chat import chat as answer
    from pd_device_client.device import DeviceSettings
    from pd_device_client.egress import CloudAddress, way_out

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


@app.command()
def serve(
    context: typer.Context,
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.PD_DEVICE,
    model: options.Model = DEFAULT_MODEL,
    host: options.Host = "127.0.0.1",
    port: options.Port = options.DEFAULT_PORT,
    max_tokens: Annotated[
        int,
        typer.Option(
            envvar=env("MAX_TOKENS"), min=1, help="Limit of a chat's answer that names none."
        ),
    ] = 1024,
    max_requests: Annotated[
        int,
        typer.Option(
            envvar=env("MAX_REQUESTS"), min=1, help="Answers carried at once; more are refused."
        ),
    ] = 64,
    local_seqs: Annotated[
        int,
        typer.Option(
            envvar=env("LOCAL_SEQS"),
            min=1,
            help="Answers that the local engine works on at once; others wait for their turn.",
        ),
    ] = 1,
    keep_alive: Annotated[
        float,
        typer.Option(
            envvar=env("KEEP_ALIVE"),
            min=0,
            help="Unload the model after so many seconds without a request; 0: never.",
        ),
    ] = 0.0,
    spare_below: Annotated[
        float,
        typer.Option(
            envvar=env("SPARE_BELOW"),
            min=0,
            max=100,
            help="On battery below this percentage the cloud carries answers; 0: never.",
        ),
    ] = 20.0,
    kept_kv_mib: Annotated[
        int,
        typer.Option(
            envvar=env("KEPT_KV_MIB"), min=0, help="KV cache kept for conversations' next turns."
        ),
    ] = 256,
    pace: options.Pace = 0.05,
    ttft: options.Ttft = None,
    throttle: options.Throttle = None,
    threads: options.Threads = None,
    fast_numerics: options.FastNumerics = False,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    api_key_file: options.ApiKeyFile = None,
    insecure: options.Insecure = False,
    client_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar=env("CLIENT_KEY_FILE"),
            help=f"File with the bearer key clients must send; or {env('CLIENT_KEY')}.",
        ),
    ] = None,
    insecure_listen: Annotated[
        bool,
        typer.Option("--insecure-listen", help="Listen beyond this machine without a key."),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name of this machine in clients' addresses; repeatable."),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(help="A page's origin that may use the API, http://HOST:PORT; repeatable."),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            envvar=env("READY_FILE"), help="When serving, write address and process id here."
        ),
    ] = None,
    answer_log: Annotated[
        Path | None,
        typer.Option(
            envvar=env("ANSWER_LOG"),
            help="Append a line of JSON for every answer: when tokens were shown, not which.",
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Start a cloud on this machine too, and slow this device down to see it."
        ),
    ] = False,
    log_level: options.LogLevel = "warning",
) -> None:
    """Serve the OpenAI API on this machine: paced answers, carried by both sides."""
    options.configure_logging(log_level)
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.api.questions import AnswerSettings
    from pd_device_client.battery import BatteryPolicy
    from pd_device_client.demo_cloud import (
        DEMO_PACE_S,
        DEMO_PROFILE,
        check_demo,
        demo_cloud,
        half_the_cores,
    )
    from pd_device_client.device import DeviceSettings
    from pd_device_client.egress import CloudAddress, way_out
    from pd_device_client.serve import ServeSettings
    from pd_device_client.serve import serve as run_service

    if demo:
        check_demo(cloud, mode)
        throttle, threads = throttle or DEMO_PROFILE, threads or half_the_cores()
        source = context.get_parameter_source("pace")
        if source is not None and source.name == "DEFAULT":
            pace = DEMO_PACE_S
    settings = ServeSettings(
        device=DeviceSettings(
            model=model,
            pace_s=pace,
            ttft_s=ttft,
            throttle=device_profile(throttle) if throttle else None,
            num_threads=threads,
            fast_numerics=fast_numerics,
            kept_kv_bytes=kept_kv_mib << 20,
            local_seqs=local_seqs,
        ),
        answers=AnswerSettings(mode, max_tokens, BatteryPolicy(spare_below)),
        host=host,
        port=port,
        max_requests=max_requests,
        keep_alive_s=keep_alive or None,
        client_key=options.api_key(client_key_file, env("CLIENT_KEY")),
        insecure=insecure_listen,
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        cloud_address=None if mode is Mode.DEVICE_ONLY else cloud,
        ready_file=ready_file,
        answer_log=answer_log,
    )
    key = options.api_key(api_key_file, env("API_KEY"))

    def out(target: str | None) -> CloudLink | None:
        address = CloudAddress(target, tls_ca, tls, key, insecure) if target is not None else None
        return way_out(address, mode)

    notices = Console(stderr=True, highlight=False)

    def tell(line: str) -> None:
        notices.print(line, soft_wrap=True, markup=False)

    async def run() -> int:
        if not demo:
            return await run_service(settings, lambda: out(cloud), tell)
        tell("starting a cloud on this machine")
        async with demo_cloud(model, half_the_cores()) as target:
            with_cloud = replace(settings, cloud_address=target)
            return await run_service(with_cloud, lambda: out(target), tell)

    if cloud is None and not demo:
        out(None)  # cloud-only is refused before a model is loaded
    raise typer.Exit(asyncio.run(run()))


@app.command()
def doctor(
    cloud: options.Cloud = None,
    model: options.Model = DEFAULT_MODEL,
    host: options.Host = "127.0.0.1",
    port: options.Port = options.DEFAULT_PORT,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    api_key_file: options.ApiKeyFile = None,
    insecure: options.Insecure = False,
) -> None:
    """Check clock, port, model and cloud, and say how to mend what is wrong."""
    prepare_environment()
    from pd_device_client.doctor import examine
    from pd_device_client.egress import CloudAddress, way_out

    key = options.api_key(api_key_file, env("API_KEY"))
    address = CloudAddress(cloud, tls_ca, tls, key, insecure) if cloud is not None else None
    console = Console(highlight=False)

    async def run() -> bool:
        link = way_out(address, Mode.PD_DEVICE)
        findings = await examine(model, link, host=host, port=port)
        if link is not None:
            await link.close()
        for found in findings:
            mark = "ok " if found.ok else "BAD"
            line = f"{mark}  {found.subject:8} {found.words}"
            console.print(line, style=None if found.ok else "red", soft_wrap=True, markup=False)
        return all(found.ok for found in findings)

    raise typer.Exit(0 if asyncio.run(run()) else 1)


def main() -> None:
    """Run the command; errors end in one clear line and their exit code."""
    try:
        app()
    except PdError as error:
        print(f"pd-device: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
