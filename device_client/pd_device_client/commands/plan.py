"""`pd-device plan`: how a request would be answered, and why."""

import asyncio
import json
from dataclasses import replace
from statistics import NormalDist

import typer
from rich.console import Console

from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.program import Read
from pd_device_client.commands.messages import configure_logging, warn_of_exposed
from pd_device_client.contract.ask import Mode, Promise
from pd_device_client.device.battery import read_battery
from pd_device_client.device.cloud_use import CloudUse, cloud_use_path
from pd_device_client.planning.cloud_allowance import CloudAllowance
from pd_device_client.planning.handoff_time import CloudForecast, DeviceForecast
from pd_device_client.planning.plan_notes import plan_words
from pd_device_client.planning.plan_reasons import expectations, plan_document, reasons
from pd_device_client.planning.planner import Considered, consider
from pd_device_client.planning.speeds.cloud_speeds import cloud_speeds
from pd_device_client.planning.speeds.estimates import GUARD_QUANTILE, DeviceEstimate
from pd_device_client.planning.speeds.profile_values import read_device_profile
from pd_device_client.planning.speeds.profiles import link_profile
from pd_device_client.planning.spread import USUAL_PASS_TOKENS, Spread
from pd_device_client.terminal.columns import aligned
from pd_device_client.terminal.plan_picture import plan_picture
from pd_device_client.terminal.plan_settings import PlanSettings

__all__ = ["plan"]

_GUARD = NormalDist().inv_cdf(GUARD_QUANTILE)  # of its forecasts


def plan(settings: PlanSettings, _: Read) -> None:
    """Say how a request would be answered, what that costs the cloud, and why."""
    configure_logging("error")
    prepare_environment()
    device = _named_device(settings)
    cloud, exactness = None, ""
    if settings.device.promises.local_only or settings.mode is Mode.DEVICE_ONLY:
        pass  # nothing is asked of a cloud
    elif settings.cloud_profile is not None:
        link = link_profile(settings.link)
        cloud = cloud_speeds(settings.cloud_profile).forecast(settings.prompt_tokens, link)
    elif settings.cloud.target is not None:
        warn_of_exposed([settings.cloud.api_key_file])
        cloud, exactness = _asked_cloud(settings)
    if device is None:
        device = _this_device(settings)
    considered = consider(
        settings.prompt_tokens,
        settings.output_tokens,
        settings.output_tokens,
        _promise(settings),
        device=device,
        cloud=cloud,
        mode=settings.mode,
        spread=Spread(
            device.spread,
            guard=_GUARD,
            pass_tokens=device.chunk_tokens or USUAL_PASS_TOKENS,
        ),
    )
    if settings.json:
        typer.echo(json.dumps(plan_document(considered), allow_nan=False))
        return
    _print(settings, considered, device, cloud)
    if exactness == "text":
        typer.echo("\nThe cloud gives text and no token ids: a handoff continues its text.")


def _promise(settings: PlanSettings) -> Promise:
    """Return the promise, with what the caps leave of the cloud for such a request today.

    This device's battery says nothing of a named device.
    """
    here, caps = settings.device_profile is None, settings.device.promises.caps
    low = here and settings.battery.spares(read_battery())
    account = CloudUse(cloud_use_path()) if caps.of_a_day else None
    left = CloudAllowance(caps, account).tokens_left(settings.prompt_tokens)
    return replace(settings.device.promise, spare_device=low, max_cloud_tokens=left)


def _named_device(settings: PlanSettings) -> DeviceEstimate | None:
    if settings.device_profile is None:
        return None
    return DeviceEstimate(read_device_profile(settings.device_profile), USUAL_PASS_TOKENS)


def _this_device(settings: PlanSettings) -> DeviceEstimate:
    """Load the model, and take this device's speed as it was measured or kept."""
    with quick_imports():
        from pd_device_client.device.device import open_device

    async def run() -> DeviceEstimate:
        device = await open_device(settings.device, None)
        try:
            return device.client.device_estimate
        finally:
            await device.close()

    return run_until_signal(run())


def _asked_cloud(settings: PlanSettings) -> tuple[CloudForecast, str]:
    """Ask the cloud for its load, and how exact an answer shared with it can be."""
    with quick_imports():
        from pd_device_client.client.cloud_watch import CloudWatch
        from pd_device_client.cloud.egress import way_out

    async def run() -> tuple[CloudForecast, str]:
        link = way_out(settings.cloud.address(), settings.mode)
        assert link is not None, "a cloud is given"
        watch = CloudWatch(link, None)
        try:
            await watch.meet()
            if watch.error is not None:
                raise watch.error
            assert watch.info is not None, "it was met"
            return watch.estimate.forecast(settings.prompt_tokens), watch.info.exactness
        finally:
            watch.stop()
            await asyncio.sleep(0)
            await link.close()

    return run_until_signal(run())


def _print(
    settings: PlanSettings,
    considered: Considered,
    device: DeviceForecast,
    cloud: CloudForecast | None,
) -> None:
    console, found = Console(highlight=False), considered.plan

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    say(plan_words(found, settings.prompt_tokens))
    for broken in found.broken:
        say(f"Broken: {broken}.")
    say("\n" + "\n".join(aligned(expectations(found))))
    if not settings.explain:
        return
    say("\nWhat was considered:\n" + "\n".join(reasons(considered)))
    step_s = 0.0 if cloud is None else cloud.step_s
    width = min(console.width, 100)
    picture = plan_picture(found, settings.output_tokens, (step_s, device.decode_s), width)
    say("\n" + picture)
