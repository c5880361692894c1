"""`pd-device serve`: its options, and what it does with them."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_core.host.torch_environment import prepare_environment
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.commands import options
from pd_device_client.commands.options import env
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink
from pd_device_client.planning.profiles import device_profile

__all__ = ["serve"]


def serve(
    context: typer.Context,
    config: options.Config = None,
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
    kept_kv_mib: options.KeptKvMib = options.DEFAULT_KEPT_KV_MIB,
    pace: options.Pace = 0.05,
    ttft: options.Ttft = None,
    throttle: options.Throttle = None,
    threads: options.Threads = None,
    fast_numerics: options.FastNumerics = False,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    api_key_file: options.ApiKeyFile = None,
    insecure: options.Insecure = False,
    client_key_file: options.ClientKeyFile = None,
    insecure_listen: options.InsecureListen = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar=env("ALLOWED_HOST"),
            help="A further name of this machine in clients' addresses; repeatable.",
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar=env("ALLOWED_ORIGIN"),
            help="A page's origin that may use the API, http://HOST:PORT; repeatable.",
        ),
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
            "--demo",
            envvar=env("DEMO"),
            help="Start a cloud on this machine too, and slow this device down to see it.",
        ),
    ] = False,
    log_level: options.LogLevel = "warning",
) -> None:
    """Serve the OpenAI API on this machine: paced answers, carried by both sides."""
    options.configure_logging(log_level)
    prepare_environment(fast=fast_numerics)
    # After prepare_environment, since these import torch; and not at all for --help.
    from pd_device_client.api.questions import AnswerSettings
    from pd_device_client.cloud.choice import CloudChoice
    from pd_device_client.cloud.demo_cloud import (
        DEMO_PACE_S,
        DEMO_PROFILE,
        check_demo,
        demo_cloud,
        half_the_cores,
    )
    from pd_device_client.cloud.egress import CloudAddress, way_out
    from pd_device_client.commands.serving import ServeSettings
    from pd_device_client.commands.serving import serve as run_service
    from pd_device_client.device.battery import BatteryPolicy
    from pd_device_client.device.device import DeviceSettings
    from pd_device_client.terminal.load_progress import LoadingLine

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
        ready_file=ready_file,
        answer_log=answer_log,
    )
    key = options.api_key(api_key_file, env("API_KEY"))
    given = CloudAddress(cloud or "", tls_ca, tls, key, insecure)

    def out(target: str | None) -> CloudLink | None:
        return way_out(None if target is None else given.to(target), mode)

    def chosen(target: str | None) -> CloudChoice:
        used = None if mode is Mode.DEVICE_ONLY else target
        return CloudChoice(used, out, settable=settings.cloud_settable)

    notices = Console(stderr=True, highlight=False)
    line = LoadingLine(notices)

    def tell(line: str) -> None:
        notices.print(line, soft_wrap=True, markup=False)

    async def run() -> int:
        if not demo:
            return await run_service(settings, chosen(cloud), tell, line)
        tell("starting a cloud on this machine")
        async with demo_cloud(model, half_the_cores()) as target:
            return await run_service(settings, chosen(target), tell, line)

    if cloud is None and not demo:
        out(None)  # cloud-only is refused before a model is loaded
    raise typer.Exit(asyncio.run(run()))
