"""The campaign on a virtual clock: it finds nothing, and finds what is broken on purpose."""

import asyncio
from typing import Any

import pytest

from pd_bench.chaos.found import ChaosFound
from pd_bench.chaos.link_faults import LinkFaultKind
from pd_bench.chaos.settings import ChaosSettings
from pd_bench.chaos.simulated import WORLD, simulated_campaign
from pd_bench.emulation import device_engine
from pd_device_client.client.client import DeviceClient


def campaign(**settings: Any) -> ChaosFound:
    return simulated_campaign(ChaosSettings(**settings), lambda _: None)


@pytest.mark.slow
def test_answers_are_right_beside_every_kind_of_fault() -> None:
    found = campaign(requests=160, seed=5)
    assert found.clean, found.named
    assert found.requests == 160
    assert found.handoffs > 20
    kinds = {*LinkFaultKind, "device-fails", "device-pauses", "crash"}
    assert {kind for kind in kinds if not found.faults[kind]} == set()


def test_the_same_seed_gives_the_same_and_one_request_can_be_seen_again() -> None:
    first = campaign(requests=3 * WORLD, seed=2)
    assert campaign(requests=3 * WORLD, seed=2).document() == first.document()
    assert campaign(requests=3 * WORLD, seed=3).document() != first.document()
    assert campaign(only=WORLD + 1, seed=2).requests == WORLD


def test_a_device_that_makes_other_tokens_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = device_engine.EmulatedSequence.feed

    async def wrong(self: Any, *args: Any, **more: Any) -> int | None:
        token_id = await feed(self, *args, **more)
        return token_id if token_id is None or args[1] != 7 else token_id + 1

    monkeypatch.setattr(device_engine.EmulatedSequence, "feed", wrong)
    found = campaign(requests=40)
    assert found.verdicts["wrong"] > 0
    assert not found.clean
    assert "wrong" in found.named[0]


def test_what_stays_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    close, left = DeviceClient.close, list[asyncio.Task[bool]]()

    async def leave_a_task(self: DeviceClient) -> None:
        left.append(asyncio.create_task(asyncio.Event().wait()))
        await close(self)

    monkeypatch.setattr(DeviceClient, "close", leave_a_task)
    found = campaign(requests=WORLD)
    assert found.leaked == WORLD
    assert "8 tasks after world 0" in found.named[0]


def test_a_session_that_breaks_counts_as_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceClient, "session", lambda *_: 1 / 0)
    found = campaign(requests=WORLD)
    assert found.verdicts["unanswered"] == WORLD
    assert "ZeroDivisionError" in found.named[0]
