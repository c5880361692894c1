"""`pd-device plan`: its words, its picture, and its document."""

import json
import re
from pathlib import Path

import pytest

from pd_device_client.cli import main
from pd_device_client.contract.ask import Promise
from pd_device_client.device.battery import Battery
from pd_device_client.device.cloud_use import CloudUse, cloud_use_path
from pd_device_client.planning.planner import CloudForecast, plan_request
from pd_device_client.planning.speeds.estimates import DeviceEstimate
from pd_device_client.planning.speeds.profile_values import profile_values
from pd_device_client.planning.speeds.profiles import SpeedProfile, device_profile
from pd_device_client.terminal.plan_picture import plan_picture
from tests.command_here import run_here

NAMED = ("plan", "--device-profile", "laptop", "--cloud-profile", "gpu-8b", "--pace", "0.2")


def test_it_explains_a_plan_without_a_model_or_a_cloud() -> None:
    done = run_here(main, *NAMED, "--prompt-tokens", "4096", "--explain")
    assert done.returncode == 0, done.stderr
    k = re.search(r"The cloud makes the first (\d+) tokens", done.stdout)
    assert k is not None, done.stdout
    assert 20 <= int(k[1]) <= 50
    assert f"-> pd-device, k = {k[1]} " in done.stdout
    assert re.search(rf"k by trying what each k needs: 1, (.*, )?{k[1]}$", done.stdout, re.M)
    assert "cloud-only" in done.stdout
    assert "prefill in passes of" in done.stdout
    assert "reader" in done.stdout


def test_the_document_has_every_way_that_was_considered() -> None:
    done = run_here(main, *NAMED, "--prompt-tokens", "4096", "--json")
    document = json.loads(done.stdout)
    plan = document["plan"]
    assert plan["expected"]["handoff"] == plan["cloud_tokens"] > 1
    assert [way["mode"] for way in document["considered"]] == [
        "device-only",
        "pd-device",
        "cloud-only",
    ]
    assert [way["chosen"] for way in document["considered"]] == [False, True, False]


def test_a_calibrated_device_is_planned_with(tmp_path: Path) -> None:
    laptop, file = device_profile("laptop"), tmp_path / "device.json"
    words = ("plan", "--cloud-profile", "gpu-8b", "--prompt-tokens", "4096", "--json")
    file.write_text(json.dumps({"profile": profile_values(laptop)}))
    named = run_here(main, *words, "--device-profile", "laptop")
    assert run_here(main, *words, "--device-profile", str(file)).stdout == named.stdout
    file.write_text(json.dumps({"profile": {**profile_values(laptop), "decode_s": -1}}))
    for wrong, says in ((str(file), "decode_s is -1"), ("lap", "known profiles: arm-board-1b")):
        done = run_here(main, *words, "--device-profile", wrong)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--cloud-tokens-per-request", "5"),
        ("--cloud-tokens-per-day", "25"),
        ("--cloud-cost-per-request", "0.00005", "--cloud-answer-price", "10"),
        ("--cloud-cost-per-day", "0.00025", "--cloud-answer-price", "10"),
    ],
)
def test_what_the_caps_leave_is_planned_with(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    CloudUse(cloud_use_path()).spend(lambda _tokens, _cost: (20, 0.0002))  # today
    done = run_here(main, *NAMED, "--prompt-tokens", "4096", "--json", *words)
    plan = json.loads(done.stdout)["plan"]
    assert plan["cloud_tokens"] == 5
    assert "the cloud may make 5 tokens at most" in plan["broken"][0]
    again = run_here(main, *NAMED, "--prompt-tokens", "4096", "--json", *words)
    assert again.stdout == done.stdout, "a plan spends nothing"


def test_a_reading_speed_is_planned_with() -> None:
    words = ("--device-profile", "laptop", "--cloud-profile", "gpu-8b", "--reading-wpm", "240")
    done = run_here(main, "plan", *words, "--json")
    assert json.loads(done.stdout)["plan"]["pace_s"] == pytest.approx(0.25 / 1.3)


@pytest.mark.parametrize(("percent", "mode"), [(5.0, "cloud-only"), (50.0, "pd-device")])
def test_this_devices_low_battery_counts_and_not_that_of_a_named_one(
    percent: float, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, here = "pd_device_client.commands.plan", DeviceEstimate(device_profile("laptop"), 128)
    monkeypatch.setattr(f"{module}.read_battery", lambda: Battery(percent, plugged=False))
    monkeypatch.setattr(f"{module}._this_device", lambda _: here)
    words = ("plan", "--cloud-profile", "gpu-8b", "--prompt-tokens", "4096", "--json")
    assert json.loads(run_here(main, *words).stdout)["plan"]["mode"] == mode
    spared = run_here(main, *words, "--spare-below", "0")
    assert json.loads(spared.stdout)["plan"]["mode"] == "pd-device"
    named = run_here(main, *words, "--device-profile", "laptop")
    assert json.loads(named.stdout)["plan"]["mode"] == "pd-device"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--privacy", "local-only", "--mode", "cloud-only"), "local-only, and the mode is cloud"),
        (("--cloud-tokens-per-request", "0", "--mode", "cloud-only"), "cloud tokens is 0, and"),
        (("--largest-gap", "0.1"), "--pace 0.2 s is longer"),
        (("--reading-wpm", "240"), "--reading-wpm and --pace say the same in two ways"),
        (("--cloud-cost-per-day", "1"), "give --cloud-answer-price"),
        (("--largest-gap", "nan"), "largest-gap"),
        (("--ttft", "-1"), "ttft"),
    ],
)
def test_what_cannot_be_promised_is_refused_in_one_line(words: tuple[str, ...], says: str) -> None:
    done = run_here(main, *NAMED, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_picture_fits_its_width_and_shows_who_works_when() -> None:
    device = SpeedProfile("d", "a test", 1 / 400, 0.05)
    plan = plan_request(1155, 211, 211, Promise(0.2), device=device, cloud=CloudForecast(0.3, 0.02))
    lines = plan_picture(plan, 211, (0.02, 0.05), 80).splitlines()
    assert max(map(len, lines)) <= 88
    cloud, local, reader = lines[:3]
    assert cloud.startswith("cloud   =#")
    assert local.count("=") >= 3
    assert local.count("#") > cloud.count("#")
    assert reader.count("H") == 1
    # The device is ready when the reader has read the cloud's tokens.
    assert abs(reader.index("H") - local.index("#")) <= 2
