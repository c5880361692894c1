"""`pd-device serve`: from its settings to a running service."""

from dataclasses import replace

import typer
from rich.console import Console

from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.program import Read
from pd_device_client.api.settings import ServeSettings
from pd_device_client.commands.messages import configure_logging, warn_of_exposed
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink

__all__ = ["serve"]


def serve(settings: ServeSettings, read: Read) -> None:
    """Serve the OpenAI API on this machine: paced answers, made by both sides."""
    configure_logging(settings.log_level)
    prepare_environment(fast=settings.device.fast_numerics)
    # These import torch, so after prepare_environment, and not for --help.
    with quick_imports():
        from pd_device_client.cloud.choice import CloudChoice
        from pd_device_client.cloud.demo_cloud import check_demo, demo_cloud, half_the_cores
        from pd_device_client.cloud.egress import way_out
        from pd_device_client.commands.serving import serve as run_service
        from pd_device_client.terminal.load_progress import LoadingLine

    mode, cloud = settings.mode, settings.cloud.target
    if settings.demo:
        check_demo(cloud, mode)
        settings = _slowed(settings, paced="pace" in read.sources)
    warn_of_exposed([settings.door.client_key_file, settings.cloud.api_key_file])
    given = settings.cloud.address()

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
        if not settings.demo:
            return await run_service(settings, chosen(cloud), tell, line)
        tell("starting a cloud on this machine")
        async with demo_cloud(settings.device.model, half_the_cores()) as target:
            return await run_service(settings, chosen(target), tell, line)

    if cloud is None and not settings.demo:
        out(None)  # cloud-only is refused before a model is loaded
    raise typer.Exit(run_until_signal(run()))


def _slowed(settings: ServeSettings, *, paced: bool) -> ServeSettings:
    """Return the settings with a demonstration's throttle, threads and pace as defaults."""
    from pd_device_client.cloud.demo_cloud import DEMO_PACE_S, DEMO_PROFILE, half_the_cores

    device = settings.device
    slowed = replace(
        device,
        throttle=device.throttle or DEMO_PROFILE,
        num_threads=device.num_threads or half_the_cores(),
        pace_s=device.pace_s if paced else DEMO_PACE_S,
    )
    return replace(settings, device=slowed)
