"""Pydantic AI: agents over chats and over responses."""

import asyncio
from typing import Any

from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all


def agent(url: str, model: str, kind: Any = OpenAIChatModel, **options: Any) -> Agent[None, Any]:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
    limit = 128 if "output_type" in options else LIMIT
    settings = ModelSettings(temperature=0, max_tokens=limit, parallel_tool_calls=False)
    if "output_type" not in options:
        settings = ModelSettings(temperature=0, max_tokens=limit)
    return Agent(kind(model, provider=provider), model_settings=settings, **options)


def chat(url: str, model: str) -> str:
    return str(agent(url, model).run_sync(HELLO).output)


def stream(url: str, model: str) -> str:
    async def run() -> str:
        async with agent(url, model).run_stream(HELLO) as result:
            return "".join([piece async for piece in result.stream_text(delta=True)])

    return asyncio.run(run())


def tools(url: str, model: str) -> str:
    asked = agent(url, model, output_type=ToolOutput(Person))
    person: Person = asked.run_sync(PERSON).output
    return person.model_dump_json()


def schema(url: str, model: str) -> str:
    asked = agent(url, model, output_type=NativeOutput(Person))
    person: Person = asked.run_sync(PERSON).output
    return person.model_dump_json()


def responses(url: str, model: str) -> str:
    return str(agent(url, model, OpenAIResponsesModel).run_sync(HELLO).output)


def responses_tools(url: str, model: str) -> str:
    asked = agent(url, model, OpenAIResponsesModel, output_type=ToolOutput(Person))
    person: Person = asked.run_sync(PERSON).output
    return person.model_dump_json()


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "schema": schema,
            "responses": responses,
            "responses, tools": responses_tools,
        }
    )
