"""The device answers and ends in order on a Python that lacks what only Linux has."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.http_client import http
from tests.other_systems import SYSTEMS

pytestmark = pytest.mark.heavy

RUN = "\nsys.argv[0] = 'pd-device'\nfrom pd_device_client.cli import main\nmain()\n"
MODEL = ("--model", "random-tiny", "--threads", "1")


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PD_DEVICE_")}
    return {**kept, "HOME": str(folder), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_prompt_is_answered(system: str, tmp_path: Path) -> None:
    words = ["chat", "import json", "--max-tokens", "4", *MODEL]
    done = subprocess.run(
        [sys.executable, "-c", SYSTEMS[system] + RUN, *words],
        capture_output=True,
        text=True,
        timeout=100,
        env=_environment(tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_service_answers_and_ends_in_order(system: str, tmp_path: Path) -> None:
    ready, log = tmp_path / "ready.json", tmp_path / "log"
    words = ["serve", "--port", "0", "--ready-file", str(ready), *MODEL]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SYSTEMS[system] + RUN, *words],
            stdout=out,
            stderr=out,
            env=_environment(tmp_path),
        )
    try:
        deadline = time.monotonic() + 100
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "it did not become ready"
            time.sleep(0.05)
        url = f"http://{json.loads(ready.read_text())['http']}/v1/completions"
        body = {"prompt": "import json", "max_tokens": 4, "pd": {"local_only": True}}
        done = http.post(url, json=body, timeout=60)
        assert done.status_code == 200, done.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert not ready.exists()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
