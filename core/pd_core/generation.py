"""The shared vocabulary: what the two sides say to each other, as plain values.

Both sides convert these to and from the wire in one module each (`convert.py`); everything else
uses only these. Positions count response tokens from 0. Times are durations, in seconds of one
machine's monotonic clock, never instants: clocks are not compared across machines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pd_core.needs import Need
from pd_core.refinement import Ranges
from pd_core.sampling_params import SamplingParams

__all__ = [
    "API_VERSION",
    "OLDEST_API_VERSION",
    "Admitted",
    "CloudEvent",
    "Extend",
    "Fingerprints",
    "FinishReason",
    "Finished",
    "Limits",
    "Load",
    "ModelCard",
    "RefinedPrompt",
    "ServerInfo",
    "Start",
    "Stop",
    "TokenLogprobs",
    "Tokens",
    "needed_api_version",
]

OLDEST_API_VERSION = 1
API_VERSION = 3
"""The versions of the protocol that this code speaks.

Version 2 adds min_p and the penalties of `SamplingParams`, version 3 its constraint, logit_bias,
min_tokens and logprobs.
"""


def needed_api_version(sampling: SamplingParams) -> int:
    """Return the oldest version of the protocol that has these parameters.

    A server skips fields that it does not know, and would choose other tokens than the device. So a
    request names the version it needs: an older server refuses it, and still takes all others.
    """
    if sampling.constraint is not None or sampling.logprobs is not None:
        return 3
    if sampling.logit_bias or sampling.min_tokens:
        return 3
    added = (
        sampling.min_p,
        sampling.repetition_penalty,
        sampling.presence_penalty,
        sampling.frequency_penalty,
    )
    return OLDEST_API_VERSION if added == (0.0, 1.0, 0.0, 0.0) else 2


class FinishReason(StrEnum):
    """Why a cloud's stream or a whole answer ended; the words are OpenAI's where it has one."""

    STOP = "stop"  # an end-of-sequence or stop token, sent last; in an answer also a stop string
    LENGTH = "length"  # the token limit was reached
    CANCELLED = "cancelled"  # a stream: the client sent Stop; an answer: its reader went away
    ERROR = "error"  # only of an answer: no side could go on


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Digests that say whether two sides run the same model; hex sha256, "" when unknown.

    Attributes:
        tokenizer: digest of the tokenizer's content.
        chat_template: digest of the chat template's text.
        weights: digest of sorted tensor names, shapes, bytes and the semantic config.
        numerics_id: dtype, quantisation, engine, instruction set, sampler version and a digest
            of a fixed computation: if it is equal on both sides, texts are identical.
    """

    tokenizer: str = ""
    chat_template: str = ""
    weights: str = ""
    numerics_id: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Open a request, or continue one: a continuation is a Start with committed tokens.

    Attributes:
        request_id: unique per stream attempt; names the request in logs.
        prompt_token_ids: the prompt.
        committed_token_ids: response tokens that are already fixed.
        committed_first_position: response position of committed_token_ids[0]; earlier response
            tokens are assumed to be the end of the prompt.
        sampling: how to choose tokens.
        token_limit: generate positions below this one (absolute; can only be raised).
        keep_ratio: share of the prompt the refined prompt keeps; 1 means no refinement.
        protected_ranges: prompt positions that it keeps in any case, rising and apart.
        fingerprints: the client's; checked against the server's unless "".
        cache_salt: requests with different salts never share cached prefixes.
        useful_for_s: drop the request if its prefill has not begun by then; None: never.
        stop_token_ids: tokens that end the answer as an end-of-sequence token does.
        messages: the chat that the prompt was made from, for a cloud that takes text; pd-server
            never gets it. Empty: there was none.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    token_limit: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    committed_token_ids: tuple[int, ...] = ()
    committed_first_position: int = 0
    keep_ratio: float = 1.0
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    cache_salt: str = ""
    useful_for_s: float | None = None
    stop_token_ids: tuple[int, ...] = ()
    protected_ranges: Ranges = ()
    messages: tuple[Mapping[str, Any], ...] = ()

    @property
    def first_position(self) -> int:
        """The first position for the server to generate."""
        return self.committed_first_position + len(self.committed_token_ids)


