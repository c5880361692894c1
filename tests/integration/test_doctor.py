"""`pd-device doctor`: every check finds what is wrong and says how to mend it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from pd_core.errors import CloudUnavailable, ConfigError
from pd_core.generation import Fingerprints, ServerInfo
from pd_core.listening import bind
from pd_core.model_names import DEFAULT_MODEL, RANDOM_TINY
from pd_device_client.battery import Battery
from pd_device_client.doctor import Finding, examine
from pd_device_client.ports import CloudLink
from tests.scripted_cloud import ScriptedCloud


class _Cloud(ScriptedCloud):
    def __init__(self, fingerprints: Fingerprints | None) -> None:
        super().__init__()
        self._fingerprints = fingerprints

    async def info(self) -> ServerInfo:
        if self._fingerprints is None:
            raise CloudUnavailable("nobody listens there")
        return replace(await super().info(), fingerprints=self._fingerprints)


async def _examine(
    model: str = RANDOM_TINY, link: CloudLink | None = None, port: int = 0, now_unix_s: int = 2**31
) -> dict[str, Finding]:
    found = await examine(
        model, lambda: link, host="127.0.0.1", port=port, clock=lambda: now_unix_s,
        battery=lambda: Battery(50, plugged=False),
    )  # fmt: skip
    return {finding.subject: finding for finding in found}


async def test_all_is_well() -> None:
    found = await _examine(DEFAULT_MODEL, _Cloud(Fingerprints()))
    assert [name for name, finding in found.items() if not finding.ok] == []
    assert "a context of 2048 tokens" in found["model"].words
    assert "scripted on scripted" in found["cloud"].words
    assert "50 %, not plugged in" in found["battery"].words
    assert "all stays on this machine" in (await _examine())["cloud"].words


async def test_what_is_wrong_is_named_with_its_mend() -> None:
    listener = bind("127.0.0.1", 0, "--port")
    port = listener.getsockname()[1]
    found = await _examine("no/such/folder", _Cloud(None), port, now_unix_s=0)
    listener.close()
    assert {name for name, finding in found.items() if finding.ok} == {"battery"}
    assert "set the date" in found["clock"].words
    assert "give --port another" in found["port"].words
    assert "known names" in found["model"].words
    assert "the device would answer alone" in found["cloud"].words


@pytest.mark.parametrize("field", ["tokenizer", "weights"])
async def test_another_model_in_the_cloud_is_found_before_anything_is_loaded(field: str) -> None:
    found = await _examine(DEFAULT_MODEL, _Cloud(Fingerprints(**{field: "x"})))
    assert not found["cloud"].ok
    assert f"whose {field} differ" in found["cloud"].words


async def test_a_way_out_that_cannot_be_made_is_a_finding_beside_the_others() -> None:
    def way_out() -> CloudLink | None:
        raise ConfigError("--tls-ca x cannot be read")

    found = await examine(RANDOM_TINY, way_out, host="127.0.0.1", port=0)
    assert {finding.subject for finding in found if not finding.ok} == {"cloud"}
    assert found[-1].words == "--tls-ca x cannot be read; the device would not start"


def test_the_command_ends_with_one_when_something_is_wrong() -> None:
    command = [sys.executable, "-m", "pd_device_client", "doctor", "--port", "0", "--model"]
    for model, code, words in ((RANDOM_TINY, 0, "ok   model"), ("no/folder", 1, "BAD  model")):
        done = subprocess.run([*command, model], capture_output=True, text=True, timeout=100)
        assert done.returncode == code, done.stderr
        assert words in done.stdout
