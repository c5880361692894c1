"""The bodies of requests, and the values that each parameter allows.

Unknown parameters are ignored, as OpenAI and vLLM do. A known parameter that would change the
answer and is not supported is refused by name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pd_core.checkpoints.sampling_defaults import AskedSampling
from pd_core.constraint import Constraint
from pd_device_client.api.completions.response_format import (
    ResponseFormat,
    StructuredOutputs,
    asked_constraint,
)
from pd_device_client.api.http.errors import Refusal
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
_MAX_STOP_TOKENS = 256
_MAX_TOKENS = 2**31 - 1

_P = TypeVar("_P", bound="_Parameters")
_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
# Stop at the first error in an unbounded list, which may hold millions of bad items.
_TokenIds = Annotated[list[_TokenId], Field(min_length=1, fail_fast=True)]
_AnyTokenIds = Annotated[list[_TokenId], Field(fail_fast=True)]
_Text = Annotated[str, Field(min_length=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARACTERS)]


class _Parameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(_Parameters):
    """When to report usage.

    Attributes:
        include_usage: in a chunk of its own at the end.
        continuous_usage_stats: in every chunk.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Extension(_Parameters):
    """The options under the key `pd`.

    Attributes:
        mode: which sides make the answer; None uses the device's setting.
        pace_s: the gap between shown tokens.
        reading_wpm: words a minute to show instead.
        ttft_s: the latest time for the first token.
        largest_gap_s: the longest gap; up to it a slow device's pace is stretched.
        max_cloud_tokens: most tokens that the cloud may make of the answer.
        privacy: "local-only" sends nothing of the request off this machine.
        tokens: report position, id, origin and time of every token in its chunk.
        events: in a stream, also report plan, arrivals, passes and handoff, in separate chunks.
    """

    mode: Literal["device-only", "cloud-only", "pd-device"] | None = None
    pace_s: Annotated[float, Field(ge=0.001, le=60)] | None = None
    reading_wpm: Annotated[float, Field(ge=1, le=10000)] | None = None
    ttft_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    largest_gap_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    max_cloud_tokens: Annotated[int, Field(ge=0, le=_MAX_TOKENS)] | None = None
    privacy: Literal["local-only"] | None = None
    tokens: bool = False
    events: bool = False

    @property
    def parsed_mode(self) -> Mode | None:
        """The mode, or None."""
        return None if self.mode is None else Mode(self.mode)


class Sampled(_Parameters):
    """The parameters that chat and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_MAX_STOPS)] | None = None
    stop_token_ids: Annotated[_AnyTokenIds, Field(max_length=_MAX_STOP_TOKENS)] | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    add_special_tokens: bool | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=10)] | None = None
    dry_base: Annotated[float, Field(ge=1, le=10)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=1, le=512)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    pd: Extension | None = None

    @property
    def extension(self) -> Extension:
        """The options under the key `pd`, or the defaults."""
        return self.pd or Extension()

    @property
    def limit(self) -> tuple[int | None, str]:
        """The token limit, or None, and the name of its parameter."""
        return self.max_tokens, "max_tokens"

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def fixed_seed(self) -> int | None:
        """The seed; None draws one. As in vLLM -1 does too."""
        return None if self.seed == -1 else self.seed

    @property
    def sampling(self) -> AskedSampling:
        """What is asked of sampling."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "dry_multiplier": self.dry_multiplier,
            "dry_base": self.dry_base,
            "dry_allowed_length": self.dry_allowed_length,
        }

    @property
    def constraint(self) -> Constraint | None:
        """The form that the answer must have; None: any.

        Raises:
            Refusal: it cannot be used, by the name of its parameter.
        """
        return asked_constraint(self.response_format, self.structured_outputs)

    @property
    def constraint_name(self) -> str:
        """The parameter that says the form."""
        return "response_format" if self.structured_outputs is None else "structured_outputs"

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
        """The token limit, or None, by its new name or its old one."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens, "max_completion_tokens"
        return super().limit


class CompletionParameters(Sampled):
    """The body of /v1/completions: one or several prompts, each text or token ids."""

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

    tokens: _AnyTokenIds


class CloudParameters(_Parameters):
    """The body of /v1/pd/cloud: "host:port" or a URL, or null for none."""

    address: Annotated[str, Field(max_length=300)] | None


# Refused parameters, and the values that are accepted because they have no effect.
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
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
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
    "min_tokens": (0,),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "modalities": (["text"],),
    "no_repeat_ngram_size": (0,),
    "penalty_alpha": (0, 0.0),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "repeat_penalty": (1, 1.0),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tfs": (1, 1.0),
    "tfs_z": (1, 1.0),
    "tools": ([],),
    "top_a": (0, 0.0),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0, 0.0),
}


def read_parameters(kind: type[_P], raw: Mapping[str, Any]) -> _P:
    """Parse a body.

    Raises:
        Refusal: the named parameter is missing, out of its range, or not supported.
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
    """Return a refusal that names the parameter at fault by its path."""
    found = max(error.errors(include_url=False, include_context=False), key=_nearness)
    path = _path(found["loc"])
    if found["type"] == "missing":
        return Refusal(f"{path} is missing; the request needs it", path)
    value = ascii(found["input"])
    shown = value if len(value) <= 80 else f"{value[:77]}..."
    return Refusal(f"{path} is {shown}: {found['msg'][:1].lower()}{found['msg'][1:]}", path)


def _nearness(found: Any) -> tuple[bool, int]:
    """Sort key for the errors of a union type: the type that the value matches best comes last.

    That is a type that fits with a value out of range, or else the error with the deepest path.
    """
    depth = len([part for part in found["loc"] if isinstance(part, int)])
    return not found["type"].endswith("_type"), depth


def _path(location: tuple[int | str, ...]) -> str:
    """Return a path such as "messages[0].role", without pydantic's names of union members."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in {"str", "int", "float", "bool"}:
            path += f".{part}" if path else part
    return path
