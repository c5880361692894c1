"""The systemd unit: it is one, and what it starts serves by its settings file until SIGTERM."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

UNIT = Path(__file__).parents[3] / "deploy" / "pd-device.service"
ANALYZE = shutil.which("systemd-analyze") or ""


def command() -> list[str]:
    """The words of ExecStart."""
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


@pytest.mark.skipif(not ANALYZE, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The command itself need not be installed here.
    unit.write_text(UNIT.read_text(encoding="utf-8").replace(command()[0], sys.executable))
    checked = [ANALYZE, "--user", "verify", str(unit)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        checked, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    done = subprocess.run(
        checked, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "parse service restart" in done.stderr, "it would have found a wrong value"


def test_what_it_starts_serves_by_the_settings_file_and_ends_on_sigterm(tmp_path: Path) -> None:
    path, *words = command()
    assert path.endswith("/pd-device")
    settings = tmp_path / "pd-device" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        'model = "random-tiny"\nthreads = 1\n[serve]\nport = 0\nready-file = "../ready.json"\n'
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PD_DEVICE_")}
    environment["XDG_CONFIG_HOME"] = str(tmp_path)
    process = subprocess.Popen([sys.executable, "-m", "pd_device_client", *words], env=environment)
    try:
        ready = tmp_path / "ready.json"
        deadline = time.monotonic() + 100
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(ready.read_text())["http"]
        assert httpx.get(f"http://{address}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_a_wrong_setting_ends_with_the_code_that_is_not_started_again(tmp_path: Path) -> None:
    settings = tmp_path / "pd-device" / "config.toml"
    settings.parent.mkdir()
    settings.write_text("[serve]\nprot = 1\n")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pd_device_client", *command()[1:]],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert f"RestartPreventExitStatus={done.returncode}\n" in UNIT.read_text(encoding="utf-8")
    assert "[serve] prot is no setting" in done.stderr
