"""Shell completion: the script that bash gets completes commands, options and values."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = shutil.which("bash") or ""


@pytest.fixture
def pd_device(tmp_path: Path) -> Path:
    """The command by its name, wherever the package is installed."""
    command = tmp_path / "bin" / "pd-device"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pd_device_client "$@"\n')
    command.chmod(0o755)
    return command


def environment(pd_device: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{pd_device.parent}:{os.environ['PATH']}",
        "HOME": str(pd_device.parent.parent),
        "SHELL": BASH,
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }


def completions(script: str, line: str, pd_device: Path) -> list[str]:
    """What bash offers at the end of a line, after reading the script."""
    asked = (
        f'{script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        "$(complete -p pd-device | sed 's/.*-F \\([^ ]*\\).*/\\1/') pd-device\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [BASH, "--norc", "-c", asked, "bash", *line.split(" ")],
        env=environment(pd_device), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not BASH, reason="there is no bash")
def test_bash_completes_commands_and_options(pd_device: Path) -> None:
    shown = subprocess.run(
        [pd_device, "--show-completion", "bash"],
        env=environment(pd_device), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "complete -o" in shown.stdout
    assert set(completions(shown.stdout, "pd-device ", pd_device)) == {
        "chat", "serve", "doctor", "calibrate", "plan", "models",
    }  # fmt: skip
    assert completions(shown.stdout, "pd-device models pu", pd_device) == ["pull"]
    assert "--max-tokens" in completions(shown.stdout, "pd-device serve --max", pd_device)
    modes = completions(shown.stdout, "pd-device chat --mode ", pd_device)
    assert set(modes) == {"pd-device", "device-only", "cloud-only"}


@pytest.mark.skipif(not BASH, reason="there is no bash")
def test_a_broken_settings_file_does_not_disturb_completion(
    pd_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pd_device.parent / "config.toml"
    config.write_text("nonsense = ")
    monkeypatch.setenv("PD_DEVICE_CONFIG", str(config))
    script = subprocess.run(
        [pd_device, "--show-completion", "bash"],
        env=environment(pd_device), capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert "--port" in completions(script, "pd-device serve --po", pd_device)


@pytest.mark.skipif(not BASH, reason="there is no bash")
def test_installing_writes_the_script_and_reads_it_from_bashrc(pd_device: Path) -> None:
    home = pd_device.parent.parent
    done = subprocess.run(
        [pd_device, "--install-completion", "bash"],
        env=environment(pd_device), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    installed = home / ".bash_completions" / "pd-device.sh"
    assert str(installed) in (home / ".bashrc").read_text()
    assert completions(installed.read_text(), "pd-device mod", pd_device) == ["models"]
