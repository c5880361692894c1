"""Tools through OpenAI's own client: calls, thoughts, and the same across a handoff."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import OpenAI

from pd_core.text.chat_template import ChatTemplate
from pd_core.text.tokenizer import Tokenizer
from pd_device_client.api.settings import AnswerSettings
from pd_device_client.api.tools.answer_parser import ReasoningChoice, ToolParserChoice
from tests.api_server import EOS, SLOW, TOKENIZER, ApiServer, api_server, loaded_model
from tests.saying_cloud import SayingCloud
from tests.saying_engine import SayingEngine

HERMES = ChatTemplate(
    """{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}>{{ m.content or '' }}
{%- for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}
{%- endfor %}{{ '<think>' if enable_thinking }}{{ effort }}{{ '</think>' if 0 }}"""
)
PLAIN = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
TOOLS = [WEATHER, TIME]
ASKED = [{"role": "user", "content": "Weather in Paris, and the time?"}]
PARIS = '{"city": "Paris \\u00e9 \\ud83d\\ude00 \\"x\\""}'
TWO = (
    "<think>\nI look.\n</think>\n\nLet me see \U0001f600.\n"
    f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>\n'
    '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
)


@contextmanager
def saying(
    text: str,
    template: ChatTemplate | None = HERMES,
    cut_after: int | None = None,
    **settings: Any,
) -> Iterator[ApiServer]:
    """A device that says a text; with `cut_after` a cloud begins and breaks there."""
    engine = SayingEngine(TOKENIZER, text, EOS)
    cloud = None
    if cut_after is not None:
        cloud = SayingCloud(engine.card, engine.token_ids, cut_after)
    with api_server(
        loaded=loaded_model(template),
        engine=engine,
        cloud=cloud,
        profile=SLOW,
        settings=AnswerSettings(**settings),
    ) as server:
        yield server


def client(server: ApiServer) -> Any:
    """OpenAI's client, untyped: plain dictionaries are what tests write."""
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def whole(server: ApiServer, **body: Any) -> Any:
    body = {"model": "random-tiny", "messages": ASKED, "tools": TOOLS, **body}
    with client(server) as sdk:
        return sdk.chat.completions.create(**body).choices[0]


def streamed(server: ApiServer, **body: Any) -> Any:
    """The choice that the SDK puts together from a stream."""
    body = {"model": "random-tiny", "messages": ASKED, "tools": TOOLS, **body}
    with client(server) as sdk, sdk.chat.completions.stream(**body) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion().choices[0]


def calls(choice: Any) -> list[tuple[str, str]]:
    return [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or []]


def test_calls_in_one_piece_and_as_a_stream() -> None:
    with saying(TWO) as server:
        one, stream = whole(server), streamed(server)
    for choice in (one, stream):
        assert choice.finish_reason == "tool_calls"
        assert calls(choice) == [("get_weather", PARIS), ("get_time", "{}")]
        assert json.loads(PARIS)["city"] == 'Paris \u00e9 \U0001f600 "x"'
        assert choice.message.content == "Let me see \U0001f600."
        assert choice.message.reasoning == choice.message.reasoning_content == "I look."
        ids = [call.id for call in choice.message.tool_calls]
        assert len(set(ids)) == 2
        assert all(i.startswith("call_") for i in ids)


def test_a_streams_deltas_name_a_call_once() -> None:
    with saying(TWO) as server, client(server) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="random-tiny", messages=ASKED, tools=TOOLS, stream=True
            )
        )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [d.role for d in deltas if d.role] == ["assistant"]
    pieces = [call for d in deltas for call in d.tool_calls or []]
    assert [p.index for p in pieces] == sorted(p.index for p in pieces)
    for index in (0, 1):
        own = [p for p in pieces if p.index == index]
        assert [bool(p.id) for p in own] == [True] + [False] * (len(own) - 1)
        assert [p.type for p in own[1:]] == [None] * (len(own) - 1)
        assert own[0].function.name
        assert {p.function.name for p in own[1:]} <= {None}
    assert len([p for p in pieces if p.index == 0]) > 3, "arguments come in pieces"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_message_of_calls_alone_has_no_content() -> None:
    with saying('<tool_call>{"name": "get_time"}</tool_call>') as server:
        message = whole(server).message
    assert message.content is None
    assert message.model_dump(exclude_unset=True)["content"] is None


NUM_TOKENS = len(TOKENIZER.encode(TWO))


