"""`pd-device calibrate`: measures this device, shows the fit, and keeps it for later starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge, Le
from rich.console import Console

from pd_core.files.atomic import ordinary_file, replace_text
from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.option import Option, Part
from pd_core.settings.program import Read
from pd_device_client.device.settings import DeviceSettings

__all__ = ["CalibrateSettings", "calibrate"]

_OFFERED = (
    *("model", "num_threads", "numerics", "fast_numerics", "polite"),
    *("engine", "context_tokens", "local_seqs"),
)


@dataclass(frozen=True, slots=True)
class CalibrateSettings:
    """What is measured, how thoroughly, and where it is written besides."""

    device: Annotated[DeviceSettings, Part("Device", _OFFERED)] = field(
        default_factory=DeviceSettings
    )
    longest_tokens: Annotated[
        int, Ge(64), Le(1 << 20), Option("Tokens of the longest prompt.", "longest", only_flag=True)
    ] = 2048
    rounds: Annotated[
        int, Ge(2), Le(1000), Option("Each measures everything once.", only_flag=True)
    ] = 5
    json_out: Annotated[
        Path | None, Option("Write profile and passes here; - prints them.", "json", only_flag=True)
    ] = None
    plot: Annotated[Path | None, Option("Draw the fit here, as SVG.", only_flag=True)] = None


def calibrate(settings: CalibrateSettings, _: Read) -> None:
    """Measure how fast this device is, show how well that fits, and keep it for later starts."""
    for path in (settings.json_out, settings.plot):
        if path is not None and str(path) != "-":
            ordinary_file(path)
    prepare_environment(fast=settings.device.fast_numerics)
    with quick_imports():  # torch among them
        from pd_device_client.commands.calibration import document, measure, picture, show

    found = run_until_signal(measure(settings.device, settings.longest_tokens, settings.rounds))
    printed = str(settings.json_out) == "-"
    show(found, Console(highlight=False, stderr=printed))
    if printed:
        typer.echo(document(found))
    elif settings.json_out is not None:
        replace_text(settings.json_out, document(found))
    if settings.plot is not None:
        replace_text(settings.plot, picture(found))
