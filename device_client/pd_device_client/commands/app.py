"""The program `pd-device`: its subcommands."""

from pd_core.settings.command import add_command, program_app
from pd_device_client.api.settings import ServeSettings
from pd_device_client.commands.calibrate import CalibrateSettings, calibrate
from pd_device_client.commands.chat import chat
from pd_device_client.commands.doctor import doctor
from pd_device_client.commands.models import models
from pd_device_client.commands.plan import plan
from pd_device_client.commands.program import PROGRAM, DoctorSettings
from pd_device_client.commands.serve import serve
from pd_device_client.terminal.plan_settings import PlanSettings
from pd_device_client.terminal.settings import ChatSettings

__all__ = ["app"]

app = program_app(
    "pd-device",
    "P/D-Device on your machine: one answer, made by the cloud and this device together.",
    completion=True,
    program=PROGRAM,
)
add_command(app, chat, ChatSettings, PROGRAM)
add_command(app, serve, ServeSettings, PROGRAM)
add_command(app, doctor, DoctorSettings, PROGRAM)
add_command(app, calibrate, CalibrateSettings, PROGRAM)
add_command(app, plan, PlanSettings, PROGRAM)
app.add_typer(models, name="models")
