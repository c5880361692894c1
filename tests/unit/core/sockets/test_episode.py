import asyncio
import logging

import pytest

from pd_bench.emulation.virtual_loop import run_virtual
from pd_core.sockets.episode import Episode


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_a_trouble_is_told_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    episode = Episode(logging.getLogger("test"), "too many guests", quiet_s=0.05)
    for _ in range(1000):
        episode.happened()
    assert _lines(caplog) == ["too many guests"]
    for _ in range(1000):
        if len(caplog.records) > 1:
            break
        await asyncio.sleep(0.01)
    assert _lines(caplog)[1] == "over, after 1000 times: too many guests"
    episode.happened()  # another one
    assert _lines(caplog)[2:] == ["too many guests"]
    episode.close()


def test_it_lasts_while_the_trouble_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    async def come_again() -> None:
        episode = Episode(logging.getLogger("test"), "too many guests", quiet_s=0.5)
        for _ in range(4):
            episode.happened()
            await asyncio.sleep(0.4)
        assert _lines(caplog) == ["too many guests"]
        await asyncio.sleep(0.2)
        assert len(_lines(caplog)) == 2, "half a second after the last"
        episode.close()

    run_virtual(come_again())
