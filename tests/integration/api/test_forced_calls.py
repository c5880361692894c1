"""Calls that a request asks for: of the functions' schemas, whoever makes which part of them."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from openai import OpenAI

from tests.forms import PERSON, SCHEMAS
from tests.real_device import RealDevice, real_device
from tests.real_server import real_server

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
ASKED = "Add whom you like, and plant a tree. " * 8
NAMED = {"type": "function", "function": {"name": "add_person"}}
CUTS = (1, 6, 11)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDevice]:
    """A device that is slow at first, and a cloud with the same model."""
    with real_server(tmp_path_factory.mktemp("cloud")) as cloud:
        options = ("--cloud", cloud.address, "--throttle", "slow", "--pace", "0.01")
        with real_device(tmp_path_factory.mktemp("device"), *options) as running:
            yield running


def client(device: RealDevice) -> Any:
    return OpenAI(base_url=f"{device.url}/v1", api_key="none", max_retries=0)


def ask(device: RealDevice, *, k: int | None, stream: bool = False, **body: Any) -> Any:
    """One choice; `k` tokens of it are the cloud's, or None: none are."""
    pd = {"mode": "device-only"} if k is None else {"max_cloud_tokens": k}
    asked = {
        "model": "random-tiny",
        "messages": [{"role": "user", "content": ASKED}],
        "tools": TOOLS,
        "temperature": 0.8,
        "seed": 5,
        "max_tokens": 400,
        "extra_body": {"pd": pd},
        **body,
    }
    with client(device) as sdk:
        if not stream:
            return sdk.chat.completions.create(**asked).choices[0]
        with sdk.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            return events.get_final_completion().choices[0]


def calls(choice: Any) -> list[tuple[str, str, str]]:
    """Each call's id, name and arguments, which are of the function's schema."""
    made = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    for _, name, arguments in made:
        schema = PARAMETERS[name] or {"maxProperties": 0}
        assert jsonschema_rs.is_valid(schema, json.loads(arguments)), arguments
    return made


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_calls_are_of_their_schemas_and_the_same_wherever_they_are_handed_over(
    device: RealDevice, choice: Any, k: int
) -> None:
    # A prompt of its own: one that the device knows already is not worth a cloud.
    stream = k == CUTS[1]
    asked = f"{k}, {json.dumps(choice)}: {ASKED}"
    body = {"tool_choice": choice, "messages": [{"role": "user", "content": asked}]}
    shared = ask(device, k=k, **body)
    alone = ask(device, k=None, stream=stream, **body)
    assert shared.pd["cloud_tokens"] == shared.pd["handoff_position"] == k
    assert shared.pd["exactness"] == "identical"
    made = [call[1:] for call in calls(alone)]
    assert made
    assert [call[1:] for call in calls(shared)] == made
    for one in (shared, alone):
        assert one.finish_reason == "tool_calls"
        assert not one.message.content
    if choice is NAMED:
        assert [name for name, _ in made] == ["add_person"]


def test_one_call_alone_where_calls_are_not_parallel(device: RealDevice) -> None:
    for seed in range(3):
        body = {"tool_choice": "required", "parallel_tool_calls": False, "seed": seed}
        assert len(calls(ask(device, k=None, **body))) == 1


def test_an_answer_of_a_schema_or_calls_before_it(device: RealDevice) -> None:
    """Agents that end with an answer of a schema offer their tools beside it."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": PERSON}}
    for seed in range(6):
        choice = ask(device, k=CUTS[0], seed=seed, temperature=1.5, response_format=form)
        if choice.message.tool_calls:
            assert calls(choice)
            assert choice.finish_reason == "tool_calls"
        else:
            assert jsonschema_rs.is_valid(PERSON, json.loads(choice.message.content))
            assert choice.finish_reason == "stop"
