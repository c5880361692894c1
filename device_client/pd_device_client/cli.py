"""The command `pd-device`: its parts, and how an error ends it."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from pd_core.errors import PdError, status_of
from pd_device_client.commands.chat import chat
from pd_device_client.commands.doctor import doctor
from pd_device_client.commands.models import models
from pd_device_client.commands.serve import serve

__all__ = ["app", "main"]

app = typer.Typer(
    help="P/D-Device on your machine: one answer, carried by the cloud and this device together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(chat)
app.command()(serve)
app.command()(doctor)
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


def main() -> None:
    """Run the command; errors end in one clear line and their exit code."""
    # What gRPC has to say of a call is in our own error; its log would stand between the lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app(prog_name="pd-device")  # also of python -m, whose completion script would be broken
    except PdError as error:
        print(f"pd-device: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
