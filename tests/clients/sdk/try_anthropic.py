"""Anthropic's client: messages, streams, tools, counting."""

from typing import Any

from anthropic import Anthropic
from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all


def client(url: str) -> Anthropic:
    return Anthropic(base_url=url, api_key=KEY, max_retries=0)


def asked(text: str) -> Any:
    return [{"role": "user", "content": text}]


# The client's newest versions have no parameter for it; the API has.
GREEDY = {"temperature": 0}
TOOLS: Any = [
    {"name": "person", "description": "A person", "input_schema": Person.model_json_schema()}
]
CHOICE: Any = {"type": "tool", "name": "person", "disable_parallel_tool_use": True}


def chat(url: str, model: str) -> str:
    message = client(url).messages.create(
        model=model, messages=asked(HELLO), max_tokens=LIMIT, extra_body=GREEDY
    )
    assert message.stop_reason in ("max_tokens", "end_turn")
    return "".join(block.text for block in message.content if block.type == "text")


def stream(url: str, model: str) -> str:
    with client(url).messages.stream(
        model=model, messages=asked(HELLO), max_tokens=LIMIT, extra_body=GREEDY
    ) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    assert text == "".join(block.text for block in final.content if block.type == "text")
    return text


def tools(url: str, model: str) -> str:
    message = client(url).messages.create(
        model=model,
        messages=asked(PERSON),
        max_tokens=128,
        extra_body=GREEDY,
        tools=TOOLS,
        tool_choice=CHOICE,
    )
    assert message.stop_reason == "tool_use"
    (use,) = (block for block in message.content if block.type == "tool_use")
    return Person.model_validate(use.input).model_dump_json()


def tools_stream(url: str, model: str) -> str:
    with client(url).messages.stream(
        model=model,
        messages=asked(PERSON),
        max_tokens=128,
        extra_body=GREEDY,
        tools=TOOLS,
        tool_choice=CHOICE,
    ) as events:
        final = events.get_final_message()
    (use,) = (block for block in final.content if block.type == "tool_use")
    return Person.model_validate(use.input).model_dump_json()


def schema(url: str, model: str) -> str:
    message = client(url).messages.create(
        model=model,
        messages=asked(PERSON),
        max_tokens=128,
        extra_body=GREEDY,
        output_config={"format": {"type": "json_schema", "schema": Person.model_json_schema()}},
    )
    text = "".join(block.text for block in message.content if block.type == "text")
    return Person.model_validate_json(text).model_dump_json()


def count(url: str, model: str) -> str:
    counted = client(url).messages.count_tokens(model=model, messages=asked(HELLO))
    assert counted.input_tokens > 0
    return str(counted.input_tokens)


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "tools, streamed": tools_stream,
            "schema": schema,
            "count_tokens": count,
        }
    )
