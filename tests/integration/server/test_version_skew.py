"""The oldest client against today's server, and today's device against the oldest server.

Both old sides are made of `first_wire.proto`, so they know only what was there at first: they skip
what they do not know, and send nothing of it.
"""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import PdError
from pd_core.generation import API_VERSION, needed_api_version
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_proto.v1 import generation_pb2 as pb
from tests.server_harness import plain_loop, prompt_of, running_server, start_message

_GENERATE = "/pd_proto.v1.GenerationService/Generate"
_INFO = "/pd_proto.v1.GenerationService/GetServerInfo"
_EOS = 1


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The first wire's message classes, by name."""
    out = tmp_path_factory.mktemp("wire") / "set"
    source = Path(__file__).with_name("first_wire.proto")
    include = importlib.resources.files("grpc_tools") / "_proto"
    done = protoc.main(
        ["", f"-I{source.parent}", f"-I{include}", f"--descriptor_set_out={out}", str(source)]
    )
    assert done == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{file.package}.{message.name}")
        )
        for message in file.message_type
    }


@pytest.fixture(scope="module")
def lm() -> LoadedModel:
    return load_model("random-tiny")


# The oldest client.


async def _old_answer(old: dict[str, Any], address: str, **fields: Any) -> list[Any]:
    """Ask as the first client did, and return all messages."""
    start = old["Start"](api_version=1, request_id="old", **fields)
    async with grpc.aio.insecure_channel(address) as channel:
        generate: Any = channel.stream_stream(
            _GENERATE,
            request_serializer=old["GenerateRequest"].SerializeToString,
            response_deserializer=old["GenerateResponse"].FromString,
        )
        call = generate(timeout=60)
        await call.write(old["GenerateRequest"](start=start))
        messages = []
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
            if message.WhichOneof("message") == "finished":
                await call.done_writing()
        return messages


async def test_the_oldest_client_is_answered_exactly(old: dict[str, Any], lm: LoadedModel) -> None:
    prompt, sampling = prompt_of(20), SamplingParams(temperature=0.8, seed=5)
    async with running_server(lm) as server:
        messages = await _old_answer(
            old,
            server.grpc_address,
            prompt_token_ids=prompt,
            token_limit=12,
            sampling=old["Sampling"](temperature=0.8, seed=5),
        )
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            info: Any = channel.unary_unary(
                _INFO,
                request_serializer=old["GetServerInfoRequest"].SerializeToString,
                response_deserializer=old["GetServerInfoResponse"].FromString,
            )
            card = await info(old["GetServerInfoRequest"](), timeout=60)
    kinds = [message.WhichOneof("message") for message in messages]
    assert kinds[0] == "admitted"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) == {"tokens"}
    made = [token_id for message in messages for token_id in message.tokens.token_ids]
    assert made == plain_loop(lm, prompt, 12, sampling)
    assert card.limits.max_num_seqs == 4
    assert card.api_version == API_VERSION >= 1


def test_what_the_first_wire_has_still_means_the_same(old: dict[str, Any]) -> None:
    """Every field that the oldest side sends is read under its number and type today."""
    for name, cls in old.items():
        today = {field.number: field for field in getattr(pb, name).DESCRIPTOR.fields}
        for field in cls.DESCRIPTOR.fields:
            now = today[field.number]
            assert (now.name, now.type, now.is_repeated) == (
                field.name,
                field.type,
                field.is_repeated,
            ), f"{name}.{field.name}"


def test_a_request_with_nothing_new_is_of_the_first_version() -> None:
    assert needed_api_version(SamplingParams(temperature=1.0, top_k=5, top_p=0.9, seed=3)) == 1


async def test_a_client_of_tomorrow_is_told_what_is_spoken_here(lm: LoadedModel) -> None:
    async with (
        running_server(lm) as server,
        grpc.aio.insecure_channel(server.grpc_address) as channel,
    ):
        generate: Any = channel.stream_stream(
            _GENERATE, pb.GenerateRequest.SerializeToString, pb.GenerateResponse.FromString
        )
        call = generate(timeout=60)
        message = start_message(prompt_of(5), 3)
        message.start.api_version = API_VERSION + 1
        await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError, match=f"versions 1 to {API_VERSION}") as told:
            await call.read()
        assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# The oldest server.


class _OldServer:
    """Answers as the first server did: no seals, no version above 1."""

    def __init__(self, old: dict[str, Any]) -> None:
        self._old = old
        self.starts: list[Any] = []

    async def info(self, _request: Any, _context: Any) -> Any:
        old = self._old
        return old["GetServerInfoResponse"](
            api_version=1,
            server_version="0.0.1",
            model_name="m",
            engine="torch",
            limits=old["Limits"](
                max_context_tokens=512,
                max_output_tokens=512,
                max_num_seqs=4,
                max_num_waiting=4,
                vocab_size=1000,
            ),
            sampler="model",
            eos_token_ids=[_EOS],
        )

    async def generate(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        old, response = self._old, self._old["GenerateResponse"]
        first = await anext(requests)
        start = first.start
        self.starts.append(start)
        yield response(admitted=old["Admitted"]())
        begin = start.committed_first_position + len(start.committed_token_ids)
        for position in range(begin, start.token_limit):
            tokens = old["Tokens"](first_position=position, token_ids=[100 + position])
            yield response(tokens=tokens)
        made = max(0, start.token_limit - begin)
        yield response(finished=old["Finished"](reason=2, tokens_generated=made))


@asynccontextmanager
async def _old_server(old: dict[str, Any]) -> AsyncIterator[tuple[str, _OldServer]]:
    behaviour, server = _OldServer(old), grpc.aio.server()
    handlers = {
        "Generate": grpc.stream_stream_rpc_method_handler(
            behaviour.generate,
            old["GenerateRequest"].FromString,
            old["GenerateResponse"].SerializeToString,
        ),
        "GetServerInfo": grpc.unary_unary_rpc_method_handler(
            behaviour.info,
            old["GetServerInfoRequest"].FromString,
            old["GetServerInfoResponse"].SerializeToString,
        ),
    }
    generic = grpc.method_handlers_generic_handler("pd_proto.v1.GenerationService", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", behaviour
    finally:
        await server.stop(None)


def _ask(sampling: SamplingParams) -> Ask:
    return Ask(
        request_id="new",
        prompt_token_ids=(5, 6, 7),
        max_tokens=6,
        sampling=sampling,
        mode=Mode.CLOUD_ONLY,
        stop_token_ids=(999,),
    )


async def test_todays_device_is_answered_by_the_oldest_server(old: dict[str, Any]) -> None:
    async with _old_server(old) as (address, server):
        link = GrpcCloudLink(address)
        client = DeviceClient(cloud=link, engine=None, pace_s=0.0)
        await client.start()
        session = client.session(_ask(SamplingParams(temperature=0.5, seed=9)))
        async with asyncio.timeout(60):
            shown = [each async for each in session.run()]
        await link.close()
    assert [getattr(each, "token_id", None) for each in shown] == [100, 101, 102, 103, 104, 105]
    (start,) = server.starts
    assert (start.api_version, start.sampling.temperature, start.sampling.seed) == (1, 0.5, 9)


async def test_what_the_oldest_server_would_get_wrong_is_not_sent_to_it(
    old: dict[str, Any],
) -> None:
    async with _old_server(old) as (address, server):
        link = GrpcCloudLink(address)
        client = DeviceClient(cloud=link, engine=None, pace_s=0.0)
        await client.start()
        with pytest.raises(PdError, match="version"):
            client.session(_ask(SamplingParams(min_p=0.1)))
        await link.close()
    assert not server.starts