@dataclass(frozen=True, slots=True)
class Extend:
    """Raise the token limit of a running stream; lower values are ignored."""

    token_limit: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Generate no more; the server answers with Finished."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a server is, and what it has done since it started.

    Attributes:
        num_running: requests holding a slot.
        num_waiting: requests queued.
        max_num_seqs: slots.
        queued_prefill_tokens: prompt tokens still to prefill, of running and queued requests.
        prefill_tokens_per_s: measured prefill speed; 0 when not yet known.
        decode_step_s: measured time of one decode step at the present load; 0 when unknown.
        engine_busy_s: total working time of the engine.
        kv_byte_s: integral over time of the KV bytes held.
        kv_bytes_peak: most KV bytes held at once.
        tokens_generated: tokens generated, including those after a Stop.
        kv_blocks: blocks of KV memory; 0 if the engine does not report them.
        kv_blocks_held: blocks held by running requests.
        kv_blocks_cached: blocks that cache prefixes for later requests.
        prefix_hit_tokens: prompt tokens found cached, since the start.
        num_preemptions: how often a request lost its KV cache to an earlier one.
        drafted_tokens: tokens guessed by streams that decode, since the start.
        accepted_tokens: of them, those that were right.
    """

    num_running: int = 0
    num_waiting: int = 0
    max_num_seqs: int = 0
    queued_prefill_tokens: int = 0
    prefill_tokens_per_s: float = 0.0
    decode_step_s: float = 0.0
    engine_busy_s: float = 0.0
    kv_byte_s: float = 0.0
    kv_bytes_peak: int = 0
    tokens_generated: int = 0
    kv_blocks: int = 0
    kv_blocks_held: int = 0
    kv_blocks_cached: int = 0
    prefix_hit_tokens: int = 0
    num_preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an engine runs, on either side.

    Attributes:
        name: the model's, as shown to users.
        engine: "torch" or "vllm"; another word for an emulation.
        fingerprints: of tokenizer, template, weights and numerics.
        vocab_size: token ids are below this.
        eos_token_ids: ids that end a sequence.
        max_context_tokens: limit of prompt and response together.
        sampler: "model", or "rolling-hash" for fleet measurements.
        grammar_library: what compiles the forms of answers, see `pd_core.grammar`; "" where no
            answer can be held to a form.
        logprobs: whether it says how likely its tokens were, where a request asks.
    """

    name: str
    engine: str
    fingerprints: Fingerprints
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    max_context_tokens: int
    sampler: str = "model"
    grammar_library: str = ""
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts, beside its model's own limits.

    Attributes:
        max_output_tokens: highest token limit of a request.
        max_num_seqs: requests decoded together.
        max_num_waiting: requests queued before new ones are refused.
    """

    max_output_tokens: int
    max_num_seqs: int
    max_num_waiting: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself: its model, what it accepts, how busy it is.

    Its model's `max_context_tokens` is the server's limit, which may be below the model's own.
    `sealed` says whether what it sends can be checked for changes on the way; see
    `pd_core.identity.stream_seal`. A link within one process changes nothing, so it counts too.
    `exactness` is the most that an answer shared with it can be: "text" where it takes and gives
    text instead of token ids. `abilities` says in words what was found out about a server that has
    no such card of its own, and `lacks` what it cannot be asked for.
    """

    server_version: str
    model: ModelCard
    limits: Limits
    load: Load
    api_version: int = API_VERSION
    sealed: bool = True
    exactness: str = "identical"
    abilities: tuple[str, ...] = ()
    lacks: frozenset[Need] = frozenset()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is accepted; `load` was taken at that moment, this request excluded."""

    load: Load


@dataclass(frozen=True, slots=True)
class RefinedPrompt:
    """The prompt positions to keep, as [first, end) ranges in rising order; the last is one."""

    kept_ranges: Ranges


class TokenLogprobs(NamedTuple):
    """How likely a token was, and which ones were the most likely, by the model alone.

    All are natural logarithms of probabilities, float32 values; see `pd_core.sampling.logprobs`.

    Attributes:
        logprob: of the token that was chosen.
        top_ids: the most likely ids, as many as were asked for; of equals the lowest first.
        top_logprobs: theirs, falling.
    """

    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class Tokens(NamedTuple):  # one comes for every token: a third of a frozen dataclass's time
    """Generated tokens at first_position, first_position + 1, ...

    Attributes:
        first_position: of the first token.
        token_ids: the tokens.
        logprobs: one for each token where the request asks for them, else none.
    """

    first_position: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()

    def first(self, count: int) -> "Tokens":
        """Return the first count of these tokens, with all that is told of them."""
        return Tokens(self.first_position, self.token_ids[:count], self.logprobs[:count])


@dataclass(frozen=True, slots=True)
class Finished:
    """The last message of a stream that ends in order.

    Attributes:
        reason: why it ended.
        tokens_generated: all tokens generated for this stream, including those after Stop.
        queue_s: seconds waited before the prefill.
        prefill_s: seconds from the start of the prefill to the first token.
        engine_busy_s: this request's share of the engine's working time.
        kv_byte_s: integral of the KV bytes it held.
        cached_tokens: tokens of the prefix that an earlier request had left in the cache.
    """

    reason: FinishReason
    tokens_generated: int
    queue_s: float = 0.0
    prefill_s: float = 0.0
    engine_busy_s: float = 0.0
    kv_byte_s: float = 0.0
    cached_tokens: int = 0


CloudEvent = Admitted | RefinedPrompt | Tokens | Finished
