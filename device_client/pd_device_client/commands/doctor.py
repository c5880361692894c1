"""`pd-device doctor`: its options, and how its findings are told."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pd_core.host.torch_environment import prepare_environment
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.commands import options
from pd_device_client.commands.options import env
from pd_device_client.commands.settings_report import settings_of
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink
from pd_device_client.terminal.columns import aligned

__all__ = ["doctor"]


def doctor(
    context: typer.Context,
    config: options.Config = None,
    cloud: options.Cloud = None,
    model: options.Model = DEFAULT_MODEL,
    host: options.Host = "127.0.0.1",
    port: options.Port = options.DEFAULT_PORT,
    tls_ca: options.TlsCa = None,
    tls: options.Tls = False,
    api_key_file: options.ApiKeyFile = None,
    insecure: options.Insecure = False,
    client_key_file: options.ClientKeyFile = None,
    insecure_listen: options.InsecureListen = False,
    kept_kv_mib: options.KeptKvMib = options.DEFAULT_KEPT_KV_MIB,
    settings: Annotated[
        bool, typer.Option("--settings", help="Show built-in settings too, not only yours.")
    ] = False,
) -> None:
    """Check what keeps this device from serving, say the mend, and show your settings."""
    prepare_environment()
    from pd_device_client.cloud.egress import CloudAddress, way_out
    from pd_device_client.commands.examination import Door, examine

    console = Console(highlight=False)

    def out() -> CloudLink | None:
        if cloud is None:
            return None
        key = options.api_key(api_key_file, env("API_KEY"), warn=False)
        return way_out(CloudAddress(cloud, tls_ca, tls, key, insecure), Mode.PD_DEVICE)

    door = Door(
        host,
        port,
        client_key=lambda: options.api_key(client_key_file, env("CLIENT_KEY"), warn=False),
        insecure=insecure_listen,
    )
    key_files = [file for file in (api_key_file, client_key_file) if file is not None]

    async def run() -> bool:
        findings = await examine(model, out, door, key_files, kept_kv_bytes=kept_kv_mib << 20)
        for found in findings:
            mark = "ok " if found.ok else "BAD"
            line = f"{mark}  {found.subject:8} {found.words}"
            console.print(line, style=None if found.ok else "red", soft_wrap=True, markup=False)
        return all(found.ok for found in findings)

    good = asyncio.run(run())
    _show_settings(context, config, console, built_in=settings)
    raise typer.Exit(0 if good else 1)


def _show_settings(
    context: typer.Context, config: Path | None, console: Console, *, built_in: bool
) -> None:
    rows = [
        (setting.command, setting.name, setting.value, setting.source)
        for command in ("chat", "serve")
        for setting in settings_of(context, command, config)
        if built_in or not setting.built_in
    ]
    if rows:
        lines = aligned([("command", "setting", "value", "from"), *rows])
        console.print("", *lines, sep="\n", soft_wrap=True, markup=False)
    else:
        console.print("\nall settings are the built-in ones (--settings shows them)")
