"""`pd-device doctor`: prints its findings, and where each setting comes from."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import typer
from rich.console import Console

from pd_core.host.cpu import num_cores
from pd_core.host.other_load import OtherLoad
from pd_core.host.torch_environment import prepare_environment
from pd_core.process.quick_imports import quick_imports
from pd_core.process.until_signal import run_until_signal
from pd_core.settings.alternatives import with_one_of_each
from pd_core.settings.composition import offered
from pd_core.settings.program import Read
from pd_device_client.commands.program import PROGRAM, DoctorSettings
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink
from pd_device_client.terminal.columns import aligned

__all__ = ["doctor", "report"]

_BUILT_IN = "built in"


def doctor(settings: DoctorSettings, read: Read) -> None:
    """Check what keeps this device from serving, say how to mend it, and show your settings."""
    load = OtherLoad()  # first, since it says what happened since then
    prepare_environment()
    with quick_imports():
        from pd_device_client.cloud.egress import way_out
        from pd_device_client.commands.examination import examine
        from pd_device_client.device.battery import BatteryPolicy
        from pd_device_client.device.manners import Manners

    console = Console(highlight=False)
    cloud, door, device = settings.cloud, settings.door, settings.device

    def out() -> CloudLink | None:
        return None if cloud.target is None else way_out(cloud.address(), Mode.PD_DEVICE)

    key_files = [file for file in (cloud.api_key_file, door.client_key_file) if file is not None]

    async def run() -> bool:
        manners = None
        if device.polite:
            clock = asyncio.get_running_loop().time
            around = (os.cpu_count() or 1, num_cores(), BatteryPolicy(), clock)
            manners = Manners(*around, others=load.cores)
        findings = await examine(
            *(device.model, out, door, key_files),
            engine=device.engine,
            kept_kv_bytes=device.kept_kv_bytes,
            numerics=device.numerics,
            fast=device.fast_numerics,
            manners=manners,
        )
        for found in findings:
            mark = "ok " if found.ok else "BAD"
            line = f"{mark}  {found.subject:8} {found.words}"
            console.print(line, style=None if found.ok else "red", soft_wrap=True, markup=False)
        return all(found.ok for found in findings)

    good = run_until_signal(run())
    rows = [row for row in report(read.config) if settings.settings or row[3] != _BUILT_IN]
    if rows:
        lines = aligned([("command", "setting", "value", "from"), *rows])
        console.print("", *lines, sep="\n", soft_wrap=True, markup=False)
    else:
        console.print("\nall settings are the built-in ones (--settings shows them)")
    raise typer.Exit(0 if good else 1)


def report(config: Path | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield command, name, value and source of each setting, as without any flags.

    Args:
        config: the settings file in use.

    Raises:
        ConfigError: the file or a variable cannot be used.
    """
    from pd_core.settings.sources import read_sources  # not for --help

    for command in ("chat", "serve"):
        settings: type = PROGRAM.commands[command]
        options = offered(settings)
        read = with_one_of_each(options, read_sources(PROGRAM, command, settings, {}, config))
        for option in options:
            if option.stored:
                value = _words(read.values[option.name])
                yield command, option.spelt, value, read.sources.get(option.name, _BUILT_IN)


def _words(value: object) -> str:
    if value is None or value == ():
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
