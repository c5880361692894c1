"""What the page is told: whether a model minds roles, and what its answers came to."""

import asyncio
import weakref
from typing import Any

import pytest

from pd_core.errors import ConfigError
from pd_core.generation import FinishReason
from pd_core.text.chat_template import ChatTemplate
from pd_device_client.api.http.places import Places
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.status import Status
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud import demo_cloud
from pd_device_client.cloud.demo_cloud import check_demo
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.outcome import Origin, Outcome, Shown
from pd_device_client.device.device import Device
from pd_device_client.device.prompt import knows_roles
from pd_device_client.device.residency import Phase, Residency
from pd_device_client.device.totals import Totals
from tests.api_server import QUICK, emulated_engine, loaded_model
from tests.eventually import eventually

PLAIN = "{{ messages | map(attribute='content') | join('\\n\\n') }}"
ROLES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
STRICT = "{% if messages[0].role != 'user' %}{{ raise_exception('no') }}{% endif %}x"


@pytest.mark.parametrize(
    ("template", "roles"), [(None, False), (PLAIN, False), (ROLES, True), (STRICT, True)]
)
def test_a_template_that_minds_no_roles_makes_no_chat(template: str | None, roles: bool) -> None:
    made = None if template is None else ChatTemplate(template)
    assert knows_roles(loaded_model(made)) is roles


def outcome(origins: str, generated: int, reason: str = "length") -> Outcome:
    """An answer whose tokens were made by c(loud) and d(evice)."""
    made = {"c": Origin.CLOUD, "d": Origin.DEVICE}
    told = Outcome("r", "pd-device", 3, 0.1, cloud_tokens_generated=generated)
    told.shown = [Shown(i, i, "x", made[o], 0.1 * i) for i, o in enumerate(origins)]
    told.finish_reason = FinishReason(reason) if reason else None
    told.handoff_position = origins.index("cd") + 1 if "cd" in origins else None
    return told


def test_what_was_saved_counts_tokens_made_for_nothing_too() -> None:
    totals = Totals()
    totals.add(outcome("ccdddd", generated=3))
    totals.add(outcome("dd", generated=0))
    totals.add(outcome("cc", generated=9, reason="cancelled"))
    totals.add(outcome("", generated=0, reason=""))
    assert totals.report() == {
        "answers": 3, "handed_over": 1, "shown_tokens": 10, "cloud_tokens": 12,
        "cloud_tokens_saved": 0,
    }  # fmt: skip
    totals.add(outcome("dddd", generated=0))
    assert totals.cloud_tokens_saved == 2


@pytest.mark.parametrize(
    ("cloud", "mode", "words"),
    [
        ("host:1", Mode.PD_DEVICE, "names another"),
        (None, Mode.DEVICE_ONLY, "shows both sides"),
    ],
)
def test_a_demo_that_cannot_be_is_refused(cloud: str | None, mode: Mode, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_demo(cloud, mode)


def test_a_demo_needs_the_cloud_s_part(monkeypatch: pytest.MonkeyPatch) -> None:
    check_demo(None, Mode.PD_DEVICE)
    monkeypatch.setattr(demo_cloud, "_SERVER", "pd_server_that_is_not_installed")
    with pytest.raises(ConfigError, match=r"pip install 'pd-device\[server,device\]'"):
        check_demo(None, Mode.PD_DEVICE)


def test_a_device_that_sleeps_is_told_of_and_its_memory_is_free() -> None:
    opened: list[weakref.ref[DeviceClient]] = []

    async def open_device() -> Device:
        client = DeviceClient(
            cloud=None, engine=emulated_engine(), pace_s=0.07, device_profile=QUICK
        )
        opened.append(weakref.ref(client))
        return Device(loaded_model(ChatTemplate(ROLES)), client)

    async def main() -> tuple[dict[str, Any], dict[str, Any]]:
        status = Status(AnswerSettings(), Places(1))
        residency = Residency(open_device, status, keep_alive_s=0.05)
        await residency.load()
        ready = status.report(residency)
        await eventually(lambda: residency.phase is Phase.ASLEEP)
        await eventually(lambda: opened[0]() is None)  # or else the status keeps it alive
        asleep = status.report(residency)
        await residency.close()
        return ready, asleep

    ready, asleep = asyncio.run(main())
    assert (ready["state"], asleep["state"]) == ("ready", "asleep")
    assert asleep["model"] == ready["model"]
    assert asleep["model"]["chat"]
    assert asleep["settings"]["pace_s"] == 0.07
