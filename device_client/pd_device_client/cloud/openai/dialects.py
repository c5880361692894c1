"""How a stream is asked for, by the kind of server: the request's body, and how events are read."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from pd_core.errors import CloudUnavailable, RequestError
from pd_core.generation import Start
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.openai.checked_ids import CheckedIds, UncheckedIds
from pd_device_client.cloud.openai.chunk import Chunk, chat_chunk, completion_chunk, llama_chunk
from pd_device_client.cloud.openai.device_model import DeviceModel
from pd_device_client.cloud.openai.probe import Found
from pd_device_client.cloud.openai.services import LLAMA_SERVER, VLLM
from pd_device_client.cloud.openai.text_tokens import TextTokens

__all__ = ["Dialect", "TokenReader", "dialect_of"]

_LARGEST_SEED = 2**63 - 1
_LARGEST_CHAT_SEED = 2**31 - 1
_LLAMA_SEEDS = 2**32 - 1  # one more would mean a random one
_NEVER = -100.0  # added to a logit
_MOST_CHAT_TEMPERATURE = 2.0
_SPARE_SHARE, _SPARE_TOKENS = 4, 4


class TokenReader(Protocol):
    """Turns one stream's chunks into this device's token ids."""

    def take(self, chunk: Chunk) -> tuple[int, ...]:
        """Return the tokens that are sure now.

        Raises:
            ProtocolError: the chunk cannot be used.
        """
        ...

    def end(self) -> tuple[int, ...]:
        """Return the rest after the last chunk; raises as `take`."""
        ...


class Dialect(Protocol):
    """How one kind of server is asked."""

    @property
    def path(self) -> str:
        """Where to send a request; see `Endpoint`."""
        ...

    def body(self, start: Start, made: Sequence[int], num_tokens: int) -> dict[str, Any]:
        """Return the request for the next tokens.

        Args:
            start: what is asked.
            made: the answer's tokens so far, the committed ones included.
            num_tokens: how many to make at most.

        Raises:
            RequestError: the server cannot make these tokens.
        """
        ...

    def chunk(self, event: dict[str, Any]) -> Chunk:
        """Read an event."""
        ...

    def reader(self, start: Start, made: Sequence[int]) -> TokenReader:
        """Return the reader of a request's stream."""
        ...


def dialect_of(found: Found, device: DeviceModel | None) -> Dialect:
    """Return how a server is asked.

    Raises:
        CloudUnavailable: it takes text, and no model runs here that has a tokenizer.
    """
    if found.service.gives_ids:
        ids = _Llama if found.service == LLAMA_SERVER else _Vllm
        return ids(found.model, device)
    if device is None:
        raise CloudUnavailable("the cloud takes text only, and there is no model here to read it")
    return _Chat(found, device)


class _Vllm:
    """Token ids both ways, at /v1/completions."""

    path = "completions"

    def __init__(self, model: str, device: DeviceModel | None) -> None:
        self._model = model
        self._device = device

    def body(self, start: Start, made: Sequence[int], num_tokens: int) -> dict[str, Any]:
        sampling = start.sampling
        _check_sampling(sampling, made)
        ends = _ends(start, self._device)
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": [*start.prompt_token_ids, *made],
            "max_tokens": num_tokens,
            "stream": True,
            "return_token_ids": True,
            # The server's own defaults must not count.
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "stop_token_ids": ends,
        }
        if not sampling.greedy:
            body["seed"] = _seed(start, made) & _LARGEST_SEED
        if start.cache_salt:
            body["cache_salt"] = start.cache_salt
        biases = dict(sampling.logit_bias)
        if _masks_ends(sampling) and self._device is not None:
            body["ignore_eos"] = True
            biases |= dict.fromkeys(self._device.card.eos_token_ids, _NEVER)
        if biases:
            body["logit_bias"] = {str(i): bias for i, bias in biases.items()}
        return body

    def chunk(self, event: dict[str, Any]) -> Chunk:
        return completion_chunk(event)

    def reader(self, start: Start, made: Sequence[int]) -> TokenReader:
        if self._device is None:
            return UncheckedIds()
        return CheckedIds(self._device, (*start.prompt_token_ids, *made))


