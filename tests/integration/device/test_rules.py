"""Rules in the settings file of a real device, whose real cloud counts what it receives."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.http_client import http
from tests.real_device import RealDevice, real_device
from tests.real_server import RealServer, real_server

SETTINGS = """
cloud = "{cloud}"
mode = "cloud-only"
local-only-pattern = ['patients=(?i)\\bpatient \\d+\\b']
local-only-label = ["health"]
local-only-above = 200
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def device(cloud: RealServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDevice]:
    folder = tmp_path_factory.mktemp("device")
    settings = folder / "config.toml"
    settings.write_text(SETTINGS.format(cloud=cloud.address))
    log = folder / "answers.jsonl"
    with real_device(folder, "--config", str(settings), "--answer-log", str(log)) as running:
        yield running


def _received(cloud: RealServer) -> float:
    """How many requests the cloud has had, whatever became of them."""
    text = http.get(f"http://{cloud.http_address}/metrics").text
    names = ("pd_requests_finished_total", "pd_requests_cancelled_total", "pd_tokens_generated")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(names))


def _ask(device: RealDevice, prompt: str, **pd: Any) -> httpx.Response:
    body = {"prompt": prompt, "max_tokens": 5, "ignore_eos": True, "pd": pd}
    done = http.post(f"{device.url}/v1/completions", json=body, timeout=60)
    assert done.status_code == 200, done.text
    return done


def test_what_a_rule_keeps_reaches_no_cloud_and_all_else_does(
    cloud: RealServer, device: RealDevice
) -> None:
    before = _received(cloud)
    for prompt, pd, rule in (
        ("About patient 17.", {}, "patients"),
        ("About patient 17. It says more.", {}, "patients"),
        ("A rash.", {"label": "health"}, "label health"),
        ("word " * 300, {}, "more than 200 tokens"),
        ("Nobody's.", {"local_only": True}, None),
    ):
        done = _ask(device, prompt, **pd)
        report = done.json()["choices"][0]["pd"]
        assert (report["privacy"]["local_only"], report["privacy"]["rule"]) == (True, rule)
        assert report["made_by"] == [{"side": "device", "from": 0, "until": 5}]
        assert report["cloud"]["sent"] is False
        assert done.headers["x-pd-privacy"] == "local-only"
    assert _received(cloud) == before
    free = _ask(device, "About patience.").json()["choices"][0]["pd"]
    assert free["cloud"]["sent"] is True
    assert free["cloud_tokens"] == 5
    assert _received(cloud) > before
    assert "patient 17" not in device.log.read_text()
    lines = (device.log.parent / "answers.jsonl").read_text()
    assert "patient" not in lines
    assert lines.count('"cloud_reason": "privacy"') == 5