@pytest.mark.parametrize("part", [1, 3, 5, 6, 7, 9])
def test_calls_are_the_same_wherever_the_cloud_breaks(part: int) -> None:
    cut = NUM_TOKENS * part // 10
    with saying(TWO, cut_after=cut) as server:
        cut_whole, cut_stream = whole(server), streamed(server)
    with saying(TWO) as server:
        uncut = whole(server)
    report = cut_whole.pd
    assert report["handoff_position"] == report["cloud_tokens"] == cut
    assert report["device_tokens"] > 0
    for choice in (cut_whole, cut_stream):
        assert calls(choice) == calls(uncut)
        assert choice.message.content == uncut.message.content
        assert choice.message.reasoning == uncut.message.reasoning
        assert choice.finish_reason == "tool_calls"


def test_an_answer_that_is_cut_off_keeps_the_piece_of_a_call() -> None:
    length = len(TOKENIZER.encode(TWO[: TWO.index("Paris")]))
    with saying(TWO) as server:
        one, stream = whole(server, max_tokens=length), None
        with client(server) as sdk:
            stream = list(
                sdk.chat.completions.create(
                    model="random-tiny",
                    messages=ASKED,
                    tools=TOOLS,
                    max_tokens=length,
                    stream=True,
                )
            )
    assert one.finish_reason == "length"
    [(name, arguments)] = calls(one)
    assert name == "get_weather"
    assert PARIS.startswith(arguments)
    pieces = [c for chunk in stream for c in chunk.choices[0].delta.tool_calls or []]
    assert "".join(piece.function.arguments for piece in pieces) == arguments
    assert stream[-1].choices[0].finish_reason == "length"


def test_without_tools_nothing_is_a_call() -> None:
    text = TWO.partition("</think>\n\n")[2]
    with saying(TWO) as server:
        without: list[dict[str, Any]] = [{"tools": openai.NOT_GIVEN}, {"tools": []}]
        for body in (*without, {"tool_choice": "none"}):
            choice = whole(server, **body)
            assert choice.message.content == text
            assert choice.message.tool_calls is None
            assert choice.finish_reason == "stop"


def test_one_call_alone_where_calls_are_not_parallel() -> None:
    with saying(TWO) as server:
        choice = whole(server, parallel_tool_calls=False)
    assert calls(choice) == [("get_weather", PARIS)]


def test_the_parsers_can_be_chosen() -> None:
    text = '[TOOL_CALLS]get_time[ARGS]{"zone": 1}'
    with saying(text, tool_parser=ToolParserChoice.MISTRAL) as server:
        choice = whole(server)
        assert calls(choice) == [("get_time", '{"zone": 1}')]
        assert len(choice.message.tool_calls[0].id) == 9
    with saying(TWO, tool_parser=ToolParserChoice.NONE, reasoning_parser=ReasoningChoice.NONE) as s:
        choice = whole(s)
        assert choice.message.content == TWO
        assert choice.message.tool_calls is None


def test_a_special_token_that_opens_calls_counts_though_it_has_no_text() -> None:
    tokenizer = with_special(["[TOOL_CALLS]", "[ARGS]"])
    text = '[TOOL_CALLS]get_time[ARGS]{"zone": 1}'
    template = ChatTemplate(HERMES.text + "{# [TOOL_CALLS] #}")
    loaded = replace(loaded_model(template), tokenizer=tokenizer)
    loaded.model.num_token_ids = tokenizer.vocab_size
    engine = SayingEngine(tokenizer, text, EOS)
    assert engine.token_ids[0] in tokenizer.special_tokens
    with api_server(loaded=loaded, engine=engine) as server:
        assert calls(whole(server)) == [("get_time", '{"zone": 1}')]
        assert calls(streamed(server)) == [("get_time", '{"zone": 1}')]
        # Without tools it has no text, as ever.
        plain = whole(server, tools=openai.NOT_GIVEN).message.content
        assert plain == 'get_time{"zone": 1}'
        # What ends the answer is no part of it.
        stopped = whole(server, stop=["[TOOL_CALLS]"])
        assert (stopped.message.content, stopped.message.tool_calls) == ("", None)


def with_special(texts: Sequence[str]) -> Tokenizer:
    """The tokenizer with some more special tokens."""
    raw = json.loads(TOKENIZER.to_str())
    for i, text in enumerate(texts):
        added = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
        token_id = TOKENIZER.vocab_size + i
        raw["added_tokens"].append({"id": token_id, "content": text, "special": True, **added})
    return Tokenizer.from_str(json.dumps(raw))


def test_thoughts_that_the_prompt_has_opened() -> None:
    with saying("Hm.\n</think>\nYes.") as server:
        choice = whole(server, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    assert (choice.message.reasoning, choice.message.content) == ("Hm.", "Yes.")


def test_several_choices_have_calls_of_their_own() -> None:
    with saying(TWO) as server, client(server) as sdk:
        answer = sdk.chat.completions.create(model="random-tiny", messages=ASKED, tools=TOOLS, n=2)
    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 4
