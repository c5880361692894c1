"""LiteLLM: through OpenAI's API and through Anthropic's."""

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a list of prices

import litellm
from trial import HELLO, KEY, LIMIT, PERSON, Person, try_all

TOOLS = [
    {
        "type": "function",
        "function": {"name": "person", "parameters": Person.model_json_schema()},
    }
]


def ask(url: str, model: str, text: str, **options: Any) -> Any:
    return litellm.completion(
        model=f"openai/{model}",
        api_base=f"{url}/v1",
        api_key=KEY,
        messages=[{"role": "user", "content": text}],
        temperature=0,
        num_retries=0,
        **options,
    )


def chat(url: str, model: str) -> str:
    text: str = ask(url, model, HELLO, max_tokens=LIMIT).choices[0].message.content
    return text


def stream(url: str, model: str) -> str:
    chunks = ask(url, model, HELLO, max_tokens=LIMIT, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def tools(url: str, model: str) -> str:
    answer = ask(url, model, PERSON, max_tokens=128, tools=TOOLS, tool_choice="required")
    call = answer.choices[0].message.tool_calls[0]
    return Person.model_validate_json(call.function.arguments).model_dump_json()


def schema(url: str, model: str) -> str:
    answer = ask(url, model, PERSON, max_tokens=128, response_format=Person)
    return Person.model_validate_json(answer.choices[0].message.content).model_dump_json()


def logprobs(url: str, model: str) -> str:
    answer = ask(url, model, HELLO, max_tokens=LIMIT, logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs.content
    return " ".join(f"{token.logprob:.4f}" for token in told)


def responses(url: str, model: str) -> str:
    answer = litellm.responses(
        model=f"openai/{model}",
        api_base=f"{url}/v1",
        api_key=KEY,
        input=HELLO,
        max_output_tokens=LIMIT,
        temperature=0,
    )
    text: str = answer.output[0].content[0].text
    return text


def messages(url: str, model: str) -> str:
    answer = litellm.completion(
        model=f"anthropic/{model}",
        api_base=url,
        api_key=KEY,
        messages=[{"role": "user", "content": HELLO}],
        max_tokens=LIMIT,
        temperature=0,
    )
    text: str = answer.choices[0].message.content
    return text


if __name__ == "__main__":
    try_all(
        {
            "chat": chat,
            "stream": stream,
            "tools": tools,
            "schema": schema,
            "logprobs": logprobs,
            "responses": responses,
            "messages": messages,
        }
    )
