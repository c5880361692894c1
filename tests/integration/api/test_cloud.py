"""Choosing another cloud while the device serves: what it changes, and who may not."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from pd_core.errors import CloudUnavailable, ConfigError
from pd_device_client.api.http.door import Door
from pd_device_client.api.http.guard import Access
from pd_device_client.api.settings import AnswerSettings, ServeSettings
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.egress import way_out
from pd_device_client.contract.ask import Mode
from pd_device_client.contract.ports import CloudLink
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.api_server import ApiServer, api_server, scripted_cloud
from tests.http_client import http
from tests.scripted_cloud import ScriptedCloud

SLOW = SpeedProfile("slow", "a test", 1 / 40, 0.003)
FIRST, SECOND = "first:1", "second:2"
PATH = "/v1/pd/cloud"


@contextmanager
def two_clouds(**options: Any) -> Iterator[tuple[ApiServer, dict[str, ScriptedCloud]]]:
    """A device that was started with the first of two clouds."""
    clouds = {FIRST: scripted_cloud(), SECOND: scripted_cloud()}

    def to(target: str | None) -> CloudLink | None:
        if target is not None and target not in clouds:
            raise ConfigError(f"{target} may not be used")
        return None if target is None else clouds[target]

    with api_server(
        cloud=clouds[FIRST], cloud_address=FIRST, way_out=to, profile=SLOW, **options
    ) as server:
        yield server, clouds


def choose(server: ApiServer, address: object, **headers: str) -> httpx.Response:
    return http.put(f"{server.url}{PATH}", json={"address": address}, headers=headers, timeout=60)


def answer(server: ApiServer, max_tokens: int = 4) -> dict[str, Any]:
    body = {"prompt": "Carry this on, please.", "max_tokens": max_tokens, "ignore_eos": True}
    done = http.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert done.status_code == 200, done.text
    return dict(done.json()["choices"][0]["pd"])


def test_the_next_answers_are_carried_with_the_chosen_cloud() -> None:
    with two_clouds() as (server, clouds):
        assert answer(server)["cloud_tokens"] > 0
        done = choose(server, SECOND)
        assert done.status_code == 200
        assert done.json()["cloud"]["address"] == SECOND
        assert done.json()["cloud"]["state"] == "connected"
        assert answer(server)["cloud_tokens"] > 0
        assert [len(cloud.starts) for cloud in clouds.values()] == [1, 1]
        assert choose(server, None).json()["cloud"]["state"] == "none"
        assert answer(server)["cloud_tokens"] == 0
        assert [len(cloud.starts) for cloud in clouds.values()] == [1, 1]


def test_an_answer_that_runs_goes_on_with_its_own_cloud() -> None:
    with two_clouds(pace_s=0.02) as (server, clouds):
        clouds[FIRST].script.step_s = 0.02
        told: list[dict[str, Any]] = []
        running = threading.Thread(target=lambda: told.append(answer(server, 60)))
        running.start()
        while not clouds[FIRST].starts:
            pass
        assert choose(server, SECOND).status_code == 200
        running.join(60)
        assert told[0]["cloud_tokens"] > 1
        assert not [note for note in told[0]["notes"] if note.startswith("cloud:")]
        assert clouds[SECOND].starts == []


def test_a_cloud_that_is_not_there_is_chosen_all_the_same_and_answers_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with two_clouds() as (server, clouds):

        async def gone() -> Any:
            raise CloudUnavailable("nobody answers")

        monkeypatch.setattr(clouds[SECOND], "info", gone)
        cloud = choose(server, SECOND).json()["cloud"]
        assert (cloud["state"], cloud["detail"]) == ("unreachable", "nobody answers")
        assert answer(server)["notes"][0] == "the device goes on alone: nobody answers"


@pytest.mark.parametrize(
    "address",
    ["", "x", "x:", ":1", "http://x:1", "x:1/y", "x y:1", "x:1\n", "unix:/x:1", "other:1",
     "x" * 400 + ":1", 7, True, ["first:1"], {"a": 1}],
)  # fmt: skip
def test_an_address_that_is_none_or_may_not_be_used_changes_nothing(address: object) -> None:
    with two_clouds() as (server, _):
        done = choose(server, address)
        assert (done.status_code, done.json()["error"]["param"]) == (400, "address")
        assert http.put(f"{server.url}{PATH}", json={}).status_code == 400
        status = http.get(f"{server.url}/v1/pd/status").json()
        assert status["cloud"]["address"] == FIRST


def test_a_foreign_page_cannot_choose_it() -> None:
    with two_clouds() as (server, _):
        body = b'{"address": "second:2"}'
        json, form = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
        for headers, code in (
            (json | {"Origin": "http://evil.example"}, 403),
            (json | {"Origin": "null"}, 403),
            (json | {"Host": "evil.example"}, 400),  # a name that was bound to this machine
            (form, 415),  # what a page may send without asking first
        ):
            done = http.put(f"{server.url}{PATH}", content=body, headers=headers)
            assert done.status_code == code
        preflight = http.request("OPTIONS", f"{server.url}{PATH}", headers={"Origin": server.url})
        assert not [name for name in preflight.headers if name.startswith("access-control")]
        assert http.post(f"{server.url}{PATH}", content=body, headers=json).status_code == 405
        status = http.get(f"{server.url}/v1/pd/status").json()
        assert status["cloud"]["address"] == FIRST
        assert choose(server, SECOND, Origin=server.url).status_code == 200


def test_the_client_key_is_needed_as_everywhere() -> None:
    with two_clouds(access=Access(key="k")) as (server, _):
        assert choose(server, SECOND).status_code == 401
        assert choose(server, SECOND, Authorization="Bearer k").status_code == 200


def test_where_it_may_not_be_chosen_it_is_not() -> None:
    with api_server(cloud=scripted_cloud(), cloud_address=FIRST) as server:
        done = choose(server, SECOND)
        assert (done.status_code, done.json()["error"]["code"]) == (403, "cloud_not_settable")
        cloud = http.get(f"{server.url}/v1/pd/status").json()["cloud"]
        assert (cloud["address"], cloud["settable"]) == (FIRST, False)


@pytest.mark.parametrize(
    ("options", "settable"),
    [
        ({}, True),
        ({"answers": AnswerSettings(Mode.DEVICE_ONLY)}, False),
        ({"door": Door("0.0.0.0", client_key="k")}, False),
        ({"allowed_hosts": ("laptop.example",)}, False),
        ({"allowed_origins": ("http://other:80",)}, False),
    ],
)
def test_only_who_is_on_this_machine_chooses(options: dict[str, Any], settable: bool) -> None:
    settings = ServeSettings(
        **{"device": DeviceSettings("m", 0.1), "answers": AnswerSettings(), **options}
    )
    assert settings.cloud_settable is settable


async def test_a_key_goes_to_the_cloud_that_it_was_given_for() -> None:
    given = CloudAddress(FIRST, api_key="secret", insecure=True)
    assert given.to(FIRST) == given
    assert given.to(SECOND) == CloudAddress(SECOND, insecure=True)
    with pytest.raises(ConfigError, match="would be plaintext"):
        way_out(CloudAddress("127.0.0.1:1", api_key="secret").to("cloud.example:1"), Mode.PD_DEVICE)
