"""The bodies of requests, and what each parameter may be.

Unknown parameters are ignored, as OpenAI's own servers and vLLM do. Those that are known, would
change the answer and cannot be served are refused by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_device_client.api.errors import Refusal
from pd_device_client.contract.ask import Mode

__all__ = [
    "MAX_CHOICES",
    "ChatParameters",
    "CloudParameters",
    "CompletionParameters",
    "DetokenizeParameters",
    "Extension",
    "Message",
    "Sampled",
    "TokenizeParameters",
    "read_parameters",
]

MAX_CHOICES = 8
_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256
_MAX_TOKENS = 2**31 - 1

_P = TypeVar("_P", bound="_Parameters")
_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
# One complaint is enough where no length is set: a body has room for millions of bad items.
_TokenIds = Annotated[list[_TokenId], Field(min_length=1, fail_fast=True)]
_Text = Annotated[str, Field(min_length=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARACTERS)]


class _Parameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(_Parameters):
    """When usage is told.

    Attributes:
        include_usage: in a chunk of its own at the end.
        continuous_usage_stats: in every chunk.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Extension(_Parameters):
    """What is asked for under the key `pd`.

    Attributes:
        mode: who is to carry the answer; the server's setting where None.
        pace_s: the gap between shown tokens.
        ttft_s: the first token's latest instant.
        tokens: tell position, id, maker and time of every token in its chunk.
        events: in a stream, tell of plan, arrivals, passes and handoff too, in chunks of their own.
    """

    mode: Literal["device-only", "cloud-only", "pd-device"] | None = None
    pace_s: Annotated[float, Field(ge=0.001, le=60)] | None = None
    ttft_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    tokens: bool = False
    events: bool = False

    @property
    def parsed_mode(self) -> Mode | None:
        """The mode, or None."""
        return None if self.mode is None else Mode(self.mode)


class Sampled(_Parameters):
    """What chat and completions have in common."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_MAX_STOPS)] | None = None
    ignore_eos: bool | None = None
    add_special_tokens: bool | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=10)] | None = None
    dry_base: Annotated[float, Field(ge=1, le=10)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=1, le=512)] | None = None
    pd: Extension | None = None

    @property
    def extension(self) -> Extension:
        """What is asked for under the key `pd`."""
        return self.pd or Extension()

    @property
    def limit(self) -> tuple[int | None, str]:
        """The token limit that is asked for, None where there is none, and its parameter."""
        return self.max_tokens, "max_tokens"

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def num_choices(self) -> int:
        """Answers wanted for each prompt."""
        return self.n or 1


class Message(_Parameters):
    """One message; the content is text or a list of parts."""

    role: str
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None


class ChatParameters(Sampled):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None

    @property
    def limit(self) -> tuple[int | None, str]:
        """The token limit that is asked for, by its new name or its old one."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens, "max_completion_tokens"
        return super().limit


class CompletionParameters(Sampled):
    """The body of /v1/completions; a prompt is text or token ids, and there may be several."""

    prompt: (
        _Text
        | _TokenIds
        | Annotated[list[_Text], Field(min_length=1, max_length=MAX_CHOICES)]
        | Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_CHOICES)]
    )


class TokenizeParameters(_Parameters):
    """The body of /tokenize: a prompt, or the messages of a chat."""

    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)] | None = None
    add_special_tokens: bool | None = None


class DetokenizeParameters(_Parameters):
    """The body of /detokenize."""

    tokens: Annotated[list[_TokenId], Field(fail_fast=True)]


class CloudParameters(_Parameters):
    """The body of /v1/pd/cloud: "host:port", or null for none."""

    address: Annotated[str, Field(max_length=300)] | None


# What is refused, and the values that ask for nothing and so may stand there all the same.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "allowed_token_ids": (),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "logprobs": (False,),
    "min_p": (0, 0.0),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "presence_penalty": (0, 0.0),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "repetition_penalty": (1, 1.0),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "web_search_options": (),
}


def read_parameters(kind: type[_P], raw: Mapping[str, Any]) -> _P:
    """Read a body.

    Raises:
        Refusal: a parameter is missing, out of its range, or not supported; it is named.
    """
    for name, harmless in _UNSUPPORTED.items():
        value = raw.get(name)
        if value is not None and not any(_same(value, other) for other in harmless):
            raise Refusal(
                f"{name} is not supported here; leave it out", name, code="unsupported_parameter"
            )
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _refusal(error) from error


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other


def _refusal(error: ValidationError) -> Refusal:
    """Name the first parameter at fault, by the path that leads to it."""
    found = max(error.errors(include_url=False, include_context=False), key=_nearness)
    path = _path(found["loc"])
    if found["type"] == "missing":
        return Refusal(f"{path} is missing; the request needs it", path)
    value = ascii(found["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return Refusal(f"{path} is {shown}: {found['msg'][:1].lower()}{found['msg'][1:]}", path)


def _nearness(found: Any) -> tuple[bool, int]:
    """Of a parameter that may be of several types, find the one that the value comes nearest to.

    It is of that type but out of its range, or else it is the complaint that lies deepest.
    """
    depth = len([part for part in found["loc"] if isinstance(part, int)])
    return not found["type"].endswith("_type"), depth


def _path(location: tuple[int | str, ...]) -> str:
    """Return "messages[0].role"; pydantic's names of a union's members are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in {"str", "int", "float", "bool"}:
            path += f".{part}" if path else part
    return path
