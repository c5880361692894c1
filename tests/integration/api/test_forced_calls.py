"""Calls that a request asks for: of the functions' schemas, whoever makes which part of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jsonschema_rs
import pytest
from openai import LengthFinishReasonError, OpenAI

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.api_server import ApiServer, api_server
from tests.forms import PERSON, SCHEMAS
from tests.integration.device.test_forms import broken_after
from tests.real_server import RealServer, real_server

PLANT: dict[str, Any] = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/tree"}},
    "required": ["tree"],
    "additionalProperties": False,
    "$defs": {"tree": {k: v for k, v in SCHEMAS["tree"].items() if k != "$defs"}},
}
PLANT["$defs"].update(SCHEMAS["tree"]["$defs"])
PARAMETERS = {"add_person": PERSON, "plant": PLANT, "stop": None}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in PARAMETERS.items()
]
ASKED = [{"role": "user", "content": "Add whom you like, and plant a tree. " * 8}]
NAMED = {"type": "function", "function": {"name": "add_person"}}
CUTS = (2, 9)
# It reads so slowly that the cloud has begun by then, and then is quick.
LATE = SpeedProfile("late", "a test", 1 / 300, 0.0001)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def alone(loaded: LoadedModel) -> Iterator[ApiServer]:
    """A device without a cloud."""
    engine = TorchLocalEngine(loaded)
    with api_server(loaded=loaded, engine=engine, grammars=engine.grammars) as server:
        yield server


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(tmp_path_factory.mktemp("cloud")) as server:
        yield server


@contextmanager
def cut(loaded: LoadedModel, cloud: RealServer, position: int) -> Iterator[ApiServer]:
    """A device whose cloud breaks at a position."""
    engine = TorchLocalEngine(loaded)
    with api_server(
        loaded=loaded,
        engine=ThrottledEngine(engine, LATE),
        make_cloud=lambda: broken_after(GrpcCloudLink(cloud.address), position),
        grammars=engine.grammars,
        profile=LATE,
    ) as server:
        yield server


def ask(server: ApiServer, *, stream: bool = False, **body: Any) -> Any:
    asked = {
        "model": "random-tiny",
        "messages": ASKED,
        "tools": TOOLS,
        "temperature": 1,
        "seed": 5,
        "max_tokens": 1500,
        **body,
    }
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        if not stream:
            return sdk.chat.completions.create(**asked).choices[0]
        with sdk.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            return events.get_final_completion().choices[0]


def calls(choice: Any) -> list[tuple[str, str]]:
    """Each call's name and arguments, which are of the function's schema."""
    made = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    for name, arguments in made:
        schema = PARAMETERS[name] or {"maxProperties": 0}
        assert jsonschema_rs.is_valid(schema, json.loads(arguments)), arguments
    return made


CHOICES = pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])


@pytest.mark.heavy
@CHOICES
@pytest.mark.parametrize("seed", range(2))
def test_calls_are_of_their_schemas(alone: ApiServer, choice: Any, seed: int) -> None:
    body: dict[str, Any] = {"tool_choice": choice, "seed": seed}
    one, stream = ask(alone, **body), ask(alone, stream=True, **body)
    made = calls(one)
    assert made
    assert calls(stream) == made
    for answer in (one, stream):
        assert answer.finish_reason == "tool_calls"
        assert not answer.message.content
    if choice is NAMED:
        assert [name for name, _ in made] == ["add_person"]


@pytest.mark.heavy
@CHOICES
def test_calls_are_the_same_wherever_the_cloud_breaks(
    loaded: LoadedModel, alone: ApiServer, cloud: RealServer, choice: Any
) -> None:
    whole = ask(alone, tool_choice=choice)
    by_cloud = list[int]()
    for k in CUTS:
        with cut(loaded, cloud, k) as server:
            shared = ask(server, tool_choice=choice, stream=k == CUTS[0])
        assert calls(shared) == calls(whole)
        assert shared.finish_reason == "tool_calls"
        if k != CUTS[0]:  # the client's stream does not keep the report
            by_cloud.append(shared.pd["cloud_tokens"])
            assert shared.pd["device_tokens"] > 0
    assert any(by_cloud), "the cloud took part"


@CHOICES
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_half_a_call_is_never_shown_as_text(alone: ApiServer, choice: Any, stream: bool) -> None:
    raw = ask(alone, tool_choice=choice).message.tool_calls[0].function.arguments
    for most in (1, 4, 12, 30):
        try:
            answer = ask(alone, tool_choice=choice, stream=stream, max_tokens=most)
        except LengthFinishReasonError as error:  # what the SDK makes of a stream that is cut off
            answer = error.completion.choices[0]
        assert answer.finish_reason == "length"
        assert not answer.message.content
        for call in answer.message.tool_calls or []:
            assert raw.startswith(call.function.arguments)


def test_one_call_alone_where_calls_are_not_parallel(alone: ApiServer) -> None:
    for seed in range(2):
        choice = ask(alone, tool_choice="required", parallel_tool_calls=False, seed=seed)
        assert len(calls(choice)) == 1


@pytest.mark.heavy
def test_an_answer_of_a_schema_or_calls_before_it(alone: ApiServer) -> None:
    """Agents that end with an answer of a schema offer their tools beside it."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": PERSON}}
    for seed in range(3):
        choice = ask(alone, seed=seed, response_format=form)
        if choice.message.tool_calls:
            assert calls(choice)
            assert choice.finish_reason == "tool_calls"
        else:
            assert jsonschema_rs.is_valid(PERSON, json.loads(choice.message.content))
            assert choice.finish_reason == "stop"
