"""A client of any OpenAI-compatible server, used in place of a device client.

Nothing is paced: tokens are shown as they come. The clock is the running loop's, and a token counts
when its chunk was read from the socket.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from pd_bench.endpoint.completion_stream import CompletionChunk, completion_chunks
from pd_bench.endpoint.http_pool import Http, HttpPool, Reply
from pd_bench.endpoint.prompt_words import words_of
from pd_bench.endpoint.settings import EndpointSettings
from pd_bench.replay.dispatch import Dispatched, record_of
from pd_bench.replay.workload import Work
from pd_bench.results.result import RequestRecord
from pd_core.errors import (
    CloudAuthenticationFailed,
    CloudTimeout,
    CloudUnavailable,
    ConfigError,
    InvalidRequest,
    PdError,
    ProtocolError,
    QueueFull,
)
from pd_device_client.contract.ask import Ask
from pd_device_client.contract.outcome import Origin, Outcome, Shown

__all__ = ["RESERVED_IDS", "Endpoint", "EndpointOutcome", "endpoint_record"]

RESERVED_IDS = 256
"""Prompts use no token ids below this: many tokenizers have bytes and special tokens there."""

_UNKNOWN_ID = -1
_NO_MODELS = (
    *(CloudTimeout, CloudUnavailable, ProtocolError),
    *(ValueError, KeyError, TypeError, RecursionError),
)


@dataclass(slots=True)
class EndpointOutcome(Outcome):
    """An endpoint's answer.

    Attributes:
        ids_known: whether the server sent token ids.
        reported_tokens: the answer's length by the server's count, or None.
        reported_prompt_tokens: the prompt's length by the server's count, or None.
        reported_reason: why it ended, in the server's own word; "" if it has not said.
    """

    ids_known: bool = True
    reported_tokens: int | None = None
    reported_prompt_tokens: int | None = None
    reported_reason: str = ""

    @property
    def num_tokens(self) -> int:
        """The answer's length: by its token ids, else as reported, else one per chunk."""
        if self.ids_known or self.reported_tokens is None:
            return len(self.shown)
        return self.reported_tokens


class Endpoint:
    """The connection pool of one pass.

    Args:
        settings: the address, and what to send.
        http: the transport; None: the network.
    """

    def __init__(self, settings: EndpointSettings, http: Http | None = None) -> None:
        self._settings = settings
        self._model = settings.model or ""
        self._http = HttpPool(settings.base_url, settings.api_key) if http is None else http

    async def start(self) -> None:
        """Do nothing: each request opens its connection."""

    async def close(self) -> None:
        """Do nothing: the pool is closed with the pass."""

    async def close_pool(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def model(self) -> str:
        """Return the model to ask for: the settings', or the server's only one.

        Raises:
            ConfigError: the server has none or several, and none was named.
            PdError: the server did not answer.
        """
        if self._model:
            return self._model
        try:
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._http.request("GET", "models") as reply,
            ):
                await _check(reply)
                found = json.loads(await reply.text())
            names = [str(model["id"]) for model in found["data"]]
        except TimeoutError:
            raise CloudTimeout(
                f"{self._settings.base_url}/models gave no answer within "
                f"{self._settings.timeout_s:g} s; name a model with --model"
            ) from None
        except _NO_MODELS as error:
            why = str(error) or type(error).__name__
            raise CloudUnavailable(
                f"{self._settings.base_url}/models cannot be read: {why}; name a model with --model"
            ) from None
        if len(names) != 1:
            known = ", ".join(names) or "none"
            raise ConfigError(f"the server has these models: {known}; name one with --model")
        self._model = names[0]
        return self._model

    def session(self, request: Ask, mode: str) -> "_EndpointSession":
        """Return a session that streams the answer."""
        return _EndpointSession(self._http, self._settings, self._model, request, mode)


