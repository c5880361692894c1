"""OpenAI's client: chats, streams, functions, formats, probabilities, responses."""

from typing import Any

from openai import OpenAI, pydantic_function_tool
from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all


def client(url: str) -> Any:
    """Return the client, untyped as in most programs."""
    return OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


def asked(text: str) -> Any:
    return [{"role": "user", "content": text}]


def chat(url: str, model: str) -> str:
    answer = client(url).chat.completions.create(
        model=model, messages=asked(HELLO), max_tokens=LIMIT, temperature=0
    )
    return answer.choices[0].message.content or ""


def stream(url: str, model: str) -> str:
    chunks = client(url).chat.completions.create(
        model=model, messages=asked(HELLO), max_tokens=LIMIT, temperature=0, stream=True
    )
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def tools(url: str, model: str) -> str:
    answer = client(url).chat.completions.create(
        model=model,
        messages=asked(PERSON),
        tools=[pydantic_function_tool(Person)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=128,
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "Person"
    Person.model_validate_json(call.function.arguments)
    return call.function.arguments


def tools_stream(url: str, model: str) -> str:
    with client(url).chat.completions.stream(
        model=model,
        messages=asked(PERSON),
        tools=[pydantic_function_tool(Person)],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=128,
        temperature=0,
    ) as events:
        answer = events.get_final_completion()
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Person)
    return call.function.arguments


def parse(url: str, model: str) -> str:
    answer = client(url).chat.completions.parse(
        model=model,
        messages=asked(PERSON),
        response_format=Person,
        max_tokens=128,
        temperature=0,
    )
    person = answer.choices[0].message.parsed
    assert person is not None
    return person.model_dump_json()


def logprobs(url: str, model: str) -> str:
    answer = client(url).chat.completions.create(
        model=model,
        messages=asked(HELLO),
        max_tokens=LIMIT,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    said = b"".join(bytes(token.bytes or ()) for token in told.content)
    assert said.decode(errors="replace").strip() == answer.choices[0].message.content.strip()
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in told.content)
    return " ".join(f"{token.logprob:.4f}" for token in told.content)


def responses(url: str, model: str) -> str:
    with client(url) as sdk:
        first = sdk.responses.create(
            model=model, input=HELLO, max_output_tokens=LIMIT, temperature=0
        )
        second = sdk.responses.create(
            model=model,
            input="And why?",
            previous_response_id=first.id,
            max_output_tokens=LIMIT,
            temperature=0,
        )
    return first.output_text + second.output_text


def responses_stream(url: str, model: str) -> str:
    events = client(url).responses.create(
        model=model, input=HELLO, max_output_tokens=LIMIT, temperature=0, stream=True
    )
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


def responses_tools(url: str, model: str) -> str:
    answer = client(url).responses.create(
        model=model,
        input=PERSON,
        tools=[
            {
                "type": "function",
                "name": "Person",
                "parameters": Person.model_json_schema(),
                "strict": True,
            }
        ],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=128,
        temperature=0,
    )
    (call,) = (item for item in answer.output if item.type == "function_call")
    Person.model_validate_json(call.arguments)
    return call.arguments


def responses_parse(url: str, model: str) -> str:
    answer = client(url).responses.parse(
        model=model, input=PERSON, text_format=Person, max_output_tokens=128, temperature=0
    )
    assert answer.output_parsed is not None
    return answer.output_parsed.model_dump_json()


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "tools, streamed": tools_stream,
            "schema": parse,
            "logprobs": logprobs,
            "responses": responses,
            "responses, streamed": responses_stream,
            "responses, tools": responses_tools,
            "responses, schema": responses_parse,
        }
    )