class _Llama:
    """Token ids both ways, at llama-server's own /completion."""

    path = "/completion"

    def __init__(self, model: str, device: DeviceModel | None) -> None:
        self._model = model
        self._device = device

    def body(self, start: Start, made: Sequence[int], num_tokens: int) -> dict[str, Any]:
        sampling = start.sampling
        _check_sampling(sampling, made)
        _check_no_bias(sampling)
        return {
            "model": self._model,
            "prompt": [*start.prompt_token_ids, *made],
            "n_predict": num_tokens,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": True,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": -1,  # the whole context
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "ignore_eos": _masks_ends(sampling),
            "seed": _seed(start, made) % _LLAMA_SEEDS,
        }

    def chunk(self, event: dict[str, Any]) -> Chunk:
        return llama_chunk(event)

    def reader(self, start: Start, made: Sequence[int]) -> TokenReader:
        if self._device is None:
            return UncheckedIds()
        behind = (*start.prompt_token_ids, *made)
        return CheckedIds(self._device, behind, partial(_whole_characters, self._device))


class _Chat:
    """Text both ways, at /v1/chat/completions."""

    path = "chat/completions"

    def __init__(self, found: Found, device: DeviceModel) -> None:
        self._found = found
        self._device = device

    def body(self, start: Start, made: Sequence[int], num_tokens: int) -> dict[str, Any]:
        service, sampling = self._found.service, start.sampling
        _check_form(sampling)
        _check_no_bias(sampling)
        if not start.messages:
            raise RequestError(
                "this cloud takes chats of plain text only, and the request is a prompt, or has "
                "functions, calls or values for the template: the device answers it"
            )
        if made and not service.continues:
            raise RequestError("this cloud cannot continue an answer that has begun")
        limit = "max_completion_tokens" if service.new_limit_name else "max_tokens"
        if not service.continues:
            # Its tokens may be shorter than ours; what is too much is not read.
            num_tokens += num_tokens // _SPARE_SHARE + _SPARE_TOKENS
        body: dict[str, Any] = {
            "model": self._found.model,
            "messages": [dict(message) for message in start.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            limit: num_tokens,
            "temperature": min(sampling.temperature, _MOST_CHAT_TEMPERATURE),
            "top_p": sampling.top_p,
        }
        if not sampling.greedy:
            body["seed"] = _seed(start, made) & _LARGEST_CHAT_SEED
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(sampling, name) != 0.0:
                body[name] = getattr(sampling, name)
        if made:
            text = self._device.tokenizer.decode(made)
            body["messages"].append({"role": "assistant", "content": text})
            if service.name == VLLM.name:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def chunk(self, event: dict[str, Any]) -> Chunk:
        return chat_chunk(event)

    def reader(self, start: Start, made: Sequence[int]) -> TokenReader:
        return TextTokens(self._device, made)


def _check_sampling(sampling: SamplingParams, made: Sequence[int]) -> None:
    """Refuse what a server of another make would choose by other rules than this device.

    Raises:
        RequestError: it knows no such rule.
    """
    _check_form(sampling)
    if sampling.dry_multiplier != 0.0:
        raise RequestError("this cloud does not know DRY; leave it out, or use a pd-server")
    if made and (sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0):
        raise RequestError(
            "this cloud counts the tokens that an answer has so far as its prompt's, so it cannot "
            "continue one with a presence or frequency penalty"
        )


def _check_form(sampling: SamplingParams) -> None:
    if sampling.constraint is not None:
        raise RequestError("this cloud is not asked for answers of a given form")
    if sampling.min_tokens:
        raise RequestError("this cloud is not asked for answers of a least length (min_tokens)")


def _check_no_bias(sampling: SamplingParams) -> None:
    if sampling.logit_bias:
        raise RequestError("this cloud is not asked for a logit_bias")


def _masks_ends(sampling: SamplingParams) -> bool:
    """Whether no end-of-sequence token may be chosen; `forced_length` adds its own later."""
    return sampling.ignore_eos or sampling.forced_length is not None


def _ends(start: Start, device: DeviceModel | None) -> list[int]:
    own = () if device is None or _masks_ends(start.sampling) else device.card.eos_token_ids
    return list(dict.fromkeys((*own, *start.stop_token_ids)))


def _seed(start: Start, made: Sequence[int]) -> int:
    """A continuation has a seed of its own: it must not draw the noise of the beginning again."""
    return start.sampling.seed + start.committed_first_position + len(made)


def _whole_characters(device: DeviceModel, ids: Sequence[int], text: str) -> tuple[int, ...]:
    """Return a chunk's ids with those that llama-server leaves out of a stream.

    It sends a character that several tokens make with the last one's id alone.
    """
    if len(ids) != 1 or text.isascii():
        return tuple(ids)
    whole = device.tokenizer.encode(text)
    return tuple(whole) if whole and whole[-1] == ids[0] else tuple(ids)
