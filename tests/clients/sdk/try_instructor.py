"""Instructor: answers as Pydantic models, by tools and by schemas."""

from typing import Any

import instructor
from openai import OpenAI
from trial import KEY, PERSON, Person, try_all


def client(url: str, mode: instructor.Mode) -> Any:
    sdk = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    return instructor.from_openai(sdk, mode=mode)


def asked(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": PERSON}],
        "response_model": Person,
        "max_tokens": 128,
        "temperature": 0,
        "max_retries": 0,
    }


def tools(url: str, model: str) -> str:
    person = client(url, instructor.Mode.TOOLS).chat.completions.create(**asked(model))
    return Person.model_validate(person.model_dump()).model_dump_json()


def schema(url: str, model: str) -> str:
    person = client(url, instructor.Mode.JSON_SCHEMA).chat.completions.create(**asked(model))
    return Person.model_validate(person.model_dump()).model_dump_json()


def schema_stream(url: str, model: str) -> str:
    partial = client(url, instructor.Mode.JSON_SCHEMA).chat.completions.create_partial
    *_, last = partial(**asked(model))
    return Person.model_validate(last.model_dump()).model_dump_json()


if __name__ == "__main__":
    try_all({"tools": tools, "schema": schema, "schema, streamed": schema_stream})
