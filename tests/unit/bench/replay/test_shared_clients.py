"""Turns of a conversation share their device; everybody else has one of his own."""

import asyncio

import pytest

from pd_bench.replay.dispatch import DispatchedSession
from pd_bench.replay.shared_clients import SharedClients
from pd_bench.replay.workload import Work
from pd_core.errors import CloudUnavailable
from pd_device_client.contract.ask import Ask


class FakeClient:
    def __init__(self, work: Work) -> None:
        self.made_for = work.id
        self.events: list[str] = []
        self.fails = 0

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            self.fails -= 1
            raise CloudUnavailable("no route")
        self.events.append("start")

    async def close(self) -> None:
        self.events.append("close")

    def session(self, request: Ask, mode: str) -> DispatchedSession:
        raise AssertionError("not asked for here")


def work(index: int, session: str | None) -> Work:
    return Work(index, index + 1, 0.0, (1,), 1, session)


async def test_a_conversation_has_one_client_started_and_closed_once() -> None:
    made: list[FakeClient] = []

    def make(w: Work) -> FakeClient:
        made.append(FakeClient(w))
        return made[-1]

    works = [work(0, "a"), work(1, None), work(2, "a"), work(3, "b"), work(4, None), work(5, "a")]
    clients = SharedClients(works, make)
    given = [clients.client_of(w) for w in works]
    assert [client.made_for for client in made] == [0, 1, 3, 4]
    assert given[0] is given[2] is given[5]
    await asyncio.gather(*(client.start() for client in given))
    assert [client.events for client in made] == [["start"]] * 4
    for client in given[:5]:
        await client.close()
    assert made[0].events == ["start"]  # a turn is still to come
    await given[5].close()
    await clients.close()
    assert [client.events for client in made] == [["start", "close"]] * 4


async def test_a_conversation_that_is_broken_off_is_closed() -> None:
    client = FakeClient(work(0, "a"))
    works = [work(0, "a"), work(1, "a")]
    clients = SharedClients(works, lambda _: client)
    await clients.client_of(works[0]).start()
    await clients.close()
    await clients.close()
    assert client.events == ["start", "close"]


async def test_a_start_that_failed_is_tried_again_by_the_next_turn() -> None:
    client = FakeClient(work(0, "a"))
    client.fails = 1
    works = [work(0, "a"), work(1, "a")]
    clients = SharedClients(works, lambda _: client)
    with pytest.raises(CloudUnavailable):
        await clients.client_of(works[0]).start()
    await clients.client_of(works[1]).start()
    assert client.events == ["start"]
