"""A link that is closed while its cloud is asked: a typed error, and no stray cancellation."""

import asyncio
import socket

import pytest

from pd_core.errors import CloudUnavailable
from pd_device_client.cloud.grpc_link import GrpcCloudLink


async def test_a_card_that_is_asked_for_when_the_link_closes_is_a_typed_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = GrpcCloudLink(f"127.0.0.1:{silent.getsockname()[1]}")
        asked = asyncio.create_task(link.info())
        await asyncio.sleep(0.2)
        await link.close()
        with pytest.raises(CloudUnavailable):
            await asked


async def test_a_task_that_is_cancelled_stays_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link = GrpcCloudLink(f"127.0.0.1:{silent.getsockname()[1]}")
        asked = asyncio.create_task(link.info())
        await asyncio.sleep(0.2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await link.close()
