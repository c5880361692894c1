"""The bodies of requests, and the values that each parameter allows.

Unknown parameters are ignored, as OpenAI and vLLM do, except under the key `pd`. A known parameter
that would change the answer and is not supported is refused by name.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from pd_core.checkpoints.sampling_defaults import AskedSampling
from pd_core.constraint import Constraint
from pd_core.sampling_params import MAX_LATE_TOKENS, MAX_LOGIT_BIAS, MAX_LOGPROBS
from pd_device_client.api.completions.instead import INSTEAD, OF_CHATS, OF_COMPLETIONS
from pd_device_client.api.completions.message import Message
from pd_device_client.api.completions.response_format import (
    ResponseFormat,
    StructuredOutputs,
    asked_constraint,
)
from pd_device_client.api.http.errors import Refusal
from pd_device_client.api.http.validated import Parameters, validated
from pd_device_client.api.tools.forced_form import answer_form
from pd_device_client.api.tools.functions import MAX_TOOLS, Offer, Tool, ToolChoice, offered
from pd_device_client.api.tools.template_values import ReasoningEffort, template_values
from pd_device_client.contract.ask import Mode

__all__ = [
    "MAX_CHOICES",
    "ChatParameters",
    "CloudParameters",
    "CompletionParameters",
    "DetokenizeParameters",
    "Extension",
    "Sampled",
    "TokenizeParameters",
    "read_parameters",
]

MAX_CHOICES = 8
_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256
_MAX_TOKENS = 2**31 - 1

_P = TypeVar("_P", bound="Parameters")
_TokenId = Annotated[int, Field(ge=0, lt=2**31)]
# Stop at the first error in an unbounded list, which may hold millions of bad items.
_TokenIds = Annotated[list[_TokenId], Field(min_length=1, fail_fast=True)]
_AnyTokenIds = Annotated[list[_TokenId], Field(fail_fast=True)]
_Text = Annotated[str, Field(min_length=1)]
_Stop = Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARACTERS)]
_IdText = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_NumLogprobs = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]


class StreamOptions(Parameters):
    """When to report usage: in a chunk of its own at the end, or in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Extension(Parameters):
    """The options under the key `pd`: no other key is taken.

    Attributes:
        mode: which sides make the answer; None uses the device's setting.
        pace_s: the gap between shown tokens.
        reading_wpm: words a minute to show instead.
        ttft_s: the latest time for the first token.
        largest_gap_s: the longest gap; up to it a slow device's pace is stretched.
        quality_floor: least share of the prompt that this device may read; 1 is exact.
        max_cloud_tokens: most tokens that the cloud may make for the request, all its choices.
        max_cloud_cost: most money for it, at the prices of the settings.
        local_only: nothing of the request leaves this machine, nor of its later turns.
        privacy: "local-only" says the same.
        label: of the words, for the rules of the settings.
        conversation: an id; once a turn was kept on this device, its later turns are too.
        tokens: report position, id, origin and time of every token in its chunk.
        events: in a stream, also report plan, arrivals, passes and handoff, in separate chunks.
    """

    model_config = ConfigDict(extra="forbid")

    mode: Literal["device-only", "cloud-only", "pd-device"] | None = None
    pace_s: Annotated[float, Field(ge=0.001, le=60)] | None = None
    reading_wpm: Annotated[float, Field(ge=1, le=10000)] | None = None
    ttft_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    largest_gap_s: Annotated[float, Field(ge=0.001, le=3600)] | None = None
    quality_floor: Annotated[float, Field(ge=0.05, le=1)] | None = None
    max_cloud_tokens: Annotated[int, Field(ge=0, le=_MAX_TOKENS)] | None = None
    max_cloud_cost: Annotated[float, Field(ge=0, le=1e9)] | None = None
    local_only: bool | None = None
    label: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    conversation: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    privacy: Literal["local-only"] | None = None
    tokens: bool = False
    events: bool = False

    @property
    def stays_here(self) -> bool:
        """Whether the request itself says that it stays on this device."""
        return self.local_only is True or self.privacy is not None

    @property
    def parsed_mode(self) -> Mode | None:
        """The mode, or None."""
        return None if self.mode is None else Mode(self.mode)


