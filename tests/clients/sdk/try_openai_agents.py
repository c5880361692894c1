"""OpenAI's Agents SDK: over responses, which is its default, and over chats."""

import asyncio
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from trial import HELLO, KEY, LIMIT, PERSON, Person, look_up, try_all

set_tracing_disabled(True)  # traces would be sent to OpenAI


def agent(url: str, model: str, kind: Any, limit: int = LIMIT, **options: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    choice, body = options.pop("tool_choice", None), options.pop("extra_body", None)
    return Agent(
        name="tried",
        model=kind(model, openai_client=client),
        model_settings=ModelSettings(
            temperature=0, max_tokens=limit, tool_choice=choice, extra_body=body
        ),
        **options,
    )


def ran(asked: Agent[Any], text: str) -> Any:
    return asyncio.run(Runner.run(asked, text, max_turns=3))


def chat(url: str, model: str) -> str:
    return str(ran(agent(url, model, OpenAIChatCompletionsModel), HELLO).final_output)


def streamed(url: str, model: str) -> str:
    async def run() -> str:
        # It takes a stream that was cut off by its limit for an error.
        asked = agent(url, model, OpenAIResponsesModel, 128, extra_body={"stop": ["."]})
        result = Runner.run_streamed(asked, HELLO)
        return "".join(
            [
                event.data.delta
                async for event in result.stream_events()
                if event.type == "raw_response_event"
                and event.data.type == "response.output_text.delta"
            ]
        )

    return asyncio.run(run())


def tools(kind: Any) -> Any:
    def use(url: str, model: str) -> str:
        asked = agent(
            url,
            model,
            kind,
            64,
            tools=[function_tool(look_up)],
            tool_choice="required",
            tool_use_behavior="stop_on_first_tool",
        )
        said = str(ran(asked, "What is the weather in Oslo?").final_output)
        assert said.startswith("It is sunny in "), said
        return said

    return use


def schema(kind: Any) -> Any:
    def use(url: str, model: str) -> str:
        person = ran(agent(url, model, kind, 128, output_type=Person), PERSON).final_output
        return Person.model_validate(person.model_dump()).model_dump_json()

    return use


def responses(url: str, model: str) -> str:
    return str(ran(agent(url, model, OpenAIResponsesModel), HELLO).final_output)


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "tools": tools(OpenAIChatCompletionsModel),
            "schema": schema(OpenAIChatCompletionsModel),
            "responses": responses,
            "responses, streamed": streamed,
            "responses, tools": tools(OpenAIResponsesModel),
            "responses, schema": schema(OpenAIResponsesModel),
        }
    )
