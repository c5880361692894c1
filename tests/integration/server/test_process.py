"""The real process: ready file, signals, exit codes, what it logs."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.sampling_params import SamplingParams
from pd_proto.v1 import generation_pb2 as pb
from tests.server_harness import (
    Stream,
    complete,
    connect,
    eventually,
    plain_loop,
    prompt_of,
    start_message,
    typed_error,
)

pytestmark = pytest.mark.timeout(120)

_SEEDED = SamplingParams(temperature=1.0, seed=5)


@dataclass
class _Process:
    process: asyncio.subprocess.Process
    ready: dict[str, Any]
    ready_file: Path
    log: Path

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def _running(
    tmp_path: Path, *options: str, command: Sequence[str] | None = None
) -> AsyncIterator[_Process]:
    """A server process, once it is ready; killed at the end if it still runs."""
    ready_file, log = tmp_path / "ready.json", tmp_path / "log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(command or _command()),
            *("--grpc-port", "0", "--http-port", "0", "--ready-file", str(ready_file)),
            *options,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        await eventually(lambda: ready_file.exists() or process.returncode is not None, 60)
        assert process.returncode is None, log.read_text()
        ready = json.loads(ready_file.read_text())
        assert ready["pid"] == process.pid
        yield _Process(process, ready, ready_file, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "pd_server", "--model", "random-tiny", *options]


def _refused(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a server that cannot start."""
    return subprocess.run(
        _command(*options),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        check=False,
    )


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


async def test_a_process_serves_drains_on_sigterm_and_exits_with_zero(
    tmp_path: Path, lm: LoadedModel
) -> None:
    async with _running(tmp_path, "--log-json") as server:
        async with connect(server.ready["grpc"]) as stub:
            running = Stream(stub)
            await running.send(start_message(prompt_of(300), 2000, _SEEDED))
            await running.receive_tokens(5)
            server.process.send_signal(signal.SIGTERM)
            await eventually(lambda: "draining" in server.log.read_text())
            refused = Stream(stub)
            await refused.send(start_message([5], 2))
            assert (await typed_error(refused))[:2] == ("UNAVAILABLE", "ShuttingDown")
            answer = await running.rest()
        expected = plain_loop(lm, prompt_of(300), 2000, _SEEDED)
        assert answer.token_ids == expected
        assert await server.exit_code() == 0
        assert not server.ready_file.exists()
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    admitted = [line for line in lines if line["message"] == "admitted"]
    assert admitted[0]["request_id"].startswith("test-")
    # No token of prompt or answer is ever logged.
    assert str(expected[:3])[1:-1] not in server.log.read_text()


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    async with _running(tmp_path) as server, connect(server.ready["grpc"]) as stub:
        stream = Stream(stub)
        await stream.send(start_message(prompt_of(10), 15_000))
        await stream.receive_tokens(2)
        server.process.send_signal(signal.SIGINT)
        await eventually(lambda: "draining" in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        assert (await typed_error(stream))[:2] == ("UNAVAILABLE", "ShuttingDown")
        assert await server.exit_code() == 1


async def test_what_does_not_end_in_time_is_told_so(tmp_path: Path) -> None:
    async with (
        _running(tmp_path, "--drain-s", "0.3") as server,
        connect(server.ready["grpc"]) as stub,
    ):
        stream = Stream(stub)
        await stream.send(start_message(prompt_of(10), 15_000))
        await stream.receive_tokens(2)
        server.process.terminate()
        assert (await typed_error(stream))[:2] == ("UNAVAILABLE", "ShuttingDown")
        assert await server.exit_code() == 0


async def test_a_killed_server_breaks_the_stream_and_the_next_one_continues_it(
    tmp_path: Path, lm: LoadedModel
) -> None:
    prompt = prompt_of(20)
    async with _running(tmp_path) as server, connect(server.ready["grpc"]) as stub:
        stream = Stream(stub)
        await stream.send(start_message(prompt, 15_000, _SEEDED))
        got = list(await stream.receive_tokens(10))
        server.process.kill()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.rest()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    (tmp_path / "ready.json").unlink()
    async with _running(tmp_path, "--threads", "1") as server:
        async with connect(server.ready["grpc"]) as stub:
            message = start_message(prompt, len(got) + 10, _SEEDED, committed_token_ids=got)
            answer = await complete(stub, message)
            info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert info.fingerprints.weights == lm.fingerprints.weights
    assert got + answer.token_ids == plain_loop(lm, prompt, len(got) + 10, _SEEDED)


_DYING_SERVER = """
from pd_server import cli, command
from pd_server.torch_engine.engine import TorchEngine

build_engine = command._engine_builder


class DyingEngine(TorchEngine):
    def step(self):
        if self.load().tokens_generated >= 3:
            raise ValueError("broken")
        return super().step()


def builder(config):
    def build():
        engine = build_engine(config)()
        engine.__class__ = DyingEngine
        return engine

    return build


command._engine_builder = builder
cli.main()
"""


async def test_a_dead_engine_ends_the_process_with_its_own_code(tmp_path: Path) -> None:
    script = tmp_path / "dying.py"
    script.write_text(
        "from pd_core.host.torch_environment import prepare_environment\nprepare_environment()\n"
        + _DYING_SERVER
    )
    async with (
        _running(tmp_path, command=[sys.executable, str(script)]) as server,
        connect(server.ready["grpc"]) as stub,
    ):
        stream = Stream(stub)
        await stream.send(start_message(prompt_of(5), 100))
        assert (await typed_error(stream))[:2] == ("UNAVAILABLE", "EngineDead")
        assert len(stream.answer.token_ids) == 3
        assert await server.exit_code() == 70
        assert "pd-server: the engine failed (ValueError)" in server.log.read_text()


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = _refused("--grpc-port", str(port), "--http-port", "0", "--log-level", "error")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"pd-server: port {port} on 127.0.0.1 is in use; stop what listens there, or give "
        "--grpc-port another (0 picks a free one)"
    ]