class _EndpointSession:
    def __init__(
        self,
        http: Http,
        settings: EndpointSettings,
        model: str,
        request: Ask,
        mode: str,
    ) -> None:
        self._http = http
        self._model = model
        self._settings = settings
        self._request = request
        self.outcome = EndpointOutcome(
            request.request_id, mode, request.max_tokens, 0.0, exactness="consistent"
        )

    async def run(self) -> AsyncIterator[Shown]:
        """Yield each token as its chunk comes.

        Raises:
            PdError: the server refused the request, failed, or broke off the answer.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with self._http.request("POST", "completions", self._body()) as reply:
            await _check(reply)
            async with (
                aclosing(reply.lines()) as lines,
                aclosing(completion_chunks(lines)) as chunks,
            ):
                async for chunk in chunks:
                    for shown in self._take(chunk, loop.time() - began_s):
                        yield shown

    def _body(self) -> dict[str, Any]:
        settings, request = self._settings, self._request
        ids = request.prompt_token_ids
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(ids) if settings.prompts == "ids" else words_of(ids),
            "max_tokens": request.max_tokens,
            "temperature": settings.temperature,
            "seed": settings.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not settings.plain:
            body |= {"ignore_eos": True, "return_token_ids": True}
        return body

    def _take(self, chunk: CompletionChunk, at_s: float) -> list[Shown]:
        """Record a chunk's fields, and return its tokens."""
        outcome = self.outcome
        outcome.reported_reason = chunk.finish_reason or outcome.reported_reason
        if chunk.output_tokens is not None:
            outcome.reported_tokens = chunk.output_tokens
        if chunk.prompt_tokens is not None:
            outcome.reported_prompt_tokens = chunk.prompt_tokens
        if not chunk.adds:
            return []
        if chunk.token_ids is None:
            outcome.ids_known = False
        ids = chunk.token_ids or (_UNKNOWN_ID,)
        first = len(outcome.shown)
        shown = [
            Shown(first + i, token_id, "" if i else chunk.text, Origin.CLOUD, at_s)
            for i, token_id in enumerate(ids)
        ]
        outcome.shown += shown
        outcome.arrived_at_s += [at_s] * len(shown)
        return shown


async def _check(reply: Reply) -> None:
    """Raise the error that a status stands for."""
    status = reply.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    body = (await reply.text()).strip()[:300]
    message = f"the server answered {status}: {body or 'nothing'}"
    error: PdError
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        error = CloudAuthenticationFailed(f"{message}; give its key with --api-key-file")
    elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        error = QueueFull(message)
    elif HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        error = InvalidRequest(
            f"{message} (--endpoint-prompts text sends words where token ids do not fit its "
            "vocabulary, --endpoint-plain only the fields of OpenAI's own API)"
        )
    else:
        error = CloudUnavailable(message)
    raise error


def endpoint_record(work: Work, outcome: Outcome, sent: Dispatched) -> RequestRecord:
    """Return the record of a request that an endpoint answered.

    Without token ids, the length is the server's count, and the digest that of the text.
    """
    error = sent.error
    record = record_of(work, outcome, replace(sent, error=error or ""))  # length is checked here
    if not isinstance(outcome, EndpointOutcome):
        return record.model_copy(update={"error": error})  # it never began
    tokens = outcome.num_tokens
    notes = list(record.notes)
    if error is None and tokens != work.output_tokens:
        error = (
            f"the answer has {tokens} tokens instead of {work.output_tokens} "
            f"(finish_reason {outcome.reported_reason!r}: does the server know ignore_eos?)"
        )
    if not outcome.ids_known and tokens != len(outcome.shown):
        notes.append(
            "chunks of several tokens: gaps are between chunks, TPOT by the reported count"
        )
    span_s = record.shown_at_s[-1] - record.shown_at_s[0] if record.shown_at_s else 0.0
    text = outcome.text.encode()
    return record.model_copy(
        update={
            "cloud_tokens": tokens,
            "cloud_tokens_generated": tokens,
            "tpot_s": span_s / (tokens - 1) if tokens > 1 else None,
            "output_sha256": (
                record.output_sha256 if outcome.ids_known else hashlib.sha256(text).hexdigest()
            ),
            "error": error,
            "notes": tuple(notes),
        }
    )
