"""LangChain's chat model for OpenAI."""

from typing import Any

from langchain_openai import ChatOpenAI
from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all


def model_of(url: str, model: str, limit: int = LIMIT, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model=model,
        base_url=f"{url}/v1",
        api_key=KEY,
        temperature=0,
        max_tokens=limit,
        max_retries=0,
        **options,
    )


def chat(url: str, model: str) -> str:
    return str(model_of(url, model).invoke(HELLO).content)


def stream(url: str, model: str) -> str:
    return "".join(str(chunk.content) for chunk in model_of(url, model).stream(HELLO))


def tools(url: str, model: str) -> str:
    bound = model_of(url, model, 128).bind_tools([Person], tool_choice="any")
    (call, *_) = bound.invoke(PERSON).tool_calls
    return Person.model_validate(call["args"]).model_dump_json()


def schema(url: str, model: str) -> str:
    bound = model_of(url, model, 128).with_structured_output(Person, method="json_schema")
    person = bound.invoke(PERSON)
    assert isinstance(person, Person)
    return person.model_dump_json()


def logprobs(url: str, model: str) -> str:
    answer = model_of(url, model).bind(logprobs=True).invoke(HELLO)
    told = answer.response_metadata["logprobs"]["content"]
    return " ".join(f"{token['logprob']:.4f}" for token in told)


def responses(url: str, model: str) -> str:
    answer = model_of(url, model, use_responses_api=True).invoke(HELLO)
    return answer.text


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "schema": schema,
            "logprobs": logprobs,
            "responses": responses,
        }
    )
