"""`pd-device calibrate`: measured, shown, kept, and used by later starts."""

import asyncio
import json
from pathlib import Path

import pytest

from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.cli import main
from pd_device_client.client import client
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.device.device import open_device
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.planning.speeds.profile_values import read_device_profile
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.command_here import run_here

SHORT = ("calibrate", "--model", RANDOM_TINY, "--threads", "1", "--rounds", "2", "--longest", "64")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def _profile_at_a_start() -> SpeedProfile:
    device = await open_device(DeviceSettings(RANDOM_TINY, num_threads=1, polite=False), None)
    await device.close()
    return device.client.device_profile


async def _unexpected(engine: LocalEngine) -> SpeedProfile:
    raise AssertionError(f"{engine} is measured anew")


def test_what_was_measured_is_shown_and_serves_later_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, picture = tmp_path / "mine.json", tmp_path / "mine.svg"
    done = run_here(main, *SHORT, "--json", str(file), "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    for words in ("measured, ms", "fitted, ms", "o measured, . fitted", "kept for later starts"):
        assert words in done.stdout
    assert picture.read_text().startswith("<svg")
    document = json.loads(file.read_text())
    assert len(document["passes"]) > 10
    found = read_device_profile(str(file))
    monkeypatch.setattr(client, "measure_engine", _unexpected)
    kept = asyncio.run(_profile_at_a_start())
    assert (kept.prefill_b_s, kept.prefill_c_s) == (found.prefill_b_s, found.prefill_c_s)
    assert (kept.decode_s, kept.decode_l_s) == (found.decode_s, found.decode_l_s)


def test_a_document_can_be_printed_alone() -> None:
    done = run_here(main, *SHORT, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["profile"]["decode_s"] > 0
    assert "fitted, ms" in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--rounds", "1"), "--rounds"),
        (("--longest", "3"), "--longest"),
        (("--plot", "/no/such/folder/a.svg"), "/no/such/folder"),
        (("--model", "no/such/model"), "no/such/model"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: tuple[str, ...], why: str) -> None:
    done = run_here(main, "calibrate", *words)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
