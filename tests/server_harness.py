"""A real server in the test's own loop, and a bare gRPC client that can break every rule."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import torch
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from pd_core.checkpoints.loading import LoadedModel
from pd_core.grammar.grammars import Grammars
from pd_core.models import Segment
from pd_core.sampling.history import History
from pd_core.sampling.sampling import sample
from pd_core.sampling_params import SamplingParams
from pd_proto.v1 import generation_pb2 as pb
from pd_proto.v1.generation_pb2_grpc import GenerationServiceStub
from pd_server.config import EngineConfig, ServerConfig
from pd_server.engine.contract import Engine
from pd_server.server import Server
from pd_server.torch_engine.engine import TorchEngine
from tests.eventually import eventually

__all__ = [
    "Answer",
    "SlowEngine",
    "Stream",
    "complete",
    "connect",
    "eventually",
    "plain_loop",
    "prompt_of",
    "running_server",
    "start_message",
    "typed_error",
]

_ids = itertools.count()


class SlowEngine(TorchEngine):
    """The torch engine with a pause in every step, so that a test can act between tokens."""

    def __init__(self, *args: Any, pause_s: float = 0.0, **more: Any) -> None:
        self.pause_s = pause_s
        super().__init__(*args, **more)

    def step(self) -> list[Any]:
        time.sleep(self.pause_s)
        return super().step()


@asynccontextmanager
async def running_server(
    lm: LoadedModel,
    *,
    pause_s: float = 0.0,
    engine_config: EngineConfig | None = None,
    build: Callable[[], Engine] | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """A server on free ports, stopped at the end."""
    engine_config = engine_config or EngineConfig(max_num_seqs=4, max_num_batched_tokens=64)
    config = ServerConfig(engine=engine_config, grpc_port=0, http_port=0, **settings)

    def torch_engine() -> Engine:
        return SlowEngine(
            lm,
            engine_config.max_num_seqs,
            engine_config.max_num_batched_tokens,
            engine_config.sampler,
            pause_s=pause_s,
        )

    server = Server(config, build or torch_engine)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Any]:
    """A stub on a plain channel."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield GenerationServiceStub(channel)


def start_message(
    prompt: Sequence[int],
    token_limit: int,
    sampling: SamplingParams | None = None,
    /,
    **fields: Any,
) -> pb.GenerateRequest:
    """A Start with a request id of its own."""
    chosen = sampling or SamplingParams()
    start = pb.Start(
        api_version=1,
        request_id=f"test-{next(_ids)}",
        prompt_token_ids=prompt,
        token_limit=token_limit,
        sampling=pb.Sampling(
            temperature=chosen.temperature,
            top_k=chosen.top_k,
            top_p=chosen.top_p,
            seed=chosen.seed,
            ignore_eos=chosen.ignore_eos,
            forced_length=chosen.forced_length,
        ),
    )
    for name, value in fields.items():
        if hasattr(value, "DESCRIPTOR"):
            getattr(start, name).CopyFrom(value)
        elif isinstance(value, list):
            del getattr(start, name)[:]
            getattr(start, name).extend(value)
        else:
            setattr(start, name, value)
    return pb.GenerateRequest(start=start)


@dataclass
class Answer:
    """Everything one stream sent, in order of arrival."""

    messages: list[pb.GenerateResponse] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [str(message.WhichOneof("message")) for message in self.messages]

    @property
    def token_ids(self) -> list[int]:
        return [t for m in self.messages for t in m.tokens.token_ids]

    @property
    def kept_ranges(self) -> tuple[tuple[int, int], ...]:
        """The refined prompt's."""
        ranges = (r for m in self.messages for r in m.refined_prompt.kept_ranges)
        return tuple((r.first, r.end) for r in ranges)

    @property
    def finished(self) -> pb.Finished:
        """The Finished, after a check of the stream's order."""
        assert self.kinds[0] == "admitted"
        assert self.kinds.count("admitted") == self.kinds.count("finished") == 1
        assert self.kinds[-1] == "finished"
        position = None
        for message in self.messages:
            if message.WhichOneof("message") == "tokens":
                assert message.tokens.token_ids
                assert position in (None, message.tokens.first_position)
                position = message.tokens.first_position + len(message.tokens.token_ids)
        return self.messages[-1].finished


class Stream:
    """One call, message by message."""

    def __init__(self, stub: Any, **call_options: Any) -> None:
        self.call = stub.Generate(**call_options)
        self.answer = Answer()

    async def send(self, *messages: pb.GenerateRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def receive(self) -> pb.GenerateResponse:
        """The next message; none within a minute is an error."""
        message = await asyncio.wait_for(self.call.read(), 60)
        assert isinstance(message, pb.GenerateResponse), "the stream has ended"
        self.answer.messages.append(message)
        return message

    async def receive_tokens(self, at_least: int) -> list[int]:
        """Receive until so many tokens are in."""
        while len(self.answer.token_ids) < at_least:
            await self.receive()
        return self.answer.token_ids

    async def rest(self) -> Answer:
        """Receive to the end of the stream; raises grpc.aio.AioRpcError when it failed."""
        while (message := await asyncio.wait_for(self.call.read(), 60)) is not grpc.aio.EOF:
            self.answer.messages.append(message)
            if self.answer.kinds[-1] == "finished":
                await self.call.done_writing()
        return self.answer


async def complete(stub: Any, message: pb.GenerateRequest) -> Answer:
    """Send one Start, half-close, and receive everything."""
    stream = Stream(stub)
    await stream.send(message)
    await stream.call.done_writing()
    return await stream.rest()


async def typed_error(stream: Stream) -> tuple[str, str, str, float | None]:
    """Return the failed call's code, class name, message and retry delay."""
    try:
        await stream.rest()
    except grpc.aio.AioRpcError as error:
        metadata = dict(error.trailing_metadata() or ())
        status = Status.FromString(metadata["grpc-status-details-bin"])
        info, retry = ErrorInfo(), RetryInfo()
        assert status.details[0].Unpack(info)
        delay = None
        if len(status.details) > 1 and status.details[1].Unpack(retry):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
        return error.code().name, info.reason, str(error.details()), delay
    raise AssertionError("the call did not fail")


def prompt_of(length: int, salt: int = 0) -> list[int]:
    """Token ids that differ between lengths and salts and hold no special one."""
    return [2 + (7 * i + 13 * salt) % 900 for i in range(length)]


def plain_loop(
    lm: LoadedModel, prompt: Sequence[int], num_tokens: int, sampling: SamplingParams
) -> list[int]:
    """The reference: one sequence, the prompt in one pass, then token after token.

    Under a form each token's mask is of a matcher that has seen nothing before.
    """
    grammars = Grammars(lm.tokenizer, lm.num_token_ids, lm.eos_token_ids)
    form = sampling.constraint
    cache = lm.model.make_cache(len(prompt) + num_tokens)
    pending, start, made = list(prompt), 0, list[int]()
    while len(made) < num_tokens:
        hidden = lm.model.forward(torch.tensor(pending), [Segment(cache, start, len(pending))])
        start += len(pending)
        logits = lm.model.logits(hidden[-1:])
        pending = sample(
            logits,
            [sampling],
            [len(made)],
            lm.eos_token_ids,
            [History([*prompt, *made], len(prompt))],
            [None if form is None else grammars.matcher(form).mask(made)],
        )
        made += pending
        if pending[0] in lm.eos_token_ids:
            break
    return made