@pytest.mark.parametrize(
    ("options", "env", "words"),
    [
        (["--host", "0.0.0.0"], {}, "--insecure"),
        (["--api-key-file", "nowhere"], {}, "nowhere"),
        (["--tls-cert", "only.pem"], {}, "give both"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], {}, "PEM"),
        ([], {"PD_SERVER_API_KEY": "two words"}, "PD_SERVER_API_KEY"),
        ([], {"PD_SERVER_GRPC_PORT": "7000", "PD_SERVER_HTTP_PORT": "7000"}, "share port 7000"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    options: list[str], env: dict[str, str], words: str
) -> None:
    result = _refused(*options, "--log-level", "error", env=env)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("pd-server: ")
    assert words in result.stderr
    assert "two words" not in result.stderr


@pytest.mark.parametrize("name", ["no/file", "."])
def test_a_ready_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path, name: str) -> None:
    result = _refused(
        *("--ready-file", str(tmp_path / name), "--grpc-port", "0", "--http-port", "0"),
        # This model cannot be loaded: the file is refused before anybody tries.
        *("--log-level", "error", "--model", "no/such/place"),
    )
    assert result.returncode == 2
    assert "--ready-file" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_model_is_one_clear_line() -> None:
    result = _refused(
        *("--model", "no/such/place", "--grpc-port", "0", "--http-port", "0"),
        *("--log-level", "error"),
    )
    assert result.returncode == 2
    assert "no/such/place" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_device_is_one_clear_line() -> None:
    result = _refused(
        *("--device", "bogus", "--grpc-port", "0", "--http-port", "0", "--log-level", "error")
    )
    assert result.returncode == 2
    assert "--device cpu" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_names_every_option_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['pd-server', '--help']\n"
        "from pd_server.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for option in ("--model", "--grpc-port", "--sampler", "--ready-file", "--drain-s"):
        assert option in result.stdout
