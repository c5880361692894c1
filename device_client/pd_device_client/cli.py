"""The command `pd-device`: its parts, and how an error ends it."""

import os
import sys

from pd_core.errors import PdError, status_of
from pd_core.settings.command import add_command, program_app
from pd_device_client.api.settings import ServeSettings
from pd_device_client.commands.chat import chat
from pd_device_client.commands.doctor import doctor
from pd_device_client.commands.models import models
from pd_device_client.commands.program import PROGRAM, DoctorSettings
from pd_device_client.commands.serve import serve
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["app", "main"]

app = program_app(
    "pd-device",
    "P/D-Device on your machine: one answer, carried by the cloud and this device together.",
    completion=True,
)
add_command(app, chat, ChatSettings, PROGRAM)
add_command(app, serve, ServeSettings, PROGRAM)
add_command(app, doctor, DoctorSettings, PROGRAM)
app.add_typer(models, name="models")


def main() -> None:
    """Run the command; errors end in one clear line and their exit code."""
    # What gRPC has to say of a call is in our own error; its log would stand between the lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app(prog_name="pd-device")  # also of python -m, whose completion script would be broken
    except PdError as error:
        print(f"pd-device: {error}", file=sys.stderr)
        sys.exit(status_of(error).exit_code)