class Sampled(Parameters):
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
    stop_token_ids: Annotated[_AnyTokenIds, Field(max_length=MAX_LATE_TOKENS)] | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, le=_MAX_TOKENS)] | None = None
    logit_bias: Annotated[dict[_IdText, _Bias], Field(max_length=MAX_LOGIT_BIAS)] | None = None
    prompt_logprobs: _NumLogprobs | None = None
    cache_salt: Annotated[str, Field(max_length=256)] | None = None
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
    def biases(self) -> tuple[tuple[int, float], ...]:
        """The bias of each id that has one, in rising order of ids."""
        biased = {int(token_id): bias for token_id, bias in (self.logit_bias or {}).items()}
        return tuple(sorted(biased.items()))

    @property
    def late_token_ids(self) -> tuple[int, ...]:
        """Stop tokens that min_tokens holds back."""
        return tuple(dict.fromkeys(self.stop_token_ids or ())) if self.min_tokens else ()

    @property
    def num_logprobs(self) -> int | None:
        """How many of the most likely tokens to report of each position; None: no logprobs."""
        return None

    @property
    def num_choices(self) -> int:
        """Answers wanted for each prompt."""
        return self.n or 1


class ChatParameters(Sampled):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MAX_TOKENS)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @cached_property
    def offer(self) -> Offer | None:
        """What the model may call; None: nothing.

        Raises:
            Refusal: a tool or the choice is wrong.
        """
        return offered(self.tools, self.tool_choice, self.parallel_tool_calls)

    @cached_property
    def form(self) -> Constraint | None:
        """The form that the answer must have, a call's included.

        Raises:
            Refusal: it cannot be used.
        """
        return answer_form(self.offer, super().constraint)

    @property
    def constraint(self) -> Constraint | None:
        """The form that the answer must have, a call's included."""
        return self.form

    @property
    def constraint_name(self) -> str:
        """The parameter that says the form."""
        return super().constraint_name if super().constraint is not None else "tools"

    @property
    def template_values(self) -> Mapping[str, Any]:
        """Further variables of the chat template.

        Raises:
            Refusal: one of them cannot be given.
        """
        return template_values(self.chat_template_kwargs, self.reasoning_effort)

    logprobs: bool | None = None
    top_logprobs: _NumLogprobs | None = None

    @property
    def num_logprobs(self) -> int | None:
        """How many of the most likely tokens to report of each position; None: no logprobs."""
        return (self.top_logprobs or 0) if self.logprobs else None

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
    logprobs: _NumLogprobs | None = None
    echo: bool | None = None

    @property
    def num_logprobs(self) -> int | None:
        """How many of the most likely tokens to report of each position; None: no logprobs."""
        return self.logprobs


class TokenizeParameters(Parameters):
    """The body of /tokenize: a prompt, or the messages of a chat."""

    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_special_tokens: bool | None = None


class DetokenizeParameters(Parameters):
    """The body of /detokenize."""

    tokens: _AnyTokenIds


class CloudParameters(Parameters):
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
    "continue_final_message": (False,),
    "documents": ([],),
    "early_stopping": (False,),
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
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "modalities": (["text"],),
    "no_repeat_ngram_size": (0,),
    "penalty_alpha": (0, 0.0),
    "prompt_embeds": (),
    "repeat_penalty": (1, 1.0),
    "repetition_detection": (),
    "return_prompt_text": (False,),
    "return_token_offsets": (False,),
    "return_tokens_as_token_ids": (False,),
    "routed_experts_prompt_start": (),
    "spaces_between_special_tokens": (True,),
    "suffix": ("",),
    "tfs": (1, 1.0),
    "tfs_z": (1, 1.0),
    "top_a": (0, 0.0),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "watermarking": (False,),
    "web_search_options": (),
    "xtc_probability": (0, 0.0),
}


def read_parameters(kind: type[_P], raw: Mapping[str, Any]) -> _P:
    """Parse a body.

    Raises:
        Refusal: the named parameter is missing, out of its range, or not supported.
    """
    refused = dict(_UNSUPPORTED)
    if issubclass(kind, ChatParameters):
        refused |= OF_COMPLETIONS
    elif issubclass(kind, CompletionParameters):
        refused |= OF_CHATS
    for name, harmless in refused.items():
        value = raw.get(name)
        if value is not None and not any(_same(value, other) for other in harmless):
            instead = f" ({INSTEAD[name]})" if name in INSTEAD else ""
            raise Refusal(
                f"{name} is not supported here; leave it out{instead}",
                name,
                code="unsupported_parameter",
            )
    return validated(kind, raw)


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other
