"""Answers of a given form by OpenAI's own client, with the cloud cut at several positions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict, Field

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_device_client.api.completions import response_format
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.engine.torch_engine import TorchLocalEngine
from tests.api_server import ApiServer, api_server
from tests.forms import PERSON, SCHEMAS, fits
from tests.integration.device.test_forms import broken_after
from tests.real_server import real_server

HELLO = [{"role": "user", "content": "Who is it?"}]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture(scope="module")
def alone(loaded: LoadedModel) -> Iterator[ApiServer]:
    engine = TorchLocalEngine(loaded)
    with api_server(loaded=loaded, engine=engine, grammars=engine.grammars) as server:
        yield server


@contextmanager
def client(server: ApiServer) -> Iterator[Any]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def sdk(alone: ApiServer) -> Iterator[Any]:
    with client(alone) as made:
        yield made


def asked(sdk: Any, schema: dict[str, Any], **more: Any) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    return sdk.chat.completions.create(
        model="random-tiny",
        messages=HELLO,
        temperature=1,
        max_tokens=300,
        response_format=form,
        **more,
    )


@pytest.mark.heavy
@pytest.mark.parametrize("name", SCHEMAS)
def test_an_answer_is_of_its_schema_whole_or_in_pieces(name: str, sdk: Any) -> None:
    for seed in range(3):
        choice = asked(sdk, SCHEMAS[name], seed=seed).choices[0]
        assert choice.finish_reason == "stop"
        assert fits(SCHEMAS[name], choice.message.content)
        pieces = asked(sdk, SCHEMAS[name], seed=seed, stream=True)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text == choice.message.content


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=5)
    mood: Literal["good", "bad"]
    age: int = Field(ge=0, le=120)


def test_the_clients_own_parsing_gives_an_object(sdk: Any) -> None:
    parsed = sdk.chat.completions.parse(
        model="random-tiny",
        messages=HELLO,
        temperature=1,
        seed=5,
        response_format=Person,
        max_tokens=300,
    )
    assert isinstance(parsed.choices[0].message.parsed, Person)


FORMS: list[tuple[dict[str, Any], Callable[[str], bool]]] = [
    ({"structured_outputs": {"choice": ["yes", "no"]}}, lambda text: text in {"yes", "no"}),
    (
        {"structured_outputs": {"regex": "[0-9]{2}x"}},
        lambda text: text[2:] == "x" and len(text) == 3,
    ),
    ({"structured_outputs": {"json": PERSON}}, lambda text: fits(PERSON, text)),
    ({"structured_outputs": {"json": json.dumps(PERSON)}}, lambda text: fits(PERSON, text)),
    ({"structured_outputs": {"grammar": 'root ::= "a" "b"+ "!"'}}, lambda t: t.startswith("ab")),
    (
        {"structured_outputs": {"grammar": 'start: "a" "b"+ "!"'}},
        lambda text: text.startswith("ab"),
    ),
]


@pytest.mark.parametrize(("extra", "right"), FORMS)
def test_vllms_parameter_is_taken_by_both_apis(
    extra: dict[str, Any], right: Callable[[str], bool], sdk: Any
) -> None:
    common: dict[str, Any] = {
        "model": "random-tiny", "max_tokens": 200, "temperature": 1, "seed": 4, "extra_body": extra
    }  # fmt: skip
    chat = sdk.chat.completions.create(messages=HELLO, **common).choices[0]
    text = sdk.completions.create(prompt="Who is it?", **common).choices[0]
    assert right(chat.message.content)
    assert right(text.text)


def test_a_json_object_is_one_as_far_as_it_goes(sdk: Any) -> None:
    choice = sdk.chat.completions.create(
        model="random-tiny", messages=HELLO, max_tokens=20, response_format={"type": "json_object"}
    ).choices[0]  # fmt: skip
    assert choice.message.content.startswith("{")
    assert choice.finish_reason in {"stop", "length"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "thing"}, "Invalid type"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "Unsatisfiable"),
        ({"not": {}}, "Unimplemented"),
        ({"$ref": "#/$defs/none"}, "none"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_with_the_reason(
    schema: dict[str, Any], words: str, sdk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine it is known later; the answer then fails with the same code.
    monkeypatch.setattr(response_format, "_SOON_S", 60.0)
    with pytest.raises(openai.BadRequestError, match=words) as raised:
        asked(sdk, schema)
    assert raised.value.param == "response_format"
    assert raised.value.code == "invalid_constraint"


def test_a_cut_cloud_changes_no_answer(
    loaded: LoadedModel, sdk: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = asked(sdk, PERSON, seed=9).choices[0].message.content
    with real_server(tmp_path_factory.mktemp("server")) as cloud:
        for position in (1, 5, 11):
            engine = TorchLocalEngine(loaded)
            with api_server(
                loaded=loaded,
                engine=engine,
                make_cloud=lambda position=position: broken_after(  # type: ignore[misc]
                    GrpcCloudLink(cloud.address), position
                ),
                grammars=engine.grammars,
            ) as server:
                with client(server) as other:
                    choice = asked(other, PERSON, seed=9, stream=True)
                    text = "".join(piece.choices[0].delta.content or "" for piece in choice)
                assert text == whole
