"""Our own server process is always stopped, and says why when it cannot start."""

import asyncio
from pathlib import Path

import pytest

from pd_bench.harness.server_process import ServerOptions, own_server
from pd_core.errors import CloudUnavailable
from pd_device_client.cloud.grpc_link import GrpcCloudLink


def server_processes() -> set[int]:
    """Ids of the server processes that are children of this one."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            parent = int(stat[1])
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if parent == _own_id() and b"pd_server" in command:
            found.add(int(folder.name))
    return found


def _own_id() -> int:
    return int(Path("/proc/self").resolve().name)


async def test_a_server_answers_and_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings of a server that runs elsewhere must not reach ours.
    monkeypatch.setenv("PD_SERVER_API_KEY", "another server's key")
    async with own_server(
        ServerOptions(model="random-tiny", sampler="rolling-hash", max_num_seqs=3)
    ) as target:
        link = GrpcCloudLink(target)
        info = await link.info()
        await link.close()
        assert (info.model.sampler, info.limits.max_num_seqs) == ("rolling-hash", 3)
        assert len(server_processes()) == 1
    assert not server_processes()


async def test_an_error_or_an_interruption_stops_the_server_too() -> None:
    async def hold(ready: asyncio.Event) -> None:
        async with own_server(ServerOptions(model="random-tiny")):
            ready.set()
            await asyncio.sleep(60)

    ready = asyncio.Event()
    task = asyncio.ensure_future(hold(ready))
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server_processes()


async def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(CloudUnavailable, match="before it was ready; the end of its log") as error:
        async with own_server(ServerOptions(model=str(tmp_path / "no-model"))):
            pytest.fail("it started")
    assert "no-model" in str(error.value)
    assert not server_processes()
