"""The service files of macOS and Windows: what they start, and that it is what systemd starts."""

import os
import plistlib
import shlex
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

DEPLOY = Path(__file__).parents[3] / "deploy"
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def test_launchd_starts_the_service_again_only_after_a_failure() -> None:
    agent = plistlib.loads((DEPLOY / "pd-device.plist").read_bytes())
    assert agent["Label"] == "pd-device"
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] >= 30
    assert not [word for word in agent["ProgramArguments"][:-1] if "~" in word or "$" in word]


def test_what_launchd_starts_is_the_command_itself_and_hears_sigterm(tmp_path: Path) -> None:
    """Not a shell around it, which would leave the device behind."""
    agent = plistlib.loads((DEPLOY / "pd-device.plist").read_bytes())
    command = tmp_path / ".local/bin/pd-device"
    command.parent.mkdir(parents=True)
    (tmp_path / "Library/Logs").mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "$* $$" >&2\nexec sleep 60\n')
    command.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path)}
    process = subprocess.Popen(agent["ProgramArguments"], env=environment)
    log = tmp_path / "Library/Logs/pd-device.log"
    try:
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert log.read_text().split() == ["serve", str(process.pid)]
        assert log.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_the_task_of_windows_runs_with_the_session_without_a_window() -> None:
    text = (DEPLOY / "pd-device-task.xml").read_text(encoding="utf-8")
    assert not text.startswith("<?xml"), "a text with a declared encoding cannot be registered"
    task = ElementTree.fromstring(text)

    def value(path: str) -> str | None:
        return task.findtext("/".join(f"{TASK}{name}" for name in path.split("/")))

    assert task.find(f"{TASK}Triggers/{TASK}LogonTrigger") is not None
    assert value("Principals/Principal/RunLevel") == "LeastPrivilege"
    assert value("Settings/ExecutionTimeLimit") == "PT0S"
    assert value("Settings/MultipleInstancesPolicy") == "IgnoreNew"
    for name in ("DisallowStartIfOnBatteries", "StopIfGoingOnBatteries"):
        assert value(f"Settings/{name}") == "false"
    assert str(value("Actions/Exec/Command")).endswith("conhost.exe")
    words = shlex.split(str(value("Actions/Exec/Arguments")), posix=False)
    assert words[0] == "--headless"
    assert words[1].strip('"').endswith("\\.local\\bin\\pd-device.exe")
    assert words[2:] == ["serve"]


def test_all_systems_start_the_same() -> None:
    unit = (DEPLOY / "pd-device.service").read_text(encoding="utf-8")
    assert "ExecStart=%h/.local/bin/pd-device serve\n" in unit
